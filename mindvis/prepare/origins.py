"""Where each data set is obtained: page, licence or form, size. Nothing here is fetched."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Origin:
    """One download: what it is, its page, what must be agreed to, how large it is, the command that prepares it."""

    what: str
    page: str
    terms: str
    size: str
    command: str

    def lines(self) -> list[str]:
        """The same as lines of a report."""
        return [
            f"{self.what}: {self.page}",
            f"terms: {self.terms}",
            f"size: {self.size}; then: {self.command}",
        ]


HCP = Origin(
    "HCP 1200 resting state, *_Atlas_MSMAll_hp2000_clean.dtseries.nii",
    "https://www.humanconnectome.org/study/hcp-young-adult",
    "free account, HCP Open Access Data Use Terms accepted in it",
    "0.44 GB a run, 4 runs a subject (1.8 GB); prepared 20 MB a run",
    "python scripts/prepare_hcp.py raw/HCP --out data/HCP/npz",
)
GOD = Origin(
    "GOD, fMRI (Subject1.h5 ... Subject5.h5)",
    "https://github.com/KamitaniLab/GenericObjectDecoding (links to figshare)",
    "fMRI: licence on its figshare page; stimuli: request form linked on the page",
    "about 0.13 GB a subject; prepared 0.06 GB a subject and 0.25 GB of pictures",
    "python scripts/prepare_god.py --fmri raw/GOD --stimuli raw/GOD/images "
    "--class-index imagenet_class_index.json --out data/Kamitani/npz",
)
GOD_RELEASED = Origin(
    "GOD, prepared (sbj_1.npz ... sbj_5.npz)",
    "https://github.com/WeizmannVision/SelfSuperReconst/releases (v1)",
    "terms of that release; the pictures are not in it (request form of GOD)",
    "about 0.1 GB a subject",
    "put the files into data/Kamitani/npz",
)
BOLD5000 = Origin(
    "BOLD5000, responses (BOLD5000_GLMsingle_ROI_betas/py), stimuli and presentation lists (BOLD5000_Stimuli)",
    "https://bold5000-dataset.github.io/website/download.html",
    "licence on the download page, no form",
    "responses about 0.3 GB; pictures prepared 1.0 GB",
    "python scripts/prepare_bold5000.py data/BOLD5000",
)

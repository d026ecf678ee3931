"""What is there, what is missing and where it is obtained, what is broken: the report of one data set."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mindvis.common.errors import InputError
from mindvis.common.files import sha256
from mindvis.data.reading import PassedOver
from mindvis.data.voxels import find_outlier

Level = Literal["ok", "differs", "missing", "broken"]
COMPLETE, INCOMPLETE, BROKEN = 0, 1, 2
STATUS: dict[Level, int] = {"ok": COMPLETE, "differs": INCOMPLETE, "missing": INCOMPLETE, "broken": BROKEN}
WORDS = ("complete", "incomplete", "broken")


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
        return [f"{self.what}: {self.page}", f"terms: {self.terms}", f"size: {self.size}; then: {self.command}"]


# Nothing here is fetched.
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

MOSAIC = Origin(
    "MOSAIC, sub-01_NSD.hdf5 ... of the subjects wanted",
    "https://mosaic.csail.mit.edu",
    "those of the portal; the stimuli come from the authors of each of the eight sets, under their terms",
    "up to 11 GB a subject (NSD: 30 000 trials); converted at the first opening, 0.5 GB a subject for V1 to V4",
    "put the files into data/MOSAIC and the stimuli into data/MOSAIC/stimuli",
)
NSD = Origin(
    "Natural Scenes Dataset: nsddata_betas (func1pt8mm), nsddata and nsddata_stimuli",
    "https://naturalscenesdataset.org (data access agreement, then Amazon S3)",
    "NSD Terms and Conditions, accepted in a form",
    "about 40 GB of betas a subject, 40 GB of pictures; prepared 2 GB a subject for nsdgeneral",
    "python scripts/prepare_nsd.py raw/NSD --out data/NSD --subjects subj01",
)

OWN = Origin(
    "own data, one .npz file as docs/data.md describes it",
    "docs/data.md, Your own data",
    "yours",
    "yours",
    "python scripts/check_data.py --datasets npz --root my_data.npz",
)


@dataclass(frozen=True)
class CheckSettings:
    """What is checked: published sizes (off for simulated or own data), values and hashes (off: headers only)."""

    published_sizes: bool = True
    read_values: bool = True


@dataclass
class CheckReport:
    """Findings on one data set; its status is that of the worst."""

    name: str
    root: Path
    origins: Sequence[Origin]
    settings: CheckSettings
    findings: list[tuple[Level, str]] = field(default_factory=list)
    passed: PassedOver = field(default_factory=PassedOver)

    def add(self, level: Level, text: str) -> None:
        """Add one line."""
        self.findings.append((level, text))

    def attempt(self, check: Callable[..., Any], *args: object) -> Any:
        """What one check returns; an InputError of it is a finding "broken", and None, and does not stop the others."""
        try:
            return check(self, *args)
        except InputError as error:
            self.add("broken", str(error))
            return None

    def attempt_file(self, path: Path, check: Callable[..., None], *args: object) -> None:
        """Run the check of a file; one that is not there is a finding "missing"."""
        if path.is_file():
            self.attempt(check, path, *args)
        else:
            self.add("missing", str(path))

    def outliers(self, arrays: Mapping[str, np.ndarray]) -> None:
        """A finding "differs" for every array, by what it is called, with a value that no measurement has."""
        for name, rows in arrays.items():
            outlier = find_outlier(rows)
            if outlier:
                self.add("differs", f"{name} {outlier}")

    def expect(self, what: str, found: object, published: object) -> None:
        """A finding "differs" when a size is not the published one."""
        if found != published:
            self.add("differs", f"{what}: {found}, published {published}")

    def short_hash(self, path: Path) -> str:
        """The first 16 digits of the SHA-256, as an ending of a line; empty where no values are read."""
        return f", sha256 {sha256(path)[:16]}" if self.settings.read_values else ""

    @property
    def status(self) -> int:
        """0 complete, 1 incomplete, 2 broken."""
        return max((STATUS[level] for level, _ in self.findings), default=INCOMPLETE)

    def lines(self) -> Iterator[str]:
        """The report as text: findings, what was passed over, where to obtain what is missing, the verdict."""
        yield f"{self.name}  {self.root}"
        yield from (f"  {level:8} {text}" for level, text in self.findings)
        yield from (f"  ok       {line}" for line in self.passed.lines())
        if any(level == "missing" for level, _ in self.findings):
            yield from (f"           {line}" for origin in self.origins for line in origin.lines())
        yield f"{self.name}: {WORDS[self.status]}"

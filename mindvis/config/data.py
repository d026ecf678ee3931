"""Settings of the data: which set, where it lies, whose fMRI, which voxels, how rows are made of it."""

from dataclasses import dataclass, field
from typing import Any

from mindvis.config.conform import choice, number, seed_field

DATASETS = ("god", "bold5000", "mosaic", "nsd", "hcp", "npz")
PAIRED = ("god", "bold5000", "mosaic", "nsd", "npz")
# settings of data that only some data sets have
ONLY_OF: dict[str, tuple[str, ...]] = {"scale_test": ("god",), "scale": ("npz",), "splits": ("mosaic",)}
ONLY_OF |= {name: ("hcp",) for name in ("num_subjects", "frames_per_window")}
ONLY_OF |= {name: ("mosaic", "nsd") for name in ("average", "stimuli", "min_noise_ceiling")}
ONLY_OF |= {name: PAIRED for name in ("reference", "fraction", "include_single_trials", "test_category")}


@dataclass
class DataConfig:
    """Where the fMRI and the images come from."""

    name: str = choice(*DATASETS)  # god | bold5000 | mosaic | nsd | hcp | npz (your own data, one file)
    root: str = "data/Kamitani/npz"  # folder of the published layout, or the npz file
    subjects: list[str] = field(default_factory=list)  # [sbj_3], [CSI1], [sub-01_NSD] ...; empty: all of them (sorted)
    num_subjects: int | None = number(None, 1)  # hcp: the first so many
    roi: Any = "VC"  # region of interest, several ([V1,V2]), or all (every voxel)
    reference: str | None = None  # several subjects: the one into whose voxels ridge maps take the others; null: none
    adapter_rank: int = number(128, 1, 10**5)  # directions that such a map keeps
    adapter_steps: int = number(0, 0, 10**5)  # at most so many gradient steps train it further; 0: as ridge gave it
    fraction: float = number(1.0, above=0, most=1)  # share of the training pictures that is used, for scaling too
    fraction_seed: int = seed_field(0)  # which ones; a smaller share is part of a larger one
    include_single_trials: bool = False  # test rows: averages, then the single trials
    test_category: list[str] = field(default_factory=list)  # training classes, number or name, tested by a picture each
    test_category_seed: int = seed_field(2022)  # which pictures
    average: bool = True  # mosaic, nsd: training rows are means over the repeats of a picture; false: single trials
    stimuli: str | None = None  # mosaic: folder of the pictures, default <root>/stimuli; nsd: their file
    splits: str | None = None  # mosaic: folder of train.json, test.json, artificial.json; null: as each file says
    min_noise_ceiling: float | None = number(None, 0, 1)  # mosaic, nsd: share of variance a voxel must reach
    scale_test: str = choice("none", "train")  # god: none (released arrays are z-scored) | train (by its moments)
    scale: str = choice("voxel", "subject", "none")  # npz: by training rows, a voxel | subject (one mean) | none
    pad_mode: str = choice("wrap", "constant", "cut")  # unequal lengths: wrap | constant | cut
    frames_per_window: int = number(10, 1, 10**6)  # hcp: frames averaged into one row (10 are 7.2 s)
    cache_dir: str | None = None  # hcp, mosaic: where the mapped cache is kept; default beside the data

    def conflict(self, prefix: str) -> str | None:
        """Which of these settings, whose names begin with `prefix`, do not go together, and what is needed; or None."""
        for name in ("subjects", "roi"):
            given = getattr(self, name)
            twice = [one for one in given if given.count(one) > 1] if isinstance(given, list) else []
            if twice:
                return f"setting {prefix}{name} names {twice[0]!r} twice; needed: each once"
        usual = DataConfig()
        for name, known in ONLY_OF.items():
            given = getattr(self, name)
            if self.name not in known and given != getattr(usual, name):
                found = f"setting {prefix}{name} is {given}, which {prefix}name={self.name} has not"
                return f"{found}; needed: {prefix}name={' or '.join(known)}, or the setting left out"
        if self.reference is None and self.adapter_steps:
            return f"setting {prefix}adapter_steps is {self.adapter_steps} without {prefix}reference; needed: both"
        return None

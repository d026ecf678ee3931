"""MOSAIC: eight data sets in the grayordinates of the HCP, any mixture of their subjects -> paired data.

A subject's trials are converted once to a mapped cache of the chosen regions (or of everything), several files at a
time; a conversion that was stopped goes on where it was.
"""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from mindvis.common.errors import InputError
from mindvis.data.cache import ShardCache
from mindvis.data.datasets import PairedDataset
from mindvis.data.images import SUFFIXES, LazyImages, PictureFiles, is_picture
from mindvis.data.mosaic_files import (
    Trials,
    best_noise_ceiling,
    find_subjects,
    read_betas,
    read_noise_ceilings,
    read_splits,
    read_trials,
    split_of,
)
from mindvis.data.reading import Names, PassedOver, list_folder, require_folder
from mindvis.data.regions import EVERY, NUM_GRAYORDINATES, VISUAL_CORTEX, grayordinates, region_names
from mindvis.data.rows import MappedArray
from mindvis.data.subjects import Recorded, TrialOptions, chosen_subjects, join_trials, open_trials

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choice:
    """What of a MOSAIC file is used, and how: see `load_mosaic`."""

    roi: str | Sequence[str] = "VC"
    options: TrialOptions = TrialOptions()
    splits: str | Path | None = None
    image_size: int = 256
    cache_dir: str | Path | None = None
    num_workers: int = 4

    @property
    def regions(self) -> dict[str, np.ndarray]:
        """Region -> its grayordinates; "VC" is V1 V2 V3 V4, in this order, as of the HCP."""
        names = VISUAL_CORTEX if self.roi == "VC" else region_names(self.roi)
        if names == (EVERY,):
            return {EVERY: np.arange(NUM_GRAYORDINATES)}
        return {name: grayordinates(name, "Glasser parcellation, setting data.roi") for name in names}


def load_mosaic(
    root: str | Path,
    subjects: Sequence[str] | str = (),
    stimuli: str | Path = "stimuli",
    roi: str | Sequence[str] = "VC",
    patch_size: int = 16,
    average: bool = True,
    *,
    include_single_trials: bool = False,
    splits: str | Path | None = None,
    min_noise_ceiling: float | None = None,
    pad_mode: str = "wrap",
    fraction: float = 1.0,
    fraction_seed: int = 0,
    image_size: int = 256,
    cache_dir: str | Path | None = None,
    num_workers: int = 4,
) -> tuple[PairedDataset, PairedDataset]:
    """Training and test pairs of MOSAIC subjects ("sub-01_NSD", of any of its sets; all in `root` unless given).

    fmri float32 [n v]: the grayordinates of Glasser areas (`roi`: "VC" is V1 V2 V3 V4, or names, or "all"), those that
    are NaN in some trial of the subject left out, wrap-padded to patches and, among subjects, to the longest; scaled by
    the one mean and deviation of the subject's training rows. Training rows are means over the repeats of a stimulus,
    in the order of first appearance, or (`average=False`) single trials in the order of the file; test rows are means,
    then (`include_single_trials`) the trials picture by picture. `stimuli`: the folder of all pictures, within `root`
    unless it is absolute; they are read when asked for, squared to `image_size`. A trial is of the split its file says,
    or of that of the JSON files in the folder `splits` (trials in none of them are left out). `min_noise_ceiling`:
    voxels that explain less of their variance, 0 to 1, as the file says, are left out. A `fraction` of the training
    pictures of all subjects can be drawn: scaling is then by these. Raises InputError.
    """
    options = TrialOptions(
        patch_size, average, include_single_trials, min_noise_ceiling, pad_mode, fraction, fraction_seed
    )
    choice = Choice(roi, options, splits, image_size, cache_dir, num_workers)
    train, test = load_mosaic_splits(root, subjects, stimuli, choice, ("train", "test"))
    return train, test


def load_mosaic_splits(
    root: str | Path,
    subjects: Sequence[str] | str,
    stimuli: str | Path,
    choice: Choice,
    wanted: Sequence[str],
) -> list[PairedDataset]:
    """The splits asked for (train, test, artificial), as `load_mosaic` gives them. Raises InputError."""
    passed = PassedOver()
    found = find_subjects(root, passed)
    passed.log(root)
    names = chosen_subjects(subjects, list(found), Path(root))
    splits = None if choice.splits is None else read_splits(choice.splits)
    parts = open_trials([_recorded(name, found[name], choice, splits) for name in names], choice.options)
    pictures = Pictures(Path(root) / stimuli, choice.image_size)
    return [join_trials(parts, split, pictures.open, choice.options.pad_mode) for split in wanted]


def _recorded(name: str, path: Path, choice: Choice, splits: dict[str, set[str]] | None) -> Recorded:
    """One subject's file, converted where it was not yet."""
    trials, shards, bad = convert(path, choice)
    columns = np.concatenate(list(choice.regions.values()))
    region_of = np.repeat(list(choice.regions), [len(found) for found in choice.regions.values()])
    found = best_noise_ceiling(read_noise_ceilings(path))
    if found is not None and choice.options.min_noise_ceiling is not None and found[0] != "train":
        log.warning("%s: voxels are chosen by repeats of the %s split, it has no others", path, found[0])
    return Recorded(
        subject=name,
        where=str(path),
        sources=shards,
        stimuli=trials.stimuli,
        splits=split_of(trials, splits),
        bad=bad,
        masks={region: region_of == region for region in choice.regions},
        columns=columns,
        num_recorded=NUM_GRAYORDINATES,
        noise_ceiling=None if found is None else found[1][columns],
    )


def convert(path: Path, choice: Choice) -> tuple[Trials, list[MappedArray], np.ndarray]:
    """The trials of one file, their mapped rows float32 [n v] in the regions, and which of v are NaN in some trial.

    Converted when it is used for the first time; in `choice.cache_dir`, else `<root>/.cache`, else the user's cache.
    """
    names = list(choice.regions)
    cache = ShardCache([path], {"mosaic": names}, choice.cache_dir, path.resolve().parent / ".cache")
    opened = cache.open_shards()
    if opened is None:
        columns = np.concatenate(list(choice.regions.values()))
        trials = read_trials(path)

        def make(start: int, stop: int) -> np.ndarray:
            return read_betas(path, trials, range(start, stop), columns)

        shape = len(trials.names), len(columns)
        label = f"{path.stem}: converting"
        opened = cache.build_shards(shape, make, asdict(trials), num_workers=choice.num_workers, label=label)
    shards, facts = opened
    bad = np.zeros(shards[0].shape[1], bool)
    bad[facts["bad"]] = True
    return Trials(**{name: facts[name] for name in Trials.__dataclass_fields__}), shards, bad


class Pictures:
    """The folder of stimuli, in which names are looked up."""

    def __init__(self, folder: Path, image_size: int):
        self.folder, self.image_size = folder, image_size
        listed = list_folder(
            require_folder(folder, "the stimuli of MOSAIC, files of all sets"), PassedOver(), copies=True
        )
        self._pictures = Names(path.name for path in listed if is_picture(path))

    def open(self, names: Sequence[str]) -> LazyImages:
        """The pictures of these names. Raises InputError where some are absent."""
        found = {name: self._find(name) for name in names}
        missing = [name for name, picture in found.items() if picture is None]
        if missing:
            frame = "" if Path(missing[0]).suffix.lower() in SUFFIXES else " (of a video, a picture of the same name)"
            raise InputError(f"{self.folder}: {len(missing)} stimuli have no picture{frame}, {missing[0]!r} first")
        paths = [self.folder / picture for picture in found.values() if picture is not None]
        return LazyImages(PictureFiles(paths), size=self.image_size)

    def _find(self, name: str) -> str | None:
        """The file of a stimulus; a video is stood for by a picture (a frame) of its name."""
        if Path(name).suffix.lower() in SUFFIXES:
            return self._pictures.find(name)
        candidates = (self._pictures.find(f"{Path(name).stem}{suffix}") for suffix in sorted(SUFFIXES))
        return next((found for found in candidates if found), None)

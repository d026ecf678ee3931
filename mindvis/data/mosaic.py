"""MOSAIC: eight data sets in the grayordinates of the HCP, any mixture of their subjects -> paired data.

A subject's trials are converted once to a mapped cache of the chosen regions (or of everything), several files at a
time; a conversion that was stopped goes on where it was.
"""

import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from mindvis.common.errors import InputError
from mindvis.data.cache import RowCache
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
from mindvis.data.subjects import Recorded, TrialOptions, chosen_files, join_trials, open_trials

log = logging.getLogger(__name__)


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
    parts: Sequence[str] = ("train", "test"),
) -> tuple[PairedDataset, ...]:
    """Training and test pairs of MOSAIC subjects ("sub-01_NSD", of any of its sets; all in `root` unless given).

    fmri float32 [n v]: the grayordinates of Glasser areas (`roi`: "VC" is V1 V2 V3 V4, or names, or "all"), those that
    are NaN in some trial of the subject left out, wrap-padded to patches and, among subjects, to the longest; scaled by
    the one mean and deviation of the subject's training rows. Training rows are means over the repeats of a stimulus,
    in the order of first appearance, or (`average=False`) single trials in the order of the file; test rows are means,
    then (`include_single_trials`) the trials picture by picture. `stimuli`: the folder of all pictures, within `root`
    unless it is absolute; they are read when asked for, squared to `image_size`. A trial is of the split its file says,
    or of that of the JSON files in the folder `splits` (trials in none of them are left out). `min_noise_ceiling`:
    voxels that explain less of their variance, 0 to 1, as the file says, are left out. A `fraction` of the training
    pictures of all subjects can be drawn: scaling is then by these. `parts`: the splits returned, `artificial` is the
    third one. Raises InputError.
    """
    regions = _regions(roi)
    split_files = None if splits is None else read_splits(splits)
    options = TrialOptions(
        patch_size, average, include_single_trials, min_noise_ceiling, pad_mode, fraction, fraction_seed
    )
    recorded = []
    for name, path in chosen_files(find_subjects, Path(root), subjects).items():
        converted = convert(path, regions, cache_dir, num_workers)
        recorded.append(_recorded(name, path, regions, converted, split_files, min_noise_ceiling is not None))
    opened = open_trials(recorded, options)
    pictures = StimulusFolder(Path(root) / stimuli, image_size)
    return tuple(join_trials(opened, split, pictures.open, pad_mode) for split in parts)


def _regions(roi: str | Sequence[str]) -> dict[str, np.ndarray]:
    """Region -> its grayordinates; "VC" is V1 V2 V3 V4, in this order, as of the HCP."""
    names = VISUAL_CORTEX if roi == "VC" else region_names(roi)
    if names == (EVERY,):
        return {EVERY: np.arange(NUM_GRAYORDINATES)}
    return {name: grayordinates(name, "Glasser parcellation, setting data.roi") for name in names}


Converted = tuple[Trials, list[MappedArray], np.ndarray]


def _recorded(
    name: str,
    path: Path,
    regions: dict[str, np.ndarray],
    converted: Converted,
    splits: dict[str, set[str]] | None,
    chooses_voxels: bool,
) -> Recorded:
    """One subject, from what `convert` gives of its file."""
    trials, rows, bad = converted
    columns = np.concatenate(list(regions.values()))
    region_of = np.repeat(list(regions), [len(found) for found in regions.values()])
    found = best_noise_ceiling(read_noise_ceilings(path))
    if found is not None and chooses_voxels and found[0] != "train":
        log.warning("%s: voxels are chosen by repeats of the %s split, it has no others", path, found[0])
    return Recorded(
        subject=name,
        where=str(path),
        sources=rows,
        stimuli=trials.stimuli,
        splits=split_of(trials, splits),
        bad=bad,
        masks={region: region_of == region for region in regions},
        columns=columns,
        num_recorded=NUM_GRAYORDINATES,
        noise_ceiling=None if found is None else found[1][columns],
    )


def convert(path: Path, regions: dict[str, np.ndarray], cache_dir: str | Path | None, num_workers: int) -> Converted:
    """The trials of one file, their mapped rows float32 [n v] in the regions, and which of v are NaN in some trial.

    Converted when it is used for the first time; in `cache_dir`, else `<root>/.cache`, else the user's cache.
    """
    cache = RowCache([path], {"mosaic": list(regions)}, cache_dir, path.resolve().parent / ".cache")
    opened = cache.open()
    if opened is None:
        columns = np.concatenate(list(regions.values()))
        trials = read_trials(path)

        def make(start: int, stop: int) -> np.ndarray:
            return read_betas(path, trials, range(start, stop), columns)

        shape = len(trials.names), len(columns)
        label = f"{path.stem}: converting"
        opened = cache.build_parts(shape, make, asdict(trials), num_workers=num_workers, label=label)
    rows, facts = opened
    bad = np.zeros(rows[0].shape[1], bool)
    bad[facts["bad"]] = True
    return Trials(**{name: facts[name] for name in Trials.__dataclass_fields__}), rows, bad


class StimulusFolder:
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
        """The file of a stimulus; of a video, a picture (a frame) of its name."""
        if Path(name).suffix.lower() in SUFFIXES:
            return self._pictures.find(name)
        candidates = (self._pictures.find(f"{Path(name).stem}{suffix}") for suffix in sorted(SUFFIXES))
        return next((found for found in candidates if found), None)

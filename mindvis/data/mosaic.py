"""MOSAIC: eight data sets in the grayordinates of the HCP, any mixture of their subjects -> paired data.

A subject's trials are converted once to a mapped cache of the chosen regions (or of everything), several files at a
time; a conversion that was stopped goes on where it was.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mindvis.common.errors import InputError
from mindvis.data.datasets import PairedDataset
from mindvis.data.glasser import NUM_GRAYORDINATES, VISUAL_CORTEX, grayordinates
from mindvis.data.images import SUFFIXES, is_picture
from mindvis.data.lazy_images import LazyImages, PictureFiles
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
from mindvis.data.row_format import RowFormat, subject_format
from mindvis.data.rows import MappedArray, MeanRows, VoxelRows, streamed_moments
from mindvis.data.shards import ShardCache
from mindvis.data.subjects import EVERY, chosen_subjects, padded_mask, region_names
from mindvis.data.voxels import common_length, patched_length

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choice:
    """What of a MOSAIC file is used, and how: see `load_mosaic`."""

    roi: str | Sequence[str] = "VC"
    patch_size: int = 16
    average: bool = True
    include_single_trials: bool = False
    splits: str | Path | None = None
    min_noise_ceiling: float | None = None
    pad_mode: str = "wrap"
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
    voxels that explain less of their variance, 0 to 1, are left out. Raises InputError.
    """
    choice = Choice(
        roi=roi,
        patch_size=patch_size,
        average=average,
        include_single_trials=include_single_trials,
        splits=splits,
        min_noise_ceiling=min_noise_ceiling,
        pad_mode=pad_mode,
        image_size=image_size,
        cache_dir=cache_dir,
        num_workers=num_workers,
    )
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
    parts = [_Subject(name, found[name], choice, splits) for name in names]
    pictures = _Pictures(Path(root) / stimuli, choice.image_size)
    return [_join([part.rows(split) for part in parts], choice, pictures) for split in wanted]


@dataclass(frozen=True)
class _Rows:
    """Rows of one split of one subject, and of each the name of its stimulus and its number among the repeats."""

    subject: str
    fmri: VoxelRows
    stimuli: list[str]
    repeat: np.ndarray
    masks: dict[str, np.ndarray]
    noise_ceiling: np.ndarray | None
    format: RowFormat


class _Subject:
    """One file: its trials, mapped, and the voxels that are used."""

    def __init__(self, name: str, path: Path, choice: Choice, splits: dict[str, set[str]] | None):
        self.name, self.path, self.choice = name, path, choice
        self.trials, shards, bad = convert(path, choice)
        self.betas = VoxelRows(shards)  # [n v] of the regions, NaN and all
        self.splits = split_of(self.trials, splits)
        region_of = np.repeat(list(choice.regions), [len(found) for found in choice.regions.values()])
        self.noise_ceiling = self._noise_ceiling()
        kept = self._kept(bad)
        self.columns, self.region_of = np.flatnonzero(kept), region_of[kept]
        self.num_voxels = patched_length(len(self.columns), choice.patch_size, choice.pad_mode)
        means = MeanRows(self.betas, self._groups("train")[0])
        self.mean, self.deviation = streamed_moments(self._scaled(means, 0.0, 1.0))
        if not self.deviation > 0:
            raise InputError(f"{path}: the training rows are constant ({self.mean:g}), they cannot be scaled")

    def rows(self, split: str) -> _Rows:
        """The rows of a split. Raises InputError where it has none."""
        groups, repeat = self._groups(split)
        masks = {name: padded_mask(self.region_of == name, self.num_voxels) for name in dict.fromkeys(self.region_of)}
        recorded = np.concatenate(list(self.choice.regions.values()))[self.columns]
        return _Rows(
            self.name,
            self._scaled(MeanRows(self.betas, groups), self.mean, self.deviation),
            [self.trials.stimuli[group[0]] for group in groups],
            repeat,
            masks,
            None if self.noise_ceiling is None else self.noise_ceiling[self.columns],
            subject_format(NUM_GRAYORDINATES, recorded, self.choice.pad_mode, (self.mean, self.deviation)),
        )

    def _scaled(self, rows: MeanRows, mean: float, deviation: float) -> VoxelRows:
        padding = {"num_voxels": self.num_voxels, "pad_mode": self.choice.pad_mode}
        return VoxelRows([rows], columns=self.columns, mean=mean, deviation=deviation, **padding)

    def _groups(self, split: str) -> tuple[list[list[int]], np.ndarray]:
        """Trials that make each row, and its number among the repeats (0: their mean, or the only one)."""
        trials_of: dict[str, list[int]] = {}
        for row, (stimulus, own) in enumerate(zip(self.trials.stimuli, self.splits, strict=True)):
            if own == split:
                trials_of.setdefault(stimulus, []).append(row)
        if not trials_of:
            raise InputError(f"{self.path}: no trial of split {split!r} is in it, needs one at least")
        groups, singles = list(trials_of.values()), [row for group in trials_of.values() for row in group]
        number = {row: k + 1 for group in groups for k, row in enumerate(group)}
        if split == "train" and not self.choice.average:
            singles = sorted(singles)
            repeat = [number[row] if len(trials_of[self.trials.stimuli[row]]) > 1 else 0 for row in singles]
            return [[row] for row in singles], np.array(repeat)
        if split == "train" or not self.choice.include_single_trials:
            return groups, np.zeros(len(groups), np.int64)
        repeat = [0] * len(groups) + [number[row] for row in singles]
        return groups + [[row] for row in singles], np.array(repeat)

    def _noise_ceiling(self) -> np.ndarray | None:
        found = best_noise_ceiling(read_noise_ceilings(self.path))
        if found is None and self.choice.min_noise_ceiling is not None:
            raise InputError(f"{self.path}: has no noise ceilings, so data.min_noise_ceiling must be null")
        if found is None:
            return None
        if self.choice.min_noise_ceiling is not None and found[0] != "train":
            log.warning("%s: voxels are chosen by repeats of the %s split, it has no others", self.path, found[0])
        return found[1][np.concatenate(list(self.choice.regions.values()))]

    def _kept(self, bad: np.ndarray) -> np.ndarray:
        """Which grayordinates of the regions are used: bool [v]."""
        kept, least = ~bad, self.choice.min_noise_ceiling
        if bad.any():
            log.info("%s: %d of %d grayordinates are NaN in some trial, left out", self.path, bad.sum(), len(bad))
        if least is not None and self.noise_ceiling is not None:
            kept &= np.nan_to_num(self.noise_ceiling, nan=-1.0) >= least
            log.info("%s: %d grayordinates have a noise ceiling of %g or more", self.path, kept.sum(), least)
        if not kept.any():
            raise InputError(
                f"{self.path}: none of {len(bad)} grayordinates is left of ROI {self.choice.roi!r}: "
                f"{int(bad.sum())} are NaN in some trial, data.min_noise_ceiling is {least}"
            )
        return kept


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
        opened = cache.build_shards(shape, make, trials.as_dict(), num_workers=choice.num_workers, label=label)
    shards, facts = opened
    bad = np.zeros(shards[0].shape[1], bool)
    bad[facts["bad"]] = True
    return Trials(**{name: facts[name] for name in Trials.__dataclass_fields__}), shards, bad


class _Pictures:
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


def _join(parts: list[_Rows], choice: Choice, pictures: _Pictures) -> PairedDataset:
    """One data set of all subjects, each stimulus once among the images, in the order of first appearance."""
    num_voxels = common_length([part.fmri.shape[1] for part in parts], choice.pad_mode)
    shown = [name for part in parts for name in part.stimuli]
    place = {name: i for i, name in enumerate(dict.fromkeys(shown))}
    ceilings = {part.subject: part.noise_ceiling for part in parts if part.noise_ceiling is not None}
    return PairedDataset(
        VoxelRows([part.fmri for part in parts], num_voxels=num_voxels, pad_mode=choice.pad_mode),
        pictures.open(list(place)),
        stimulus=np.array([place[name] for name in shown]),
        stimulus_names=shown,
        repeat=np.concatenate([part.repeat for part in parts]),
        subject=np.repeat([part.subject for part in parts], [len(part.stimuli) for part in parts]),
        roi_masks=parts[0].masks if len(parts) == 1 else None,
        noise_ceilings=ceilings or None,
        formats={part.subject: part.format for part in parts},
    )

"""From the trials of single subjects to one paired data set: what all layouts have in common.

`SubjectRows` are rows in memory. Trials of many thousand stay in their files (`SubjectTrials`), and rows are means over
repeats, or trials, when they are read.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from mindvis.common.errors import InputError
from mindvis.data.arrays import require_choice
from mindvis.data.datasets import PairedDataset
from mindvis.data.images import LazyImages
from mindvis.data.reading import PassedOver
from mindvis.data.regions import padded_mask
from mindvis.data.row_format import RowFormat, subject_format
from mindvis.data.rows import MappedArray, MeanRows, VoxelRows, rows_by, streamed_moments
from mindvis.data.voxels import common_length, pad_to, patched_length

log = logging.getLogger(__name__)


@dataclass
class SubjectRows:
    """The rows of one subject: fmri [n v], and for each the index of its image and its number among the repeats."""

    subject: str
    fmri: np.ndarray
    stimulus: np.ndarray
    repeat: np.ndarray
    roi_masks: dict[str, np.ndarray] = field(default_factory=dict)
    format: RowFormat | None = None


def join_subjects(
    parts: Sequence[SubjectRows], images: np.ndarray, pad_mode: str, classes: Sequence[tuple[int, str]] | None = None
) -> PairedDataset:
    """One data set of several subjects, one after another, brought to a common length.

    `images` uint8 [m h w 3] are the distinct ones, `classes` [m] their (class id, class name). Region masks are kept
    where there is one subject, whose voxels they are about.
    """
    num_voxels = common_length([part.fmri.shape[1] for part in parts], pad_mode)
    stimulus = np.concatenate([part.stimulus for part in parts])
    return PairedDataset(
        np.concatenate([pad_to(part.fmri, num_voxels, pad_mode) for part in parts]),
        images,
        class_ids=None if classes is None else [classes[i][0] for i in stimulus],
        class_names=None if classes is None else [classes[i][1] for i in stimulus],
        stimulus=stimulus,
        repeat=np.concatenate([part.repeat for part in parts]),
        subject=np.repeat([part.subject for part in parts], [len(part.fmri) for part in parts]),
        roi_masks=parts[0].roi_masks if len(parts) == 1 else None,
        formats={part.subject: part.format for part in parts if part.format is not None},
    )


def chosen_subjects(subjects: Sequence[str] | str, available: Sequence[str], folder: Path) -> list[str]:
    """The subjects asked for, or all. Raises InputError for one that is not there, or when there is none."""
    if not available:
        raise InputError(f"{folder}: no subject's files in it")
    names = [subjects] if isinstance(subjects, str) else list(subjects)
    return [require_choice(name, available, f"{folder}: subject") for name in names] or list(available)


def chosen_files(
    find: Callable[[Path, PassedOver], dict[str, Path]], root: Path, subjects: Sequence[str] | str
) -> dict[str, Path]:
    """Subject -> its file, for the chosen subjects or all that `find` finds in a folder; what it leaves out is logged.

    Raises InputError as `chosen_subjects`.
    """
    passed = PassedOver()
    found = find(root, passed)
    passed.log(root)
    return {name: found[name] for name in chosen_subjects(subjects, list(found), root)}


def averages_then_trials(
    trials: Sequence[np.ndarray], include_single_trials: bool, averages: np.ndarray | None = None
) -> tuple[np.ndarray, ...]:
    """Test rows from the single trials of each image, [k_i v]: the averages, then (if wanted) image by image.

    `averages` [m v] are those that a file holds. Returns fmri [n v], and for every row the position of its image and
    its number among the repeats (0: average).
    """
    fmri = [np.stack([rows.mean(axis=0) for rows in trials]) if averages is None else averages]
    position = [np.arange(len(trials))]
    repeat = [np.zeros(len(trials), np.int64)]
    if include_single_trials:
        fmri += list(trials)
        position += [np.full(len(rows), i) for i, rows in enumerate(trials)]
        repeat += [np.arange(1, len(rows) + 1) for rows in trials]
    return np.concatenate(fmri), np.concatenate(position), np.concatenate(repeat)


def chosen_share(stimulus: np.ndarray, fraction: float, seed: int = 0) -> np.ndarray:
    """Boolean [n] of the rows whose stimulus [n] is in a share of all stimuli, drawn from the seed.

    All rows of a stimulus stay together, and a smaller share is part of a larger one. Raises InputError for a share
    that is less than half a stimulus.
    """
    if fraction == 1:
        return np.ones(len(stimulus), dtype=bool)
    distinct = np.random.default_rng(seed).permutation(np.unique(stimulus))
    count = round(fraction * len(distinct))
    if not count:
        found = f"setting data.fraction is {fraction:g} of {len(distinct)} training pictures, which leaves none"
        raise InputError(f"{found}; needed: {1 / len(distinct):.2g} or more")
    return np.isin(stimulus, distinct[:count])


@dataclass(frozen=True)
class TrialOptions:
    """How rows are made of trials: see `load_mosaic` and `load_nsd`."""

    patch_size: int = 16
    average: bool = True
    include_single_trials: bool = False
    min_noise_ceiling: float | None = None
    pad_mode: str = "wrap"
    fraction: float = 1.0
    fraction_seed: int = 0


@dataclass(frozen=True)
class Recorded:
    """The trials of one subject [n v]: the name of the picture and the split (None: unused) of each.

    `bad` [v]: voxels that are not used. `masks`: region -> bool [v]. `noise_ceiling` [v]: share of the variance that
    the stimulus explains. `columns` [v]: their places in a whole recording of `num_recorded` voxels. `where` names the
    file in messages.
    """

    subject: str
    where: str
    sources: Sequence[MappedArray]
    stimuli: Sequence[str]
    splits: Sequence[str | None]
    bad: np.ndarray
    masks: dict[str, np.ndarray]
    columns: np.ndarray
    num_recorded: int
    noise_ceiling: np.ndarray | None = None


class SubjectTrials:
    """Rows of one subject, scaled by the one mean and deviation of its training rows. Raises InputError."""

    def __init__(self, recorded: Recorded, options: TrialOptions):
        self.recorded, self.options = recorded, options
        self.betas = VoxelRows(recorded.sources)
        kept = self._kept()
        self.columns = np.flatnonzero(kept)
        self.num_voxels = patched_length(len(self.columns), options.patch_size, options.pad_mode)
        masks = {name: mask[kept] for name, mask in recorded.masks.items() if mask[kept].any()}
        self.masks = {name: padded_mask(mask, self.num_voxels) for name, mask in masks.items()}
        training = self._scaled(MeanRows(self.betas, self._groups("train")[0]), 0.0, 1.0)
        self.mean, self.deviation = streamed_moments(training, f"{recorded.where}: its training rows")
        if not self.deviation > 0:
            raise InputError(f"{recorded.where}: the training rows are constant ({self.mean:g}), they cannot be scaled")

    def rows(self, split: str) -> tuple[VoxelRows, list[str], np.ndarray]:
        """The rows of a split, with the picture and the number of the repeat of each. Raises InputError for no row."""
        groups, repeat = self._groups(split)
        fmri = self._scaled(MeanRows(self.betas, groups), self.mean, self.deviation)
        return fmri, [self.recorded.stimuli[group[0]] for group in groups], repeat

    @property
    def format(self) -> RowFormat:
        recorded, moments = self.recorded, (self.mean, self.deviation)
        return subject_format(recorded.num_recorded, recorded.columns[self.columns], self.options.pad_mode, moments)

    @property
    def noise_ceiling(self) -> np.ndarray | None:
        found = self.recorded.noise_ceiling
        return None if found is None else found[self.columns]

    def _scaled(self, rows: MeanRows, mean: float, deviation: float) -> VoxelRows:
        return VoxelRows(
            [rows],
            columns=self.columns,
            mean=mean,
            deviation=deviation,
            num_voxels=self.num_voxels,
            pad_mode=self.options.pad_mode,
        )

    def _groups(self, split: str) -> tuple[list[list[int]], np.ndarray]:
        """Trials that make each row, and its number among the repeats (0: their mean, or the only one)."""
        trials = [row for row, own in enumerate(self.recorded.splits) if own == split]
        if not trials:
            raise InputError(f"{self.recorded.where}: no trial of split {split!r} is in it, needs one at least")
        groups = list(rows_by((self.recorded.stimuli[row] for row in trials), trials).values())
        number = {row: (k + 1) * (len(group) > 1) for group in groups for k, row in enumerate(group)}
        if split == "train" and not self.options.average:
            singles = sorted(number)
            return [[row] for row in singles], np.array([number[row] for row in singles])
        if split == "train" or not self.options.include_single_trials:
            return groups, np.zeros(len(groups), np.int64)
        singles = [row for group in groups for row in group]
        repeat = [0] * len(groups) + [k + 1 for group in groups for k in range(len(group))]
        return groups + [[row] for row in singles], np.array(repeat)

    def _kept(self) -> np.ndarray:
        """Which voxels are used: bool [v]."""
        recorded, least = self.recorded, self.options.min_noise_ceiling
        kept, num_bad = ~recorded.bad, int(recorded.bad.sum())
        if num_bad:
            log.info("%s: %d of %d voxels are no signal in some trial, left out", recorded.where, num_bad, len(kept))
        if least is not None:
            if recorded.noise_ceiling is None:
                raise InputError(f"{recorded.where}: has no noise ceilings, so data.min_noise_ceiling must be null")
            kept &= np.nan_to_num(recorded.noise_ceiling, nan=-1.0) >= least
            log.info("%s: %d voxels have a noise ceiling of %g or more", recorded.where, kept.sum(), least)
        if not kept.any():
            raise InputError(
                f"{recorded.where}: none of the {len(kept)} voxels of the chosen regions is left: "
                f"{num_bad} are no signal in some trial, data.min_noise_ceiling is {least}"
            )
        return kept


def open_trials(recorded: Sequence[Recorded], options: TrialOptions) -> list[SubjectTrials]:
    """The subjects, with a share of the training pictures of all where one is asked for. Raises InputError."""
    shown = [np.array(one.stimuli)[np.array(one.splits) == "train"] for one in recorded]
    order = np.array(list(dict.fromkeys(np.concatenate(shown).tolist())))  # as they first appear
    kept = set(order[chosen_share(np.arange(len(order)), options.fraction, options.fraction_seed)].tolist())
    opened = []
    for one in recorded:
        pairs = zip(one.splits, one.stimuli, strict=True)
        splits = [None if split == "train" and stimulus not in kept else split for split, stimulus in pairs]
        opened.append(SubjectTrials(replace(one, splits=splits), options))
    return opened


def join_trials(
    subjects: Sequence[SubjectTrials], split: str, open_images: Callable[[Sequence[str]], LazyImages], pad_mode: str
) -> PairedDataset:
    """One split of all subjects, one after another, brought to the longest; every picture once, as it first appears.

    `open_images` opens the pictures of some names.
    """
    fmri, stimuli, repeats = zip(*(subject.rows(split) for subject in subjects), strict=True)
    shown = [name for of_subject in stimuli for name in of_subject]
    place = {name: i for i, name in enumerate(dict.fromkeys(shown))}
    names = [subject.recorded.subject for subject in subjects]
    ceilings = {name: subject.noise_ceiling for name, subject in zip(names, subjects, strict=True)}
    return PairedDataset(
        VoxelRows(fmri, pad_mode=pad_mode),
        open_images(list(place)),
        stimulus=np.array([place[name] for name in shown]),
        stimulus_names=shown,
        repeat=np.concatenate(repeats),
        subject=np.repeat(names, [len(of_subject) for of_subject in stimuli]),
        roi_masks=(subjects[0].masks or None) if len(subjects) == 1 else None,
        noise_ceilings={name: found for name, found in ceilings.items() if found is not None} or None,
        formats={name: subject.format for name, subject in zip(names, subjects, strict=True)},
    )

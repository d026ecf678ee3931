"""Single trials of many thousand that stay in their files -> rows of a data set: means over repeats, or trials.

What the large data sets have in common: a subject's mapped trials, the picture and the split of each, the voxels used.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mindvis.common.errors import InputError
from mindvis.data.datasets import PairedDataset
from mindvis.data.lazy_images import LazyImages
from mindvis.data.row_format import RowFormat, subject_format
from mindvis.data.rows import MappedArray, MeanRows, VoxelRows, streamed_moments
from mindvis.data.subjects import padded_mask
from mindvis.data.voxels import common_length, patched_length

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrialOptions:
    """How rows are made of trials: see `load_mosaic` and `load_nsd`."""

    patch_size: int = 16
    average: bool = True
    include_single_trials: bool = False
    min_noise_ceiling: float | None = None
    pad_mode: str = "wrap"


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


@dataclass(frozen=True)
class _Split:
    fmri: VoxelRows
    stimuli: list[str]
    repeat: np.ndarray


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
        self.mean, self.deviation = streamed_moments(training)
        if not self.deviation > 0:
            raise InputError(f"{recorded.where}: the training rows are constant ({self.mean:g}), they cannot be scaled")

    def rows(self, split: str) -> _Split:
        """The rows of a split. Raises InputError where it has none."""
        groups, repeat = self._groups(split)
        fmri = self._scaled(MeanRows(self.betas, groups), self.mean, self.deviation)
        return _Split(fmri, [self.recorded.stimuli[group[0]] for group in groups], repeat)

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
        trials_of: dict[str, list[int]] = {}
        for row, (stimulus, own) in enumerate(zip(self.recorded.stimuli, self.recorded.splits, strict=True)):
            if own == split:
                trials_of.setdefault(stimulus, []).append(row)
        if not trials_of:
            raise InputError(f"{self.recorded.where}: no trial of split {split!r} is in it, needs one at least")
        groups = list(trials_of.values())
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


def join_trials(
    subjects: Sequence[SubjectTrials], split: str, open_images: Callable[[Sequence[str]], LazyImages], pad_mode: str
) -> PairedDataset:
    """One split of all subjects, one after another, brought to the longest; every picture once, as it first appears.

    `open_images` opens the pictures of some names.
    """
    parts = [subject.rows(split) for subject in subjects]
    num_voxels = common_length([part.fmri.shape[1] for part in parts], pad_mode)
    shown = [name for part in parts for name in part.stimuli]
    place = {name: i for i, name in enumerate(dict.fromkeys(shown))}
    names = [subject.recorded.subject for subject in subjects]
    ceilings = {name: subject.noise_ceiling for name, subject in zip(names, subjects, strict=True)}
    return PairedDataset(
        VoxelRows([part.fmri for part in parts], num_voxels=num_voxels, pad_mode=pad_mode),
        open_images(list(place)),
        stimulus=np.array([place[name] for name in shown]),
        stimulus_names=shown,
        repeat=np.concatenate([part.repeat for part in parts]),
        subject=np.repeat(names, [len(part.stimuli) for part in parts]),
        roi_masks=(subjects[0].masks or None) if len(subjects) == 1 else None,
        noise_ceilings={name: found for name, found in ceilings.items() if found is not None} or None,
        formats={name: subject.format for name, subject in zip(names, subjects, strict=True)},
    )

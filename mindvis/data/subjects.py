"""From the rows of single subjects to one paired data set, and regions by name: what all layouts have in common."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mindvis.common.errors import InputError
from mindvis.data.arrays import require_choice
from mindvis.data.datasets import PairedDataset
from mindvis.data.row_format import RowFormat
from mindvis.data.voxels import common_length, pad_to

EVERY = "all"  # the name that takes every voxel


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


def averages_then_trials(trials: Sequence[np.ndarray], include_single_trials: bool) -> tuple[np.ndarray, ...]:
    """Test rows from the single trials of each image, [k_i v]: the averages, then (if wanted) image by image.

    Returns fmri [n v], and for every row the position of its image and its number among the repeats (0: average).
    """
    fmri, position = [np.stack([rows.mean(axis=0) for rows in trials])], [np.arange(len(trials))]
    repeat = [np.zeros(len(trials), np.int64)]
    if include_single_trials:
        fmri += list(trials)
        position += [np.full(len(rows), i) for i, rows in enumerate(trials)]
        repeat += [np.arange(1, len(rows) + 1) for rows in trials]
    return np.concatenate(fmri), np.concatenate(position), np.concatenate(repeat)


def chosen_share(stimulus: np.ndarray, fraction: float, seed: int = 0) -> np.ndarray:
    """Boolean [n] of the rows whose stimulus [n] is in a share of all stimuli, drawn from the seed; one at least.

    All rows of a stimulus stay together, and a smaller share is part of a larger one.
    """
    if fraction == 1:
        return np.ones(len(stimulus), dtype=bool)
    distinct = np.random.default_rng(seed).permutation(np.unique(stimulus))
    return np.isin(stimulus, distinct[: max(1, round(fraction * len(distinct)))])


def region_names(roi: str | Sequence[str]) -> tuple[str, ...]:
    """Names of one region or of several. Raises InputError for an empty list, and for what is no name."""
    names = (roi,) if isinstance(roi, str) else tuple(roi) if isinstance(roi, Sequence) else ()
    if not names or not all(isinstance(name, str) and name for name in names):
        raise InputError(f"roi is {roi!r}, needs a region, a list of regions, or {EVERY!r} for every voxel")
    if len(set(names)) < len(names):
        raise InputError(f"roi is {list(names)}, needs every region once")
    return names


def region_columns(roi: str | Sequence[str], masks: Mapping[str, np.ndarray], where: str | Path) -> np.ndarray | None:
    """Index of the voxels that are in any of the regions, in the order of the file; None for every voxel.

    `masks` maps a region to its boolean [v]. Raises InputError for a region that is not among them.
    """
    names = region_names(roi)
    if names == (EVERY,) and EVERY not in masks:
        return None
    chosen = [masks[require_choice(name, masks, f"{where}: ROI")] for name in names]
    columns = np.flatnonzero(np.any(chosen, axis=0))
    if not len(columns):
        raise InputError(f"{where}: ROI {', '.join(names)!r} selects none of {len(chosen[0])} voxels")
    return columns


def masks_within(masks: Mapping[str, np.ndarray], columns: np.ndarray | None, num_voxels: int) -> dict[str, np.ndarray]:
    """Regions that have voxels among the chosen `columns`, as booleans over these and their padding."""
    within = {name: mask if columns is None else mask[columns] for name, mask in masks.items()}
    return {name: padded_mask(mask, num_voxels) for name, mask in within.items() if mask.any()}


def padded_mask(mask: np.ndarray, num_voxels: int) -> np.ndarray:
    """A region's boolean [v] over padded voxels: the padding belongs to none, cut voxels are dropped."""
    padded = np.zeros(num_voxels, bool)
    kept = min(len(mask), num_voxels)
    padded[:kept] = mask[:kept]
    return padded

"""Anyone's own data as one .npz file (`numpy.savez`; `save_npz` here writes and checks it).

| array | type and shape | meaning |
|---|---|---|
| `fmri` | real [n v] | one trial, or one average, a row; voxels of all regions side by side, no NaN |
| `images` | uint8 [m h w 3] | RGB images; without `stimulus` there are n, one for each row |
| `split` | [n] "train", "test" or "val" (or 0, 1, 2) | what a row is used for; "val" may be absent |
| `stimulus` | integer [n], optional | row of `images` that was shown; rows of one stimulus are repeats |
| `class_ids` | integer [n], optional | class of the image (ImageNet's index, to be scored by its classifiers) |
| `class_names` | text [n], optional | the name of that class |
| `subject` | text or integer [n], optional | whose row it is; scaling and averaging stay within a subject |
| `roi_names`, `roi_masks` | text [r], boolean [r v], optional | regions of interest, which may overlap |

Test and validation rows of one stimulus are averaged. Every row is scaled by the one mean and deviation of its
subject's training rows, unless `scale="none"`. Large arrays are mapped where the file is not compressed.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mindvis.common.errors import InputError
from mindvis.common.files import write_npz
from mindvis.data.arrays import NpzReader, require_choice
from mindvis.data.datasets import PairedDataset
from mindvis.data.own_checks import BLOCK, SPLITS, OwnArrays, checked
from mindvis.data.rows import VoxelRows
from mindvis.data.subjects import averages_then_trials, padded_mask
from mindvis.data.voxels import patched_length

MAPPED_BYTES = 64 * 2**20  # arrays below it are simply read


class Splits(NamedTuple):
    """The parts of one file; `val` is None where no row says so."""

    train: PairedDataset
    test: PairedDataset
    val: PairedDataset | None


def load_npz(
    path: str | Path,
    subjects: Sequence[str] | str = (),
    roi: str = "all",
    patch_size: int = 16,
    include_single_trials: bool = False,
    *,
    scale: str = "train",
    pad_mode: str = "wrap",
) -> Splits:
    """Training, test and validation pairs from one file of the layout above.

    `subjects` and `roi` select ("VC" is the whole file unless it names such a region); fmri float32 [n v] is padded to
    patches and scaled. Test and validation rows are averages, in the order of first appearance, then
    (`include_single_trials`) their trials. Raises InputError that names the array and what is needed.
    """
    require_choice(scale, ("train", "none"), "scale")
    with NpzReader(path) as npz:
        data = checked({name: _array(npz, name) for name in npz.names}, str(path))
    keep = _rows_of(data, [subjects] if isinstance(subjects, str) else list(map(str, subjects)), path)
    columns = _columns(data, roi, path)
    num_voxels = patched_length(data.fmri.shape[1] if columns is None else len(columns), patch_size, pad_mode)
    padding: dict[str, Any] = {"columns": columns, "num_voxels": num_voxels, "pad_mode": pad_mode}
    mean, deviation = _scales(data, VoxelRows([data.fmri], **padding), path) if scale == "train" else (0.0, 1.0)
    rows = VoxelRows([data.fmri], mean=mean, deviation=deviation, **padding)
    masks = {name: mask if columns is None else mask[columns] for name, mask in data.roi_masks.items()}
    masks = {name: padded_mask(mask, num_voxels) for name, mask in masks.items() if mask.any()}
    parts = {split: np.flatnonzero(keep & (data.split == split)) for split in SPLITS}
    for split in ("train", "test"):
        if not len(parts[split]):
            raise InputError(f"{path}: no row of split {split!r} is left, needs one at least")
    train = rows.subset(parts["train"])
    return Splits(
        _paired(data, train if data.is_mapped else train[:], parts["train"], masks),
        _averaged(data, rows, parts["test"], masks, include_single_trials),
        _averaged(data, rows, parts["val"], masks, include_single_trials) if len(parts["val"]) else None,
    )


def save_npz(
    path: str | Path,
    fmri: np.ndarray,
    images: np.ndarray,
    split: Sequence[str] | np.ndarray,
    *,
    roi_masks: Mapping[str, np.ndarray] | None = None,
    **optional: Sequence | np.ndarray,
) -> None:
    """Check the arrays (`optional`: stimulus, class_ids, class_names, subject) and write them, mappable, in one step.

    Raises InputError as `load_npz` would, before anything is written.
    """
    given = {"fmri": fmri, "images": images, "split": split, **optional}
    arrays = {name: np.asarray(array) for name, array in given.items() if array is not None}
    if roi_masks:
        arrays |= {"roi_names": np.array(list(roi_masks)), "roi_masks": np.stack(list(roi_masks.values()))}
    checked(arrays, str(path))
    write_npz(path, arrays)


def _array(npz: NpzReader, name: str) -> np.ndarray:
    mapped = npz.mapped(name)
    return npz.raw(name) if mapped is None or mapped.nbytes < MAPPED_BYTES else mapped


def _rows_of(data: OwnArrays, subjects: list[str], path: str | Path) -> np.ndarray:
    """Boolean [n] of the rows that belong to the chosen subjects; none chosen, or none named in the file: all."""
    available = sorted(set(data.subject.tolist()))
    if available == [""]:
        return np.ones(len(data.subject), dtype=bool)
    for subject in subjects:
        require_choice(subject, available, f"{path}: subject")
    return np.isin(data.subject, subjects or available)


def _columns(data: OwnArrays, roi: str, path: str | Path) -> np.ndarray | None:
    """Index of the voxels of a region; None for all."""
    if roi == "all" or (roi == "VC" and "VC" not in data.roi_masks):
        return None
    return np.flatnonzero(data.roi_masks[require_choice(roi, data.roi_masks, f"{path}: ROI")])


def _scales(data: OwnArrays, rows: VoxelRows, path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation [n] for every row: those of its subject's training rows."""
    mean, deviation = np.zeros(len(rows)), np.ones(len(rows))
    for subject in set(data.subject.tolist()):
        own = data.subject == subject
        training = np.flatnonzero(own & (data.split == "train"))
        if not len(training):
            raise InputError(f"{path}: subject {subject!r} has no training row to scale by; scale='none' leaves rows")
        sums = np.sum([[b.sum(), np.square(b).sum(), b.size] for b in _blocks(rows.subset(training))], axis=0)
        mean[own] = sums[0] / sums[2]
        deviation[own] = np.sqrt(max(sums[1] / sums[2] - (sums[0] / sums[2]) ** 2, 0.0))
        if not deviation[own].all():
            raise InputError(f"{path}: the training fmri of subject {subject!r} is constant, it cannot be scaled")
    return mean, deviation


def _blocks(rows: VoxelRows) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), BLOCK):
        yield rows[start : start + BLOCK].astype(np.float64)  # [m v]


def _averaged(data: OwnArrays, rows: VoxelRows, chosen: np.ndarray, masks: dict, single: bool) -> PairedDataset:
    """The rows `chosen`, repeats of one stimulus and subject averaged, in the order of first appearance."""
    groups: dict[tuple[str, int], list[int]] = {}
    for i in chosen.tolist():
        groups.setdefault((data.subject[i], int(data.stimulus[i])), []).append(i)
    trials = list(groups.values())
    fmri, position, repeat = averages_then_trials([rows[np.array(group)] for group in trials], single)
    first = np.array([group[0] for group in trials])[position]  # a row of the same subject and stimulus
    return _paired(data, fmri, first, masks, repeat)


def _paired(
    data: OwnArrays, fmri: np.ndarray | VoxelRows, rows: np.ndarray, masks: dict, repeat: np.ndarray | None = None
) -> PairedDataset:
    return PairedDataset(
        fmri,
        data.images,
        None if data.class_ids is None else data.class_ids[rows],
        class_names=None if data.class_names is None else data.class_names[rows],
        stimulus=data.stimulus[rows],
        repeat=repeat,
        subject=data.subject[rows],
        roi_masks=masks or None,
    )

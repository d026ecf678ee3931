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

Test and validation rows of one stimulus are averaged. Every voxel is z-scored by its subject's training rows, unless
`scale` says otherwise. Large arrays are mapped where the file is not compressed.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mindvis.common.errors import InputError
from mindvis.common.files import write_npz
from mindvis.data.arrays import Array, NpzReader, as_texts, check_arrays, require_choice
from mindvis.data.datasets import PairedDataset
from mindvis.data.regions import masks_within, named_masks, region_columns
from mindvis.data.row_format import SCALES, RowFormat
from mindvis.data.rows import MappedArray, VoxelRows, rows_by, streamed_moments, voxel_moments
from mindvis.data.subjects import averages_then_trials, chosen_share
from mindvis.data.voxels import patched_length

log = logging.getLogger(__name__)

SPLITS = ("train", "test", "val")  # or their places 0, 1, 2
MAPPED_BYTES = 64 * 2**20  # arrays below it are simply read
LAYOUT = [
    Array("fmri", "real", "n v"),
    Array("images", "images", "m h w 3"),
    Array("split", "label", "n"),
    Array("stimulus", "index", "n", below="m", optional=True),
    Array("class_ids", "index", "n", optional=True),
    Array("class_names", "label", "n", optional=True),
    Array("subject", "label", "n", optional=True),
    Array("roi_names", "label", "r", optional=True),
    Array("roi_masks", "mask", "r v", optional=True),
]


class Splits(NamedTuple):
    """The parts of one file; `val` is None where no row says so."""

    train: PairedDataset
    test: PairedDataset
    val: PairedDataset | None


def load_npz(
    path: str | Path,
    subjects: Sequence[str] | str = (),
    roi: str | Sequence[str] = "all",
    patch_size: int = 16,
    include_single_trials: bool = False,
    *,
    scale: str = "voxel",
    pad_mode: str = "wrap",
    fraction: float = 1.0,
    fraction_seed: int = 0,
) -> Splits:
    """Training, test and validation pairs from one file of the layout above.

    `subjects` and `roi` (one or several) select ("VC" is the whole file unless it names such a region); fmri float32
    [n v] is scaled and padded to patches. `scale`: by the moments of its subject's training rows, those of each `voxel`
    or the one mean and deviation of the `subject`, or `none`. Test and validation rows are averages, in the order of
    first appearance, then (`include_single_trials`) their trials. A `fraction` of the training stimuli can be drawn.
    Raises InputError that names the array and what is needed; under `subject` for responses whose voxels differ in mean
    by more than they vary.
    """
    require_choice(scale, SCALES, "scale")
    data = read_own(path)
    keep = _rows_of(data, [subjects] if isinstance(subjects, str) else list(map(str, subjects)), path)
    parts = {split: np.flatnonzero(keep & (data.split == split)) for split in SPLITS}
    parts["train"] = parts["train"][chosen_share(data.stimulus[parts["train"]], fraction, fraction_seed)]
    for split in ("train", "test"):
        if not len(parts[split]):
            raise InputError(f"{path}: no row of split {split!r} is left, needs one at least")
    whole = roi == "VC" and "VC" not in data.roi_masks
    columns = None if whole else region_columns(roi, data.roi_masks, path)
    num_voxels = patched_length(data.fmri.shape[1] if columns is None else len(columns), patch_size, pad_mode)
    padding: dict[str, Any] = {"columns": columns, "num_voxels": num_voxels, "pad_mode": pad_mode}
    formats = _formats(data, columns, parts, scale, padding, path)
    names = sorted(formats)
    rows = VoxelRows(
        [data.fmri],
        mean=np.stack([formats[name].mean for name in names]),
        deviation=np.stack([formats[name].deviation for name in names]),
        group=np.searchsorted(names, np.where(keep, data.subject, names[0])),
        **padding,
    )
    about = {"roi_masks": masks_within(data.roi_masks, columns, num_voxels) or None, "formats": formats}
    train = rows.subset(parts["train"])
    return Splits(
        _paired(data, train if isinstance(data.fmri, MappedArray) else train[:], parts["train"], about),
        _averaged(data, rows, parts["test"], about, include_single_trials),
        _averaged(data, rows, parts["val"], about, include_single_trials) if len(parts["val"]) else None,
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
    _checked(arrays, str(path))
    write_npz(path, arrays)


def read_own(path: str | Path) -> "OwnArrays":
    """The arrays of one file, checked, as they lie there. Raises InputError."""
    arrays = {}
    with NpzReader(path) as npz:
        for name in npz:
            mapped = npz.mapped(name)
            arrays[name] = npz.raw(name) if mapped is None or mapped.nbytes < MAPPED_BYTES else mapped
        return _checked(arrays, str(path))


@dataclass
class OwnArrays:
    """The arrays of one file, checked and completed: one subject "" and every row its own image unless given."""

    fmri: np.ndarray | MappedArray
    images: np.ndarray
    split: np.ndarray
    stimulus: np.ndarray
    subject: np.ndarray
    class_ids: np.ndarray | None
    class_names: np.ndarray | None
    roi_masks: dict[str, np.ndarray]


def _checked(arrays: Mapping[str, np.ndarray], where: str) -> OwnArrays:
    """The arrays, if they are as the layout says. Raises InputError that names the array within `where`."""
    known = [item.name for item in LAYOUT]
    unknown = sorted(set(arrays) - set(known))
    if unknown:
        raise InputError(f"{where}: unknown array {unknown[0]!r}, the layout has {', '.join(sorted(known))}")
    # A map stays in its file: it is read row by row, so that it does not become resident.
    fmri = arrays.get("fmri")
    given = dict(arrays) | ({"fmri": MappedArray.of(fmri)} if isinstance(fmri, np.memmap) else {})
    one_image_each: dict[str, Any] = {} if "stimulus" in arrays else {"m": (len(given["fmri"]), "fmri")}
    found = check_arrays(given, LAYOUT, where, **one_image_each)
    num_rows = len(found["fmri"])
    data = OwnArrays(
        fmri=found["fmri"],
        images=found["images"],
        split=_split_names(found["split"], f"{where}: array 'split'"),
        stimulus=found.get("stimulus", np.arange(num_rows)),
        subject=as_texts(found.get("subject", np.full(num_rows, ""))),
        class_ids=found.get("class_ids"),
        class_names=as_texts(found["class_names"]) if "class_names" in found else None,
        roi_masks=named_masks(found, where),
    )
    _require_one_class_per_stimulus(data, f"{where}: array 'class_ids'")
    return data


def _split_names(split: np.ndarray, label: str) -> np.ndarray:
    """ "train", "test" or "val" of every row, [n]."""
    whole = split.astype(np.int64) if split.dtype.kind == "f" and (split == np.round(split)).all() else split
    names = np.char.lower(as_texts(whole))
    for place, name in enumerate(SPLITS):
        names = np.where(names == str(place), name, names)
    unknown = sorted(set(names.tolist()) - set(SPLITS))
    if unknown:
        raise InputError(f"{label} has {unknown[0]!r}, needs train, test or val (or 0, 1, 2)")
    return names


def _require_one_class_per_stimulus(data: OwnArrays, label: str) -> None:
    if data.class_ids is None:
        return
    pairs = np.unique(np.stack([data.stimulus, data.class_ids], axis=1), axis=0)
    stimuli, counts = np.unique(pairs[:, 0], return_counts=True)
    if counts.max() > 1:
        raise InputError(f"{label} gives stimulus {stimuli[counts.argmax()]} {counts.max()} classes, needs one")


def _rows_of(data: OwnArrays, subjects: list[str], path: str | Path) -> np.ndarray:
    """Boolean [n] of the rows that belong to the chosen subjects; none chosen, or none named in the file: all.

    Where the file names no subject, all rows get the name of the file.
    """
    available = sorted(set(data.subject.tolist()))
    if available == [""]:
        data.subject = np.full(len(data.subject), Path(path).stem)
        if subjects and subjects != [Path(path).stem]:
            log.info("%s: names no subject, so all of it is taken, whatever data.subjects says", path)
        return np.ones(len(data.subject), dtype=bool)
    for subject in subjects:
        require_choice(subject, available, f"{path}: subject")
    return np.isin(data.subject, subjects or available)


def _formats(
    data: OwnArrays, columns: np.ndarray | None, parts: Mapping, scale: str, padding: dict, path: str | Path
) -> dict[str, RowFormat]:
    """How the rows of every chosen subject are scaled, by the moments of its training rows."""
    formats = {}
    chosen = np.concatenate(list(parts.values()))
    for subject in sorted(set(data.subject[chosen].tolist())):
        training = parts["train"][data.subject[parts["train"]] == subject]
        if not len(training) and scale != "none":
            raise InputError(f"{path}: subject {subject!r} has no training row to scale by; scale='none' leaves rows")
        label = f"{path}: fmri of subject {subject!r}"
        moments: tuple[np.ndarray, np.ndarray] = (np.zeros(1), np.ones(1))
        if scale != "none":
            voxels = VoxelRows([data.fmri], columns=columns).subset(training)
            moments = voxel_moments(voxels, label)
            constant = int(np.isinf(moments[1]).sum())
            if constant:
                counts = f"{constant} of {len(moments[1])} voxels are constant in the training rows"
                log.warning("%s: %s and %s", label, counts, "become 0" if scale == "voxel" else "stay so")
        if scale == "subject":
            _require_one_level(*moments, label)
            mean, deviation = streamed_moments(VoxelRows([data.fmri], **padding).subset(training), label)
            moments = (np.array([mean]), np.array([deviation]))
        formats[subject] = RowFormat(
            num_voxels=data.fmri.shape[1] if columns is None else len(columns),
            scale=scale,
            mean=moments[0].astype(np.float32),
            deviation=moments[1].astype(np.float32),
            columns=columns,
            num_recorded=data.fmri.shape[1],
            pad_mode=padding["pad_mode"],
        )
    return formats


def _require_one_level(mean: np.ndarray, deviation: np.ndarray, label: str) -> None:
    """Raises InputError for voxels that differ in mean by more than they vary: one mean would leave little else."""
    varies = deviation[np.isfinite(deviation)]
    apart, within = mean.std(), np.sqrt(np.square(varies).mean())
    if apart > within:
        found = f"voxels differ in mean by {apart:.3g} and vary by {within:.3g}"
        reason = "so that one mean and deviation would leave little of the signal"
        needed = "data.scale=voxel, or responses that are z-scored a voxel"
        raise InputError(f"{label}: {found}, {reason}; needed: {needed}")


def _averaged(data: OwnArrays, rows: VoxelRows, chosen: np.ndarray, about: dict, single: bool) -> PairedDataset:
    """The rows `chosen`, repeats of one stimulus and subject averaged, in the order of first appearance."""
    pairs = zip(data.subject[chosen].tolist(), data.stimulus[chosen].tolist(), strict=True)
    trials = list(rows_by(pairs, chosen.tolist()).values())
    fmri, position, repeat = averages_then_trials([rows[np.array(group)] for group in trials], single)
    first = np.array([group[0] for group in trials])[position]  # a row of the same subject and stimulus
    return _paired(data, fmri, first, about, repeat)


def _paired(
    data: OwnArrays, fmri: np.ndarray | VoxelRows, rows: np.ndarray, about: dict, repeat: np.ndarray | None = None
) -> PairedDataset:
    return PairedDataset(
        fmri,
        data.images,
        None if data.class_ids is None else data.class_ids[rows],
        class_names=None if data.class_names is None else data.class_names[rows],
        stimulus=data.stimulus[rows],
        repeat=repeat,
        subject=data.subject[rows],
        **about,
    )

"""What the arrays of anyone's own data must be (the layout stands in `own`): checked before reading and writing."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mindvis.common.errors import InputError
from mindvis.data.arrays import LARGEST_EXACT, check_images, check_indices, check_mask, check_real, require_rows
from mindvis.data.rows import MappedArray

SPLITS = ("train", "test", "val")  # or their places 0, 1, 2
REQUIRED = ("fmri", "images", "split")
PER_ROW = ("split", "stimulus", "class_ids", "class_names", "subject")
KNOWN = {*REQUIRED, *PER_ROW, "roi_names", "roi_masks"}
BLOCK = 1024  # rows read at a time while going through fmri, which may be mapped


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

    @property
    def is_mapped(self) -> bool:
        """Whether the fMRI stays in its file."""
        return isinstance(self.fmri, MappedArray)


def checked(arrays: Mapping[str, np.ndarray], where: str) -> OwnArrays:
    """The arrays, if they are as the layout says. Raises InputError that names the array within `where`."""
    _require_names(arrays, where)
    labels = {name: f"{where}: array {name!r}" for name in KNOWN}
    fmri = _check_fmri(arrays["fmri"], labels["fmri"])
    images = check_images(arrays["images"], labels["images"])
    for name in PER_ROW:
        if name in arrays:
            _require_column(arrays[name], labels[name], len(fmri))
    if "stimulus" not in arrays:
        require_rows(images, len(fmri), labels["images"], "fmri")
    stimulus = arrays.get("stimulus", np.arange(len(fmri)))
    class_ids = arrays.get("class_ids")
    data = OwnArrays(
        fmri=fmri,
        images=images,
        split=_split_names(arrays["split"], labels["split"]),
        stimulus=check_indices(stimulus, labels["stimulus"], len(images)),
        subject=arrays.get("subject", np.full(len(fmri), "")).astype(str),
        class_ids=None if class_ids is None else check_indices(class_ids, labels["class_ids"], LARGEST_EXACT),
        class_names=arrays["class_names"].astype(str) if "class_names" in arrays else None,
        roi_masks=_roi_masks(arrays, where, fmri.shape[1]),
    )
    _require_one_class_per_stimulus(data, labels["class_ids"])
    return data


def _require_names(arrays: Mapping[str, np.ndarray], where: str) -> None:
    missing = [name for name in REQUIRED if name not in arrays]
    if missing:
        raise InputError(f"{where}: no array {missing[0]!r}, has {', '.join(arrays) or 'none'}")
    unknown = sorted(set(arrays) - KNOWN)
    if unknown:
        raise InputError(f"{where}: unknown array {unknown[0]!r}, the layout has {', '.join(sorted(KNOWN))}")


def _check_fmri(fmri: np.ndarray, label: str) -> np.ndarray | MappedArray:
    """Checked block by block, so that a mapped array does not become resident."""
    if fmri.ndim != 2 or 0 in fmri.shape:
        return check_real(fmri, label)  # which refuses it
    source = MappedArray.of(fmri) if isinstance(fmri, np.memmap) else fmri
    for start in range(0, len(source), BLOCK):
        check_real(source[start : start + BLOCK], f"{label}, rows from {start},")
    return source


def _require_column(column: np.ndarray, label: str, num_rows: int) -> None:
    if column.ndim != 1 or column.dtype.kind not in "USiuf":
        raise InputError(f"{label} is {column.dtype} {list(column.shape)}, needs one text or number per row")
    require_rows(column, num_rows, label, "fmri")


def _split_names(split: np.ndarray, label: str) -> np.ndarray:
    """ "train", "test" or "val" of every row, [n]."""
    names = split.astype(str)
    for place, name in enumerate(SPLITS):
        names = np.where(names == str(place), name, names)
    unknown = sorted(set(names.tolist()) - set(SPLITS))
    if unknown:
        raise InputError(f"{label} has {unknown[0]!r}, needs train, test or val (or 0, 1, 2)")
    return names


def _roi_masks(arrays: Mapping[str, np.ndarray], where: str, num_voxels: int) -> dict[str, np.ndarray]:
    if ("roi_names" in arrays) != ("roi_masks" in arrays):
        raise InputError(f"{where}: roi_names and roi_masks only together, one is missing")
    if "roi_names" not in arrays:
        return {}
    names, masks = arrays["roi_names"].astype(str).tolist(), arrays["roi_masks"]
    if masks.ndim != 2 or len(set(names)) != len(masks):
        raise InputError(f"{where}: roi_masks {list(masks.shape)} for {len(names)} roi_names, needs [r v], names once")
    return {
        name: check_mask(mask, f"{where}: ROI {name!r}", num_voxels) for name, mask in zip(names, masks, strict=True)
    }


def _require_one_class_per_stimulus(data: OwnArrays, label: str) -> None:
    if data.class_ids is None:
        return
    pairs = np.unique(np.stack([data.stimulus, data.class_ids], axis=1), axis=0)
    stimuli, counts = np.unique(pairs[:, 0], return_counts=True)
    if counts.max() > 1:
        raise InputError(f"{label} gives stimulus {stimuli[counts.argmax()]} {counts.max()} classes, needs one")

"""Regions of volumetric NIfTI time series through an image of integer labels on the same grid."""

import re
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from mindvis.common.errors import InputError
from mindvis.data.glasser import bare_name
from mindvis.data.reading import one_line, read_lines
from mindvis.prepare.cifti import NIFTI_ERRORS, open_image

FRAMES_AT_ONCE = 16
MAX_VOXELS = 512**3


@dataclass(frozen=True)
class LabelImage:
    """Integer labels [x y z], the affine of their grid, and the labels of each region."""

    path: Path
    labels: np.ndarray
    affine: np.ndarray
    regions: dict[str, list[int]]

    def voxels(self, roi: str) -> np.ndarray:
        """Flat indices (C order) of the voxels of `roi`: int [v]."""
        if roi not in self.regions:
            found = ", ".join(self.regions)
            raise InputError(f"{self.path}: the names file has no region {roi!r}; it has {found}: choose with --rois")
        found = np.flatnonzero(np.isin(self.labels, self.regions[roi]))
        if not found.size:
            raise InputError(f"{self.path}: no voxel of region {roi!r} (labels {self.regions[roi]})")
        return found


def load_label_image(path: Path, names: Path) -> LabelImage:
    """A label image and its names file, lines of `<label> <name>` (V1, L_V1 and R_V1 all belong to V1)."""
    image = open_nifti(path, 3)
    return LabelImage(path, read_labels(path), image.affine, _read_names(names))


def read_labels(path: Path) -> np.ndarray:
    """The whole numbers of a label image, int64 [x y z]. Raises InputError."""
    image = open_nifti(path, 3)
    try:
        labels = np.asarray(image.dataobj).reshape(image.shape[:3])
    except NIFTI_ERRORS as error:
        raise InputError(f"{path}: unreadable labels ({one_line(error)})") from None
    if not np.isfinite(labels).all() or not np.array_equal(labels, np.round(labels)):
        raise InputError(f"{path}: labels that are no whole numbers; needs an image of integer labels")
    return labels.astype(np.int64)


def read_volumes(path: Path, atlas: LabelImage, rois: list[str]) -> dict[str, np.ndarray]:
    """Time series of regions of a 4-D image, read a few frames at a time: each float32 [frames v]."""
    image = open_nifti(path, 4)
    if image.shape[:3] != atlas.labels.shape or not np.allclose(image.affine, atlas.affine, atol=1e-3):
        raise InputError(
            f"{path}: grid {image.shape[:3]} is not that of {atlas.path} {atlas.labels.shape}; "
            "needs the same shape and affine (resample the labels)"
        )
    rois_voxels = {roi: atlas.voxels(roi) for roi in rois}
    wanted = np.unique(np.concatenate(list(rois_voxels.values())))
    try:
        series = np.concatenate(
            [_frames(image, start, wanted) for start in range(0, image.shape[3], FRAMES_AT_ONCE)]
        )  # [frames v]
    except NIFTI_ERRORS as error:
        raise InputError(f"{path}: unreadable time series ({one_line(error)})") from None
    return {roi: series[:, np.searchsorted(wanted, voxels)] for roi, voxels in rois_voxels.items()}


def _frames(image: nib.Nifti1Image, start: int, wanted: np.ndarray) -> np.ndarray:
    block = np.asarray(image.dataobj[..., start : start + FRAMES_AT_ONCE])  # [x y z frames]
    return block.reshape(-1, block.shape[-1])[wanted].T.astype(np.float32)


def open_nifti(path: Path, num_axes: int) -> nib.Nifti1Image:
    """A NIfTI image of 3 axes, or of 4. Raises InputError for any other file."""
    image = open_image(path)
    # Some programs write the labels as a series of one volume, [x y z 1].
    too_many = any(size != 1 for size in image.shape[num_axes:]) if num_axes == 3 else len(image.shape) > num_axes
    if not isinstance(image, nib.Nifti1Image) or len(image.shape) < num_axes or too_many or 0 in image.shape:
        raise InputError(f"{path}: {type(image).__name__} of shape {image.shape}; needs a NIfTI of {num_axes} axes")
    if np.prod(image.shape[:3], dtype=object) > MAX_VOXELS:
        raise InputError(f"{path}: grid {image.shape[:3]}; needs at most {MAX_VOXELS} voxels a frame")
    return image


def _read_names(path: Path) -> dict[str, list[int]]:
    regions: dict[str, list[int]] = {}
    for number, line in enumerate(read_lines(path), start=1):
        words = re.split(r"[,;\s]+", line.strip(",; "))
        if not words or words[0].startswith("#"):
            continue
        if len(words) < 2 or not re.fullmatch("[0-9]{1,9}", words[0]):
            raise InputError(f"{path}: line {number} is {line!r}; needs `<label> <name>`")
        regions.setdefault(bare_name(words[1]), []).append(int(words[0]))
    if not regions:
        raise InputError(f"{path}: names no label; needs lines of `<label> <name>`")
    return regions

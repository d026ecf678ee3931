"""Brain images: CIFTI-2 files, and NIfTI volumes with an image of integer labels on the same grid.

Opened with their axes and size checked, read by the slice.
"""

import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.cifti2 import BrainModelAxis, Cifti2Image, SeriesAxis
from nibabel.cifti2.cifti2 import Cifti2HeaderError
from nibabel.filebasedimages import ImageFileError
from nibabel.imageglobals import logger
from nibabel.spatialimages import HeaderDataError

from mindvis.common.errors import InputError, unreadable
from mindvis.data.hdf5 import H5_ERRORS
from mindvis.data.reading import read_lines, require_file
from mindvis.data.regions import bare_name

CHUNK = 2048  # grayordinates: as many series of 1200 float32 frames are 10 MB
FRAMES_AT_ONCE = 16
MAX_VOXELS = 512**3
NIFTI_ERRORS = (*H5_ERRORS, ImageFileError, HeaderDataError, Cifti2HeaderError)


def open_cifti(path: Path, axes: tuple[type, type], needed: str) -> Cifti2Image:
    """Open a CIFTI file whose two axes are of the given types; `needed` names the kind of file in the error."""
    image = open_image(path)
    if not isinstance(image, Cifti2Image):
        raise InputError(f"{path}: {type(image).__name__}, no CIFTI file; needs {needed}")
    with unreadable(f"{path}: unreadable CIFTI header", NIFTI_ERRORS):
        found = tuple(type(image.header.get_axis(i)) for i in range(len(image.shape)))
    if found != axes:
        names = [" x ".join(axis.__name__ for axis in kind) for kind in (found, axes)]
        raise InputError(f"{path}: axes {names[0]}; needs {needed} with axes {names[1]}")
    _check_size(path, image)
    return image


def open_image(path: Path) -> nib.filebasedimages.FileBasedImage:
    """Open any file of real numbers nibabel knows; raises InputError for another."""
    require_file(path)
    # the XML of a damaged CIFTI header fails in ways of its own
    with unreadable(f"{path}: not a readable NIfTI or CIFTI file", (Exception,)), _silent():
        image = nib.load(path, keep_file_open=True)
    stored = image.get_data_dtype() if hasattr(image, "get_data_dtype") else None
    if stored is not None and stored.kind not in "fiu":  # the real part of complex numbers is another quantity
        raise InputError(f"{path}: values of type {stored}; needs real numbers, one a voxel")
    return image


@contextmanager
def _silent() -> Iterator[None]:
    """Without the warnings and log lines of nibabel: what they are about is checked here and is an error."""
    logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = False


def read_series(path: Path, indices_of: Callable[[BrainModelAxis], Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Time series of regions: each float [frames v], without ever holding the whole file.

    `indices_of(axis)` gives the grayordinates of each region in the file's BrainModelAxis.
    """
    image = open_cifti(path, (SeriesAxis, BrainModelAxis), "a dense time series (.dtseries.nii)")
    rois = indices_of(image.header.get_axis(1))
    wanted = np.unique(np.concatenate(list(rois.values())))
    with unreadable(f"{path}: unreadable time series", NIFTI_ERRORS):
        series = _read_columns(image, wanted)  # [frames v]
    return {roi: series[:, np.searchsorted(wanted, indices)] for roi, indices in rois.items()}


def _read_columns(image: Cifti2Image, wanted: np.ndarray) -> np.ndarray:
    # A CIFTI file keeps the frames of one grayordinate together, so a chunk of grayordinates is one read.
    frames, num_grayordinates = image.shape
    series = np.empty((frames, wanted.size), dtype=np.float32)
    for start in range(0, num_grayordinates, CHUNK):
        here = (wanted >= start) & (wanted < start + CHUNK)
        if here.any():
            series[:, here] = np.asarray(image.dataobj[:, start : start + CHUNK])[:, wanted[here] - start]
    return series


def _check_size(path: Path, image: Cifti2Image) -> None:
    proxy: Any = image.dataobj
    wanted = tuple(len(image.header.get_axis(i)) for i in range(2))
    if tuple(proxy.shape) != wanted:
        raise InputError(f"{path}: shape {tuple(proxy.shape)}; needs {wanted}, the lengths of its axes")
    needed = proxy.offset + int(np.prod(proxy.shape, dtype=object)) * proxy.dtype.itemsize
    found = path.stat().st_size
    if path.suffix == ".nii" and found < needed:
        raise InputError(f"{path}: truncated, {found} bytes; needs {needed} for shape {wanted}")


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
            known = ", ".join(self.regions)
            raise InputError(f"{self.path}: the names file has no region {roi!r}; it has {known}: choose with --rois")
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
    with unreadable(f"{path}: unreadable labels", NIFTI_ERRORS):
        labels = np.asarray(image.dataobj).reshape(image.shape[:3])
    if not np.isfinite(labels).all() or not np.array_equal(labels, np.round(labels)):
        raise InputError(f"{path}: labels that are no whole numbers; needs an image of integer labels")
    return labels.astype(np.int64)


def read_volumes(path: Path, atlas: LabelImage, rois: list[str]) -> dict[str, np.ndarray]:
    """Time series of regions of a 4-D image, read a few frames at a time: each float32 [frames v]."""
    image = open_nifti(path, 4)
    require_grid(path, image, atlas.path, atlas.labels.shape, atlas.affine)
    rois_voxels = {roi: atlas.voxels(roi) for roi in rois}
    wanted = np.unique(np.concatenate(list(rois_voxels.values())))
    with unreadable(f"{path}: unreadable time series", NIFTI_ERRORS):
        frames = [_frames(image, start, wanted) for start in range(0, image.shape[3], FRAMES_AT_ONCE)]
    series = np.concatenate(frames)  # [frames v]
    return {roi: series[:, np.searchsorted(wanted, voxels)] for roi, voxels in rois_voxels.items()}


def require_grid(path: Path, image: nib.Nifti1Image, like: Path, shape: tuple[int, ...], affine: np.ndarray) -> None:
    """Raise InputError unless an image lies on the grid of the mask or labels `like`."""
    if image.shape[:3] != shape or not np.allclose(image.affine, affine, atol=1e-3):
        raise InputError(
            f"{path}: grid {image.shape[:3]} is not that of {like} {shape}; "
            "needs the same shape and affine (resample the mask or labels)"
        )


def _frames(image: nib.Nifti1Image, start: int, wanted: np.ndarray) -> np.ndarray:
    block = np.asarray(image.dataobj[..., start : start + FRAMES_AT_ONCE])  # [x y z frames]
    return block.reshape(-1, block.shape[-1])[wanted].T.astype(np.float32)


def open_nifti(path: Path, num_axes: int) -> nib.Nifti1Image:
    """A NIfTI image of 3 axes, or of 4. Raises InputError for any other file."""
    image: Any = open_image(path)
    # Some programs write the labels as a series of one volume, [x y z 1].
    too_many = any(size != 1 for size in image.shape[num_axes:]) if num_axes == 3 else len(image.shape) > num_axes
    if not isinstance(image, nib.Nifti1Image) or len(image.shape) < num_axes or too_many or 0 in image.shape:
        raise InputError(f"{path}: {type(image).__name__} of shape {image.shape}; needs a NIfTI of {num_axes} axes")
    if np.prod(image.shape[:3], dtype=object) > MAX_VOXELS:
        raise InputError(f"{path}: grid {image.shape[:3]}; needs at most {MAX_VOXELS} voxels a frame")
    return image


def _read_names(path: Path) -> dict[str, list[int]]:
    regions: dict[str, list[int]] = {}
    region_of: dict[int, str] = {}
    for number, line in enumerate(read_lines(path), start=1):
        words = re.split(r"[,;\s]+", line.strip(",; "))
        if not words or words[0].startswith("#"):
            continue
        if len(words) < 2 or not re.fullmatch("[0-9]{1,9}", words[0]):
            raise InputError(f"{path}: line {number} is {line!r}; needs `<label> <name>`")
        label, name = int(words[0]), bare_name(words[1])
        if label == 0:  # the background
            continue
        other = region_of.setdefault(label, name)
        if other != name:
            raise InputError(f"{path}: line {number}: label {label} is {name!r} and {other!r}; needs one name")
        regions.setdefault(name, []).append(label)
    if not regions:
        raise InputError(f"{path}: names no label; needs lines of `<label> <name>`")
    return regions

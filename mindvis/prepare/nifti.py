"""Brain images, opened with their axes and size checked and read by the slice: CIFTI-2 files and NIfTI volumes.

`VolumeRegions` reads the voxels of regions from volumes, `CiftiRegions` in parcellation.py those from CIFTI files.
"""

import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
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
from mindvis.common.texts import read_lines
from mindvis.data.hdf5 import H5_ERRORS
from mindvis.data.reading import require_file
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
class VolumeRegions:
    """The voxels of NIfTI volumes in regions of an image of integer labels, or, without names, where it is not 0.

    `names` is a file of lines `<label> <name>` (V1, L_V1 and R_V1 all belong to V1); no `rois` are all that it names.
    """

    labels: Path
    names: Path | None = None
    rois: Sequence[str] = ()

    @cached_property
    def regions(self) -> dict[str, np.ndarray]:
        """Region -> bool [x y z]. Raises InputError for one that has no label or no voxel."""
        labels = read_labels(self.labels)
        if self.names is None:
            return {"mask": labels != 0}
        known = _read_names(self.names)
        regions = {}
        for roi in self.rois or known:
            if roi not in known:
                found = f"the names file has no region {roi!r}; it has {', '.join(known)}"
                raise InputError(f"{self.labels}: {found}: choose with --rois")
            regions[roi] = np.isin(labels, known[roi])
            if not regions[roi].any():
                raise InputError(f"{self.labels}: no voxel of region {roi!r} (labels {known[roi]})")
        return regions

    @cached_property
    def inside(self) -> np.ndarray:
        """The voxels of any region: bool [x y z]."""
        inside = np.any(list(self.regions.values()), axis=0)
        if not inside.any():
            raise InputError(f"{self.labels}: selects none of {inside.size} voxels")
        return inside

    @property
    def masks(self) -> dict[str, np.ndarray]:
        """Region -> bool [v], which of the voxels that `read_one` gives are in it."""
        return {roi: mask[self.inside] for roi, mask in self.regions.items()}

    def check(self) -> None:
        """Raise InputError now for labels that would fail every image."""
        _ = self.inside

    def read(self, path: Path) -> dict[str, np.ndarray]:
        """Time series of the regions in a 4-D image, read a few frames at a time: each float32 [frames v]."""
        image = self._open(path, 4)
        with unreadable(f"{path}: unreadable time series", NIFTI_ERRORS):
            starts = range(0, image.shape[3], FRAMES_AT_ONCE)
            blocks = [np.asarray(image.dataobj[..., start : start + FRAMES_AT_ONCE])[self.inside] for start in starts]
        series = np.concatenate(blocks, axis=1).T.astype(np.float32)  # [frames v]
        return {roi: series[:, mask] for roi, mask in self.masks.items()}

    def read_one(self, path: Path, volume: int | None) -> np.ndarray:
        """One volume of a 4-D image, or, with None, an image of one: float32 [v]."""
        image = self._open(path, 3 if volume is None else 4)
        if volume is not None and volume >= image.shape[3]:
            raise InputError(f"{path}: has {image.shape[3]} volumes, the table names volume {volume} (from 0)")
        with unreadable(f"{path}: unreadable image", NIFTI_ERRORS):
            values = np.asarray(image.dataobj if volume is None else image.dataobj[..., volume], np.float32)
        return values.reshape(self.inside.shape)[self.inside]

    def _open(self, path: Path, num_axes: int) -> nib.Nifti1Image:
        """An image on the grid of the labels."""
        image, labels = open_nifti(path, num_axes), open_nifti(self.labels, 3)
        if image.shape[:3] != labels.shape[:3] or not np.allclose(image.affine, labels.affine, atol=1e-3):
            found = f"grid {image.shape[:3]} is not that of {self.labels} {labels.shape[:3]}"
            raise InputError(f"{path}: {found}; needs the same shape and affine (resample the mask or labels)")
        return image


def read_labels(path: Path) -> np.ndarray:
    """The whole numbers of a label image, int64 [x y z]. Raises InputError."""
    image = open_nifti(path, 3)
    with unreadable(f"{path}: unreadable labels", NIFTI_ERRORS):
        labels = np.asarray(image.dataobj).reshape(image.shape[:3])
    if not np.isfinite(labels).all() or not np.array_equal(labels, np.round(labels)):
        raise InputError(f"{path}: labels that are no whole numbers; needs an image of integer labels")
    return labels.astype(np.int64)


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

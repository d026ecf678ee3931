"""CIFTI-2 files: opened with their axes and size checked, read by the slice."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.cifti2 import BrainModelAxis, Cifti2Image, SeriesAxis
from nibabel.cifti2.cifti2 import Cifti2HeaderError
from nibabel.filebasedimages import ImageFileError
from nibabel.imageglobals import logger
from nibabel.spatialimages import HeaderDataError

from mindvis.common.errors import InputError
from mindvis.data.arrays import READ_ERRORS
from mindvis.data.reading import one_line

# 2048 series of 1200 float32 frames are 10 MB.
CHUNK = 2048
NIFTI_ERRORS = (
    *READ_ERRORS,
    ImageFileError,
    HeaderDataError,
    Cifti2HeaderError,
    MemoryError,
    TypeError,
    AttributeError,
    IndexError,
    OverflowError,
)


def open_cifti(path: Path, axes: tuple[type, type], needed: str) -> Cifti2Image:
    """Open a CIFTI file whose two axes are of the given types; `needed` names the kind of file in the error."""
    image = open_image(path)
    if not isinstance(image, Cifti2Image):
        raise InputError(f"{path}: {type(image).__name__}, no CIFTI file; needs {needed}")
    try:
        found = tuple(type(image.header.get_axis(i)) for i in range(len(image.shape)))
    except NIFTI_ERRORS as error:
        raise InputError(f"{path}: unreadable CIFTI header ({one_line(error)})") from None
    if found != axes:
        names = [" x ".join(axis.__name__ for axis in kind) for kind in (found, axes)]
        raise InputError(f"{path}: axes {names[0]}; needs {needed} with axes {names[1]}")
    _check_size(path, image)
    return image


def open_image(path: Path) -> nib.filebasedimages.FileBasedImage:
    """Open any file nibabel knows; raises InputError for one it does not."""
    try:
        with _silent():
            return nib.load(path, keep_file_open=True)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except Exception as error:  # the XML of a damaged CIFTI header fails in ways of its own
        raise InputError(f"{path}: not a readable NIfTI or CIFTI file ({one_line(error)})") from None


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
    try:
        series = _read_columns(image, wanted)  # [frames v]
    except NIFTI_ERRORS as error:
        raise InputError(f"{path}: unreadable time series ({one_line(error)})") from None
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
    proxy = image.dataobj
    wanted = tuple(len(image.header.get_axis(i)) for i in range(2))
    if tuple(proxy.shape) != wanted:
        raise InputError(f"{path}: shape {tuple(proxy.shape)}; needs {wanted}, the lengths of its axes")
    needed = proxy.offset + int(np.prod(proxy.shape, dtype=object)) * proxy.dtype.itemsize
    found = path.stat().st_size
    if path.suffix == ".nii" and found < needed:
        raise InputError(f"{path}: truncated, {found} bytes; needs {needed} for shape {wanted}")

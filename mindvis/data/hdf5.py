"""HDF5 files: opened with one clear line about what is wrong, their arrays read row by row or mapped."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from mindvis.common.errors import InputError, unreadable
from mindvis.data.arrays import READ_ERRORS, check_expansion
from mindvis.data.reading import require_file
from mindvis.data.rows import MappedArray

H5_ERRORS: tuple[type[Exception], ...] = (*READ_ERRORS, TypeError, AttributeError, IndexError, OverflowError)


def h5py_module() -> ModuleType:
    """The library h5py. Raises InputError where it is not installed."""
    try:
        import h5py
    except ImportError:
        raise InputError("h5py is not installed: `pip install mindvis[prepare]` brings it") from None
    return h5py


@contextmanager
def open_hdf5(path: str | Path, needed: str) -> Iterator[Any]:
    """The open file; what cannot be read in it is an InputError that ends with what is `needed`."""
    h5py = h5py_module()
    require_file(path, needed)
    with unreadable(f"{path}: not readable", H5_ERRORS, f"needs {needed}"), h5py.File(path, "r") as file:
        yield file


def require_member(where: str | Path, group: Any, name: str) -> Any:
    """A group or data set by name. Raises InputError that lists what there is."""
    if name not in group:
        raise InputError(f"{where}: no {name!r}, has {', '.join(group) or 'nothing'}")
    return group[name]


def text_of(value: Any) -> str:
    """An attribute as text: bytes, str, or an array of one of them."""
    value = value.item() if isinstance(value, np.ndarray) and value.size == 1 else value
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


class HDF5Rows:
    """The rows [..] of a data set [n ..] that stays in its file; it pickles as its place, not as its numbers."""

    def __init__(self, path: str | Path, name: str, shape: tuple[int, ...], dtype: np.dtype):
        self.path, self.name, self.shape, self.dtype = str(path), name, shape, dtype
        self._opened: tuple[int, Any] | None = None  # process and data set: an open file does not survive a fork

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int | slice) -> np.ndarray:
        """One row [..] or consecutive rows [m ..]. Raises InputError where the file is damaged."""
        with unreadable(f"{self.path}: row {index} of {self.name!r} is not readable", H5_ERRORS):
            return self._dataset()[index]

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_opened": None}

    def _dataset(self) -> Any:
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), h5py_module().File(self.path, "r")[self.name]
        return self._opened[1]


def rows_of(path: Path, dataset: Any) -> MappedArray | HDF5Rows:
    """The rows of a data set [n ..], mapped where the file keeps them in one piece. Raises InputError for a bomb."""
    check_expansion(f"{path}: {dataset.name}", stored=dataset.id.get_storage_size(), declared=dataset.nbytes)
    lazy = HDF5Rows(path, dataset.name, dataset.shape, dataset.dtype)
    offset = dataset.id.get_offset()  # None where the numbers are not in one piece, or are compressed
    if offset is None or offset + dataset.nbytes > path.stat().st_size:
        return lazy
    mapped = MappedArray(str(path), dataset.dtype, dataset.shape, offset)
    return mapped if np.array_equal(mapped[0], dataset[0]) else lazy  # a file may begin with a block of the user's

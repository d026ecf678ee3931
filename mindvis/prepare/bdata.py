"""BData files of the Kamitani lab: one matrix whose columns are voxels, labels and run numbers, described by metadata.

Two forms hold the same: HDF5 as the bdpy library writes it (`dataset` [rows columns]; `metadata/key`, `metadata/value`
[keys columns]) and MATLAB v7.3 (`dataSet`, `metaData`, both transposed, names behind references).
"""

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from mindvis.common.errors import InputError
from mindvis.prepare.files import READ_ERRORS, check_expansion, one_line

H5_ERRORS = (*READ_ERRORS, TypeError, AttributeError, UnicodeDecodeError, MemoryError, IndexError)


@dataclass(frozen=True)
class BData:
    """The matrix of one file [rows columns] and for each metadata key which columns it marks, bool [columns]."""

    path: Path
    matrix: np.ndarray
    columns: dict[str, np.ndarray]

    def select(self, key: str) -> np.ndarray:
        """Columns marked by `key`: float [rows columns]."""
        if key not in self.columns:
            raise InputError(f"{self.path}: no metadata key {key!r}; it has {', '.join(self.columns)}")
        if not self.columns[key].any():
            raise InputError(f"{self.path}: metadata key {key!r} marks no column")
        return self.matrix[:, self.columns[key]]

    def one(self, *keys: str) -> np.ndarray:
        """The one column marked by the first of `keys` that is present: float [rows]."""
        key = next((key for key in keys if key in self.columns), keys[0])
        found = self.select(key)
        if found.shape[1] != 1:
            raise InputError(f"{self.path}: metadata key {key!r} marks {found.shape[1]} columns, needs 1")
        if not np.isfinite(found).all():
            raise InputError(f"{self.path}: column {key!r} holds NaN or infinity")
        return found[:, 0]

    def rois(self) -> dict[str, np.ndarray]:
        """Region -> bool [voxels], of the columns that `VoxelData` marks."""
        voxels = self.columns["VoxelData"]
        return {key.removeprefix("ROI_"): mask[voxels] for key, mask in self.columns.items() if key.startswith("ROI_")}


def read_bdata(path: Path) -> BData:
    """Read either form; raises InputError for a file that is not HDF5, is damaged or lacks a part."""
    h5py = _h5py()
    try:
        with h5py.File(path, "r") as file:
            return _read(path, file)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except InputError:
        raise
    except H5_ERRORS as error:
        hint = "needs BData as HDF5 or MATLAB v7.3 (`save -v7.3`)"
        raise InputError(f"{path}: not readable ({one_line(error)}); {hint}") from None


def _read(path: Path, file: Any) -> BData:
    stored = _first(path, file, "dataset", "dataSet")
    metadata = _first(path, file, "metadata", "metaData")
    for part in ("key", "value"):
        if part not in metadata:
            raise InputError(f"{path}: {metadata.name} has no {part!r}; needs key and value")
    matrix = _array(path, stored)
    is_matlab = metadata["key"].dtype.kind == "O" and "MATLAB_class" in metadata["key"].attrs
    names, values = (_matlab if is_matlab else _bdpy)(path, file, metadata)
    matrix = matrix.T if is_matlab else matrix
    if matrix.ndim != 2 or values.shape != (len(names), matrix.shape[1]):
        raise InputError(
            f"{path}: metadata value {values.shape} for {len(names)} keys and a data set of shape {matrix.shape}; "
            "needs [keys columns] and [rows columns]"
        )
    # A key marks its columns with 1; every other column holds NaN (or 0, in an ROI).
    return BData(path, matrix, {name: row == 1 for name, row in zip(names, values, strict=True)})


def _bdpy(path: Path, file: Any, metadata: Any) -> tuple[list[str], np.ndarray]:
    names = [key.decode() if isinstance(key, bytes) else str(key) for key in metadata["key"][()].ravel()]
    return names, _array(path, metadata["value"])


def _matlab(path: Path, file: Any, metadata: Any) -> tuple[list[str], np.ndarray]:
    names = ["".join(map(chr, file[reference][()].ravel())) for reference in metadata["key"][()].ravel()]
    value = metadata["value"]
    if value.dtype.kind != "O":
        return names, _array(path, value).T
    # A struct array instead of a struct of arrays: one reference a key.
    return names, np.stack([_array(path, file[reference]).ravel() for reference in value[()].ravel()])


def _array(path: Path, stored: Any) -> np.ndarray:
    if stored.dtype.kind not in "fiu":
        raise InputError(f"{path}: {stored.name} is of type {stored.dtype}, needs numbers")
    check_expansion(path, stored.name, stored=stored.id.get_storage_size(), declared=stored.nbytes)
    return np.asarray(stored[()], dtype=np.float64)


def _first(path: Path, file: Any, *names: str) -> Any:
    for name in names:
        if name in file:
            return file[name]
    raise InputError(f"{path}: no {' or '.join(names)}; it has {', '.join(file) or 'nothing'}")


def _h5py() -> ModuleType:
    try:
        import h5py
    except ImportError:
        raise InputError("h5py is not installed: `pip install mindvis[prepare]` brings it") from None
    return h5py

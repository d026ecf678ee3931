"""BData files of the Kamitani lab: one matrix whose columns are voxels, labels and run numbers, described by metadata.

Two forms hold the same: HDF5 as the bdpy library writes it (`dataset` [rows columns]; `metadata/key`, `metadata/value`
[keys columns]) and MATLAB v7.3 (`dataSet`, `metaData`, both transposed, names behind references).
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mindvis.common.errors import InputError
from mindvis.data.arrays import check_expansion
from mindvis.data.hdf5 import H5_ERRORS, h5py_module, open_hdf5, text_of

MATRIX, METADATA = ("dataset", "dataSet"), ("metadata", "metaData")  # as bdpy and as MATLAB name them
MATLAB_OBJECT = 0xDD000000  # begins what MATLAB keeps in place of an object of one of its classes


@dataclass(frozen=True)
class BData:
    """The matrix of one file [rows columns] and for each metadata key which columns it marks, bool [columns].

    `stored` is the type of the numbers in the file.
    """

    path: Path
    matrix: np.ndarray
    columns: dict[str, np.ndarray]
    stored: np.dtype

    @property
    def is_narrow(self) -> bool:
        """Whether the file keeps fewer digits than stimulus ids have."""
        return self.stored.kind == "f" and self.stored.itemsize < 8

    def rows(self, chosen: np.ndarray) -> "BData":
        """The rows where `chosen`, bool [rows], is true."""
        return replace(self, matrix=self.matrix[chosen])

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
    with open_hdf5(path, "BData as HDF5 or MATLAB v7.3 (`save -v7.3`)") as file:
        stored = _first(path, file, *MATRIX)
        metadata = _first(path, file, *METADATA)
        for part in ("key", "value"):
            if part not in metadata:
                raise InputError(f"{path}: {metadata.name} has no {part!r}; needs key and value")
        matrix = _array(path, stored)
        if metadata["key"].dtype.kind == "O" and "MATLAB_class" in metadata["key"].attrs:
            matrix = matrix.T
            names, values = _matlab(path, file, metadata)
        else:
            names = [text_of(key) for key in metadata["key"][()].ravel()]
            values = _array(path, metadata["value"])
        if matrix.ndim != 2 or values.shape != (len(names), matrix.shape[1]):
            found = f"metadata value {values.shape} for {len(names)} keys and a data set of shape {matrix.shape}"
            raise InputError(f"{path}: {found}; needs [keys columns] and [rows columns]")
        # A key marks its columns with 1; every other column holds NaN (or 0, in an ROI).
        columns = {name: row == 1 for name, row in zip(names, values, strict=True)}
        return BData(path, matrix, columns, stored.dtype)


def is_bdata(path: Path) -> bool:
    """Whether a file is HDF5 with a part of BData; True for one that cannot be opened: `read_bdata` then refuses it."""
    try:
        with h5py_module().File(path, "r") as file:
            return any(name in file for name in (*MATRIX, *METADATA))
    except H5_ERRORS as error:
        if isinstance(error, InputError):
            raise
        return True


def _matlab(path: Path, file: Any, metadata: Any) -> tuple[list[str], np.ndarray]:
    names = [_matlab_text(path, file[reference]) for reference in metadata["key"][()].ravel()]
    value = metadata["value"]
    if value.dtype.kind != "O":
        return names, _array(path, value).T
    # A struct array instead of a struct of arrays: one reference a key.
    return names, np.stack([_array(path, file[reference]).ravel() for reference in value[()].ravel()])


def _matlab_text(path: Path, stored: Any) -> str:
    codes = stored[()].ravel()
    if codes.dtype.kind not in "iu" or (codes == MATLAB_OBJECT).any():
        kind = "MATLAB strings" if codes.dtype.kind in "iu" else str(codes.dtype)
        raise InputError(f"{path}: metadata keys are {kind}, needs char: save cellstr(metaData.key) in their place")
    return "".join(map(chr, codes))


def _array(path: Path, stored: Any) -> np.ndarray:
    if stored.dtype.kind not in "fiu":
        raise InputError(f"{path}: {stored.name} is of type {stored.dtype}, needs numbers")
    check_expansion(f"{path}: {stored.name}", stored=stored.id.get_storage_size(), declared=stored.nbytes)
    return np.asarray(stored[()], dtype=np.float64)


def _first(path: Path, file: Any, *names: str) -> Any:
    for name in names:
        if name in file:
            return file[name]
    raise InputError(f"{path}: no {' or '.join(names)}; it has {', '.join(file) or 'nothing'}")

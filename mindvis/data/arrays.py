"""Arrays as they enter: read without pickles, checked, refused in one line that names the file and the array."""

import math
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from mindvis.common.errors import InputError, beside

READ_ERRORS = (OSError, ValueError, EOFError, MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error)
LARGEST_EXACT = 2**24  # integers beyond it are not kept by float32, so they are no measurements


def require_folder(path: str | Path, what: str) -> Path:
    """The folder as a Path. Raises InputError when it is missing."""
    folder = Path(path)
    if not folder.is_dir():
        raise InputError("; ".join(filter(None, (f"{folder}: no such folder, needs {what}", beside(folder)))))
    return folder


def require_choice(value: str, available: Iterable[str], label: str) -> str:
    """`value`, if it is among `available`. Raises InputError that lists what there is."""
    names = list(available)
    if value not in names:
        raise InputError(f"{label} {value!r} is unknown, available: {', '.join(names) or 'none'}")
    return value


def require_rows(array: Sequence | np.ndarray, num_rows: int, label: str, counterpart: str) -> None:
    """Raises InputError unless `array` has as many rows as its counterpart."""
    if len(array) != num_rows:
        raise InputError(f"{label} has {len(array)} rows, {counterpart} has {num_rows}: they must agree")


def check_real(array: np.ndarray, label: str, ndim: int = 2) -> np.ndarray:
    """Numeric, finite (in float32 too), not empty and of `ndim` dimensions. Raises InputError."""
    if array.dtype.kind not in "fiu":
        raise InputError(f"{label} is of type {array.dtype}, needs real numbers")
    check_shape(array, label, ndim)
    lowest, highest = array.min(), array.max()
    bound = np.finfo(np.float32).max if array.dtype.kind == "f" else LARGEST_EXACT
    if not (-bound <= lowest and highest <= bound):
        raise InputError(f"{label} has {_fault(array)}, needs finite float32 values")
    return array


def check_shape(array: np.ndarray, label: str, ndim: int) -> np.ndarray:
    """Of `ndim` dimensions, none of them empty. Raises InputError."""
    if array.ndim != ndim or 0 in array.shape:
        raise InputError(f"{label} has shape {list(array.shape)}, needs {ndim} dimensions, none of them empty")
    return array


def check_images(array: np.ndarray, label: str) -> np.ndarray:
    """uint8 [n h w 3]. Raises InputError."""
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[-1] != 3 or 0 in array.shape:
        raise InputError(f"{label} is {array.dtype} {list(array.shape)}, needs uint8 images [n h w 3]")
    return array


def check_indices(array: np.ndarray, label: str, high: int) -> np.ndarray:
    """Integers [n] in 0 .. high - 1 (whole numbers kept as floats too). Raises InputError."""
    check_real(array, label, ndim=1)
    indices = array.astype(np.int64)
    if (indices != array).any():
        raise InputError(f"{label} has values that are no whole numbers, needs indices")
    if indices.min() < 0 or indices.max() >= high:
        raise InputError(f"{label} spans {indices.min()} .. {indices.max()}, needs indices in 0 .. {high - 1}")
    return indices


def check_mask(array: np.ndarray, label: str, num_voxels: int) -> np.ndarray:
    """Boolean [v] with one voxel at least. Raises InputError."""
    if array.dtype != bool or array.shape != (num_voxels,):
        raise InputError(f"{label} is {array.dtype} {list(array.shape)}, needs a boolean over {num_voxels} voxels")
    if not array.any():
        raise InputError(f"{label} selects none of {num_voxels} voxels")
    return array


class NpzReader:
    """The arrays of one .npz file by name. Raises InputError when the file is missing, broken or no .npz."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if not self.path.is_file():
            raise InputError(f"{self.path}: no such file")
        try:
            self._npz = np.lib.npyio.NpzFile(str(self.path), allow_pickle=False)  # type: ignore[arg-type]
        except READ_ERRORS as error:
            raise InputError(f"{self.path}: no readable .npz file ({_first_line(error)})") from error
        self.names = list(self._npz.files)

    def __enter__(self) -> "NpzReader":
        return self

    def __exit__(self, *_: object) -> None:
        self._npz.close()

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def label(self, name: str) -> str:
        """How messages name an array of this file."""
        return f"{self.path}: array {name!r}"

    def raw(self, name: str) -> np.ndarray:
        """An array as it lies in the file. Raises InputError when it is missing, unreadable or of objects."""
        self._layout(name)  # refuses what is better not read at all
        try:
            return self._npz[name]
        except READ_ERRORS as error:
            raise InputError(f"{self.label(name)} cannot be read ({_first_line(error)})") from error

    def real(self, name: str, ndim: int = 2) -> np.ndarray:
        """A finite numeric array, see `check_real`."""
        return check_real(self.raw(name), self.label(name), ndim)

    def header(self, name: str) -> tuple[tuple[int, ...], np.dtype]:
        """Shape and type of an array, without reading it."""
        _, shape, _, dtype = self._layout(name)
        return shape, dtype

    def mapped(self, name: str) -> np.memmap | None:
        """The array mapped from the file, or None where compression (or column order) does not allow it."""
        member = self._member(name)
        header_bytes, shape, by_column, dtype = self._layout(name)
        if member.compress_type != zipfile.ZIP_STORED or by_column:
            return None
        with self.path.open("rb") as file:
            file.seek(member.header_offset + 26)  # lengths of name and extra field in the local header of a zip member
            name_and_extra = sum(int.from_bytes(file.read(2), "little") for _ in range(2))
        start = member.header_offset + 30 + name_and_extra + header_bytes
        return np.memmap(self.path, dtype, mode="r", offset=start, shape=shape)

    def _require(self, name: str) -> None:
        if name not in self.names:
            raise InputError(f"{self.path}: no array {name!r}, has {', '.join(self.names) or 'none'}")

    @property
    def _archive(self) -> zipfile.ZipFile:
        assert self._npz.zip is not None, "closed"
        return self._npz.zip

    def _member(self, name: str) -> zipfile.ZipInfo:
        self._require(name)
        members = self._archive.namelist()
        return self._archive.getinfo(name if name in members else f"{name}.npy")

    def _layout(self, name: str) -> tuple[int, tuple[int, ...], bool, np.dtype]:
        member = self._member(name)
        try:
            with self._archive.open(member) as file:
                version = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, by_column, dtype = read(file)
                header_bytes = file.tell()
        except READ_ERRORS as error:
            raise InputError(f"{self.label(name)} cannot be read ({_first_line(error)})") from error
        if dtype.hasobject:
            raise InputError(f"{self.label(name)} holds Python objects, needs numbers or text")
        if math.prod(shape) * dtype.itemsize != member.file_size - header_bytes:
            raise InputError(f"{self.label(name)} says shape {list(shape)}, which its {member.file_size} bytes are not")
        return header_bytes, shape, by_column, dtype


def load_npy(path: str | Path, mmap: bool = False) -> np.ndarray:
    """The array of one .npy file, mapped or read, never unpickled. Raises InputError when missing or broken."""
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file")
    try:
        array = np.load(path, mmap_mode="r" if mmap else None, allow_pickle=False)
    except READ_ERRORS as error:
        raise InputError(f"{path}: no readable .npy file ({_first_line(error)})") from error
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path}: an archive of arrays, needs a single .npy array")
    return array


def _fault(array: np.ndarray) -> str:
    if array.dtype.kind != "f":
        return f"integers beyond {LARGEST_EXACT}"
    num_bad = int((~np.isfinite(array)).sum())
    return f"{num_bad} NaN or infinite of {array.size} values" if num_bad else f"values up to {np.abs(array).max():.3g}"


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]

"""Arrays as they enter: a file's arrays are declared once and checked when it is opened, never unpickled.

Every refusal is one line that names the file and the array, what was found and what is needed.
"""

import logging
import math
import mmap
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mindvis.common.errors import InputError, reading, unreadable
from mindvis.common.safe_pickle import SafeUnpickler, refuse
from mindvis.data.reading import require_file
from mindvis.data.voxels import ABSURD

log = logging.getLogger(__name__)

READ_ERRORS: tuple[type[Exception], ...] = (OSError, ValueError, EOFError, MemoryError, RuntimeError, KeyError)
READ_ERRORS += (SyntaxError, tokenize.TokenError, zipfile.BadZipFile, zlib.error)  # headers of arrays are Python
LARGEST_EXACT = 2**24  # integers beyond it are not kept by float32, so they are no measurements
BLOCK = 1024  # rows gone through at a time: arrays may be mapped
# Recorded signals and photographs shrink two- or threefold. What grows a hundredfold and is large is no recording.
MAX_EXPANSION = 100
SMALL_BYTES = 64 * 2**20

Kind = Literal["real", "images", "index", "mask", "label"]
TYPES: dict[Kind, tuple[str, str]] = {
    "real": ("fiu", "real numbers"),
    "images": ("u", "uint8 images"),
    "index": ("fiu", "indices"),
    "mask": ("b", "a boolean"),
    "label": ("USiuf", "one text or number per row"),
}


@dataclass(frozen=True)
class Array:
    """One array of a file: what it holds, its shape in letters, and whether it may be absent.

    `shape`: "n v"; the same letter is the same size in every array of the file, a digit is that size. An "index" lies
    in 0 .. size - 1 of the letter `below` (where that is not known, it is any whole number from 0 on).
    """

    name: str
    kind: Kind
    shape: str
    below: str | None = None
    optional: bool = False

    @property
    def needs(self) -> str:
        return f"{TYPES[self.kind][1]} [{self.shape}]"


FMRI, IMAGES = Array("fmri", "real", "n v"), Array("images", "images", "n h w 3")

Rows = Any  # an array, or rows that stay in their file: anything with shape, dtype, len() and slices
Sizes = Mapping[str, tuple[int, str]]  # letter -> its size, and what says so


def check_shapes(
    arrays: Mapping[str, Any], declared: Sequence[Array], where: str | Path, sizes: Sizes | None = None
) -> Sizes:
    """Names, types and shapes of `arrays` (anything with `shape` and `dtype`); gives the sizes of all letters.

    `sizes` are those known from elsewhere. Raises InputError.
    """
    known = dict(sizes or {})
    for item in declared:
        if item.name in arrays:
            _check_shape(arrays[item.name], item, f"{where}: array {item.name!r}", known)
        elif not item.optional:
            raise InputError(f"{where}: no array {item.name!r}, has {', '.join(arrays) or 'none'}")
    return known


def check_values(values: Rows, item: Array, label: str, sizes: Sizes) -> Any:
    """The array itself, indices as int64. Raises InputError for values that its kind does not have."""
    if item.kind in ("real", "index"):
        _check_finite(values, label)
    if item.kind == "index":
        return _whole_numbers(values, label, sizes.get(item.below or "", (LARGEST_EXACT, ""))[0])
    if item.kind == "mask" and not item.optional and not values.any():
        raise InputError(f"{label} selects none of {values.shape[-1]} voxels")
    return values


def check_arrays(
    arrays: Mapping[str, Any],
    declared: Sequence[Array],
    where: str | Path,
    read: Callable[[str], Any] | None = None,
    **sizes: tuple[int, str],
) -> dict[str, Any]:
    """Those of the declared arrays that are there, by `read` if given: shapes first, then values. Raises InputError."""
    known = check_shapes(arrays, declared, where, sizes)
    read = read or arrays.__getitem__
    there = [item for item in declared if item.name in arrays]
    return {item.name: check_values(read(item.name), item, f"{where}: array {item.name!r}", known) for item in there}


def check_array(array: Any, item: Array, label: str, **sizes: tuple[int, str]) -> Any:
    """One array that comes alone, checked as `check_arrays` does; `label` names it in the InputError."""
    known = dict(sizes)
    _check_shape(array, item, label, known)
    return check_values(array, item, label, known)


def _check_shape(array: Any, item: Array, label: str, known: dict[str, tuple[int, str]]) -> None:
    kinds, found = TYPES[item.kind][0], f"{array.dtype} {list(array.shape)}"
    if array.dtype.kind not in kinds or (item.kind == "images" and array.dtype != np.uint8):
        raise InputError(f"{label} is {found}, needs {item.needs}")
    letters = item.shape.split()
    if len(letters) != len(array.shape) or 0 in array.shape:
        raise InputError(f"{label} is {found}, needs {item.needs}, none of them empty")
    for letter, size in zip(letters, array.shape, strict=True):
        needed, origin = (int(letter), "") if letter.isdecimal() else known.setdefault(letter, (size, item.name))
        if size != needed:
            meaning = f" with {letter} = {needed} as in {origin}" if origin else ""
            raise InputError(f"{label} is {found}, needs {item.needs}{meaning}")


def require_choice(value: str, available: Iterable[str], label: str) -> str:
    """`value`, if it is among `available`. Raises InputError that lists what there is."""
    names = list(available)
    if value not in names:
        raise InputError(f"{label} {value!r} is unknown, available: {', '.join(names) or 'none'}")
    return value


def require_rows(array: Sized, num_rows: int, label: str, counterpart: str) -> None:
    """Raises InputError unless `array` has as many rows as its counterpart."""
    if len(array) != num_rows:
        raise InputError(f"{label} has {len(array)} rows, {counterpart} has {num_rows}: they must agree")


def check_indices(indices: Sequence[int] | np.ndarray, name: str, high: int) -> np.ndarray:
    """Whole numbers [n] in 0 .. high - 1, as int64. Raises InputError."""
    return check_array(np.asarray(indices), Array(name, "index", "n", below="i"), name, i=(high, ""))


def _check_finite(array: Rows, label: str) -> None:
    """Raises InputError for values that are not finite in float32; absurd ones are named in the log. By blocks."""
    is_float = array.dtype.kind == "f"
    most, bound = (float(np.finfo(np.float32).max), ABSURD) if is_float else (LARGEST_EXACT, LARGEST_EXACT)
    starts = range(0, len(array), BLOCK)
    faults = [fault for start in starts if (fault := _fault(array[start : start + BLOCK], bound))]
    num_bad, largest = sum(bad for bad, _ in faults), max((value for _, value in faults), default=0)
    if num_bad:
        total = math.prod(array.shape)
        raise InputError(f"{label} has {num_bad} NaN or infinite of {total} values, needs finite values")
    if largest > most:
        raise InputError(f"{label} has values up to {largest:.3g}, needs values of at most {most:.3g}")
    if faults:
        log.warning("%s has a value of %.3g in size, which no measurement comes near", label, largest)


def _fault(block: np.ndarray, bound: float) -> tuple[int, float] | None:
    """Number of values that are not finite, and the largest one; None where nothing is wrong."""
    lowest, highest = float(block.min()), float(block.max())
    if -bound <= lowest and highest <= bound:
        return None
    return int((~np.isfinite(block)).sum()), max(-lowest, highest)


def _whole_numbers(array: np.ndarray, label: str, high: int) -> np.ndarray:
    indices = array.astype(np.int64)
    if (indices != array).any():
        raise InputError(f"{label} has values that are no whole numbers, needs indices")
    if indices.min() < 0 or indices.max() >= high:
        raise InputError(f"{label} spans {indices.min()} .. {indices.max()}, needs indices in 0 .. {high - 1}")
    return indices


@dataclass(frozen=True)
class Header:
    """Shape and type of an array in an .npz file, and where its numbers begin."""

    shape: tuple[int, ...]
    dtype: np.dtype
    by_column: bool
    num_bytes: int


class NpzReader(Mapping):
    """The headers of the arrays of one .npz file by name, and the arrays.

    Raises InputError when the file is missing, broken or no .npz, and for an array of Python objects, or one declared
    larger than the file can hold.
    """

    def __init__(self, path: str | Path):
        self.path = require_file(path)
        with unreadable(f"{self.path}: no readable .npz file", READ_ERRORS):
            self._npz = np.lib.npyio.NpzFile(str(self.path), allow_pickle=False)  # type: ignore[arg-type]

    def __enter__(self) -> "NpzReader":
        return self

    def __exit__(self, *_: object) -> None:
        self._npz.close()

    def __iter__(self):
        return iter(self._npz.files)

    def __len__(self) -> int:
        return len(self._npz.files)

    def __contains__(self, name: object) -> bool:
        return name in self._npz.files

    def label(self, name: str) -> str:
        """How messages name an array of this file."""
        return f"{self.path}: array {name!r}"

    def __getitem__(self, name: str) -> Header:
        """Shape and type of an array, without reading it."""
        member = self._member(name)
        with unreadable(f"{self.label(name)} cannot be read", READ_ERRORS), self._archive.open(member) as file:
            shape, by_column, dtype = _read_header(file)
            header = Header(shape, dtype, by_column, file.tell())
        if dtype.hasobject:
            raise InputError(f"{self.label(name)} holds Python objects, needs numbers or text")
        if math.prod(shape) * dtype.itemsize != member.file_size - header.num_bytes:
            raise InputError(f"{self.label(name)} says shape {list(shape)}, which its {member.file_size} bytes are not")
        check_expansion(self.label(name), stored=member.compress_size, declared=member.file_size)
        return header

    def raw(self, name: str) -> np.ndarray:
        """An array as it lies in the file."""
        _ = self[name]
        with unreadable(f"{self.label(name)} cannot be read", READ_ERRORS):
            return self._npz[name]

    def mapped(self, name: str) -> np.memmap | None:
        """The array mapped from the file, or None where it is compressed or in column order."""
        member, header = self._member(name), self[name]
        if member.compress_type != zipfile.ZIP_STORED or header.by_column:
            return None
        with self.path.open("rb") as file:
            file.seek(member.header_offset + 26)  # lengths of name and extra field in the local header of a zip member
            name_and_extra = sum(int.from_bytes(file.read(2), "little") for _ in range(2))
        start = member.header_offset + 30 + name_and_extra + header.num_bytes
        return np.memmap(self.path, header.dtype, mode="r", offset=start, shape=header.shape)

    def read(self, declared: Sequence[Array], **sizes: tuple[int, str]) -> dict[str, np.ndarray]:
        """Those of the declared arrays that are there; their shapes are checked before anything is read."""
        return check_arrays(self, declared, self.path, self.raw, **sizes)

    @property
    def _archive(self) -> zipfile.ZipFile:
        assert self._npz.zip is not None, "closed"
        return self._npz.zip

    def _member(self, name: str) -> zipfile.ZipInfo:
        if name not in self:
            raise InputError(f"{self.path}: no array {name!r}, has {', '.join(self) or 'none'}")
        members = self._archive.namelist()
        return self._archive.getinfo(name if name in members else f"{name}.npy")


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    """Every array of an .npz file, as it lies there. Raises InputError as `NpzReader`."""
    with NpzReader(path) as npz:
        return {name: npz.raw(name) for name in npz}


def load_npy(path: str | Path, mmap: bool = False) -> np.ndarray:
    """The array of one .npy file, mapped or read, never unpickled. Raises InputError when missing or broken."""
    path = require_file(path)
    if zipfile.is_zipfile(path):
        raise InputError(f"{path}: an archive of arrays, needs a single .npy array")
    with unreadable(f"{path}: no readable .npy file", READ_ERRORS), path.open("rb") as file:
        if _read_header(file)[2].hasobject:
            raise InputError(f"{path}: holds Python objects, needs numbers or text")
        return np.load(path, mmap_mode="r" if mmap else None, allow_pickle=False)


def load_object_npy(path: str | Path) -> object:
    """The object in a .npy file: an object array, or what it holds where it has no axes (a saved dict).

    Raises InputError where the file is no .npy file, is cut short or its pickle does more than hold data.
    """
    path = Path(path)
    with reading(path), path.open("rb") as file:
        _, _, dtype = _read_header(file)
        if not dtype.hasobject:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        # mapped, so that a false size inside the pickle reads to the end of the file and allocates nothing
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            content.seek(file.tell())
            array = SafeUnpickler(content).load()
        return array[()] if isinstance(array, np.ndarray) else refuse(f"a {type(array).__name__} instead of an array")


def _read_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether it is by column, and type of an array of the .npy format."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(file)


def as_texts(labels: np.ndarray) -> np.ndarray:
    """Labels as text: bytes as UTF-8, numbers as they are written, blanks at the ends left out."""
    return np.char.strip(np.char.decode(labels, "utf-8", "replace") if labels.dtype.kind == "S" else labels.astype(str))


def check_expansion(label: str, *, stored: int, declared: int) -> None:
    """Refuse an array that is kept in few bytes and declares very many (a zip or HDF5 bomb)."""
    if declared > SMALL_BYTES and declared > MAX_EXPANSION * max(stored, 1):
        reason = f"damaged or malicious (at most {MAX_EXPANSION} times the stored size is read)"
        raise InputError(f"{label} declares {declared} bytes and is kept in {stored}: {reason}")

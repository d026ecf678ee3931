"""Rows that stay on disk: mapped arrays read one row at a time, and rows computed once from many files.

Memory and start-up stay flat in the number of rows and of files.
"""

import hashlib
import json
import logging
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mindvis.common.errors import InputError
from mindvis.data.arrays import load_npy
from mindvis.data.voxels import common_length, pad_to

log = logging.getLogger(__name__)

FORMAT = 2  # raise when what is computed changes, so that older caches are made anew

Build = Callable[[], tuple[tuple[int, int], Iterator[np.ndarray], dict]]  # shape, blocks of rows, facts


@dataclass(frozen=True)
class MappedArray:
    """An array [n ..] in a file that has been checked already; it pickles as its place, not as its numbers.

    Rows are read, not paged in: pages of a map that have been touched would count as memory of the process, which then
    grew with the data set after all.
    """

    path: str
    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int

    @classmethod
    def of(cls, array: np.ndarray) -> "MappedArray":
        """From a whole map (not a view of one) in row order."""
        assert isinstance(array, np.memmap)
        return cls(str(array.filename), array.dtype, array.shape, array.offset)

    @property
    def array(self) -> np.memmap:
        """The map itself, read-only."""
        return np.memmap(self.path, self.dtype, mode="r", offset=self.offset, shape=self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int | slice) -> np.ndarray:
        """One row [..], or consecutive rows [m ..], as a copy in memory."""
        start, stop, _ = index.indices(len(self)) if isinstance(index, slice) else (index, index + 1, 1)
        row = math.prod(self.shape[1:])
        offset = self.offset + start * row * self.dtype.itemsize
        rows = np.fromfile(self.path, self.dtype, count=max(stop - start, 0) * row, offset=offset)
        return rows.reshape(-1, *self.shape[1:]) if isinstance(index, slice) else rows.reshape(self.shape[1:])


class VoxelRows:
    """Rows of one or more sources [n_i v_i] as one float32 [n v], each brought to it when read.

    A row is taken from its source, reduced to `columns` (an index of voxels), scaled to (row - mean) / deviation and
    padded or cut to the common length. `mean` and `deviation` are one number, or a number or a row of voxels for each
    of g groups, [g] or [g v]; `group` [n] says which group a row is of (default: each row is its own).
    """

    dtype = np.dtype(np.float32)
    ndim = 2

    def __init__(
        self,
        sources: Sequence["np.ndarray | MappedArray | VoxelRows | MeanRows"],
        *,
        columns: np.ndarray | None = None,
        mean: float | np.ndarray = 0.0,
        deviation: float | np.ndarray = 1.0,
        group: np.ndarray | None = None,
        num_voxels: int | None = None,
        pad_mode: str = "wrap",
    ):
        self.sources, self.columns, self.pad_mode = list(sources), columns, pad_mode
        lengths = [source.shape[1] if columns is None else len(columns) for source in self.sources]
        self.num_voxels = num_voxels or common_length(lengths, pad_mode)
        counts = [len(source) for source in self.sources]
        self._source = np.repeat(np.arange(len(counts)), counts)  # [n]
        self._row = np.concatenate([np.arange(count) for count in counts])  # [n]
        self._mean = np.atleast_1d(np.asarray(mean, np.float32))  # [g] or [g v]
        self._deviation = np.atleast_1d(np.asarray(deviation, np.float32))
        own = np.arange(len(self._row)) if len(self._mean) > 1 else np.zeros(len(self._row), np.int64)
        self._group = own if group is None else group  # [n]

    @property
    def shape(self) -> tuple[int, int]:
        return len(self._row), self.num_voxels

    def __len__(self) -> int:
        return len(self._row)

    def __getitem__(self, index: "int | slice | np.ndarray") -> np.ndarray:
        """One row [v], or the rows of a slice or an index array, [m v]."""
        if isinstance(index, (int, np.integer)):
            return self._read(index)
        wanted = np.arange(len(self))[index]
        return np.stack([self._read(i) for i in wanted]) if len(wanted) else np.empty((0, self.num_voxels), np.float32)

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or np.float32, copy=False)

    def subset(self, indices: np.ndarray) -> "VoxelRows":
        """The same view of fewer (or reordered) rows; reads nothing."""
        view = object.__new__(VoxelRows)
        view.__dict__.update(self.__dict__)
        for name in ("_source", "_row", "_group"):
            setattr(view, name, getattr(self, name)[indices])
        return view

    def _read(self, index: int) -> np.ndarray:
        row = self.sources[self._source[index]][int(self._row[index])].astype(np.float32, copy=False)
        if self.columns is not None:
            row = row[self.columns]
        group = self._group[index]
        row = (row - self._mean[group]) / self._deviation[group]
        return pad_to(row, self.num_voxels, self.pad_mode)


class MeanRows:
    """Rows [m v], each the mean of some rows of a source [n v], taken when it is read: repeats averaged on demand."""

    dtype = np.dtype(np.float32)

    def __init__(self, source: "VoxelRows | MappedArray", groups: Sequence[Sequence[int]]):
        self.source, self.groups = source, [np.asarray(group, np.int64) for group in groups]

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.groups), self.source.shape[1]

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, index: int) -> np.ndarray:
        """One row float32 [v]."""
        rows = np.stack([self.source[int(i)] for i in self.groups[index]])  # [k v]
        return rows.astype(np.float32, copy=False).mean(axis=0)


def streamed_moments(rows: "VoxelRows", block: int = 256) -> tuple[float, float]:
    """Mean and deviation over all rows and voxels in float64, some rows in memory at a time (Chan et al. 1983)."""
    count, mean, squares = 0, 0.0, 0.0
    for start in range(0, len(rows), block):
        part = rows[start : start + block].astype(np.float64)
        shift, total = part.mean() - mean, count + part.size
        squares += ((part - part.mean()) ** 2).sum() + shift**2 * count * part.size / total
        mean += shift * part.size / total
        count = total
    return mean, math.sqrt(squares / count)


class RowCache:
    """A folder `<key>/` holding `rows.npy` float32 [n v] and `facts.json`, which appears whole or not at all.

    The key is a hash of the sources' names, sizes and times of change and of the settings, so changed sources are
    noticed. `cache_dir` is where it lies; unless given, `beside`, or the user's cache folder where that is read-only.
    """

    def __init__(self, sources: Sequence[Path], settings: dict, cache_dir: str | Path | None, beside: Path):
        stats = [(*path.parts[-2:], path.stat().st_size, path.stat().st_mtime_ns) for path in sources]
        self.key = hashlib.sha256(json.dumps([FORMAT, stats, settings]).encode()).hexdigest()[:24]
        self.places = [beside, *_user_cache()] if cache_dir is None else [Path(cache_dir)]

    def open(self) -> tuple[MappedArray, dict] | None:
        """Mapped rows and facts, or None when nothing was built yet."""
        for place in self.places:
            folder = place / self.key
            if (folder / "facts.json").is_file():
                try:
                    facts = json.loads((folder / "facts.json").read_text())
                    return MappedArray.of(load_npy(folder / "rows.npy", mmap=True)), facts
                except ValueError as error:
                    log.warning("%s: a damaged cache, made again (%s)", folder, error)
                    shutil.rmtree(folder, ignore_errors=True)
        return None

    def build(self, build: Build) -> tuple[MappedArray, dict]:
        """Write what `build` gives, block by block, and open it. Raises InputError when no place can be written."""
        shape, blocks, facts = build()
        partial = self._partial_folder()
        try:
            with (partial / "rows.npy").open("wb") as file:
                header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                for block in blocks:
                    file.write(np.ascontiguousarray(block, dtype="<f4").data)
            (partial / "facts.json").write_text(json.dumps(facts))
            self._publish(partial)
        except OSError as error:
            gigabytes = math.prod(shape) * 4 / 1e9
            raise InputError(f"{partial.parent}: cannot write a cache of {gigabytes:.2f} GB ({error})") from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        opened = self.open()
        assert opened is not None  # it was published just now
        return opened

    def _partial_folder(self) -> Path:
        for place in filter(_may_write, self.places):
            try:
                place.mkdir(parents=True, exist_ok=True)
                return Path(tempfile.mkdtemp(prefix=f"{self.key}.partial-", dir=place))
            except OSError:
                continue
        raise InputError(f"no cache can be written in {' or '.join(map(str, self.places))}; set cache_dir")

    def _publish(self, partial: Path) -> None:
        target = partial.parent / self.key
        try:
            partial.rename(target)
        except OSError:
            if not (target / "facts.json").is_file():  # else another process was faster, with the same rows
                raise


def _user_cache() -> list[Path]:
    """The user's cache folder; none for a user without a home."""
    try:
        return [Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mindvis"]
    except RuntimeError:
        return []


def _may_write(place: Path) -> bool:
    """Whether the folder, or the nearest one above it, is marked writable (root can write regardless: not ours to)."""
    existing = next(folder for folder in (place, *place.parents) if folder.exists())
    return bool(existing.stat().st_mode & 0o222) and os.access(existing, os.W_OK)

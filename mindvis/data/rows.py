"""Rows that stay on disk: mapped arrays read one row at a time, so that memory stays flat in their number."""

import logging
import math
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from mindvis.common.errors import InputError
from mindvis.data.voxels import common_length, outlier_of, pad_to

log = logging.getLogger(__name__)

Label = TypeVar("Label", bound=Hashable)
BLOCK = 256  # rows in memory at a time
ROUND_OFF = 2e-7  # of its mean: a deviation below it is what float32 is off by, not a signal


@dataclass(frozen=True)
class MappedArray:
    """An array [n ..] in a file that has been checked already; a pickle of it holds its place, not its numbers.

    Rows are read, not paged in: touched pages of a map count as memory of the process, which would grow with the data.
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


class LazyRows:
    """An array [n ..] whose rows are read when they are indexed: by a number, a slice or an array of numbers."""

    dtype: np.dtype
    shape: tuple[int, ...]

    def _read(self, index: int) -> np.ndarray:
        raise NotImplementedError

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: "int | slice | np.ndarray") -> np.ndarray:
        """One row [..], or those of a slice or an index array, [m ..]."""
        if isinstance(index, (int, np.integer)):
            return self._read(int(index))
        chosen = np.arange(len(self))[index]
        return np.stack([self._read(i) for i in chosen]) if len(chosen) else np.empty((0, *self.shape[1:]), self.dtype)

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or self.dtype, copy=False)


class VoxelRows(LazyRows):
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
    def shape(self) -> tuple[int, int]:  # type: ignore[override]
        return len(self._row), self.num_voxels

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


class MeanRows(LazyRows):
    """Rows [m v], each the mean of some rows of a source [n v], taken when it is read: repeats averaged on demand."""

    dtype = np.dtype(np.float32)

    def __init__(self, source: "VoxelRows | MappedArray", groups: Sequence[Sequence[int]]):
        self.source, self.groups = source, [np.asarray(group, np.int64) for group in groups]
        self.shape = (len(self.groups), source.shape[1])

    def _read(self, index: int) -> np.ndarray:
        rows = np.stack([self.source[int(i)] for i in self.groups[index]])  # [k v]
        return rows.astype(np.float32, copy=False).mean(axis=0)


def rows_by(labels: Iterable[Label], rows: Iterable[int] | None = None) -> dict[Label, list[int]]:
    """Label -> the rows that have it, in the order of first appearance; `rows` [n] are those of the labels [n]."""
    found: dict[Label, list[int]] = {}
    for row, label in enumerate(labels) if rows is None else zip(rows, labels, strict=True):
        found.setdefault(label, []).append(row)
    return found


def voxel_moments(rows: "VoxelRows", label: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of every voxel, [v] each; one that does not vary gets infinity, so that it becomes 0.

    Raises InputError where none varies.
    """
    mean = sum(block.sum(axis=0) for block in float64_blocks(rows)) / len(rows)
    deviation = np.sqrt(sum(np.square(block - mean).sum(axis=0) for block in float64_blocks(rows)) / len(rows))
    constant = deviation <= ROUND_OFF * np.abs(mean)
    if constant.all():
        raise InputError(f"{label}: all voxels are constant in its {len(rows)} training rows, it cannot be scaled")
    return mean, np.where(constant, np.inf, deviation)


def streamed_moments(rows: "VoxelRows", label: str) -> tuple[float, float]:
    """Mean and deviation over all rows and voxels in float64, some rows in memory at a time (Chan et al. 1983).

    A value so far from the others that scaling leaves little of them is named in the log, under `label`.
    """
    count, mean, squares = 0, 0.0, 0.0
    lowest, highest = math.inf, -math.inf
    for part in float64_blocks(rows):
        shift, total = part.mean() - mean, count + part.size
        squares += ((part - part.mean()) ** 2).sum() + shift**2 * count * part.size / total
        mean += shift * part.size / total
        count = total
        lowest, highest = min(lowest, float(part.min())), max(highest, float(part.max()))
    outlier = outlier_of(rows[:: max(1, len(rows) // BLOCK)], lowest, highest)
    if outlier:
        log.warning("%s %s: scaling leaves little of the others", label, outlier)
    return mean, math.sqrt(squares / count)


def float64_blocks(rows: "VoxelRows | MappedArray") -> Iterator[np.ndarray]:
    """Rows [n v] as float64 [m v], some at a time."""
    return (rows[start : start + BLOCK].astype(np.float64) for start in range(0, len(rows), BLOCK))

"""What one subject's recorded rows look like and how they become input of a model; kept with it as plain text."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mindvis.common.errors import InputError
from mindvis.data.arrays import FMRI, check_array
from mindvis.data.rows import VoxelRows

SCALES = ("voxel", "subject", "none")
FAR = 20.0  # deviations: half of the values of a row beyond it are no measurement of the same kind
NO_CHANGE = np.zeros(1, np.float32), np.ones(1, np.float32)


@dataclass(frozen=True)
class Adapter:
    """A small linear map from the input rows of one subject to those of another.

    row -> row @ down @ up + bias: float32 [v r], [r w], [w], from v voxels by r directions to w voxels.
    """

    down: np.ndarray
    up: np.ndarray
    bias: np.ndarray

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Rows [n v] -> float32 [n w]; one by one, so that a row does not change with those beside it."""
        return np.stack([row @ self.down @ self.up + self.bias for row in rows.astype(np.float32, copy=False)])

    def as_plain(self) -> dict[str, Any]:
        """The same as numbers and text; `from_plain` gives it back to the bit."""
        return {"rank": len(self.up), **{name: array_to_text(array) for name, array in vars(self).items()}}

    @classmethod
    def from_plain(cls, content: Mapping[str, Any]) -> "Adapter":
        """From what `as_plain` gave. Raises KeyError, TypeError or ValueError for anything else."""
        down, up, bias = (text_to_array(content[name], "<f4") for name in ("down", "up", "bias"))
        rank = int(content["rank"])
        return cls(down.reshape(-1, rank), up.reshape(rank, -1), bias)


@dataclass(frozen=True)
class RowFormat:
    """Rows of `num_voxels` voxels become (row - mean) / deviation, padded as `pad_mode` says.

    `scale` names whose moments these are: of each `voxel` (float32 [v]), of the `subject` ([1]), or `none` (the rows
    are expected scaled). `columns` are those voxels of a recording of `num_recorded` that are in the chosen regions;
    None where all are.
    """

    num_voxels: int
    scale: str = "none"
    mean: np.ndarray = field(default_factory=lambda: NO_CHANGE[0])
    deviation: np.ndarray = field(default_factory=lambda: NO_CHANGE[1])
    columns: np.ndarray | None = None
    num_recorded: int | None = None
    pad_mode: str = "wrap"
    adapter: Adapter | None = None  # from these rows, padded, into the voxels of another subject

    def to_input(self, rows: np.ndarray, num_input: int, *, scaled: bool = False, label: str = "fmri") -> np.ndarray:
        """Recorded rows [n v] as the input float32 [n num_input] of a model.

        Taken are rows of `num_voxels`, or whole recordings of `num_recorded`. `scaled`: they are scaled already.
        Raises InputError for another length, values that are no numbers, and rows that this scaling does not fit.
        """
        rows = check_array(rows, FMRI, label)
        scaled = scaled or self.scale == "none"
        mean, deviation = NO_CHANGE if scaled else (self.mean, self.deviation)
        given = VoxelRows(
            [rows],
            columns=self._columns_of(rows, label),
            mean=np.atleast_2d(mean),  # [1 v] or [1 1]
            deviation=np.atleast_2d(deviation),
            num_voxels=num_input if self.adapter is None else len(self.adapter.down),
            pad_mode=self.pad_mode,
        )[:]
        self._require_fit(given, label, scaled)
        return given if self.adapter is None else self.adapter(given)

    def _columns_of(self, rows: np.ndarray, label: str) -> np.ndarray | None:
        found = rows.shape[1]
        if found == self.num_voxels:
            return None
        if self.columns is not None and found == self.num_recorded:
            return self.columns
        whole = f", or whole recordings of {self.num_recorded}" if self.columns is not None else ""
        raise InputError(f"{label} has rows of {found} voxels; needed: {self.num_voxels}, as the training rows{whole}")

    def _require_fit(self, given: np.ndarray, label: str, unscaled: bool) -> None:
        middle = np.median(np.abs(given), axis=1)  # [n]
        if (middle <= FAR).all():
            return
        found = f"{label}: half of the values of row {int(middle.argmax())} are {middle.max():.3g} or more from 0"
        if unscaled:
            raise InputError(f"{found}; needed: rows scaled as the training rows, z-scored a voxel for instance")
        needed = "rows as they were recorded, in the same units (scaling=none for rows that are scaled already)"
        raise InputError(f"{found} after scaling by the training rows; needed: {needed}")

    def as_plain(self) -> dict[str, Any]:
        """The same as plain dicts and text; `from_plain` gives it back to the bit."""
        found = dict(vars(self))
        for name in ("mean", "deviation", "columns"):
            found[name] = None if found[name] is None else array_to_text(found[name])
        return found | {"adapter": None if self.adapter is None else self.adapter.as_plain()}

    @classmethod
    def from_plain(cls, content: Mapping[str, Any], where: str) -> "RowFormat":
        """From what `as_plain` gave. Raises InputError, naming `where`, for anything else."""
        try:
            arrays = {"mean": "<f4", "deviation": "<f4", "columns": "<i4"}
            read: dict[str, Any] = {
                name: None if content[name] is None else text_to_array(content[name], kind)
                for name, kind in arrays.items()
            }
            adapter = content.get("adapter")
            read["adapter"] = None if adapter is None else Adapter.from_plain(adapter)
            return cls(**{**content, **read})
        except (TypeError, KeyError, ValueError) as error:
            raise InputError(f"{where}: its description of the fMRI cannot be read ({error})") from error


def subject_format(
    num_recorded: int, columns: np.ndarray | None, pad_mode: str, moments: tuple[float, float] | None
) -> RowFormat:
    """The format of rows that have one mean and deviation (`moments`), or, without, are expected scaled."""
    mean, deviation = (0.0, 1.0) if moments is None else moments
    return RowFormat(
        num_voxels=num_recorded if columns is None else len(columns),
        scale="none" if moments is None else "subject",
        mean=np.array([mean], np.float32),
        deviation=np.array([deviation], np.float32),
        columns=columns,
        num_recorded=num_recorded,
        pad_mode=pad_mode,
    )


@dataclass(frozen=True)
class FMRIFacts:
    """What a decoder keeps of the fMRI it was tuned on, so that new rows can be decoded without that data.

    How rows of each subject become input, and the mean training row [v] of that input; empty where not known.
    """

    formats: dict[str, RowFormat] = field(default_factory=dict)
    mean: np.ndarray | None = None

    def as_plain(self, roi: Any = None) -> dict[str, Any]:
        """The same as plain dicts and text, with the name of the region, ready for a checkpoint or YAML."""
        formats = {name: form.as_plain() for name, form in self.formats.items()}
        return {"roi": roi, "formats": formats, "mean": None if self.mean is None else array_to_text(self.mean)}

    @classmethod
    def from_plain(cls, content: Mapping[str, Any] | None, where: str) -> "FMRIFacts":
        """From what `as_plain` gave, or from None. Raises InputError, naming `where`, for anything else."""
        if content is None:
            return cls()
        try:
            formats = {str(name): RowFormat.from_plain(form, where) for name, form in content["formats"].items()}
            mean = content["mean"]
            return cls(formats, None if mean is None else text_to_array(mean, "<f4"))
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise InputError(f"{where}: what it keeps of its fMRI cannot be read ({error})") from error


def array_to_text(array: np.ndarray) -> str:
    """Numbers of an array as base64, little-endian: thousands of them in one line of YAML or JSON."""
    kind = "<f4" if array.dtype.kind == "f" else "<i4"
    return base64.b64encode(np.ascontiguousarray(array, kind).tobytes()).decode()


def text_to_array(text: str, kind: str) -> np.ndarray:
    """The numbers back, of the type `kind`. Raises ValueError for what is no base64."""
    return np.frombuffer(base64.b64decode(text, validate=True), kind).copy()

"""A small linear map from the input rows of one subject to those of another."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mindvis.data.packing import array_to_text, text_to_array


@dataclass(frozen=True)
class Adapter:
    """row -> row @ down @ up + bias: float32 [v r], [r w], [w], from v voxels by r directions to w voxels."""

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

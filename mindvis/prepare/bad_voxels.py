"""Voxels that carry no signal: found, treated as the policy says, and left out of the z-scores of the others."""

import numpy as np

from mindvis.common.errors import InputError
from mindvis.config.tools import BadVoxels
from mindvis.data.voxels import ABSURD

BLOCK = 64  # rows gone through at a time: they may be mapped


def bad_voxels(series: np.ndarray) -> np.ndarray:
    """Voxels with a value that is no measurement (NaN, infinite, absurd) or no variation: [frames v] -> bool [v]."""
    measured = np.ones(series.shape[1], bool)
    lowest = highest = series[0]
    for start in range(0, len(series), BLOCK):
        block = series[start : start + BLOCK]
        measured &= (np.abs(block) <= ABSURD).all(axis=0)
        lowest = np.minimum(lowest, block.min(axis=0))
        highest = np.maximum(highest, block.max(axis=0))
    return ~measured | (lowest == highest)


def check_bad(bad: np.ndarray, policy: BadVoxels, where: str) -> None:
    """Raise InputError when all voxels are bad, bool [v], and under the policy "fail" when any is."""
    if policy == "fail" and bad.any():
        found = f"{int(bad.sum())} of {bad.size} voxels are constant or not finite (first: {int(bad.argmax())})"
        remedy = "--bad-voxels zero keeps them as zeros, --bad-voxels drop leaves them out"
        raise InputError(f"{where}: {found}; {remedy}")
    if bad.all():
        raise InputError(f"{where}: all {bad.size} voxels are constant or not finite; needs a signal")


def zscore(series: np.ndarray, bad: np.ndarray) -> np.ndarray:
    """Mean 0, deviation 1 of every voxel in time; bad voxels become 0. [frames v], bool [v] -> float32 [frames v]."""
    kept = np.where(bad, 0, series).astype(np.float64)
    centred = kept - kept.mean(axis=0)
    deviation = np.where(bad, 1, centred.std(axis=0))
    # A deviation that underflows leaves round-off, not signal.
    return (centred / np.where(deviation > 0, deviation, 1)).astype(np.float32)

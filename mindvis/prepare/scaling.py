"""Scaling of voxels in time, and what is done with voxels that carry no signal."""

from typing import Literal, get_args

import numpy as np

from mindvis.common.errors import InputError

BadVoxels = Literal["zero", "drop", "fail"]
POLICIES: tuple[str, ...] = get_args(BadVoxels)


def bad_voxels(series: np.ndarray) -> np.ndarray:
    """Voxels with a NaN, an infinity or no variation: series [frames v] -> bool [v]."""
    finite = np.isfinite(series).all(axis=0)  # [v]
    constant = series.max(axis=0) == series.min(axis=0)
    return ~finite | constant


def zscore(series: np.ndarray, bad: np.ndarray) -> np.ndarray:
    """Mean 0, deviation 1 of every voxel in time; bad voxels become 0. [frames v], bool [v] -> float32 [frames v]."""
    kept = np.where(bad, 0, series).astype(np.float64)
    centred = kept - kept.mean(axis=0)
    deviation = np.where(bad, 1, centred.std(axis=0))
    # A deviation that underflows leaves round-off, not signal.
    return (centred / np.where(deviation > 0, deviation, 1)).astype(np.float32)


def check_bad(bad: np.ndarray, policy: BadVoxels, where: str) -> None:
    """Raise InputError under the policy "fail" when any voxel is bad."""
    if policy == "fail" and bad.any():
        raise InputError(
            f"{where}: {int(bad.sum())} of {bad.size} voxels are constant or not finite (first: {int(bad.argmax())}); "
            f"--bad-voxels zero keeps them as zeros, --bad-voxels drop leaves them out"
        )
    if bad.all():
        raise InputError(f"{where}: all {bad.size} voxels are constant or not finite; needs a signal")

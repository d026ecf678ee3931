"""From the attention over patches to numbers a region."""

from dataclasses import dataclass

import numpy as np

from mindvis.evaluation.statistics import interval
from mindvis.inspection.regions import Regions


@dataclass(frozen=True)
class RegionAttention:
    """Attention a voxel of a region gets, 1 = as the average voxel, mean over rows with its 95 % interval."""

    roi: str
    num_voxels: int
    attention: float
    low: float
    high: float
    share: float  # of all attention


def voxel_attention(attention: np.ndarray, patch_size: int, padding: np.ndarray) -> np.ndarray:
    """Attention of patches [n l] as that of voxels [n v], 1 = the average voxel of the row; NaN where padded.

    The voxels of a patch share its attention alike.
    """
    voxels = np.repeat(attention / patch_size, patch_size, axis=1)  # [n v]
    voxels[:, padding] = np.nan
    return voxels / np.nanmean(voxels, axis=1, keepdims=True)


def region_attention(
    voxels: np.ndarray, regions: Regions, *, seed: int, num_bootstrap: int = 10_000
) -> list[RegionAttention]:
    """Mean over the voxels of each region, so that its size does not decide, from [n v]; bootstrap over rows."""
    table = []
    for roi, mask in regions.masks.items():
        rows = voxels[:, mask].mean(axis=1)  # [n]
        share = rows.mean() * mask.sum() / (~regions.padding).sum()
        table.append(RegionAttention(roi, int(mask.sum()), rows.mean(), *interval(rows, seed, num_bootstrap), share))
    return table

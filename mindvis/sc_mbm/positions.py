"""Fixed sin-cos positions of a row of patches, and their resizing to another length."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

BASE = 10000.0


def sincos_positions(num_patches: int, dim: int) -> Tensor:
    """Positions of the class token (zeros) and of `num_patches` patches: [1 1+l d], sines first, then cosines.

    `dim` is even. Vaswani et al. 2017, section 3.5, in the arrangement of MAE (He et al. 2022).
    """
    # in double precision: the angles of distant patches would lose digits otherwise
    frequencies = BASE ** (-torch.arange(dim // 2, dtype=torch.float64) / (dim / 2))
    angles = torch.arange(num_patches, dtype=torch.float64)[:, None] * frequencies  # [l d/2]
    patches = torch.cat([angles.sin(), angles.cos()], dim=1)  # [l d]
    return F.pad(patches, (0, 0, 1, 0)).float()[None]  # [1 1+l d]


def resize_positions(positions: Tensor, num_patches: int) -> Tensor:
    """Positions for another number of patches by nearest interpolation, the class row kept: [1 1+l d] -> [1 1+l' d]."""
    class_row, patches = positions[:, :1], positions[:, 1:]
    if patches.shape[1] == num_patches:
        return positions
    resized = F.interpolate(rearrange(patches, "1 l d -> 1 d l"), size=num_patches, mode="nearest")
    return torch.cat([class_row, rearrange(resized, "1 d l -> 1 l d")], dim=1)

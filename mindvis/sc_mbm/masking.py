"""Which patches the encoder does not see: a pure function of a given uniform noise."""

import torch
from torch import Tensor

from mindvis.common.errors import InputError


def choose_visible(noise: Tensor, mask_ratio: float) -> tuple[Tensor, Tensor]:
    """Indices of the patches with the smallest noise, in its order, and the mask they leave.

    noise [b l] -> visible int64 [b k] with k = int(l * (1 - mask_ratio)), mask float32 [b l] with 1 = hidden.
    Raises InputError for a ratio outside [0, 1]. Paper, section 3.2.
    """
    if not 0.0 <= mask_ratio <= 1.0:
        raise InputError(f"mask_ratio is {mask_ratio}: a share of patches between 0 and 1 is needed")
    num_visible = int(noise.shape[1] * (1 - mask_ratio))
    # stable, so that equal draws are ranked alike on every device
    visible = noise.argsort(dim=1, stable=True)[:, :num_visible]  # [b k]
    mask = torch.ones(noise.shape, device=noise.device).scatter_(1, visible, 0.0)  # [b l]
    return visible, mask


def focus_weights(num_voxels: int, patch_size: int, focus_range: tuple[int, int], focus_rate: float) -> Tensor:
    """Weights [l] of hiding a patch: `focus_rate` inside the voxels [start, stop), 1 - `focus_rate` outside.

    Raises InputError for a range that is not within the voxels or holds no patch, and for a rate outside [0, 1].
    """
    start, stop = focus_range
    if not 0 <= start < stop <= num_voxels or start // patch_size == stop // patch_size:
        raise InputError(
            f"focus_range is [{start}, {stop}): a range of at least one patch of {patch_size} voxels "
            f"within the {num_voxels} voxels is needed"
        )
    if not 0.0 <= focus_rate <= 1.0:
        raise InputError(f"focus_rate is {focus_rate}: a weight between 0 and 1 is needed")
    weights = torch.full((num_voxels // patch_size,), 1.0 - focus_rate)
    weights[start // patch_size : stop // patch_size] = focus_rate
    return weights


def focus_noise(noise: Tensor, weights: Tensor) -> Tensor:
    """Noise whose largest entries are a draw without replacement with the given weights: [b l], [l] -> [b l].

    An exponential race: -log(u) / w is an arrival time of rate w, and the first arrivals are such a draw (Efraimidis
    and Spirakis 2006). Its negative grows with u, so that equal weights rank the patches as the plain noise does.
    """
    # tiny instead of 0: patches of weight 0 are hidden only once the others are used up
    return noise.log() / weights.to(noise).clamp(min=1e-12)

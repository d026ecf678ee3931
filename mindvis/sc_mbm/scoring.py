"""What Stage A has learned, on hidden voxels, beside two predictions that need no training."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mindvis.sc_mbm.model import MaskedBrainModel
from mindvis.sc_mbm.module import pearson


@dataclass(frozen=True)
class HiddenVoxelScore:
    """Correlation of hidden voxels with their prediction, mean over samples and masks."""

    model: float
    voxel_mean: float  # every voxel at its mean over the training rows
    nearest_patch: float  # every hidden patch a copy of the nearest visible one


@torch.no_grad()
def score_hidden_voxels(
    network: MaskedBrainModel,
    train: np.ndarray,
    held_out: np.ndarray,
    *,
    mask_ratio: float = 0.75,
    num_masks: int = 20,
    seed: int = 0,
) -> HiddenVoxelScore:
    """Score of `network` on held-out fMRI [m v], against predictions from training fMRI [n v]; masks follow the seed.

    The correlation is over the hidden voxels of one sample under one mask. The work is done where the network is.
    """
    device = network.pos_embed.device
    fmri = torch.from_numpy(np.asarray(held_out, dtype=np.float32)).to(device)  # [m v]
    mean = torch.from_numpy(np.asarray(train, dtype=np.float32)).mean(dim=0).to(device).expand_as(fmri)
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(num_masks):
        noise = torch.rand(len(fmri), network.num_patches, generator=generator)
        out = network(fmri[:, None], mask_ratio, noise.to(device))
        hidden = out.mask.repeat_interleave(network.patch_size, dim=1).bool()  # [m v]
        copied = nearest_visible(network.patchify(fmri[:, None]), out.mask).flatten(1)
        predictions = (network.unpatchify(out.reconstruction), mean, copied)
        rows.append([_correlation(prediction, fmri, hidden) for prediction in predictions])
    return HiddenVoxelScore(*np.mean(rows, axis=0).tolist())


def nearest_visible(patches: Tensor, mask: Tensor) -> Tensor:
    """Each hidden patch replaced by the nearest visible one: patches [b l p], mask [b l] with 1 = hidden -> [b l p]."""
    place = torch.arange(mask.shape[1], device=mask.device)
    distance = (place[:, None] - place[None, :]).abs().float()  # [l l]
    distance = distance + mask[:, None, :] * mask.shape[1]  # a hidden patch is farther than any visible one
    nearest = distance.argmin(dim=2)  # [b l]
    return patches.gather(1, nearest[:, :, None].expand_as(patches))


def _correlation(prediction: Tensor, fmri: Tensor, hidden: Tensor) -> float:
    """Mean over samples; every sample has as many hidden voxels."""
    count = int(hidden[0].sum())
    return float(pearson(prediction[hidden].view(-1, count), fmri[hidden].view(-1, count)).mean())

"""What Stage A has learned, on hidden voxels, beside two predictions that need no training and a linear one."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mindvis.common.progress import Progress
from mindvis.sc_mbm.model import MaskedBrainModel
from mindvis.sc_mbm.module import pearson
from mindvis.sc_mbm.visible_ridge import VisibleRidge, choose_penalty


@dataclass(frozen=True)
class HiddenVoxelScore:
    """Correlation of hidden voxels with their prediction, mean over samples and masks."""

    model: float
    voxel_mean: float  # every voxel at its mean over the training rows
    nearest_patch: float  # every hidden patch a copy of the nearest visible one
    ridge: float  # ridge regression on the visible voxels
    ridge_penalty: float  # chosen by cross-validation on the training rows


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

    The penalty of the ridge regression is chosen on the training rows alone. The correlation is over the hidden voxels
    of one sample under one mask. The work is done where the network is, the regression's on the CPU.
    """
    device = network.pos_embed.device
    fmri = torch.from_numpy(np.asarray(held_out, dtype=np.float32)).to(device)  # [m v]
    mean = torch.from_numpy(np.asarray(train, dtype=np.float32)).mean(dim=0).to(device).expand_as(fmri)
    ridge = VisibleRidge(train, choose_penalty(train, network.patch_size, mask_ratio, seed))
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for _ in Progress(range(num_masks), desc="masks", leave=False):
        noise = torch.rand(len(fmri), network.num_patches, generator=generator)
        out = network(fmri[:, None], mask_ratio, noise.to(device))
        hidden = out.mask.repeat_interleave(network.patch_size, dim=1).bool()  # [m v]
        copied = nearest_visible(network.patchify(fmri[:, None]), out.mask).flatten(1)
        predictions = (network.unpatchify(out.reconstruction), mean, copied, _linear(ridge, fmri, hidden))
        rows.append([_correlation(prediction, fmri, hidden) for prediction in predictions])
    return HiddenVoxelScore(*np.mean(rows, axis=0).tolist(), ridge.penalty)


def nearest_visible(patches: Tensor, mask: Tensor) -> Tensor:
    """Each hidden patch replaced by the nearest visible one: patches [b l p], mask [b l] with 1 = hidden -> [b l p]."""
    place = torch.arange(mask.shape[1], device=mask.device)
    distance = (place[:, None] - place[None, :]).abs().float()  # [l l]
    distance = distance + mask[:, None, :] * mask.shape[1]  # a hidden patch is farther than any visible one
    nearest = distance.argmin(dim=2)  # [b l]
    return patches.gather(1, nearest[:, :, None].expand_as(patches))


def _linear(ridge: VisibleRidge, fmri: Tensor, hidden: Tensor) -> Tensor:
    """Rows [m v] with their hidden voxels (bool [m v]) as the regression predicts them."""
    filled = fmri.cpu().clone()
    for row, mask in zip(filled, hidden.cpu(), strict=True):
        row[mask] = torch.from_numpy(ridge.predict(row.numpy().astype(np.float64), mask.numpy())).float()
    return filled.to(fmri.device)


def _correlation(prediction: Tensor, fmri: Tensor, hidden: Tensor) -> float:
    """Mean over samples; every sample has as many hidden voxels."""
    count = int(hidden[0].sum())
    return float(pearson(prediction[hidden].view(-1, count), fmri[hidden].view(-1, count)).mean())

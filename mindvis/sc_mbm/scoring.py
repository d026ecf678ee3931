"""What Stage A has learned, on hidden voxels, beside two predictions that need no training and a linear one.

The linear rival is a ridge regression of hidden voxels on the visible ones, for any mask. Which voxels are hidden
changes with every row and mask, so it is solved anew for each, from products of the training rows that are computed
once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import cho_factor, cho_solve, eigh
from torch import Tensor

from mindvis.common.draws import generator
from mindvis.common.progress import Progress
from mindvis.sc_mbm.model import MaskedBrainModel
from mindvis.sc_mbm.module import pearson

PENALTIES = tuple(10.0**power for power in range(-1, 7))
NUM_FOLDS, NUM_MASKS = 5, 3  # of the cross-validation


@dataclass(frozen=True)
class HiddenVoxelScore:
    """Correlation of hidden voxels with their prediction, mean over samples and masks."""

    model: float
    voxel_mean: float  # every voxel at its mean over the training rows
    nearest_patch: float  # every hidden patch a copy of the nearest visible one
    ridge: float  # ridge regression on the visible voxels
    ridge_penalty: float  # chosen by cross-validation on the training rows


class VisibleRidge:
    """Training rows [n v], standardised a voxel, and the penalty of the regression between them."""

    def __init__(self, train: np.ndarray, penalty: float):
        train = np.asarray(train, np.float64)
        self.mean, self.scale = train.mean(axis=0), train.std(axis=0)
        self.scale[self.scale == 0] = 1.0  # a constant voxel says nothing, whatever its scale
        self.x, self.penalty = (train - self.mean) / self.scale, penalty
        self._products = self.x.T @ self.x if len(self.x) > self.x.shape[1] // 4 else None  # [v v]

    def predict(self, row: np.ndarray, hidden: np.ndarray) -> np.ndarray:
        """The hidden voxels [h] of a row [v] from its visible ones; `hidden` bool [v]."""
        seen = ((row - self.mean) / self.scale)[~hidden]
        if self._products is not None:
            weights = _solve(self._products[np.ix_(~hidden, ~hidden)], seen, self.penalty)  # [s]
            found = self._products[np.ix_(hidden, ~hidden)] @ weights
        else:  # fewer rows than visible voxels: the same in the space of the rows
            visible = self.x[:, ~hidden]
            found = self.x[:, hidden].T @ _solve(visible @ visible.T, visible @ seen, self.penalty)
        return found * self.scale[hidden] + self.mean[hidden]


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
    draws = torch.Generator().manual_seed(seed)
    rows = []
    for _ in Progress(range(num_masks), desc="masks", leave=False):
        noise = torch.rand(len(fmri), network.num_patches, generator=draws)
        out = network(fmri[:, None], mask_ratio, noise.to(device))
        hidden = out.mask.repeat_interleave(network.patch_size, dim=1).bool()  # [m v]
        copied = nearest_visible(network.patchify(fmri[:, None]), out.mask).flatten(1)
        predictions = (network.unpatchify(out.reconstruction), mean, copied, _linear(ridge, fmri, hidden))
        rows.append([_correlation(prediction, fmri, hidden) for prediction in predictions])
    model, voxel_mean, nearest_patch, linear = np.mean(rows, axis=0).tolist()
    return HiddenVoxelScore(model, voxel_mean, nearest_patch, linear, ridge.penalty)


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


def choose_penalty(
    train: np.ndarray, patch_size: int, mask_ratio: float, seed: int, penalties: Sequence[float] = PENALTIES
) -> float:
    """The penalty under which rows [n v] of one fold are predicted best from the others, by correlation.

    Folds are runs of neighbouring rows, which resemble each other in time; the masks of patches follow from the seed.
    With fewer than three rows it is the largest penalty.
    """
    train = np.asarray(train, np.float64)
    folds = [fold for fold in np.array_split(np.arange(len(train)), NUM_FOLDS) if len(fold)]
    if len(train) < 3:
        return max(penalties)
    scores = np.zeros(len(penalties))
    for number, fold in enumerate(folds):
        others = np.setdiff1d(np.arange(len(train)), fold)
        for index in range(NUM_MASKS):
            hidden = _draw_mask(train.shape[1], patch_size, mask_ratio, (seed, number, index))
            scores += _fold_scores(train[others], train[fold], hidden, penalties)
    return float(penalties[int(scores.argmax())])


def _fold_scores(train: np.ndarray, held: np.ndarray, hidden: np.ndarray, penalties: Sequence[float]) -> np.ndarray:
    """Mean correlation on the hidden voxels of held-out rows under each penalty: one decomposition for all."""
    ridge = VisibleRidge(train, 0.0)
    visible = ridge.x[:, ~hidden]
    values, vectors = eigh(visible @ visible.T)
    seen = ((held - ridge.mean) / ridge.scale)[:, ~hidden] @ visible.T @ vectors  # [m n]
    wanted = held[:, hidden]
    scores = []
    for penalty in penalties:
        found = (seen / (np.maximum(values, 0.0) + penalty)) @ (vectors.T @ ridge.x[:, hidden])
        scores.append(_row_correlation(found * ridge.scale[hidden] + ridge.mean[hidden], wanted))
    return np.array(scores)


def _draw_mask(num_voxels: int, patch_size: int, mask_ratio: float, key: Sequence[int]) -> np.ndarray:
    num_patches = num_voxels // patch_size
    order = generator(key, "penalty").permutation(num_patches)
    hidden = order >= int(num_patches * (1 - mask_ratio))
    return hidden.repeat(patch_size)


def _solve(products: np.ndarray, target: np.ndarray, penalty: float) -> np.ndarray:
    return cho_solve(cho_factor(products + penalty * np.eye(len(products))), target)


def _row_correlation(found: np.ndarray, wanted: np.ndarray) -> float:
    """Mean over rows; 0 for a row that is constant."""
    found, wanted = (a - a.mean(axis=1, keepdims=True) for a in (found, wanted))
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(wanted, axis=1)
    return float(((found * wanted).sum(axis=1) / np.maximum(lengths, 1e-12)).mean())

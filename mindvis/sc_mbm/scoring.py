"""What Stage A has learned, on hidden voxels, beside two predictions that need no training and a linear one.

The linear rival is a ridge regression of hidden voxels on the visible ones, for any mask. Which voxels are hidden
changes with every row and mask, so it is solved anew for each, from products of the voxels over the training rows.
These are summed once, however many rows there are.
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
MOST_PREDICTED = 500  # rows of a fold, evenly spaced, by which the penalty is chosen
BLOCK = 1000  # rows that are in memory in double precision at a time
BATCH = 100  # rows that go through the network at a time


@dataclass(frozen=True)
class HiddenVoxelScore:
    """Correlation of hidden voxels with their prediction, mean over samples and masks."""

    model: float
    voxel_mean: float  # every voxel at its mean over the training rows
    nearest_patch: float  # every hidden patch a copy of the nearest visible one
    ridge: float  # ridge regression on the visible voxels
    ridge_penalty: float  # chosen by cross-validation on the training rows


@dataclass
class Products:
    """Sums over rows [n v], a `centre` [v] taken from each: all that a regression between voxels needs."""

    centre: np.ndarray  # [v]
    count: int
    sums: np.ndarray  # [v]
    products: np.ndarray  # [v v]

    @classmethod
    def of(cls, rows: np.ndarray, centre: np.ndarray) -> "Products":
        """The sums over rows [n v] of any type."""
        num_voxels = rows.shape[1]
        found = cls(centre, len(rows), np.zeros(num_voxels), np.zeros((num_voxels, num_voxels)))
        for start in range(0, len(rows), BLOCK):
            block = np.asarray(rows[start : start + BLOCK], np.float64) - centre
            found.sums += block.sum(axis=0)
            found.products += block.T @ block
        return found

    def __add__(self, other: "Products") -> "Products":
        parts = (self.count + other.count, self.sums + other.sums, self.products + other.products)
        return Products(self.centre, *parts)

    def __sub__(self, other: "Products") -> "Products":
        parts = (self.count - other.count, self.sums - other.sums, self.products - other.products)
        return Products(self.centre, *parts)


class VisibleRidge:
    """Regression between voxels, each standardised over the training rows, under one penalty."""

    def __init__(self, train: Products, penalty: float):
        shift = train.sums / train.count
        covariance = train.products - train.count * np.outer(shift, shift)
        self.mean, self.scale = train.centre + shift, np.sqrt(np.maximum(np.diag(covariance), 0.0) / train.count)
        # a constant voxel says nothing, whatever its scale; sums leave it a rounding error of one
        self.scale[self.scale <= 1e-9 * np.abs(self.mean)] = 1.0
        self.products, self.penalty = covariance / np.outer(self.scale, self.scale), penalty  # [v v]

    def predict(self, row: np.ndarray, hidden: np.ndarray) -> np.ndarray:
        """The hidden voxels [h] of a row [v] from its visible ones; `hidden` bool [v]."""
        seen = ((row - self.mean) / self.scale)[~hidden]
        visible = self.products[np.ix_(~hidden, ~hidden)]
        weights = cho_solve(cho_factor(visible + self.penalty * np.eye(len(visible))), seen)  # [s]
        found = self.products[np.ix_(hidden, ~hidden)] @ weights
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
    ridge = fit_visible_ridge(train, network.patch_size, mask_ratio, seed)
    mean = torch.from_numpy(ridge.mean.astype(np.float32)).to(device).expand_as(fmri)
    draws = torch.Generator().manual_seed(seed)
    rows = []
    for _ in Progress(range(num_masks), desc="masks", leave=False):
        noise = torch.rand(len(fmri), network.num_patches, generator=draws)
        batches = zip(fmri[:, None].split(BATCH), noise.to(device).split(BATCH), strict=True)
        outs = [network(batch, mask_ratio, own_noise) for batch, own_noise in batches]
        mask = torch.cat([out.mask for out in outs])  # [m l]
        reconstruction = network.unpatchify(torch.cat([out.reconstruction for out in outs]))  # [m v]
        hidden = mask.repeat_interleave(network.patch_size, dim=1).bool()  # [m v]
        copied = nearest_visible(network.patchify(fmri[:, None]), mask).flatten(1)
        predictions = (reconstruction, mean, copied, _linear(ridge, fmri, hidden))
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


def fit_visible_ridge(
    train: np.ndarray, patch_size: int, mask_ratio: float, seed: int, penalties: Sequence[float] = PENALTIES
) -> VisibleRidge:
    """The regression of training rows [n v], under the penalty by which one fold is predicted best from the others.

    Best is the highest correlation. Folds are runs of neighbouring rows, which resemble each other in time; the masks
    of patches follow from the seed. With fewer than three rows the penalty is the largest.
    """
    train = np.asarray(train)
    centre = train.mean(axis=0, dtype=np.float64)
    folds = [fold for fold in np.array_split(np.arange(len(train)), NUM_FOLDS) if len(fold)]
    sums = [Products.of(train[fold[0] : fold[-1] + 1], centre) for fold in Progress(folds, desc="ridge", leave=False)]
    whole = sum(sums[1:], start=sums[0])
    if len(train) < 3:
        return VisibleRidge(whole, max(penalties))
    scores = np.zeros(len(penalties))
    for number, (fold, own) in enumerate(zip(Progress(folds, desc="penalty", leave=False), sums, strict=True)):
        ridge = VisibleRidge(whole - own, 0.0)
        held = np.asarray(train[fold[:: -(-len(fold) // MOST_PREDICTED)]], np.float64)
        for index in range(NUM_MASKS):
            hidden = _draw_mask(train.shape[1], patch_size, mask_ratio, (seed, number, index))
            scores += _fold_scores(ridge, held, hidden, penalties)
    return VisibleRidge(whole, float(penalties[int(scores.argmax())]))


def _fold_scores(ridge: VisibleRidge, held: np.ndarray, hidden: np.ndarray, penalties: Sequence[float]) -> np.ndarray:
    """Mean correlation on the hidden voxels of held-out rows under each penalty: one decomposition for all."""
    values, vectors = eigh(ridge.products[np.ix_(~hidden, ~hidden)])
    seen = ((held - ridge.mean) / ridge.scale)[:, ~hidden] @ vectors  # [m s]
    across = vectors.T @ ridge.products[np.ix_(~hidden, hidden)]  # [s h]
    scores = []
    for penalty in penalties:
        found = (seen / (np.maximum(values, 0.0) + penalty)) @ across
        scores.append(_row_correlation(found * ridge.scale[hidden] + ridge.mean[hidden], held[:, hidden]))
    return np.array(scores)


def _draw_mask(num_voxels: int, patch_size: int, mask_ratio: float, key: Sequence[int]) -> np.ndarray:
    num_patches = num_voxels // patch_size
    order = generator(key, "penalty").permutation(num_patches)
    hidden = order >= int(num_patches * (1 - mask_ratio))
    return hidden.repeat(patch_size)


def _row_correlation(found: np.ndarray, wanted: np.ndarray) -> float:
    """Mean over rows; 0 for a row that is constant."""
    found, wanted = (a - a.mean(axis=1, keepdims=True) for a in (found, wanted))
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(wanted, axis=1)
    return float(((found * wanted).sum(axis=1) / np.maximum(lengths, 1e-12)).mean())

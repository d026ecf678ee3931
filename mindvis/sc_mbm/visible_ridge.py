"""The linear rival of Stage A: ridge regression of hidden voxels on the visible ones, for any mask.

Which voxels are hidden changes with every row and mask, so the regression is solved anew for each, from products of
the training rows that are computed once.
"""

from collections.abc import Sequence

import numpy as np
from scipy.linalg import cho_factor, cho_solve, eigh

from mindvis.common.draws import generator

PENALTIES = tuple(10.0**power for power in range(-1, 7))
NUM_FOLDS, NUM_MASKS = 5, 3  # of the cross-validation


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
        scores.append(_correlation(found * ridge.scale[hidden] + ridge.mean[hidden], wanted))
    return np.array(scores)


def _draw_mask(num_voxels: int, patch_size: int, mask_ratio: float, key: Sequence[int]) -> np.ndarray:
    num_patches = num_voxels // patch_size
    order = generator(key, "penalty").permutation(num_patches)
    hidden = order >= int(num_patches * (1 - mask_ratio))
    return hidden.repeat(patch_size)


def _solve(products: np.ndarray, target: np.ndarray, penalty: float) -> np.ndarray:
    return cho_solve(cho_factor(products + penalty * np.eye(len(products))), target)


def _correlation(found: np.ndarray, wanted: np.ndarray) -> float:
    """Mean over rows; 0 for a row that is constant."""
    found, wanted = (a - a.mean(axis=1, keepdims=True) for a in (found, wanted))
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(wanted, axis=1)
    return float(((found * wanted).sum(axis=1) / np.maximum(lengths, 1e-12)).mean())

"""A linear reference: ridge classification of the seen class from the fMRI itself, without any picture."""

from collections.abc import Sequence

import numpy as np

from mindvis.errors import InputError

PENALTIES = (1.0, 10.0, 100.0, 1e3, 1e4, 1e5)


def ridge_probabilities(
    train_fmri: np.ndarray,
    train_class_ids: Sequence[int],
    test_fmri: np.ndarray,
    num_classes: int,
    *,
    penalties: Sequence[float] = PENALTIES,
) -> np.ndarray:
    """Class probabilities [m num_classes] of test rows [m v] after ridge regression on one-hot classes of rows [n v].

    The penalty is the one with the least leave-one-out error on the training rows (Allen 1974), so no test row is
    looked at; probabilities are the softmax of the predictions over their leave-one-out error. Raises InputError where
    the arrays do not belong together.
    """
    _check(train_fmri, train_class_ids, test_fmri)
    mean = train_fmri.mean(axis=0, dtype=np.float64)
    train, test = train_fmri - mean, test_fmri - mean
    onehot = np.eye(num_classes)[np.asarray(train_class_ids)]  # [n c]
    base = onehot.mean(axis=0)
    u, s, vt = np.linalg.svd(train, full_matrices=False)
    projected = u.T @ (onehot - base)  # [r c]
    errors = [_leave_one_out(u, s, projected, onehot - base, penalty) for penalty in penalties]
    best = int(np.argmin(errors))
    weights = vt.T @ (projected * (s / (s**2 + penalties[best]))[:, None])  # [v c]
    scores = (test @ weights + base) / np.sqrt(errors[best])
    likelihood = np.exp(scores - scores.max(axis=1, keepdims=True))
    return likelihood / likelihood.sum(axis=1, keepdims=True)


def _leave_one_out(u: np.ndarray, s: np.ndarray, projected: np.ndarray, wanted: np.ndarray, penalty: float) -> float:
    """Mean squared error of each row predicted by a fit to all others, in closed form from the hat matrix."""
    shrunk = s**2 / (s**2 + penalty)
    leverage = 1 / len(u) + (u**2) @ shrunk  # the mean was fitted too
    residual = (wanted - u @ (shrunk[:, None] * projected)) / (1 - np.minimum(leverage, 1 - 1e-9))[:, None]
    return float(np.mean(residual**2))


def _check(train_fmri: np.ndarray, train_class_ids: Sequence[int], test_fmri: np.ndarray) -> None:
    if len(train_fmri) != len(train_class_ids):
        raise InputError(f"ridge: {len(train_fmri)} training rows, {len(train_class_ids)} class ids; needed: as many")
    if train_fmri.shape[1] != test_fmri.shape[1]:
        raise InputError(f"ridge: {train_fmri.shape[1]} training voxels, {test_fmri.shape[1]} test voxels")

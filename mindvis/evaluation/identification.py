"""n-way top-k identification by a classifier (paper, Algorithm D.1), and pairwise identification by a similarity.

Draw n - 1 of the other classes; a picture is identified when its target class is among the k most probable of the n.
The expectation over draws has a closed form, so no trial needs to be drawn.

Ties go to the target, as in the published protocol, which puts it first among the n and takes the first maximum: only
classes that are strictly more probable beat it. In pairwise identification a tie counts as a failure, as published.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import hypergeom

from mindvis.common import draws
from mindvis.common.errors import InputError
from mindvis.evaluation.pictures import Array, as_finite_matrix, to_numpy
from mindvis.evaluation.similarity import LARGER_IS_CLOSER, similarity_matrix


def n_way_accuracy(probabilities: Array, target: Array, num_ways: int = 50, top_k: int = 1) -> np.ndarray:
    """Expected n-way top-k accuracy of each picture: [n c], [n] -> float64 [n]. Raises InputError on bad input."""
    return n_way_table(probabilities, target, num_ways=(num_ways,), top_k=(top_k,))[:, 0, 0]


def n_way_table(
    probabilities: Array, target: Array, *, num_ways: Sequence[int] = (50, 100), top_k: Sequence[int] = (1, 5)
) -> np.ndarray:
    """The same for every pair of settings at once: [n c], [n] -> float64 [n, len(num_ways), len(top_k)]."""
    ranks, num_classes = _ranks(probabilities, target)
    by_rank = [[success_by_rank(num_classes, ways, k) for k in top_k] for ways in num_ways]
    return np.moveaxis(np.asarray(by_rank), -1, 0)[ranks]


def success_by_rank(num_classes: int, num_ways: int, top_k: int) -> np.ndarray:
    """P(H <= k - 1), H hypergeometric (c - 1, r, n - 1), for r = 0 .. c - 1 classes above the target: float64 [c]."""
    _check_protocol(num_classes, num_ways, top_k)
    return hypergeom.cdf(top_k - 1, num_classes - 1, np.arange(num_classes), num_ways - 1)


def n_way_accuracy_sampled(
    probabilities: Array, target: Array, num_ways: int = 50, top_k: int = 1, *, num_trials: int = 1000, seed: int = 0
) -> np.ndarray:
    """The published protocol, for comparison: the mean over random draws of classes, [n c], [n] -> float64 [n].

    Only how many of the drawn classes beat the target matters, so that number is what is drawn.
    """
    ranks, num_classes = _ranks(probabilities, target)
    _check_protocol(num_classes, num_ways, top_k)
    rng = draws.generator((seed,), "n_way")
    beaten_by = rng.hypergeometric(ranks, num_classes - 1 - ranks, num_ways - 1, size=(num_trials, len(ranks)))
    return (beaten_by < top_k).mean(axis=0)


def identification_accuracy(predictions: Array, targets: Array, metric: str = "ssim", **options: Any) -> np.ndarray:
    """Share of other true pictures that each prediction resembles less than its own: uint8 [n h w 3] twice -> [n].

    `metric` and `options` are those of `similarity_matrix`. Raises InputError for fewer than two pictures.
    """
    if len(predictions) != len(targets):
        raise InputError(f"predictions and targets: found {len(predictions)} and {len(targets)} pictures, need as many")
    matrix = similarity_matrix(predictions, targets, metric, **options)
    return identification_from_matrix(matrix, larger_is_closer=LARGER_IS_CLOSER[metric])


def identification_from_matrix(matrix: Array, *, larger_is_closer: bool) -> np.ndarray:
    """Pairwise identification from similarities or distances: [n m] with the own target at row % m -> [n].

    More rows than columns are further samples of the same stimuli: row s * m + i belongs to target i.
    """
    closeness = to_numpy(matrix) if larger_is_closer else -to_numpy(matrix)
    num_rows, num_targets = closeness.shape
    if num_targets < 2:
        raise InputError(f"pairwise identification: found {num_targets} true picture, need at least two")
    own = closeness[np.arange(num_rows), np.arange(num_rows) % num_targets]
    return (own[:, None] > closeness).sum(axis=1) / (num_targets - 1)


def chance_level(num_ways: int, top_k: int) -> float:
    """n-way top-k accuracy of guessing."""
    return min(top_k / num_ways, 1.0)


def _ranks(probabilities: Array, target: Array) -> tuple[np.ndarray, int]:
    """How many classes are strictly more probable than the target: [n c], [n] -> int [n], c."""
    probabilities, target = as_finite_matrix(probabilities), to_numpy(target)
    num_rows, num_classes = probabilities.shape
    if target.shape != (num_rows,) or not np.issubdtype(target.dtype, np.integer):
        raise InputError(f"target: found {target.dtype} {list(target.shape)}, need {num_rows} integers")
    if target.min() < 0 or target.max() >= num_classes:
        raise InputError(f"target: found classes {target.min()} to {target.max()}, need 0 to {num_classes - 1}")
    own = np.take_along_axis(probabilities, target[:, None], axis=1)
    return (probabilities > own).sum(axis=1), num_classes


def _check_protocol(num_classes: int, num_ways: int, top_k: int) -> None:
    if not 2 <= num_ways <= num_classes:
        raise InputError(f"num_ways: found {num_ways}, need 2 to {num_classes} (the number of classes)")
    if top_k < 1:
        raise InputError(f"top_k: found {top_k}, need 1 or more")

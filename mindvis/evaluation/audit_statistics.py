"""Statistics of the audit: own against other pictures, permutation p values, Holm's correction, two-level intervals.

A *table* [m m] holds, for the decoded pictures of stimulus g, the score they would have if stimulus j were the one that
was seen. Its diagonal is what was measured, its other entries are what the same pictures score by accident.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri
from scipy.stats import rankdata

from mindvis.common import draws

NUM_PERMUTATIONS = 5000
NUM_RESAMPLES = 10_000
LEVEL = 0.95


def shares_beaten(closeness: np.ndarray, own: np.ndarray, class_ids: np.ndarray | None = None) -> np.ndarray:
    """For every decoded picture and every stimulus j, the share of other stimuli that are less close to it than j.

    closeness [r m], the stimulus [r] of each decoded picture -> float64 [r m]; a tie counts half. With `class_ids` [m]
    only pictures of j's class are the others; NaN where j is not of the class seen, or its class has one picture.
    The mean at the own stimulus is the area under the curve of own against other, 1/2 by accident for any number of
    others.
    """
    if class_ids is None:
        return (rankdata(closeness, axis=1) - 1) / (closeness.shape[1] - 1)
    shares = np.full(closeness.shape, np.nan)
    for name in np.unique(class_ids):
        members = np.flatnonzero(np.asarray(class_ids) == name)
        rows = np.flatnonzero(np.isin(own, members))
        if len(members) > 1:
            block = np.ix_(rows, members)
            shares[block] = (rankdata(closeness[block], axis=1) - 1) / (len(members) - 1)
    return shares


def as_table(values: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Mean over the decoded pictures of each stimulus: [r m], own [r] -> [m m]. Every stimulus has one or more."""
    return np.stack([values[own == stimulus].mean(axis=0) for stimulus in range(values.shape[1])])


def permutation_p(
    table: np.ndarray,
    class_ids: np.ndarray | None,
    seed: int,
    *,
    two_sided: bool = False,
    count: int = NUM_PERMUTATIONS,
) -> float:
    """p of the mean of the diagonal of a table [m m] when stimuli are dealt anew among their class: the one observed counts.

    Rows whose own entry is NaN are left out. One-sided (larger than by accident) unless `two_sided`.
    """
    used = np.flatnonzero(np.isfinite(np.diagonal(table)))
    if len(used) < 2:
        return 1.0
    table = table[np.ix_(used, used)]
    classes = np.zeros(len(used), int) if class_ids is None else np.asarray(class_ids)[used]
    dealt = _permutations(classes, seed, count)
    rows = np.arange(len(used))
    by_accident = table[rows, dealt].mean(axis=1)
    observed = table[rows, rows].mean()
    above = (by_accident >= observed - 1e-12).sum()
    below = (by_accident <= observed + 1e-12).sum()
    tail = min(above, below) if two_sided else above
    return float(min(1.0, (1 + two_sided) * (tail + 1) / (count + 1)))


def _permutations(classes: np.ndarray, seed: int, count: int) -> np.ndarray:
    """Random permutations within classes: [m] -> int [count m]."""
    _, block = np.unique(classes, return_inverse=True)
    keys = draws.generator((seed,), "permutations").random((count, len(block)))
    dealt = np.empty((count, len(block)), int)
    dealt[:, np.argsort(block, kind="stable")] = np.argsort(block + keys, axis=1)  # keys lie below 1: classes stay
    return dealt


def accident_level(table: np.ndarray) -> float:
    """Mean of the entries beside the diagonal, NaN left out: what the same pictures score for other stimuli."""
    return float(np.nanmean(np.where(np.eye(len(table), dtype=bool), np.nan, table)))


def holm(p_values: Sequence[float]) -> list[float]:
    """p values corrected for their number (Holm 1979): below .05 with at most 5 % risk of one false claim among all."""
    order = np.argsort(p_values)
    steps = np.asarray(p_values, float)[order] * np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return corrected.tolist()


def d_prime(area: float, n: int) -> float:
    """Distance in deviations of two normal distributions with that area under the curve: sqrt(2) z(area).

    Areas of 0 and 1 of n stimuli are moved in by 1 / 2n, where they would be infinite.
    """
    return float(np.sqrt(2) * ndtri(np.clip(area, 1 / (2 * n), 1 - 1 / (2 * n))))


@dataclass(frozen=True)
class Estimate:
    """A mean over stimuli with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float
    n: int


def estimate(per_stimulus: np.ndarray, seed: int, subjects: np.ndarray | None = None) -> Estimate:
    """Mean and interval of [n], NaN left out; with the subject of each [n], subjects are drawn anew as well."""
    values = np.asarray(per_stimulus, float)
    used = np.isfinite(values)
    values = values[used]
    if len(values) == 0:
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    groups = [values] if subjects is None else _by_subject(values, np.asarray(subjects)[used])
    low, high = two_level_interval(groups, seed)
    return Estimate(float(np.mean([group.mean() for group in groups])), low, high, len(values))


def two_level_interval(groups: Sequence[np.ndarray], seed: int, count: int = NUM_RESAMPLES) -> tuple[float, float]:
    """95 % interval of the mean over subjects of their means: subjects are drawn with replacement, then their stimuli.

    `groups`: one array [n_s] a subject (Saravanan et al. 2020, the hierarchical bootstrap). One subject is not drawn.
    """
    rng = draws.generator((seed,), "bootstrap")
    means = np.stack([_resampled_means(group, rng, count) for group in groups])  # [s count]
    if len(groups) > 1:
        # a subject drawn twice brings the same stimuli twice: that widens the interval, never narrows it
        chosen = rng.integers(len(groups), size=(len(groups), count))
        means = np.take_along_axis(means, chosen, axis=0)
    low, high = np.quantile(means.mean(axis=0), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _resampled_means(values: np.ndarray, rng: np.random.Generator, count: int) -> np.ndarray:
    """Means of `count` draws with replacement: [n] -> [count], a thousand draws in memory at once."""
    parts = [min(1000, count - start) for start in range(0, count, 1000)]
    return np.concatenate([values[rng.integers(len(values), size=(part, len(values)))].mean(axis=1) for part in parts])


def _by_subject(values: np.ndarray, subjects: np.ndarray) -> list[np.ndarray]:
    return [values[subjects == name] for name in np.unique(subjects)]


def sign_flip_p(difference: np.ndarray, seed: int, count: int = NUM_PERMUTATIONS) -> float:
    """Two-sided p of the mean of paired differences [n] when their signs are drawn anew: the one observed counts."""
    values = np.asarray(difference, float)
    signs = draws.generator((seed,), "signs").integers(0, 2, size=(count, len(values))) * 2 - 1
    extreme = np.abs((signs * values).mean(axis=1)) >= abs(values.mean()) - 1e-12
    return float((extreme.sum() + 1) / (count + 1))

"""Statistics over stimuli: what another draw of as many stimuli could have given, and what chance could have.

Own against other pictures is the area under that curve, with p values by dealing the pictures to other stimuli. A
*table* [m m] holds, for the decoded pictures of stimulus g, the score they would have if stimulus j were the one that
was seen. Its diagonal is what was measured, its other entries are what the same pictures score by accident.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri
from scipy.stats import rankdata

from mindvis.common import draws

NUM_RESAMPLES = 10_000
NUM_PERMUTATIONS = 5000
BLOCK = 1000  # resamples in memory
LEVEL = 0.95


def interval(per_stimulus: np.ndarray, seed: int, num_resamples: int = NUM_RESAMPLES) -> tuple[float, float]:
    """95 % percentile interval of the mean over stimuli, by bootstrap: [n] (means over samples) -> low, high."""
    rng, n = draws.generator((seed,), "bootstrap"), len(per_stimulus)  # the same rows for every figure of a report
    drawn = (per_stimulus[rng.integers(n, size=(count, n))].mean(axis=1) for count in _blocks(num_resamples))
    return _percentiles(np.concatenate(list(drawn)))


def paired_difference(
    first: np.ndarray, second: np.ndarray, seed: int, num_resamples: int = NUM_RESAMPLES
) -> tuple[float, float, float, float]:
    """Mean of first - second over the same stimuli, [n] twice -> difference, low, high, two-sided p.

    The interval is that of the bootstrap, p that of `sign_flip_p`.
    """
    difference = np.asarray(first) - np.asarray(second)
    low, high = interval(difference, seed, num_resamples)
    return float(difference.mean()), low, high, sign_flip_p(difference, seed, num_resamples)


def sign_flip_p(difference: np.ndarray, seed: int, num_resamples: int = NUM_RESAMPLES) -> float:
    """Two-sided p of a mean of paired differences [n]: how often chance signs give a mean as far from 0.

    All 2^n patterns of signs are tried where these are no more than `num_resamples`: p is exact, and few stimuli cannot
    give a small one (3: .25 at best). Else the patterns are drawn, and the one observed counts as one of them.
    """
    n = len(difference)
    least = abs(difference.sum()) * (1 - 1e-12)  # equal sums differ by rounding
    if 2**n <= num_resamples:
        signs = 1 - 2 * (np.arange(2**n)[:, None] >> np.arange(n) & 1)  # [2^n n]
        return float((np.abs(signs @ difference) >= least).mean())
    rng = draws.generator((seed,), "sign_flip")
    drawn = (1 - 2 * rng.integers(2, size=(count, n)) for count in _blocks(num_resamples))
    as_far = sum(int((np.abs(signs @ difference) >= least).sum()) for signs in drawn)
    return float((as_far + 1) / (num_resamples + 1))


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
    names = np.zeros(len(values), int) if subjects is None else np.asarray(subjects)[used]
    groups = [values[names == name] for name in np.unique(names)]
    low, high = two_level_interval(groups, seed)
    return Estimate(float(np.mean([group.mean() for group in groups])), low, high, len(values))


def two_level_interval(
    groups: Sequence[np.ndarray], seed: int, num_resamples: int = NUM_RESAMPLES
) -> tuple[float, float]:
    """95 % interval of the mean over subjects of their means: subjects are drawn with replacement, then their stimuli.

    `groups`: one array [n_s] a subject (the hierarchical bootstrap of Saravanan et al. 2020, arXiv 2007.07797). That of
    one subject is `interval`.
    """
    if len(groups) == 1:
        return interval(groups[0], seed, num_resamples)
    rng = draws.generator((seed,), "subjects")
    means = np.empty(num_resamples)
    for resample in range(num_resamples):
        drawn = [groups[subject] for subject in rng.integers(len(groups), size=len(groups))]
        means[resample] = np.mean([group[rng.integers(len(group), size=len(group))].mean() for group in drawn])
    return _percentiles(means)


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


def _percentiles(means: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _blocks(num_resamples: int) -> list[int]:
    """Numbers of resamples that are drawn at a time: all of them for many stimuli would take hundreds of megabytes."""
    whole, rest = divmod(num_resamples, BLOCK)
    return [BLOCK] * whole + [rest] * (rest > 0)


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
    """p of the mean of the diagonal of a table [m m] when stimuli are dealt anew among their class.

    The one observed counts as one of them. Rows whose own entry is NaN are left out. One-sided (larger than by
    accident) unless `two_sided`.
    """
    used = np.flatnonzero(np.isfinite(np.diagonal(table)))
    if len(used) < 2:
        return 1.0
    table = table[np.ix_(used, used)]
    classes = np.zeros(len(used), int) if class_ids is None else np.asarray(class_ids)[used]
    dealt = deal_within(classes, seed, count)
    rows = np.arange(len(used))
    by_accident = table[rows, dealt].mean(axis=1)
    observed = table[rows, rows].mean()
    above = (by_accident >= observed - 1e-12).sum()
    below = (by_accident <= observed + 1e-12).sum()
    tail = min(above, below) if two_sided else above
    return float(min(1.0, (1 + two_sided) * (tail + 1) / (count + 1)))


def deal_within(classes: np.ndarray, seed: int, count: int) -> np.ndarray:
    """Random permutations within classes: [m] -> int [count m]."""
    _, block = np.unique(classes, return_inverse=True)
    keys = draws.generator((seed,), "permutations").random((count, len(block)))
    dealt = np.empty((count, len(block)), int)
    dealt[:, np.argsort(block, kind="stable")] = np.argsort(block + keys, axis=1)  # keys lie below 1: classes stay
    return dealt


def accident_level(table: np.ndarray) -> float:
    """Mean of the entries beside the diagonal, NaN left out: what the same pictures score for other stimuli."""
    beside = table[~np.eye(len(table), dtype=bool)]
    beside = beside[np.isfinite(beside)]
    return float(beside.mean()) if len(beside) else float("nan")

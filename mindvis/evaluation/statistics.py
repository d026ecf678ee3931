"""Statistics over stimuli: what another draw of as many stimuli could have given, and what chance could have."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from mindvis.common import draws

NUM_RESAMPLES = 10_000
LEVEL = 0.95


def interval(per_stimulus: np.ndarray, seed: int, num_resamples: int = NUM_RESAMPLES) -> tuple[float, float]:
    """95 % percentile interval of the mean over stimuli, by bootstrap: [n] (means over samples) -> low, high."""
    means = per_stimulus[_resamples(len(per_stimulus), seed, num_resamples)].mean(axis=1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


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
    exact = 2**n <= num_resamples
    if exact:
        signs = 1 - 2 * (np.arange(2**n)[:, None] >> np.arange(n) & 1)  # [2^n n]
    else:
        signs = 1 - 2 * draws.generator((seed,), "sign_flip").integers(2, size=(num_resamples, n))
    observed = abs(difference.sum())
    as_far = np.abs(signs @ difference) >= observed * (1 - 1e-12)  # equal sums differ by rounding
    return float(as_far.mean() if exact else (as_far.sum() + 1) / (num_resamples + 1))


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
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


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


def _resamples(n: int, seed: int, num_resamples: int) -> np.ndarray:
    """Rows of stimuli drawn with replacement: int [num_resamples, n]; the same for every figure of a report."""
    return draws.generator((seed,), "bootstrap").integers(n, size=(num_resamples, n))

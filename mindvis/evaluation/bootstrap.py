"""Bootstrap over stimuli: what another draw of as many stimuli could have given."""

import numpy as np

from mindvis.common import draws

NUM_RESAMPLES = 10_000
LEVEL = 0.95


def interval(per_stimulus: np.ndarray, seed: int, num_resamples: int = NUM_RESAMPLES) -> tuple[float, float]:
    """95 % percentile interval of the mean over stimuli: [n] (means over samples) -> low, high."""
    means = per_stimulus[_resamples(len(per_stimulus), seed, num_resamples)].mean(axis=1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def paired_difference(
    first: np.ndarray, second: np.ndarray, seed: int, num_resamples: int = NUM_RESAMPLES
) -> tuple[float, float, float, float]:
    """Mean of first - second over the same stimuli, [n] twice -> difference, low, high, two-sided p value.

    p counts resamples whose difference has the other sign, twice, with one added so that it is never 0.
    """
    difference = first - second
    means = difference[_resamples(len(difference), seed, num_resamples)].mean(axis=1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    tail = min((means <= 0).sum(), (means >= 0).sum())
    return float(difference.mean()), float(low), float(high), float(min(1.0, 2 * (tail + 1) / (num_resamples + 1)))


def _resamples(n: int, seed: int, num_resamples: int) -> np.ndarray:
    """Rows of stimuli drawn with replacement: int [num_resamples, n]; the same for every figure of a report."""
    return draws.generator((seed,), "bootstrap").integers(n, size=(num_resamples, n))

"""Statistics over stimuli: what another draw of as many stimuli could have given, and what chance could have."""

import numpy as np

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


def _resamples(n: int, seed: int, num_resamples: int) -> np.ndarray:
    """Rows of stimuli drawn with replacement: int [num_resamples, n]; the same for every figure of a report."""
    return draws.generator((seed,), "bootstrap").integers(n, size=(num_resamples, n))

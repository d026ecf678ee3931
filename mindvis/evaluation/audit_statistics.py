"""Own against other pictures: the area under that curve, and p values by dealing the pictures to other stimuli.

A *table* [m m] holds, for the decoded pictures of stimulus g, the score they would have if stimulus j were the one that
was seen. Its diagonal is what was measured, its other entries are what the same pictures score by accident.
"""

import numpy as np
from scipy.stats import rankdata

from mindvis.common import draws

NUM_PERMUTATIONS = 5000


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

"""How much of a voxel's variance the stimulus explains, from repeats: some rows in memory at a time."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mindvis.common.errors import InputError


def noise_ceiling(rows: Any, groups: Sequence[Sequence[int]], averaged: float | None = None) -> np.ndarray:
    """Share of each voxel's variance that the stimulus explains in a mean of `averaged` trials, float64 [v].

    `rows` [n v] are indexed one at a time; `groups` are those of one stimulus, of which the ones with two or more
    count. Analysis of variance: noise is the variance among repeats, signal the variance of the means beyond what
    noise explains (Allen et al. 2022, Natural Scenes Dataset, "noise ceiling"). `averaged`: by default the mean number
    of repeats. Raises InputError where fewer than two stimuli are repeated.
    """
    repeated = [list(group) for group in groups if len(group) > 1]
    if len(repeated) < 2:
        raise InputError(f"noise ceiling: {len(repeated)} of {len(groups)} stimuli are repeated, need two or more")
    within: Any = 0.0
    mean: Any = 0.0
    between: Any = 0.0
    for k, group in enumerate(repeated, start=1):
        trials = np.stack([np.asarray(rows[row], np.float64) for row in group])  # [r v]
        own = trials.mean(axis=0)
        within = within + ((trials - own) ** 2).sum(axis=0)
        shift = own - mean
        mean = mean + shift / k
        between = between + shift * (own - mean)
    counts = np.array([len(group) for group in repeated])
    noise = within / (counts.sum() - len(counts))
    signal = np.maximum(between / (len(counts) - 1) - noise * (1 / counts).mean(), 0)
    total = signal + noise / (averaged or counts.mean())
    return np.divide(signal, total, out=np.zeros_like(signal), where=total > 0)

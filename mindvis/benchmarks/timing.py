"""Times of repeated work, as medians with their spread."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Timing:
    """Seconds of one call: the median over repetitions, the fastest and the slowest."""

    median: float
    fastest: float
    slowest: float


def measure(work: Callable[[], object], repetitions: int, warmup: int = 1) -> Timing:
    """Time `work` after `warmup` calls that do not count."""
    for _ in range(warmup):
        work()
    seconds = []
    for _ in range(repetitions):
        begun = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begun)
    return Timing(float(np.median(seconds)), min(seconds), max(seconds))

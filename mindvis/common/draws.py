"""Random draws that are a function of (seed, epoch, sample) alone.

A draw does not depend on the batch a sample came in, on the process that loaded it or on what was drawn before it, so a
run that is killed and resumed, or spread over more devices, sees the numbers of the uninterrupted one.
A *key* is the row (seed, epoch, sample index) that data sets put beside every sample; a *stream* names the purpose of
the draw, so that the mask of a sample and its diffusion noise are independent.
"""

import zlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

Key = Sequence[int]


def generator(key: Key, stream: str) -> np.random.Generator:
    """Generator of one sample and purpose. `key`: non-negative integers, here (seed, epoch, index)."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([*map(int, key), zlib.crc32(stream.encode())])))


def uniform(keys: Tensor, stream: str, shape: Sequence[int] = ()) -> Tensor:
    """Uniform draws in [0, 1): keys [b 3] -> float32 [b *shape] on the CPU."""
    rows = [generator(key, stream).random(tuple(shape), dtype=np.float32) for key in keys.tolist()]
    return torch.from_numpy(np.stack(rows))


def normal(keys: Tensor, stream: str, shape: Sequence[int]) -> Tensor:
    """Standard normal draws: keys [b 3] -> float32 [b *shape] on the CPU."""
    rows = [generator(key, stream).standard_normal(tuple(shape), dtype=np.float32) for key in keys.tolist()]
    return torch.from_numpy(np.stack(rows))


def integers(keys: Tensor, stream: str, high: int) -> Tensor:
    """Uniform integers in [0, high): keys [b 3] -> int64 [b] on the CPU."""
    return torch.tensor([generator(key, stream).integers(high) for key in keys.tolist()])


def derangement(groups: Sequence[int] | np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """An order of rows in which none stands in the place of a row of its own group: groups [n] -> int [n].

    None where one group holds more than half of the rows, so that there is no such order.
    """
    _, group = np.unique(groups, return_inverse=True)
    sizes = np.bincount(group)
    n, largest = len(group), int(sizes.max())
    if 2 * largest > n:
        return None
    # sorted by group, every row takes the row as far ahead as the largest group is long: that is of another group
    by_group = np.lexsort((rng.permutation(n), rng.permutation(len(sizes))[group]))
    taken = np.empty(n, int)
    taken[by_group] = np.roll(by_group, -largest)
    for i, j in rng.integers(n, size=(20 * n, 2)):  # random exchanges, of which those that keep it a derangement
        if group[taken[i]] != group[j] and group[taken[j]] != group[i]:
            taken[i], taken[j] = taken[j], taken[i]
    return taken

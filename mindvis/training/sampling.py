"""Batches of sample keys, in an order that follows from (seed, epoch) and divides over processes.

A key is (seed, epoch, index); data sets and modules derive every draw of a sample from it. W processes of batch b see
together, step by step, the samples of one process of batch W * b.
"""

from collections.abc import Callable, Iterator

import numpy as np

from mindvis.common import draws
from mindvis.common.errors import InputError

Key = tuple[int, int, int]


class TrainSampler:
    """Keys of shuffled training batches for one of `world_size` processes, from where `position` says.

    `position()` is (epoch, batches of it already done): it is asked whenever an epoch is begun or gone on with, so a
    resumed run continues with the very next batch. The last batch may be short, and is then shared as evenly as
    possible; one with fewer samples than processes is left out. Raises `InputError` for too few samples.
    """

    def __init__(
        self,
        num_samples: int,
        batch_size: int,
        *,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        position: Callable[[], tuple[int, int]] = lambda: (0, 0),
    ):
        _check(num_samples, batch_size, world_size)
        self.num_samples, self.seed = num_samples, seed
        self.rank, self.world_size, self.position = rank, world_size, position
        self.global_batch = batch_size * world_size

    def __len__(self) -> int:
        full, rest = divmod(self.num_samples, self.global_batch)
        return full + (rest >= self.world_size)

    def __iter__(self) -> Iterator[list[Key]]:
        epoch, done = self.position()
        order = draws.generator((self.seed, epoch), "order").permutation(self.num_samples)
        for batch in range(done, len(self)):
            rows = order[batch * self.global_batch : (batch + 1) * self.global_batch]
            yield [(self.seed, epoch, int(row)) for row in self._share(rows)]

    def loss_weight(self, batch: int, accumulate: int) -> float:
        """What the mean loss of `batch` counts in its optimiser step, relative to a full batch of a full step.

        A step is `accumulate` batches on all processes and its gradient the mean over its samples; averaging the means
        of unequal batches would favour the samples of the short ones.
        """
        first = batch - batch % accumulate
        step = range(first, min(first + accumulate, len(self)))
        in_step = sum(len(self._rows(index)) for index in step)
        return len(self._share(self._rows(batch))) * self.world_size * accumulate / in_step

    def _rows(self, batch: int) -> range:
        return range(self.num_samples)[batch * self.global_batch : (batch + 1) * self.global_batch]

    def _share(self, rows: np.ndarray | range) -> np.ndarray:
        return np.array_split(rows, self.world_size)[self.rank]


class EvalSampler:
    """Keys (0, 0, i) of every sample once, in order, with as many batches on each of `world_size` processes.

    The batches are of nearly equal size, at most one sample above `batch_size`: no process may run out before another,
    because they wait for each other. Raises `InputError` for too few samples.
    """

    def __init__(self, num_samples: int, batch_size: int, *, rank: int = 0, world_size: int = 1):
        _check(num_samples, batch_size, world_size)
        self.rank, self.world_size = rank, world_size
        wanted = -(-num_samples // (batch_size * world_size))
        self.batches = np.array_split(np.arange(num_samples), min(wanted, num_samples // world_size))

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[Key]]:
        for rows in self.batches:
            yield [(0, 0, int(row)) for row in np.array_split(rows, self.world_size)[self.rank]]


def _check(num_samples: int, batch_size: int, world_size: int) -> None:
    if batch_size < 1:
        raise InputError(f"setting trainer.batch_size is {batch_size}; needed: at least 1")
    if num_samples < world_size:
        raise InputError(f"data set: {num_samples} samples for {world_size} processes; needed: one each at least")

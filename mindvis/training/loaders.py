"""Loaders of a training: which samples make a batch, made by processes of their own where there is a GPU to be fed.

A sampler gives keys (seed, epoch, index), in an order that follows from (seed, epoch); data sets and modules derive
every draw of a sample from its key. W processes of batch b see together, step by step, the samples of one process of
batch W * b.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from mindvis.common import draws
from mindvis.common.errors import InputError
from mindvis.config.schemas import TrainerConfig

log = logging.getLogger(__name__)

MOST_WORKERS = 4  # more would make batches faster than any GPU takes them

Batch = dict[str, Any]
Key = tuple[int, int, int]


class TrainSampler:
    """Keys of shuffled training batches for one of `world_size` processes, from where `position` says.

    `position()` is (epoch, batches of it already done), called whenever an epoch is begun or continued, so a resumed
    run continues with the very next batch. The last batch may be short, and is then shared as evenly as
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
        check_samples(num_samples, world_size)
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
        check_samples(num_samples, world_size)
        self.rank, self.world_size = rank, world_size
        wanted = -(-num_samples // (batch_size * world_size))
        self.batches = np.array_split(np.arange(num_samples), min(wanted, num_samples // world_size))

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[Key]]:
        for rows in self.batches:
            yield [(0, 0, int(row)) for row in np.array_split(rows, self.world_size)[self.rank]]


class WatchedLoader(DataLoader):
    """DataLoader that says so when a batch takes longer than `stall_seconds`, and counts the seconds `waited`.

    It begins to load when the first batch is asked for: Lightning makes iterators before it has restored where a run
    stands.
    """

    def __init__(self, *args: Any, name: str, stall_seconds: float, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.name, self.stall_seconds, self.waited = name, stall_seconds, 0.0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        batches = super().__iter__()
        for index in range(len(self)):
            begun = time.monotonic()
            alarm = threading.Timer(self.stall_seconds, self._complain, (index,))
            alarm.daemon = True
            alarm.start()
            try:
                batch = next(batches)
            except StopIteration:
                return
            finally:
                alarm.cancel()
                self.waited += time.monotonic() - begun
            yield batch

    def _complain(self, index: int) -> None:
        log.warning(
            "data loader %r has given no batch for %g s (batch %d of %d, num_workers=%d): is the storage stuck?",
            *(self.name, self.stall_seconds, index + 1, len(self), self.num_workers),
        )


def _with_draws(collate: Callable[[Sequence], Batch], draw: Callable[[Batch], Batch], items: Sequence) -> Batch:
    """A batch and the random draws a module makes for it, in the process that loads the items."""
    batch = collate(items)
    return batch | draw(batch)


class Loaders(pl.LightningDataModule):
    """Train and validation loaders of one process.

    A data set may bring a `collate` of its own; `draw` adds random draws, by key, to a batch.
    """

    trainer: Any  # pl.Trainer, set by Lightning

    def __init__(
        self,
        train_set: Any,  # Dataset with a length
        val_set: Any,  # as `train_set`, or None
        *,
        seed: int,
        settings: TrainerConfig,
        draw: Callable[[Batch], Batch] | None = None,
    ):
        super().__init__()
        self.train_set, self.val_set, self.seed, self.settings = train_set, val_set, seed, settings
        self.draw = draw

    def train_dataloader(self) -> WatchedLoader:
        loop = self.trainer.fit_loop

        def position() -> tuple[int, int]:
            return loop.epoch_progress.current.processed, loop.epoch_loop.batch_progress.current.completed

        size = self.settings.batch_size
        sampler = TrainSampler(len(self.train_set), size, seed=self.seed, position=position, **self._ranks())
        return self._loader("train", self.train_set, sampler)

    def val_dataloader(self) -> WatchedLoader | list:
        if self.val_set is None:
            return []
        sampler = EvalSampler(len(self.val_set), self.settings.batch_size, **self._ranks())
        return self._loader("validation", self.val_set, sampler)

    def _ranks(self) -> dict[str, int]:
        return {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size}

    def _loader(self, name: str, dataset: Dataset, sampler: TrainSampler | EvalSampler) -> WatchedLoader:
        on_gpu = self.trainer.strategy.root_device.type == "cuda"
        num_workers = choose_workers(self.settings, on_gpu)
        collate: Any = getattr(dataset, "collate", default_collate)
        return WatchedLoader(
            dataset,
            name=name,
            stall_seconds=self.settings.stall_seconds,
            batch_sampler=sampler,
            collate_fn=collate if self.draw is None else partial(_with_draws, collate, self.draw),
            num_workers=num_workers,
            persistent_workers=num_workers > 0,  # else every epoch would start them again
            pin_memory=on_gpu,
            generator=torch.Generator(),  # else making an iterator would draw from the global generator
        )


def choose_workers(settings: TrainerConfig, on_gpu: bool) -> int:
    """Processes that load data: as set, else none on a CPU, and for a GPU its share of the cores, up to 4."""
    if settings.num_workers is not None:
        return settings.num_workers
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(MOST_WORKERS, cores // settings.devices - 1)) if on_gpu else 0


def check_samples(num_samples: int, world_size: int) -> None:
    """Raise `InputError` for fewer samples than processes."""
    if num_samples < world_size:
        raise InputError(f"data set: {num_samples} samples for {world_size} processes; needed: one each at least")

"""Loaders of a training: batches by key, made by processes of their own where there is a GPU to be fed."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import Dataset, default_collate

from mindvis.config.schemas import TrainerConfig
from mindvis.training.callbacks import WatchedLoader
from mindvis.training.sampling import EvalSampler, TrainSampler

MOST_WORKERS = 4  # more would make batches faster than any GPU takes them

Batch = dict[str, Any]


class Collate:
    """Items to a batch, with the draws that a module makes for it: both are done where the items are loaded."""

    def __init__(self, collate: Callable[[Sequence], Batch], draw: Callable[[Batch], Batch] | None):
        self.collate, self.draw = collate, draw

    def __call__(self, items: Sequence) -> Batch:
        batch = self.collate(items)
        return batch if self.draw is None else batch | self.draw(batch)


class Loaders(pl.LightningDataModule):
    """Train and validation loaders of one process.

    A data set may bring a `collate` of its own; `draw` adds random draws, by key, to a batch.
    """

    def __init__(
        self,
        train_set: Dataset,
        val_set: Dataset | None,
        *,
        seed: int,
        settings: TrainerConfig,
        draw: Callable[[Batch], Batch] | None = None,
    ):
        super().__init__()
        self.train_set, self.val_set, self.seed, self.settings = train_set, val_set, seed, settings
        self.batch_size, self.draw = settings.batch_size, draw

    def train_dataloader(self) -> WatchedLoader:
        loop = self.trainer.fit_loop

        def position() -> tuple[int, int]:
            return loop.epoch_progress.current.processed, loop.epoch_loop.batch_progress.current.completed

        sampler = TrainSampler(
            len(self.train_set), self.batch_size, seed=self.seed, position=position, **self._processes()
        )
        return self._loader("train", self.train_set, sampler)

    def val_dataloader(self) -> WatchedLoader | list:
        if self.val_set is None:
            return []
        return self._loader(
            "validation", self.val_set, EvalSampler(len(self.val_set), self.batch_size, **self._processes())
        )

    def _processes(self) -> dict[str, int]:
        return {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size}

    def _loader(self, name: str, dataset: Dataset, sampler: TrainSampler | EvalSampler) -> WatchedLoader:
        on_gpu = self.trainer.strategy.root_device.type == "cuda"
        num_workers = choose_workers(self.settings, on_gpu)
        return WatchedLoader(
            dataset,
            name=name,
            stall_seconds=self.settings.stall_seconds,
            batch_sampler=sampler,
            collate_fn=Collate(getattr(dataset, "collate", default_collate), self.draw),
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

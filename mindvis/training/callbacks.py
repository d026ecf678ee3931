"""What watches a training: loaders that stall, speed and memory, a limit of steps."""

import logging
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from mindvis.common.files import append_text, to_csv
from mindvis.common.progress import Pace, minutes
from mindvis.training.logging import MetricsFile

log = logging.getLogger(__name__)


class StepLimit(pl.Callback):
    """Ends the training, with its last validation, after `max_steps` optimiser steps.

    Lightning's own limit is not used: with it, a run resumed between two epochs begins in the wrong one.
    """

    def __init__(self, max_steps: int):
        self.max_steps = max_steps

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._check(trainer)

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        self._check(trainer)

    def _check(self, trainer: pl.Trainer) -> None:
        if 0 <= self.max_steps <= trainer.global_step:
            trainer.should_stop = True


class Speed(pl.Callback):
    """Samples a second, time to finish and peak memory: speed.csv, and loggers other than metrics.csv."""

    COLUMNS = ("step", "samples_per_second", "hours_left", "loader_share", "peak_memory_gb")

    def __init__(self, folder: Path, *, batch_size: int, every_steps: int, max_steps: int = -1):
        self.path, self.batch_size, self.every_steps = folder / "speed.csv", batch_size, every_steps
        self.max_steps = max_steps
        self._published = 0  # step of the last row
        self._seconds = self._waited = self._at = 0.0

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._published = trainer.global_step

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Validation and figures between two epochs are no training."""
        self._at, trainer.train_dataloader.waited = time.monotonic(), 0.0

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        self._seconds += time.monotonic() - self._at
        self._waited += trainer.train_dataloader.waited
        self._at, trainer.train_dataloader.waited = time.monotonic(), 0.0
        if trainer.global_step - self._published >= self.every_steps:
            self._publish(trainer)

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """The steps after the last row, or all of a short run."""
        if trainer.global_step > self._published:
            self._publish(trainer)

    def _publish(self, trainer: pl.Trainer) -> None:
        steps, left = trainer.global_step - self._published, _steps_left(trainer, self.max_steps)
        per_step = self.batch_size * trainer.accumulate_grad_batches * trainer.world_size
        values = {
            "samples_per_second": steps * per_step / self._seconds,
            "hours_left": self._seconds / steps * left / 3600,
            "loader_share": self._waited / self._seconds,
            "peak_memory_gb": peak_memory_gb(trainer.strategy.root_device),
        }
        self._published, self._seconds, self._waited = trainer.global_step, 0.0, 0.0
        if trainer.is_global_zero:
            self._write(trainer, values)

    def _write(self, trainer: pl.Trainer, values: dict[str, float]) -> None:
        for logger in trainer.loggers:
            if not isinstance(logger, MetricsFile):
                logger.log_metrics(
                    {f"speed/{key}": value for key, value in values.items()}, step=trainer.global_step - 1
                )
        row = {"step": trainer.global_step} | {key: f"{value:.6g}" for key, value in values.items()}
        append_text(self.path, to_csv(self.COLUMNS, [row], header=not self.path.exists()))


class StepProgress(pl.Callback):
    """How far the training is: one bar on a terminal, and now and then a line where the output goes elsewhere."""

    BAR = "{percentage:3.0f}%|{bar}| step {n_fmt} of {total_fmt}, {remaining} left{postfix}"

    def __init__(self, *, batch_size: int, max_steps: int = -1):
        self.batch_size, self.max_steps = batch_size, max_steps
        self.pace, self._first, self._bar = Pace(), 0, None

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.pace, self._first = Pace(), trainer.global_step
        if trainer.is_global_zero and sys.stderr.isatty():
            total = trainer.global_step + _steps_left(trainer, self.max_steps)
            self._bar = tqdm(total=total, initial=trainer.global_step, bar_format=self.BAR, dynamic_ncols=True)

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        step = trainer.global_step
        if not trainer.is_global_zero or step == self._first:
            return
        if self._bar is not None:
            per_step = self.batch_size * trainer.accumulate_grad_batches * trainer.world_size
            if step % trainer.log_every_n_steps == 0:  # to read a loss is to wait for the device
                speed = f"{per_step * (step - self._first) / self.pace.seconds:.3g} samples/s"
                self._bar.set_postfix_str(", ".join([*_losses(trainer), speed]), refresh=False)
            self._bar.update(step - self._bar.n)
        elif self.pace.due():
            self._log(trainer, step)

    def teardown(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        if self._bar is not None:
            self._bar.close()

    def _log(self, trainer: pl.Trainer, step: int) -> None:
        total = step + _steps_left(trainer, self.max_steps)
        left = self.pace.seconds / (step - self._first) * (total - step)
        where = (
            f"step {step} of {total} ({step / total:.0%}), epoch {trainer.current_epoch + 1} of {trainer.max_epochs}"
        )
        log.info("%s", ", ".join([where, *_losses(trainer), f"{minutes(left)} left"]))


def _losses(trainer: pl.Trainer) -> list[str]:
    """The last losses in words, those that there are yet."""
    losses = {name: trainer.callback_metrics.get(name) for name in ("train/loss", "val/loss")}
    return [f"{name} {float(loss):.4g}" for name, loss in losses.items() if loss is not None]


class WatchedLoader(DataLoader):
    """DataLoader that says so when a batch takes longer than `stall_seconds`, and counts the seconds `waited`.

    It begins to load when the first batch is asked for: Lightning makes iterators before it has restored where a run
    stands.
    """

    def __init__(self, *args: Any, name: str, stall_seconds: float, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.name, self.stall_seconds, self.waited = name, stall_seconds, 0.0

    def __iter__(self) -> Iterator[Any]:
        batches = super().__iter__()
        for index in range(len(self)):
            try:
                yield self._wait_for(lambda: next(batches), index)
            except StopIteration:
                return

    def _wait_for(self, take: Callable[[], Any], index: int) -> Any:
        begun = time.monotonic()
        alarm = threading.Timer(self.stall_seconds, self._complain, (index,))
        alarm.daemon = True
        alarm.start()
        try:
            return take()
        finally:
            alarm.cancel()
            self.waited += time.monotonic() - begun

    def _complain(self, index: int) -> None:
        log.warning(
            "data loader %r has given no batch for %g s (batch %d of %d, num_workers=%d): is the storage stuck?",
            *(self.name, self.stall_seconds, index + 1, len(self), self.num_workers),
        )


def peak_memory_gb(device: torch.device) -> float:
    """Largest memory so far: of the GPU, or of this process (resident) on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def _steps_left(trainer: pl.Trainer, max_steps: int) -> int:
    per_epoch = -(-trainer.num_training_batches // trainer.accumulate_grad_batches)
    total = per_epoch * trainer.max_epochs
    return max(0, (min(total, max_steps) if max_steps >= 0 else total) - trainer.global_step)

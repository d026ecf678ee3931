"""What watches a training: its loss, its speed and memory, a limit of steps, processes that do not come."""

import logging
import math
import os
import resource
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from tqdm import tqdm

from mindvis.common.errors import InputError
from mindvis.common.files import append_text, to_csv
from mindvis.common.progress import Pace, minutes
from mindvis.config.schemas import TrainerConfig
from mindvis.training.logging import MetricsFile

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 10.0  # after which a training of several processes says what it waits for


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

    def __init__(self, folder: Path, settings: TrainerConfig):
        self.path, self.settings = folder / "speed.csv", settings
        self._published = 0  # step of the last row
        self._seconds = self._waited = self._at = 0.0

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._published = trainer.global_step

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Validation and figures between two epochs are no training."""
        self._at, _loader(trainer).waited = time.monotonic(), 0.0

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        self._seconds += time.monotonic() - self._at
        self._waited += _loader(trainer).waited
        self._at, _loader(trainer).waited = time.monotonic(), 0.0
        if trainer.global_step - self._published >= self.settings.log_every_steps:
            self._publish(trainer)

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """The steps after the last row, or all of a short run."""
        if trainer.global_step > self._published:
            self._publish(trainer)

    def _publish(self, trainer: pl.Trainer) -> None:
        steps, left = trainer.global_step - self._published, _steps_left(trainer, self.settings.max_steps)
        values = {
            "samples_per_second": steps * _samples_a_step(trainer, self.settings) / self._seconds,
            "hours_left": self._seconds / steps * left / 3600,
            "loader_share": self._waited / self._seconds,
            "peak_memory_gb": peak_memory_gb(trainer.strategy.root_device),
        }
        self._published, self._seconds, self._waited = trainer.global_step, 0.0, 0.0
        if not trainer.is_global_zero:
            return
        named = {f"speed/{key}": value for key, value in values.items()}
        for logger in trainer.loggers:
            if not isinstance(logger, MetricsFile):
                logger.log_metrics(named, step=trainer.global_step - 1)
        row = {"step": trainer.global_step} | {key: f"{value:.6g}" for key, value in values.items()}
        append_text(self.path, to_csv(self.COLUMNS, [row], header=not self.path.exists()))


class StepProgress(pl.Callback):
    """How far the training is: one bar on a terminal, and now and then a line where the output goes elsewhere."""

    BAR = "{percentage:3.0f}%|{bar}| step {n_fmt} of {total_fmt}, {remaining} left{postfix}"

    def __init__(self, settings: TrainerConfig):
        self.settings = settings
        self.pace, self._first = Pace(), 0
        self._bar: tqdm | None = None

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.pace, self._first = Pace(), trainer.global_step
        if trainer.is_global_zero and sys.stderr.isatty():
            total = trainer.global_step + _steps_left(trainer, self.settings.max_steps)
            self._bar = tqdm(total=total, initial=trainer.global_step, bar_format=self.BAR, dynamic_ncols=True)

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        step = trainer.global_step
        if not trainer.is_global_zero or step == self._first:
            return
        if self._bar is not None:
            if _is_logged(trainer):  # to read a loss is to wait for the device
                samples = _samples_a_step(trainer, self.settings) * (step - self._first)
                speed = f"{samples / self.pace.seconds:.3g} samples/s"
                self._bar.set_postfix_str(", ".join([*_losses(trainer), speed]), refresh=False)
            self._bar.update(step - self._bar.n)
        elif self.pace.due():
            self._log(trainer, step)

    def teardown(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        if self._bar is not None:
            self._bar.close()

    def _log(self, trainer: pl.Trainer, step: int) -> None:
        total = step + _steps_left(trainer, self.settings.max_steps)
        left = self.pace.seconds / (step - self._first) * (total - step)
        done = f"step {step} of {total} ({step / total:.0%})"
        epoch = f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}"
        log.info("%s", ", ".join([done, epoch, *_losses(trainer), f"{minutes(left)} left"]))


class LossWatch(pl.Callback):
    """Makes every sample of a step count alike, logs the loss of the step, and stops when it is no number.

    `train/loss` is the mean over all samples of an optimiser step, on all processes and accumulated batches: the same
    however the step is divided. What `training_step` returns beside its loss is averaged over the processes too.
    To read a loss a GPU has to be waited for, and processes for each other. So they are read when a step is logged, at
    the end of an epoch and before a checkpoint; on one CPU in every step, before any weight has changed.
    """

    def __init__(self, last_checkpoint: Path):
        self.last_checkpoint = last_checkpoint
        self.step_loss = torch.zeros(())
        self._unread: list[tuple[str, Tensor]] = []  # when it was, and the loss of one batch where it was computed

    def on_before_backward(self, trainer: pl.Trainer, module: pl.LightningModule, loss: Tensor) -> None:
        batch, accumulate = trainer.fit_loop.epoch_loop.batch_idx, trainer.accumulate_grad_batches
        weight = _loader(trainer).batch_sampler.loss_weight(batch, accumulate)
        if weight != 1.0:
            loss.mul_(weight)
        part = _unscaled(trainer, loss.detach().clone())
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        when = f"at step {trainer.global_step + 1} (epoch {trainer.current_epoch}), learning rate {rate:.3g}"
        self._unread.append((when, part))
        self.step_loss = part if batch % accumulate == 0 else self.step_loss + part
        if part.device.type == "cpu" and trainer.world_size == 1:
            self.check(trainer)

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, *_: Any) -> None:
        due = _is_read(trainer)
        if trainer.world_size == 1:
            module.log("train/loss", self.step_loss)
        elif due:
            self._log_means(trainer, module, outputs)
        if due:
            self.check(trainer)

    def check(self, trainer: pl.Trainer) -> None:
        """Read the losses since the last time, on all processes at once.

        Raises `InputError` with the first step whose loss is no number, its learning rate and the last good checkpoint.
        """
        if not self._unread:
            return
        times, parts = zip(*self._unread, strict=True)
        self._unread = []
        for when, loss in zip(times, _mean_over_processes(trainer, torch.stack(parts)).tolist(), strict=True):
            if not math.isfinite(loss):
                saved = self.last_checkpoint if self.last_checkpoint.exists() else "none yet"
                needed = "finite data, a lower optim.lr, or another precision"
                raise InputError(f"loss is {loss} {when}; last good checkpoint: {saved}; needed: {needed}")

    def _log_means(self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any) -> None:
        """Values of this process until now: those that a row of metrics.csv gets are means over all of them."""
        values = {"train/loss": self.step_loss}
        if isinstance(outputs, dict):
            values |= {name: value for name, value in outputs.items() if name != "loss"}
        means = _mean_over_processes(trainer, torch.stack([value.detach().float() for value in values.values()]))
        for name, mean in zip(values, means.unbind(), strict=True):
            module.log(name, mean)


class Assembly(pl.Callback):
    """Logs a line when not all processes have come together after some seconds."""

    def __init__(self, devices: int, num_nodes: int, patience: float = PATIENCE_SECONDS):
        self.devices, self.num_nodes = devices, num_nodes
        self.timer = threading.Timer(patience, self._say)
        self.timer.daemon = True

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around the training; from its setup on, all are there."""
        if self.devices * self.num_nodes > 1:
            self.timer.start()
        try:
            yield
        finally:
            self.timer.cancel()

    def setup(self, *_: Any, **__: Any) -> None:
        self.timer.cancel()

    def _say(self) -> None:
        each = "the same command on every node, with its own NODE_RANK and one MASTER_ADDR and MASTER_PORT"
        remedy = f"needed: {each}, by torchrun or srun; on one machine trainer.num_nodes=1"
        if self.num_nodes == 1:
            remedy = "they are started on this machine"
        where = f"{os.environ.get('MASTER_ADDR', 'this machine')}, port {os.environ.get('MASTER_PORT', 'not set')}"
        count = f"trainer.devices={self.devices} x trainer.num_nodes={self.num_nodes}"
        log.warning("waiting for all processes of %s at %s; %s", count, where, remedy)


def _losses(trainer: pl.Trainer) -> list[str]:
    """The last losses in words, those that there are yet."""
    losses = {name: trainer.callback_metrics.get(name) for name in ("train/loss", "val/loss")}
    return [f"{name} {float(loss):.4g}" for name, loss in losses.items() if loss is not None]


def peak_memory_gb(device: torch.device) -> float:
    """Largest memory so far: of the GPU, or of this process (resident) on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def _loader(trainer: pl.Trainer) -> Any:
    """The `WatchedLoader` of the training."""
    return trainer.train_dataloader


def _samples_a_step(trainer: pl.Trainer, settings: TrainerConfig) -> int:
    return settings.batch_size * trainer.accumulate_grad_batches * trainer.world_size


def _steps_left(trainer: pl.Trainer, max_steps: int) -> int:
    per_epoch = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
    total = per_epoch * (trainer.max_epochs or 1)
    return max(0, (min(total, max_steps) if max_steps >= 0 else total) - trainer.global_step)


def _is_read(trainer: pl.Trainer) -> bool:
    """Whether the batch that has just ended makes a step that is logged, or the last one of an epoch."""
    stepped = (trainer.fit_loop.epoch_loop.batch_idx + 1) % trainer.accumulate_grad_batches == 0
    return trainer.is_last_batch or (stepped and (_is_logged(trainer) or trainer.should_stop))


def _is_logged(trainer: pl.Trainer) -> bool:
    """Whether the step that was done last is one that is logged."""
    return trainer.global_step % trainer.log_every_n_steps == 0  # type: ignore[attr-defined]


def _mean_over_processes(trainer: pl.Trainer, values: Tensor) -> Tensor:
    return values if trainer.world_size == 1 else trainer.strategy.reduce(values, reduce_op="mean")


def _unscaled(trainer: pl.Trainer, loss: Tensor) -> Tensor:
    """The loss as it was before 16-bit training scaled it up; to read the scale one would have to wait for it."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    return loss if scaler is None else loss / scaler.scale(torch.ones_like(loss))

"""The loss of a step: every sample counts alike, it is logged, and a training stops when it is no number."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from mindvis.common.errors import InputError


@dataclass(frozen=True)
class Part:
    """Loss of one batch of an optimiser step on this process, where it was computed, and when that was."""

    step: int
    epoch: int
    rate: float
    loss: Tensor


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
        self._unread: list[Part] = []

    def on_before_backward(self, trainer: pl.Trainer, module: pl.LightningModule, loss: Tensor) -> None:
        batch, accumulate = trainer.fit_loop.epoch_loop.batch_idx, trainer.accumulate_grad_batches
        weight = trainer.train_dataloader.batch_sampler.loss_weight(batch, accumulate)
        if weight != 1.0:
            loss.mul_(weight)
        part = _unscaled(trainer, loss.detach().clone())
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        self._unread.append(Part(trainer.global_step + 1, trainer.current_epoch, rate, part))
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
        parts, self._unread = self._unread, []
        if not parts:
            return
        losses = _mean_over_processes(trainer, torch.stack([part.loss for part in parts]))
        for part, loss in zip(parts, losses.tolist(), strict=True):
            if not math.isfinite(loss):
                raise InputError(self._message(part, loss))

    def _log_means(self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any) -> None:
        """Values of this process until now: those that a row of metrics.csv gets are means over all of them."""
        values = {"train/loss": self.step_loss}
        if isinstance(outputs, dict):
            values |= {name: value for name, value in outputs.items() if name != "loss"}
        means = _mean_over_processes(trainer, torch.stack([value.detach().float() for value in values.values()]))
        for name, mean in zip(values, means.unbind(), strict=True):
            module.log(name, mean)

    def _message(self, part: Part, loss: float) -> str:
        saved = self.last_checkpoint if self.last_checkpoint.exists() else "none yet"
        return (
            f"loss is {loss} at step {part.step} (epoch {part.epoch}), "
            f"learning rate {part.rate:.3g}; last good checkpoint: {saved}; "
            "needed: finite data, a lower optim.lr, or another precision"
        )


def _is_read(trainer: pl.Trainer) -> bool:
    """Whether the batch that has just ended makes a step that is logged, or the last one of an epoch."""
    stepped = (trainer.fit_loop.epoch_loop.batch_idx + 1) % trainer.accumulate_grad_batches == 0
    logged = trainer.global_step % trainer.log_every_n_steps == 0 or trainer.should_stop
    return trainer.is_last_batch or (stepped and logged)


def _mean_over_processes(trainer: pl.Trainer, values: Tensor) -> Tensor:
    return values if trainer.world_size == 1 else trainer.strategy.reduce(values, reduce_op="mean")


def _unscaled(trainer: pl.Trainer, loss: Tensor) -> Tensor:
    """The loss as it was before 16-bit training scaled it up; its scaler waits for the device in every step anyway."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    return loss if scaler is None else loss / scaler.get_scale()

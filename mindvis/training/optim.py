"""Learning rates, parameter groups and the moving average of the weights, shared by both stages."""

import math
from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

UNAVERAGED = "unaveraged"  # key in a checkpoint: the weights that the training goes on with


def warmup_cosine(epoch: float, *, lr: float, min_lr: float, warmup_epochs: float, num_epochs: float) -> float:
    """Learning rate at a (fractional) epoch: linear warm-up from 0, then half a cosine down to `min_lr`.

    It stays at `min_lr` after `num_epochs`. Paper, appendix on training details.
    """
    if epoch < warmup_epochs:
        return lr * epoch / warmup_epochs
    if epoch >= num_epochs:
        return min_lr
    progress = (epoch - warmup_epochs) / (num_epochs - warmup_epochs)
    return min_lr + (lr - min_lr) * 0.5 * (1.0 + math.cos(math.pi * progress))


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Two AdamW groups over the trainable parameters: decayed (two or more dimensions, no biases) and not decayed."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    decays = {name: p.ndim >= 2 and name.rpartition(".")[2] != "bias" for name, p in named}
    decayed = [p for name, p in named if decays[name]]
    kept = [p for name, p in named if not decays[name]]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]


def adamw(groups: list[dict], *, lr: float, betas: Sequence[float]) -> torch.optim.AdamW:
    """AdamW over parameter groups, with the fused step where the device of every parameter has one."""
    devices = {p.device.type for group in groups for p in group["params"]}
    first, second = betas
    optimizer = torch.optim.AdamW(groups, lr=lr, betas=(first, second), fused=devices <= {"cpu", "cuda"})
    # A fused step would divide the gradients by the loss scale of 16-bit training itself, too late for clipping them:
    # the scaler is to do so before, as it does for any other optimiser.
    optimizer._step_supports_amp_scaling = False
    return optimizer


def with_warmup_cosine(
    optimizer: torch.optim.Optimizer,
    *,
    steps_per_epoch: int,
    lr: float,
    min_lr: float,
    warmup_epochs: float,
    num_epochs: float,
) -> dict:
    """What a module's `configure_optimizers` returns: the optimiser, its rate updated every step by `warmup_cosine`."""

    def factor(step: int) -> float:
        epochs = {"warmup_epochs": warmup_epochs, "num_epochs": num_epochs}
        return warmup_cosine(step / steps_per_epoch, lr=1.0, min_lr=min_lr / lr, **epochs)  # LambdaLR multiplies by lr

    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}}


def learning_rate(trainer: pl.Trainer) -> Tensor:
    """The rate of the first group, on the CPU: a number would be copied to the device to be logged, and waited for."""
    return torch.tensor(trainer.optimizers[0].param_groups[0]["lr"])


def steps_per_epoch(trainer: pl.Trainer) -> int:
    """Optimiser steps in an epoch of the training that `trainer` is about to run."""
    # the loader's length is not known before Lightning has set it up
    trainer.fit_loop.setup_data()
    return math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)


class AveragedWeights(pl.Callback):
    """Exponential moving average of the tuned weights, one update an optimiser step.

    A checkpoint holds the averages as its weights, so that whatever reads it decodes with them, and beside them the
    weights that a resumed training goes on with. The decay begins at (1 + step) / (10 + step) and grows to `decay`, so
    that the first weights are soon forgotten: Polyak and Juditsky 1992 (doi 10.1137/0330046); warm-up as is usual.
    """

    def __init__(self, decay: float):
        self.decay = decay
        self.averages: dict[str, Tensor] = {}
        self._step = 0

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Begin with the weights as they are, unless a checkpoint brought averages."""
        self.averages = self.averages or {name: weight.clone() for name, weight in _tuned(module).items()}
        self._step = trainer.global_step

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        """Update after a batch that ended a step, which is not every one where gradients are accumulated."""
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        decay = min(self.decay, (1 + self._step) / (10 + self._step))
        tuned = _tuned(module)
        for name, average in self.averages.items():
            average.lerp_(tuned[name], 1 - decay)

    def on_save_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Put the averages into the place of the weights."""
        if self.averages:
            checkpoint[UNAVERAGED] = {name: checkpoint["state_dict"][name] for name in self.averages}
            checkpoint["state_dict"] = {**checkpoint["state_dict"], **self.averages}

    def on_load_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Go on with the weights that were not averaged; the averages were loaded in their place."""
        unaveraged = checkpoint.get(UNAVERAGED, {})
        tuned = _tuned(module)
        self.averages = {name: checkpoint["state_dict"][name].to(tuned[name]).clone() for name in unaveraged}
        for name, weight in unaveraged.items():
            tuned[name].copy_(weight)


def averaging(decay: float) -> list[pl.Callback]:
    """The callback for a decay above 0."""
    return [AveragedWeights(decay)] if decay else []


def _tuned(module: pl.LightningModule) -> dict[str, Tensor]:
    return {name: weight.detach() for name, weight in module.named_parameters() if weight.requires_grad}

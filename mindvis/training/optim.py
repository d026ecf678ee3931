"""Learning rates and parameter groups shared by both stages."""

import math
from collections.abc import Sequence

import pytorch_lightning as pl
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR


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
    optimizer = torch.optim.AdamW(groups, lr=lr, betas=tuple(betas), fused=devices <= {"cpu", "cuda"})
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


def learning_rate(trainer: pl.Trainer) -> torch.Tensor:
    """The rate of the first group, on the CPU: a number would be copied to the device to be logged, and waited for."""
    return torch.tensor(trainer.optimizers[0].param_groups[0]["lr"])


def steps_per_epoch(trainer: pl.Trainer) -> int:
    """Optimiser steps in an epoch of the training that `trainer` is about to run."""
    # the loader's length is not known before Lightning has set it up
    trainer.fit_loop.setup_data()
    return math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)

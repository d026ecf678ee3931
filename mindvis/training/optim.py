"""Learning rates and parameter groups shared by both stages."""

import math

from torch import nn


def warmup_cosine(epoch: float, *, lr: float, min_lr: float, warmup_epochs: float, num_epochs: float) -> float:
    """Learning rate at a (fractional) epoch: linear warm-up from 0, then half a cosine down to `min_lr`.

    Paper, appendix on training details; the parity file `learning_rate` holds it at every step.
    """
    if epoch < warmup_epochs:
        return lr * epoch / warmup_epochs
    progress = (epoch - warmup_epochs) / (num_epochs - warmup_epochs)
    return min_lr + (lr - min_lr) * 0.5 * (1.0 + math.cos(math.pi * progress))


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Two AdamW groups over the trainable parameters: decayed (two or more dimensions, no biases) and not decayed."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    decayed = [p for name, p in named if p.ndim >= 2 and not name.endswith(".bias")]
    kept = [p for name, p in named if p.ndim < 2 or name.endswith(".bias")]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]

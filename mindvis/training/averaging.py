"""Moving average of the weights that are tuned, saved in their place."""

from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from mindvis.common.errors import InputError

UNAVERAGED = "unaveraged"  # key in a checkpoint: the weights that the training goes on with


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


def averaging(decay: float, selection: str) -> list[pl.Callback]:
    """The callback for a decay above 0. Raises InputError where checkpoints are selected by weights of single steps."""
    if decay and selection != "last":
        found = f"setting ema is {decay:g} with selection={selection}, which judges weights that are not averaged"
        raise InputError(f"{found}; needed: selection=last, or ema=0")
    return [AveragedWeights(decay)] if decay else []


def _tuned(module: pl.LightningModule) -> dict[str, Tensor]:
    return {name: weight.detach() for name, weight in module.named_parameters() if weight.requires_grad}

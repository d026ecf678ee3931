"""What a training says in its checkpoints about the model they hold, so that `read_weights` can build it again."""

from typing import Any

import pytorch_lightning as pl

from mindvis.checkpoints.formats import ENVELOPE, envelope
from mindvis.checkpoints.weights import Weights


class DescribeWeights(pl.Callback):
    """Writes kind and settings of the network into every checkpoint; the arguments are those of `Weights`.

    `prefix` is what the LightningModule puts before the network's names. `config` are the settings of the run.
    """

    def __init__(self, kind: str, settings: dict, *, config: dict | None = None, prefix: str = "network."):
        self.description = envelope(Weights(kind, {}, settings, config or {}), prefix)

    def on_save_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[ENVELOPE] = self.description

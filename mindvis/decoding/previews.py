"""Pictures made while a training runs: masked reconstructions (Stage A), decoded stimuli (Stage B)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pytorch_lightning as pl
import torch

from mindvis.common.plots import masked_reconstruction_plot, reconstruction_grid
from mindvis.data import FMRIDataset, PairedDataset
from mindvis.dc_ldm import LatentDiffusion
from mindvis.decoding.decode import decode
from mindvis.training.logging import log_figure


class EveryFewEpochs(pl.Callback):
    """Looks at the model after every `every_epochs` epochs and after the last (0: never), in all processes."""

    def __init__(self, every_epochs: int):
        self.every_epochs = every_epochs

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self.due(trainer) and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            module.eval()
            self.look(trainer, module)
            module.train()

    def due(self, trainer: pl.Trainer) -> bool:
        """Whether to look at the end of this epoch."""
        return is_due(trainer, self.every_epochs)

    def look(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        raise NotImplementedError


class _Preview(EveryFewEpochs):
    """Makes a picture of a few rows, evenly over the data set, in the first process."""

    name = "preview"
    caption = ""

    def __init__(self, dataset: FMRIDataset, *, every_epochs: int, num_samples: int = 4):
        super().__init__(every_epochs)
        self.dataset: Any = dataset
        self.rows = np.linspace(0, dataset.num_rows - 1, min(num_samples, dataset.num_rows)).astype(int)

    def look(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            log_figure(trainer.loggers, self.name, self.draw(module), trainer.global_step, caption=self.caption)

    def draw(self, module: Any) -> Any:
        """The picture, of a LightningModule of the stage."""
        raise NotImplementedError


class MaskedReconstructions(_Preview):
    """Stimulus-free view of Stage A: the fMRI, what the encoder saw of it, and the reconstruction."""

    name = "masked_reconstruction"
    caption = "a row a sample: fMRI, what the encoder saw of it, reconstruction"

    def draw(self, module: Any) -> Any:
        items = [self.dataset[int(row)] for row in self.rows]
        batch = {name: torch.stack([item[name] for item in items]) for name in ("fmri", "key")}
        shown = module.reconstruct({"fmri": batch["fmri"].to(module.device), "key": batch["key"]})
        arrays = (tensor.cpu().numpy() for tensor in (shown.fmri, shown.mask, shown.reconstruction))
        return masked_reconstruction_plot(*arrays, titles=[f"row {row}" for row in self.rows])


@dataclass(frozen=True)
class Sampling:
    """How pictures are decoded while training goes on."""

    num_samples: int
    sampler: str
    num_steps: int


class DecodedStimuli(_Preview):
    """Validation stimuli beside what is decoded from their fMRI."""

    name = "decoded"
    caption = "a row a stimulus: the stimulus first, then pictures decoded from its fMRI"

    def __init__(self, dataset: PairedDataset, *, every_epochs: int, num_stimuli: int, num_steps: int, seed: int):
        super().__init__(dataset, every_epochs=every_epochs, num_samples=num_stimuli)
        self.sampling, self.seed = Sampling(3, "dpm_solver", num_steps), seed

    def draw(self, module: Any) -> np.ndarray:
        decoded = decode_in_training(module, self.dataset, self.rows.tolist(), self.sampling, self.seed)
        return reconstruction_grid(self.dataset.stimuli[self.dataset.stimulus[self.rows]], decoded)


def decode_in_training(
    module: pl.LightningModule, dataset: PairedDataset, rows: Sequence[int], sampling: Sampling, seed: int
) -> np.ndarray:
    """Pictures uint8 [n k h w 3] of rows of the data set, in the precision of the frozen weights."""
    ldm = cast(LatentDiffusion, module.ldm)
    bfloat16 = ldm.unet.time_embed[0].weight.dtype == torch.bfloat16
    return decode(
        ldm,
        np.stack([dataset.fmri[row] for row in rows]),
        rows,
        num_samples=sampling.num_samples,
        sampler=sampling.sampler,
        num_steps=sampling.num_steps,
        seed=seed,
        precision="bf16-mixed" if bfloat16 else "32-true",
        image_size=dataset.stimuli.shape[1:3],
    )


def is_due(trainer: pl.Trainer, every_epochs: int) -> bool:
    """Whether an epoch that ends now is the last or a multiple of `every_epochs`; 0: never."""
    last = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
    return bool(every_epochs) and (last or (trainer.current_epoch + 1) % every_epochs == 0)

"""Pictures made while a training runs: masked reconstructions (Stage A), decoded stimuli (Stage B)."""

from collections.abc import Sequence

import numpy as np
import pytorch_lightning as pl
import torch

from mindvis.common.plots import masked_reconstruction_plot, reconstruction_grid
from mindvis.data import FMRIDataset, PairedDataset
from mindvis.decoding.decode import decode
from mindvis.training.logging import log_figure


class _Preview(pl.Callback):
    """Makes its picture after every `every_epochs` epochs and after the last (0: never), in the first process."""

    name = "preview"
    caption = ""

    def __init__(self, dataset: FMRIDataset, *, every_epochs: int, num_samples: int = 4):
        self.dataset, self.every_epochs = dataset, every_epochs
        self.rows = np.linspace(0, dataset.num_rows - 1, min(num_samples, dataset.num_rows)).astype(int)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if is_due(trainer, self.every_epochs) and trainer.is_global_zero and not trainer.fast_dev_run:
            module.eval()
            log_figure(trainer.loggers, self.name, self.draw(module), trainer.global_step, caption=self.caption)
            module.train()

    def draw(self, module: pl.LightningModule) -> object:
        raise NotImplementedError


class MaskedReconstructions(_Preview):
    """Stimulus-free view of Stage A: the fMRI, what the encoder saw of it, and the reconstruction."""

    name = "masked_reconstruction"
    caption = "a row a sample: fMRI, what the encoder saw of it, reconstruction"

    def draw(self, module: pl.LightningModule) -> object:
        items = [self.dataset[int(row)] for row in self.rows]
        batch = {name: torch.stack([item[name] for item in items]) for name in ("fmri", "key")}
        shown = module.reconstruct({"fmri": batch["fmri"].to(module.device), "key": batch["key"]})
        arrays = (tensor.cpu().numpy() for tensor in (shown.fmri, shown.mask, shown.reconstruction))
        return masked_reconstruction_plot(*arrays, titles=[f"row {row}" for row in self.rows])


class DecodedStimuli(_Preview):
    """Validation stimuli beside what is decoded from their fMRI."""

    name = "decoded"
    caption = "a row a stimulus: the stimulus first, then pictures decoded from its fMRI"

    def __init__(self, dataset: PairedDataset, *, every_epochs: int, num_stimuli: int, num_steps: int, seed: int):
        super().__init__(dataset, every_epochs=every_epochs, num_samples=num_stimuli)
        self.num_steps, self.seed = num_steps, seed

    def draw(self, module: pl.LightningModule) -> np.ndarray:
        fmri = np.stack([self.dataset.fmri[int(row)] for row in self.rows])
        stimuli: Sequence[int] = self.rows.tolist()
        settings = {"num_samples": 3, "num_steps": self.num_steps, "sampler": "dpm_solver", "seed": self.seed}
        settings |= {"precision": training_precision(module), "image_size": self.dataset.stimuli.shape[1:3]}
        decoded = decode(module.ldm, fmri, stimuli, **settings)
        return reconstruction_grid(self.dataset.stimuli[self.dataset.stimulus[self.rows]], decoded)


def is_due(trainer: pl.Trainer, every_epochs: int) -> bool:
    """Whether an epoch that ends now is one of every so many, or the last; 0: never."""
    last = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
    return bool(every_epochs) and (last or (trainer.current_epoch + 1) % every_epochs == 0)


def training_precision(module: pl.LightningModule) -> str:
    """The precision in which the frozen weights of a training are kept, as `decode` names it."""
    return "bf16-mixed" if module.ldm.unet.time_embed[0].weight.dtype == torch.bfloat16 else "32-true"

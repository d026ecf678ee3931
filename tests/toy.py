"""A training of a few milliseconds a step, whose draws follow from sample keys as those of the real stages do."""

from dataclasses import replace
from pathlib import Path

import matplotlib.figure
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Dataset

from mindvis.common import draws
from mindvis.config.loading import plain
from mindvis.config.schemas import LoggingConfig, OptimConfig, PretrainMBMConfig, TrainerConfig
from mindvis.training.fit import FitResult, fit
from mindvis.training.logging import log_figure
from mindvis.training.runs import create_run

SETTINGS = TrainerConfig(
    max_epochs=3,
    batch_size=2,
    accelerator="cpu",
    checkpoint_every_steps=1,
    log_every_steps=1,
    val_fraction=0.0,
)
QUIET = LoggingConfig(wandb="disabled")


class ToySet(Dataset):
    """Samples of 4 voxels; augmentation adds noise that follows from the key."""

    def __init__(self, num_samples: int = 11):
        self.fmri = torch.randn(num_samples, 1, 4, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.fmri)

    def __getitem__(self, key: tuple[int, int, int]) -> dict[str, Tensor]:
        noise = torch.from_numpy(draws.generator(key, "noise").standard_normal((1, 4), dtype="float32"))
        return {"fmri": self.fmri[key[2]] + 0.1 * noise, "key": torch.tensor(key)}


class ToyModule(pl.LightningModule):
    """Reconstructs voxels through a random mask."""

    def __init__(self, lr: float = 0.05):
        super().__init__()
        self.lr = lr
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.network = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4))

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        mask = draws.uniform(batch["key"], "mask", (1, 4)).to(self.device) < 0.5
        return (self.network(batch["fmri"] * mask) - batch["fmri"]).square().mean()

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        return self.loss(batch)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.log("val/loss", self.loss(batch), batch_size=float(len(batch["key"])), sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        figure = matplotlib.figure.Figure(figsize=(1, 1))
        figure.subplots().imshow(self.network[0].weight.detach().cpu())
        log_figure(self.trainer.loggers, "weights", figure, self.trainer.global_step)

    def configure_optimizers(self) -> dict:
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.lr)
        scheduler = LambdaLR(optimizer, lambda step: 1.0 / (1.0 + 0.1 * step))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def train(
    path: Path,
    *,
    callbacks=(),
    module: pl.LightningModule | None = None,
    clip: float = 0.5,
    num_samples=11,
    resume: str = "auto",
    resume_override: bool = False,
    logging: LoggingConfig = QUIET,
    **settings,
) -> FitResult | None:
    """Begin or continue the toy run in `path` with changed trainer settings."""
    trainer = replace(SETTINGS, **settings)
    recorded = {"trainer": plain(trainer)}
    run = create_run(path, stage="pretrain_mbm", settings=recorded, resume=resume, resume_override=resume_override)
    config = PretrainMBMConfig(seed=3, trainer=trainer, logging=logging, optim=OptimConfig(clip=clip))
    return fit(config, run, module or ToyModule(), (ToySet(num_samples), ToySet(5)), callbacks)


def contents(path: Path) -> dict[str, object]:
    """Everything of a run folder that must not depend on interruptions."""
    from mindvis.common.tensor_files import load_tensors

    files = {p.name: p.read_bytes() for p in [path / "metrics.csv", *(path / "figures").iterdir()]}
    checkpoint = load_tensors(path / "checkpoints" / "last.ckpt")
    return files | {"last": checkpoint} | {p.name: None for p in (path / "checkpoints").iterdir()}


def same(a: object, b: object) -> bool:
    """Equality to the last bit through dicts and lists of tensors."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b

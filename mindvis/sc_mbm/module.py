"""Training of Stage A with Lightning: steps, learning rate and what a figure needs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from mindvis.common import draws
from mindvis.common.errors import InputError
from mindvis.sc_mbm.masking import focus_noise, focus_weights
from mindvis.sc_mbm.model import MaskedBrainModel, MBMOutput
from mindvis.training.optim import adamw, decay_groups, learning_rate, steps_per_epoch, with_warmup_cosine


@dataclass(frozen=True)
class Reconstruction:
    """Voxels shown to the model, mask (1 = hidden) and voxels it gave back, in voxel order: each [b v]."""

    fmri: Tensor
    mask: Tensor
    reconstruction: Tensor


@dataclass(frozen=True)
class MaskNoise:
    """Noise that ranks the patches of a sample, drawn by its key; `focus` [num_patches] weighs them.

    It knows no network, so that a loader can draw in processes of its own.
    """

    num_patches: int
    focus: Tensor | None = None

    def __call__(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """`noise` [b l] for the keys [b 3] of a batch, on the CPU."""
        noise = draws.uniform(batch["key"], "mask", (self.num_patches,))
        return {"noise": noise if self.focus is None else focus_noise(noise, self.focus)}


class MBMModule(pl.LightningModule):
    """Trains a MaskedBrainModel on batches with `fmri` [b 1 v] and `key` [b 3]; the defaults are those of pretraining.

    The norm of the gradient is clipped by the Trainer: `pl.Trainer(gradient_clip_val=0.8)` as published.
    With `image_features` [m c h w], those of the pictures that rows were recorded under, a batch holds `seen` [b], the
    place of each row's picture among them, -1 for none: the second pretext of the network.
    `focus_range` (voxels [start, stop)) and `focus_rate` bias which patches are hidden; both or neither are given.
    Raises InputError for a focus or a mask ratio that cannot be.
    """

    def __init__(
        self,
        network: MaskedBrainModel,
        *,
        lr: float = 2.5e-4,
        min_lr: float = 0.0,
        weight_decay: float = 0.05,
        betas: Sequence[float] = (0.9, 0.95),
        warmup_epochs: float = 40,
        num_epochs: float = 500,
        mask_ratio: float = 0.75,
        focus_range: Sequence[int] | None = None,
        focus_rate: float | None = None,
        image_features: np.ndarray | None = None,
    ):
        super().__init__()
        self.network = network
        self.lr, self.min_lr, self.weight_decay, self.betas = lr, min_lr, weight_decay, betas
        self.warmup_epochs, self.num_epochs = warmup_epochs, num_epochs
        self.mask_ratio = _checked_ratio(mask_ratio, network.num_patches)
        self.image_features = image_features
        self.draw = MaskNoise(network.num_patches, _focus(network, focus_range, focus_rate))

    def forward(self, batch: dict[str, Tensor]) -> MBMOutput:
        """Masks each sample by a draw that follows from its key alone, and reconstructs it."""
        noise = batch["noise"] if "noise" in batch else self.draw(batch)["noise"]  # [b l]
        noise = noise.to(batch["fmri"].device, non_blocking=True)
        pictures = {name: batch[name] for name in ("image_features", "rows") if name in batch}
        return self.network(batch["fmri"], self.mask_ratio, noise, **pictures)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Loss and correlation of a batch, logged with the learning rate."""
        out = self(batch)
        values = {"loss": out.loss, "train/correlation": self.correlation(batch["fmri"], out)}
        self.log("train/loss", values["loss"])
        self.log("train/correlation", values["train/correlation"])
        if out.image_loss is not None:
            self.log("train/image_loss", out.image_loss.detach())
        self.log("train/lr", learning_rate(self.trainer))
        return values

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        out = self(batch)
        values = {"val/loss": out.loss, "val/correlation": self.correlation(batch["fmri"], out)}
        # a float, because Lightning averages the sizes over processes and would cut integers off
        self.log_dict(values, batch_size=float(len(batch["fmri"])), sync_dist=True)  # type: ignore[arg-type]

    def correlation(self, fmri: Tensor, out: MBMOutput) -> Tensor:
        """Watch metric: correlation of the whole reconstructed vector with the input, averaged over the batch."""
        return pearson(self.network.unpatchify(out.reconstruction.detach()), fmri[:, 0]).mean()

    @torch.no_grad()
    def reconstruct(self, batch: dict[str, Tensor]) -> Reconstruction:
        """Input, mask and reconstruction of a batch for a figure; the mask of a sample follows from its key."""
        out = self(batch)
        mask = out.mask.repeat_interleave(self.network.patch_size, dim=1)  # [b v]
        return Reconstruction(batch["fmri"][:, 0], mask, self.network.unpatchify(out.reconstruction).float())

    def enable_activation_checkpointing(self) -> None:
        """Keep the inputs of the blocks alone for the backward pass."""
        self.network.use_checkpoint = True

    def transfer_batch_to_device(self, batch: dict[str, Tensor], device: torch.device, dataloader_idx: int) -> dict:
        # keys stay on the CPU, where draws are made: reading them back would wait for the device in every step
        moved = {name: value for name, value in batch.items() if name not in ("key", "seen")}
        if self.image_features is not None:
            moved |= self._features_of(batch["seen"])
        return {**super().transfer_batch_to_device(moved, device, dataloader_idx), "key": batch["key"]}

    def _features_of(self, seen: Tensor) -> dict[str, Tensor]:
        """Features of the pictures in a batch, and the rows that were recorded under them; nothing where none was."""
        rows = (seen >= 0).nonzero()[:, 0]  # [r], on the CPU
        if self.image_features is None or not len(rows):
            return {}
        features = np.stack([self.image_features[place] for place in seen[rows].tolist()])  # [r c h w]
        return {"image_features": torch.from_numpy(features), "rows": rows}

    def configure_optimizers(self) -> Any:
        groups = decay_groups(self.network, self.weight_decay)
        optimizer = adamw(groups, lr=self.lr, betas=self.betas)
        rates = {"lr": self.lr, "min_lr": self.min_lr}
        epochs = {"warmup_epochs": self.warmup_epochs, "num_epochs": self.num_epochs}
        return with_warmup_cosine(optimizer, steps_per_epoch=steps_per_epoch(self.trainer), **rates, **epochs)


def pearson(x: Tensor, y: Tensor) -> Tensor:
    """Correlation of each row of x [b v] with that of y [b v]: [b]; 0 where a row is constant."""
    x, y = x.float(), y.float()
    return F.cosine_similarity(x - x.mean(dim=1, keepdim=True), y - y.mean(dim=1, keepdim=True))


def _checked_ratio(mask_ratio: float, num_patches: int) -> float:
    if not 0.0 < mask_ratio <= 1.0 or int(num_patches * (1 - mask_ratio)) == num_patches:
        raise InputError(
            f"mask_ratio is {mask_ratio}: it must hide one or more of the {num_patches} patches, at most 1"
        )
    return mask_ratio


def _focus(network: MaskedBrainModel, focus_range: Sequence[int] | None, focus_rate: float | None) -> Tensor | None:
    if (focus_range is None) != (focus_rate is None):
        raise InputError(f"focus_range is {focus_range} and focus_rate {focus_rate}: both or neither are needed")
    if focus_range is None or focus_rate is None:
        return None
    first, last = focus_range
    return focus_weights(network.num_voxels, network.patch_size, (first, last), focus_rate)

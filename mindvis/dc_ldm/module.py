"""Training of Stage B: the tuned parts of a latent diffusion model on pairs of fMRI and image."""

from dataclasses import dataclass
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor

from mindvis.common import draws
from mindvis.common.errors import InputError, check_setting
from mindvis.dc_ldm.conditioner import FMRIConditioner
from mindvis.dc_ldm.context_losses import ContextLosses
from mindvis.dc_ldm.model import LatentDiffusion
from mindvis.dc_ldm.precision import cast_frozen, channels_last
from mindvis.dc_ldm.schedule import PARAMETERIZATIONS
from mindvis.dc_ldm.timesteps import noise_shares
from mindvis.training.base_weights import NAMES
from mindvis.training.optim import adamw, learning_rate, steps_per_epoch, with_warmup_cosine

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class DiffusionDraws:
    """Diffusion step and noise of a sample, drawn by its key.

    It holds no network, so that a loader can draw in its worker processes.
    """

    num_timesteps: int
    channels: int
    factor: int  # by which the autoencoder makes images smaller
    noise_shares: Tensor | None = None  # [num_timesteps]: steps are drawn evenly in these, not in t

    def __call__(self, batch: Batch) -> Batch:
        """`t` long [b] and `eps` [b c h w] for the keys [b 3] and images or latents of a batch, on the CPU."""
        keys, shares = batch["key"], self.noise_shares
        if "latent" in batch:
            shape = tuple(batch["latent"].shape[1:])
        else:
            shape = (self.channels, *(side // self.factor for side in batch["image"].shape[2:]))
        if shares is None:
            t = draws.integers(keys, "t", self.num_timesteps)
        else:
            first, last = shares[[0, -1]]
            wanted = first + (last - first) * draws.uniform(keys, "t", ())
            t = torch.searchsorted(shares, wanted.double()).clamp(max=len(shares) - 1)
        return {"t": t, "eps": draws.normal(keys, "eps", shape)}


class LDMModule(pl.LightningModule):
    """Tunes what `LatentDiffusion.trainable_parameters` names, at a constant rate unless `min_lr` is given.

    `tune="encoder"` leaves the cross-attention heads and their norms as they are (an ablation of the paper).
    `weighting="levels"` lets all noise levels count alike; "none" is the published loss. `objective` is what the loss
    compares ("eps", "v", "flow"; None: what the UNet predicts); with "flow" the steps are drawn evenly along the
    straight line from data to noise.
    `head_lr`, where given, is the rate of the cross-attention heads, which come trained, unlike the conditioner.
    `context_losses` are added to the diffusion loss of training rows (not published); with a consistency loss a batch
    holds "other" [b 1 v], another row of each stimulus.
    With `min_lr` the rate warms up over `warmup_epochs` and falls to it by half a cosine over `num_epochs`.
    The Trainer clips the gradient norm: `gradient_clip_val=0.5` is the published setting. A batch holds "fmri" [b 1 v],
    "key" long [b 3] and either "image" [b 3 h w] in [-1, 1] or a kept "latent" [b c h/f w/f]. With both and "cropped"
    (bool [b]), "image" holds those of the cropped rows, in order, which are encoded; the others take their latent.
    Source: Chen et al. 2023 (arXiv 2211.06956), section 3.3 and the appendix on training.
    """

    level_weights: Tensor | None

    def __init__(
        self,
        ldm: LatentDiffusion,
        *,
        lr: float = 5.3e-5,
        head_lr: float | None = None,
        weight_decay: float = 0.01,
        min_lr: float | None = None,
        warmup_epochs: float = 0.0,
        num_epochs: float = 500,
        tune: str = "all",
        weighting: str = "none",
        objective: str | None = None,
        context_losses: ContextLosses | None = None,
    ):
        super().__init__()
        check_setting("tune", tune, ("all", "encoder"))
        check_setting("weighting", weighting, ("none", "levels"))
        ldm.objective = objective or ldm.parameterization
        check_setting("objective", ldm.objective, PARAMETERIZATIONS)
        if weighting == "levels" and ldm.objective != "eps":
            needed = f"needed: none with objective {ldm.objective}, which weighs the noise levels itself"
            raise InputError(f"setting weighting is 'levels'; {needed}")
        self.ldm = ldm.freeze(heads=tune == "all")
        self.lr, self.weight_decay = lr, weight_decay
        self.head_lr = lr if head_lr is None else head_lr
        self.min_lr = lr if min_lr is None else min_lr
        self.warmup_epochs, self.num_epochs = warmup_epochs, num_epochs
        self.context_losses = context_losses
        schedule = ldm.schedule
        weights = schedule.level_weights() if weighting == "levels" else None
        self.register_buffer("level_weights", weights, persistent=False)
        channels, height, _ = ldm.latent_shape
        factor = ldm.autoencoder.encoder.resolution // height
        # a straight flow over a schedule of another kind draws its steps by their share of noise
        straight = ldm.objective == "flow" and not schedule.flow
        shares = torch.from_numpy(noise_shares(schedule.alphas_cumprod)) if straight else None
        self.draw = DiffusionDraws(schedule.num_timesteps, channels, factor, shares)

    def setup(self, stage: str) -> None:
        """Layout, and in bf16-mixed the frozen weights in bfloat16, before a checkpoint is loaded."""
        channels_last(self.ldm)
        if self.trainer.precision == "bf16-mixed":
            cast_frozen(self.ldm)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Names the weights that no step changes: they are kept once, not in every checkpoint."""
        trained = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        checkpoint[NAMES] = [name for name in self.state_dict() if name not in trained]

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Loss (scalar) of a batch, logged as train/loss beside train/lr."""
        context, latent = self.ldm.conditioner(batch["fmri"]), self._latent(batch)
        loss = self._diffusion_loss(batch, context, latent)
        size = len(batch["key"])
        self.log("train/loss", loss, batch_size=size)
        self.log("train/lr", learning_rate(self.trainer), batch_size=size)
        if self.context_losses is None:
            return loss
        other = self.ldm.conditioner(batch["other"]) if "other" in batch else None
        pull = self.context_losses(context, other, batch["key"][:, 2], latent)
        self.log("train/context_loss", pull, batch_size=size)
        return loss + pull

    def validation_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Loss (scalar), logged as val/loss; plain data set items have the same keys, and so draws, in every epoch."""
        loss = self.loss(batch)
        # a float, because Lightning averages the sizes over processes and would cut integers off
        self.log("val/loss", loss, batch_size=float(len(batch["key"])), sync_dist=True)  # type: ignore[arg-type]
        return loss

    def configure_optimizers(self) -> Any:
        """AdamW over every tuned parameter once, with decay on all of them as published."""
        optimizer = adamw(self._groups(), lr=self.lr, betas=(0.9, 0.999))
        rates = {"lr": self.lr, "min_lr": self.min_lr}
        epochs = {"warmup_epochs": self.warmup_epochs, "num_epochs": self.num_epochs}
        return with_warmup_cosine(optimizer, steps_per_epoch=steps_per_epoch(self.trainer), **rates, **epochs)

    def _groups(self) -> list[dict]:
        """Parameters with their learning rates; the heads apart only where theirs is another."""
        # those that no forward pass uses are frozen; the optimiser holds them as its earlier checkpoints do
        unused = {id(p) for p in self.ldm.unused_parameters()}
        tuned = [p for p in self.ldm.trainable_parameters().values() if p.requires_grad or id(p) in unused]
        tuned += [] if self.context_losses is None else self.context_losses.parameters()
        decay = {"weight_decay": self.weight_decay}
        if self.head_lr == self.lr:
            return [{"params": tuned, **decay}]
        heads = {id(p) for head in self.ldm.heads() for p in head.parameters()}
        rest, own = ([p for p in tuned if (id(p) in heads) == of_heads] for of_heads in (False, True))
        return [{"params": rest, **decay}, {"params": own, "lr": self.head_lr, **decay}]

    def enable_activation_checkpointing(self) -> None:
        """Keep the inputs of the encoder's and of the UNet's blocks alone for the backward pass."""
        cast(FMRIConditioner, self.ldm.conditioner).encoder.use_checkpoint = True
        self.ldm.unet.use_checkpoint = True

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        # keys and flags stay on the CPU, where draws and choices are made: reading them back would wait for the device
        kept = {name: batch[name] for name in ("key", "cropped") if name in batch}
        moved = {name: value for name, value in batch.items() if name not in kept}
        return {**super().transfer_batch_to_device(moved, device, dataloader_idx), **kept}

    def loss(self, batch: Batch) -> Tensor:
        """Loss (scalar) of a batch; steps and noise follow from its keys alone."""
        return self._diffusion_loss(batch, self.ldm.conditioner(batch["fmri"]), self._latent(batch))

    def _diffusion_loss(self, batch: Batch, context: Tensor, latent: Tensor) -> Tensor:
        drawn = batch if "eps" in batch else batch | self.draw(batch)
        t = drawn["t"].to(latent.device, non_blocking=True)  # [b]
        eps = drawn["eps"].to(latent.device, latent.dtype, non_blocking=True)  # [b c h w]
        weights = None if self.level_weights is None else self.level_weights[t].to(latent.dtype)
        return self.ldm.loss(latent, context, t, eps, weights)

    def _latent(self, batch: Batch) -> Tensor:
        if "latent" not in batch:
            return self.ldm.encode(batch["image"])
        latent = batch["latent"]
        if "cropped" not in batch:
            return latent
        rows = batch["cropped"].nonzero()[:, 0]  # on the CPU
        if len(rows) == 0:
            return latent
        encoded = self.ldm.encode(_filled_up(batch["image"], len(latent)))[: len(rows)]
        return latent.index_copy(0, rows.to(latent.device, non_blocking=True), encoded.to(latent.dtype))


def _filled_up(images: Tensor, most: int) -> Tensor:
    """On a GPU the images [r 3 h w] and the last one again, up to a power of two or `most`; on a CPU as they are.

    How many images of a batch are cropped differs from step to step, and kernels are chosen, or compiled, by shape.
    """
    wanted = min(most, 1 << (len(images) - 1).bit_length())
    if images.device.type == "cpu" or wanted == len(images):
        return images
    return images.index_select(0, torch.arange(wanted, device=images.device).clamp(max=len(images) - 1))

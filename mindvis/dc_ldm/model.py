"""Stage B: the latent diffusion model, doubly conditioned on fMRI.

Source: Chen et al. 2023 (arXiv 2211.06956), section 3.3; the diffusion is that of Rombach et al. 2022.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mindvis.dc_ldm.attention import TransformerBlock
from mindvis.dc_ldm.autoencoder import Autoencoder
from mindvis.dc_ldm.schedule import NoiseSchedule
from mindvis.dc_ldm.unet import PreparedContext, UNet
from mindvis.sc_mbm import FMRIEncoder

LOSSES = {"l2": F.mse_loss, "l1": F.l1_loss}


class LatentDiffusion(nn.Module):
    """UNet, autoencoder, conditioner and noise schedule; the autoencoder is never trained here.

    `config` is the published config it was built from, where it was.

    `parameterization` is what the UNet predicts: the noise, "eps", as in the paper, "v", or with "flow" the velocity of
    straight lines (see `NoiseSchedule.target`). `objective` is what the loss compares, by default the same: another one
    is computed from what the UNet predicts. `loss_type` is the error: squared, "l2", as in the paper, or absolute,
    "l1".
    """

    def __init__(
        self,
        *,
        unet: UNet,
        autoencoder: Autoencoder,
        conditioner: nn.Module,
        schedule: NoiseSchedule,
        loss_type: str = "l2",
        parameterization: str = "eps",
        objective: str | None = None,
    ) -> None:
        super().__init__()
        self.unet = unet
        self.autoencoder = autoencoder
        self.conditioner: Any = conditioner  # FMRIConditioner, or a class embedding in its place
        self.schedule = schedule
        self.loss_type = loss_type
        self.parameterization = parameterization
        self.objective = objective or parameterization
        self.config: dict | None = None
        self.train(self.training)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape (c, h, w) of the latents of images at the autoencoder's resolution."""
        return self.autoencoder.latent_shape

    def loss(
        self,
        latent: Tensor,
        context: Tensor | PreparedContext,
        t: Tensor,
        eps: Tensor,
        weights: Tensor | None = None,
    ) -> Tensor:
        """Mean squared (or absolute) error on the objective: latent, eps [b c h w]; context [b m c]; t long [b].

        `weights` [b], where given, multiply the error of each sample. Paper, equation 3.
        """
        x_t = self.schedule.add_noise(latent, eps, t)  # [b c h w]
        output = self.predict(x_t, t, context)
        found = self.schedule.convert(output, x_t, t, self.parameterization, self.objective)
        wanted, error = self.schedule.target(latent, eps, t, self.objective), LOSSES[self.loss_type]
        if weights is None:
            return error(found, wanted)
        return (weights * error(found, wanted, reduction="none").mean(dim=(1, 2, 3))).mean()

    def predict(self, x_t: Tensor, t: Tensor, context: Tensor | PreparedContext) -> Tensor:
        """What the UNet predicts from x_t [b c h w], which is `parameterization`; in the type of the UNet.

        A UNet of straight lines takes (1 - s) x_0 + s eps, at the place s times the number of steps.
        """
        if not self.schedule.flow:
            return self.unet(x_t, t, context)
        alpha, sigma = self.schedule.levels(t)
        return self.unet((x_t / (alpha + sigma)).to(x_t.dtype), t + 1, context)

    @property
    def sampled_prediction(self) -> str:
        """What the samplers are given: "eps" where the UNet predicts the noise, else "v"."""
        return "eps" if self.parameterization == "eps" else "v"

    def for_sampler(self, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """What `predict` has given at x_t [b c h w], as `sampled_prediction`."""
        return self.schedule.convert(output, x_t, t, self.parameterization, self.sampled_prediction)

    @torch.no_grad()
    def encode(self, image: Tensor) -> Tensor:
        """Latent [b c h/f w/f] of images [b 3 h w] in [-1, 1], without autograd."""
        return self.autoencoder.encode(image)

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        """Name -> parameter, each once: what Stage B tunes.

        All of the conditioner (the positions and unused tokens of its encoder too), and in the UNet the
        cross-attention, the norm before it and the time-step condition.
        """
        condition = self.unet.time_embed_condtion
        modules = [self.conditioner, *self.heads(), *([] if condition is None else [condition])]
        tuned = {id(p) for module in modules for p in module.parameters()}
        return {name: p for name, p in self.named_parameters() if id(p) in tuned}

    def freeze(self, *, heads: bool = True) -> "LatentDiffusion":
        """Gradients for what Stage B tunes and uses, for nothing else; `heads=False` leaves the cross-attention out."""
        self.requires_grad_(False)
        for parameter in self.trainable_parameters().values():
            parameter.requires_grad_(True)
        for parameter in self.unused_parameters():
            parameter.requires_grad_(False)
        for head in [] if heads else self.heads():
            head.requires_grad_(False)
        return self

    def unused_parameters(self) -> list[nn.Parameter]:
        """Those that published weights name and no forward pass of Stage B uses."""
        encoder = getattr(self.conditioner, "encoder", None)
        return encoder.unused_parameters() if isinstance(encoder, FMRIEncoder) else []

    def train(self, mode: bool = True) -> "LatentDiffusion":
        """Training or evaluation mode for all but the autoencoder, which stays in evaluation mode."""
        super().train(mode)
        self.autoencoder.eval()
        return self

    def heads(self) -> list[nn.Module]:
        """Cross-attention of every transformer block, and the norm before it."""
        blocks = [module for module in self.unet.modules() if isinstance(module, TransformerBlock)]
        return [head for block in blocks for head in (block.attn2, block.norm2)]

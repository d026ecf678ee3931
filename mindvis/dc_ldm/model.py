"""Stage B: the latent diffusion model, doubly conditioned on fMRI.

Source: Chen et al. 2023 (arXiv 2211.06956), section 3.3; the diffusion is that of Rombach et al. 2022.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mindvis.common.errors import InputError
from mindvis.dc_ldm.attention import TransformerBlock
from mindvis.dc_ldm.autoencoder import Autoencoder, build_autoencoder
from mindvis.dc_ldm.conditioner import ClassEmbedder, FMRIConditioner
from mindvis.dc_ldm.schedule import NoiseSchedule
from mindvis.dc_ldm.settings import read_options, section
from mindvis.dc_ldm.unet import PreparedContext, UNet, build_unet
from mindvis.sc_mbm import FMRIEncoder

WHERE = "model.params"
LOSSES = {"l2": F.mse_loss, "l1": F.l1_loss}
SCHEDULE = {"linear_start": "linear_start", "linear_end": "linear_end", "timesteps": "num_timesteps"}
# each of these would change the loss, the latents or the samples
FIXED = {
    "beta_schedule": "linear",
    "given_betas": None,
    "parameterization": "eps",
    "l_simple_weight": 1.0,
    "original_elbo_weight": 0.0,
    "learn_logvar": False,
    "logvar_init": 0.0,
    "scale_by_std": False,
    "conditioning_key": "crossattn",
    "concat_mode": True,
    "cond_stage_forward": None,
    "num_timesteps_cond": 1,
    "use_positional_encodings": False,
    "scheduler_config": None,
    "use_scheduler": False,
    "use_ema": False,
}
WITHOUT_EFFECT = (
    "first_stage_config",
    "cond_stage_config",
    "unet_config",
    "base_learning_rate",
    "ckpt_path",
    "ignore_keys",
    "load_only_unet",
    "log_every_t",
    "first_stage_key",
    "cond_stage_key",
    "cond_stage_trainable",
    "image_size",
    "channels",
    "monitor",
    "clip_denoised",
    "cosine_s",
    "v_posterior",
)


class LatentDiffusion(nn.Module):
    """UNet, autoencoder, conditioner and noise schedule; the autoencoder is never trained here.

    `loss_type` is the error on the noise: squared, "l2", as in the paper, or absolute, "l1".
    """

    def __init__(
        self,
        *,
        unet: UNet,
        autoencoder: Autoencoder,
        conditioner: nn.Module,
        schedule: NoiseSchedule,
        loss_type: str = "l2",
    ) -> None:
        super().__init__()
        self.unet = unet
        self.autoencoder = autoencoder
        self.conditioner = conditioner
        self.schedule = schedule
        self.loss_type = loss_type
        self.frozen_forms = True  # whether casts and sums of frozen weights may be kept beside them
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
        """Mean squared (or absolute) error on the noise: latent, eps [b c h w]; context [b m c]; t long [b].

        `weights` [b], where given, multiply the error of each sample. Paper, equation 3.
        """
        x_t = self.schedule.add_noise(latent, eps, t)  # [b c h w]
        found, error = self.unet(x_t, t, context), LOSSES[self.loss_type]
        if weights is None:
            return error(found, eps)
        return (weights * error(found, eps, reduction="none").mean(dim=(1, 2, 3))).mean()

    @torch.no_grad()
    def encode(self, image: Tensor) -> Tensor:
        """Latent [b c h/f w/f] of images [b 3 h w] in [-1, 1], without autograd."""
        return self.autoencoder.encode(image)

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        """Name -> parameter, each once: what Stage B tunes.

        All of the conditioner (the positions and unused tokens of its encoder too), and in the UNet the
        cross-attention, the norm before it and the time-step condition.
        """
        tuned = {id(p) for module in self._tuned_modules() for p in module.parameters()}
        return {name: p for name, p in self.named_parameters() if id(p) in tuned}

    def freeze(self, *, heads: bool = True) -> "LatentDiffusion":
        """Gradients for what Stage B tunes and for nothing else; `heads=False` leaves the cross-attention out."""
        self.requires_grad_(False)
        for parameter in self.trainable_parameters().values():
            parameter.requires_grad_(True)
        for head in [] if heads else self.heads():
            head.requires_grad_(False)
        return self

    def train(self, mode: bool = True) -> "LatentDiffusion":
        """Training or evaluation mode for all but the autoencoder, which stays in evaluation mode."""
        super().train(mode)
        self.autoencoder.eval()
        return self

    def heads(self) -> list[nn.Module]:
        """Cross-attention of every transformer block, and the norm before it."""
        blocks = [module for module in self.unet.modules() if isinstance(module, TransformerBlock)]
        return [head for block in blocks for head in (block.attn2, block.norm2)]

    def _tuned_modules(self) -> list[nn.Module]:
        condition = self.unet.time_embed_condtion
        return [self.conditioner, *self.heads(), *([] if condition is None else [condition])]


def build_ldm(
    ldm_config: Mapping[str, Any],
    encoder: FMRIEncoder,
    global_pool: bool = False,
    use_time_condition: bool = True,
) -> LatentDiffusion:
    """Stage B model from the published config.yaml as a dict, with everything frozen that is not tuned.

    The label-, text- and layout-to-image models alike: `encoder` takes the place of their `cond_stage_config`.
    The arguments win over `global_pool` and `use_time_cond` in the file. Raises InputError for an option that would
    change the results and is not supported.
    """
    unet_params = _params(ldm_config, "unet_config")
    unet = build_unet(unet_params, global_pool=global_pool, use_time_condition=use_time_condition)
    conditioner = FMRIConditioner(encoder, context_dim=unet.context_dim, global_pool=global_pool)
    return _assemble(ldm_config, unet, conditioner).freeze()


def build_class_ldm(ldm_config: Mapping[str, Any]) -> LatentDiffusion:
    """The class-conditional model that Stage B starts from (label to image): no time condition, nothing frozen.

    Its conditioner embeds class ids, as `cond_stage_config` of the published config.yaml says. Raises InputError as
    `build_ldm` does.
    """
    unet = build_unet(_params(ldm_config, "unet_config"), use_time_condition=False)
    where, sizes = f"{WHERE}.cond_stage_config.params", ("n_classes", "embed_dim")
    options = read_options(_params(ldm_config, "cond_stage_config"), where, used=sizes, without_effect=("key",))
    num_classes = options.get("n_classes", 1000)
    return _assemble(ldm_config, unet, ClassEmbedder(num_classes, options.get("embed_dim", unet.context_dim)))


def build_schedule(ldm_config: Mapping[str, Any]) -> NoiseSchedule:
    """Noise schedule of a published config. Raises InputError where a section is missing."""
    params = _model_params(ldm_config)
    return NoiseSchedule(**{ours: params[name] for name, ours in SCHEDULE.items() if name in params})


def _assemble(ldm_config: Mapping[str, Any], unet: UNet, conditioner: nn.Module) -> LatentDiffusion:
    scale_factor, loss_type = _read_params(_model_params(ldm_config))
    autoencoder = build_autoencoder(_params(ldm_config, "first_stage_config"), scale_factor)
    channels = autoencoder.latent_shape[0]
    if channels != unet.in_channels:
        found = f"{unet.in_channels}, the autoencoder's latents have {channels}"
        raise InputError(f"{WHERE}.unet_config.params.in_channels: found {found}")
    parts: dict[str, Any] = {"unet": unet, "autoencoder": autoencoder, "conditioner": conditioner}
    return LatentDiffusion(**parts, schedule=build_schedule(ldm_config), loss_type=loss_type)


def _read_params(params: Mapping[str, Any]) -> tuple[float, str]:
    """Factor on the latents and kind of loss. Raises InputError for these and for any option not supported."""
    used = (*SCHEDULE, "scale_factor", "loss_type")
    options = read_options(params, WHERE, used=used, fixed=FIXED, without_effect=WITHOUT_EFFECT)
    scale_factor, loss_type = options.get("scale_factor", 1.0), options.get("loss_type", "l2")
    if not isinstance(scale_factor, int | float) or not 0 < scale_factor < math.inf:
        raise InputError(f"{WHERE}.scale_factor: found {scale_factor!r}, needed a positive number")
    if loss_type not in tuple(LOSSES):
        raise InputError(f"{WHERE}.loss_type: found {loss_type!r}, needed one of {', '.join(LOSSES)}")
    return scale_factor, loss_type


def _model_params(ldm_config: Mapping[str, Any]) -> Mapping[str, Any]:
    return section(section(ldm_config, "model"), "params", "model.")


def _params(ldm_config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return section(section(_model_params(ldm_config), name, f"{WHERE}."), "params", f"{WHERE}.{name}.")

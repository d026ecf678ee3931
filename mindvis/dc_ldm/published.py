"""From the published config.yaml, as a dict, to a model: each option is honoured, without effect here, or refused."""

import copy
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from mindvis.common.errors import InputError
from mindvis.dc_ldm.autoencoder import Autoencoder, KLAutoencoder, VQAutoencoder
from mindvis.dc_ldm.coders import Decoder, Encoder
from mindvis.dc_ldm.conditioner import ClassEmbedder, ClassMixture, FMRIConditioner
from mindvis.dc_ldm.layers import GROUPS
from mindvis.dc_ldm.model import LOSSES, LatentDiffusion
from mindvis.dc_ldm.schedule import BETA_SCHEDULES, PARAMETERIZATIONS, NoiseSchedule
from mindvis.dc_ldm.unet import CONTEXT_TOKENS, UNet, level_widths, per_level
from mindvis.sc_mbm import FMRIEncoder

Options = Mapping[str, Any]
_words = str.split


@dataclass(frozen=True)
class Section:
    """Options that one section of the config may have.

    Those of `fixed` can have one value only (None counts as absent); those `without_effect` change nothing here.
    """

    where: str
    used: Collection[str]
    required: Collection[str] = ()
    fixed: Options = field(default_factory=dict)
    without_effect: Collection[str] = ()

    def read(self, options: Options) -> dict[str, Any]:
        """The `used` ones among the options.

        Raises InputError for an unknown option, for another value of a fixed one, and for a missing required one.
        """
        for name, value in options.items():
            self._check(name, value)
        for name in self.required:
            if name not in options:
                raise InputError(f"{self.where}.{name}: missing from the latent diffusion config")
        return {name: options[name] for name in self.used if name in options}

    def _check(self, name: str, value: Any) -> None:
        if name in self.used or name in self.without_effect:
            return
        if name not in self.fixed:
            raise InputError(f"{self.where}.{name}: unknown option of the latent diffusion config (value {value!r})")
        if value is not None and value != self.fixed[name]:
            raise InputError(f"{self.where}.{name}: found {value!r}, only {self.fixed[name]!r} is supported")


SCHEDULE = {
    "linear_start": "linear_start",
    "linear_end": "linear_end",
    "timesteps": "num_timesteps",
    "beta_schedule": "beta_schedule",
    "zero_terminal_snr": "zero_terminal_snr",
}
MODEL = Section(
    "model.params",
    used=(*SCHEDULE, "scale_factor", "loss_type", "parameterization"),
    # each of these would change the loss, the latents or the samples
    fixed={
        "given_betas": None,
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
    },
    without_effect=_words("""
        first_stage_config cond_stage_config unet_config base_learning_rate ckpt_path ignore_keys load_only_unet
        log_every_t first_stage_key cond_stage_key cond_stage_trainable image_size channels monitor clip_denoised
        cosine_s v_posterior
    """),
)
UNET_SIZES = "in_channels out_channels model_channels attention_resolutions num_res_blocks channel_mult context_dim"
UNET_OPTIONS = "num_heads num_head_channels transformer_depth use_linear_in_transformer dropout use_checkpoint"
UNET = Section(
    "model.params.unet_config.params",
    used=(UNET_SIZES + " " + UNET_OPTIONS).split(),
    required=UNET_SIZES.split(),
    fixed={
        "use_spatial_transformer": True,
        "cond_scale": 1.0,
        "conv_resample": True,
        "dims": 2,
        "num_classes": None,
        "use_fp16": False,
        "num_heads_upsample": -1,
        "use_scale_shift_norm": False,
        "resblock_updown": False,
        "n_embed": None,
    },
    # sizes of images nobody asks for, an attention layout that spatial transformers do not have, what arguments set
    without_effect=("image_size", "legacy", "use_new_attention_order", "use_time_cond", "global_pool"),
)
FIRST_STAGE = "model.params.first_stage_config.params"
# how the published autoencoder was trained and where its own file lay
FIRST_STAGE_WITHOUT_EFFECT = _words("""
    ddconfig lossconfig ckpt_path ignore_keys image_key colorize_nlabels monitor batch_resize_range scheduler_config
    lr_g_factor sane_index_shape use_ema
""")
SHAPE = ("z_channels", "resolution", "in_channels", "out_ch", "ch", "ch_mult", "num_res_blocks")
SHAPE_FIXED = {
    "resamp_with_conv": True,
    "give_pre_end": False,
    "tanh_out": False,
    "use_linear_attn": False,
    "attn_type": "vanilla",
    "use_timestep": False,
}
CLASSES = Section("model.params.cond_stage_config.params", used=("n_classes", "embed_dim"), without_effect=("key",))


def build_ldm(
    ldm_config: Options,
    encoder: FMRIEncoder,
    global_pool: bool = False,
    use_time_condition: bool = True,
    *,
    context_tokens: int = CONTEXT_TOKENS,
    ridge: str = "none",
) -> LatentDiffusion:
    """Stage B model from the published config.yaml as a dict, with everything frozen that is not tuned.

    The label-, text- and layout-to-image models alike: `encoder` takes the place of their `cond_stage_config`.
    The arguments win over `global_pool` and `use_time_cond` in the file. Not published: `context_tokens`, their number,
    and `ridge`, what is added to each, "linear" (a linear map of the fMRI) or "classes" (`ClassMixture`).
    Raises InputError for an option that would change the results and is not supported.
    """
    options = _part(ldm_config, "unet_config")
    context: dict[str, Any] = {"global_pool": global_pool, "context_tokens": context_tokens}
    unet = build_unet(options, use_time_condition=use_time_condition, **context)
    added = build_ridge(ridge, ldm_config, encoder.num_voxels, unet.context_dim)
    conditioner = FMRIConditioner(encoder, context_dim=unet.context_dim, ridge=added, **context)
    return _assemble(ldm_config, unet, conditioner).freeze()


def build_ridge(kind: str, ldm_config: Options, num_voxels: int, context_dim: int) -> nn.Module | None:
    """What is added to every token of a context, as `build_ldm` names it. Raises InputError for another name."""
    if kind not in ("none", "linear", "classes"):
        raise InputError(f"context.ridge is {kind!r}; needed: none, linear or classes")
    if kind == "classes":
        options = CLASSES.read(_part(ldm_config, "cond_stage_config"))
        return ClassMixture(num_voxels, options.get("n_classes", 1000), context_dim)
    return nn.Linear(num_voxels, context_dim) if kind == "linear" else None


def build_class_ldm(ldm_config: Options, *, with_classes: bool = True) -> LatentDiffusion:
    """The class-conditional model that Stage B starts from (label to image): no time condition, nothing frozen.

    Its conditioner embeds class ids, as `cond_stage_config` of the published config.yaml says; without it, it hands
    contexts on as they are. Raises InputError as `build_ldm` does.
    """
    unet = build_unet(_part(ldm_config, "unet_config"), use_time_condition=False)
    if not with_classes:
        return _assemble(ldm_config, unet, nn.Identity())
    options = CLASSES.read(_part(ldm_config, "cond_stage_config"))
    conditioner = ClassEmbedder(options.get("n_classes", 1000), options.get("embed_dim", unet.context_dim))
    return _assemble(ldm_config, unet, conditioner)


def build_schedule(ldm_config: Options) -> NoiseSchedule:
    """Noise schedule of a published config. Raises InputError where a section is missing or a name is not known."""
    params = _model_params(ldm_config)
    found = {ours: params[name] for name, ours in SCHEDULE.items() if params.get(name) is not None}
    if found.get("beta_schedule", "linear") not in BETA_SCHEDULES:
        needed = f"needed one of {', '.join(BETA_SCHEDULES)}"
        raise InputError(f"{MODEL.where}.beta_schedule: found {found['beta_schedule']!r}, {needed}")
    return NoiseSchedule(**found, flow=params.get("parameterization") == "flow")


def build_unet(options: Options, *, use_time_condition: bool = True, **context: Any) -> UNet:
    """UNet from `unet_config.params` of a published config; the arguments win over the options of the same meaning.

    `context` are `global_pool` and `context_tokens`, as the UNet takes them.

    Raises InputError for an option that would change the results and is not supported.
    """
    found = UNET.read(options)
    use_checkpoint = bool(found.pop("use_checkpoint", False))
    if found.get("num_head_channels") in (-1, None):
        found.pop("num_head_channels", None)
    _check_widths(found)
    unet = UNet(**found, use_time_condition=use_time_condition, **context)
    unet.use_checkpoint = use_checkpoint
    return unet


def build_autoencoder(options: Options, scale_factor: float = 1.0) -> Autoencoder:
    """Autoencoder from `first_stage_config.params` of a published config: KL where it doubles z and has no codebook.

    Raises InputError for an option that would change the results and is not supported.
    """
    ddconfig = section(options, "ddconfig", f"{FIRST_STAGE}.")
    is_kl = bool(ddconfig.get("double_z")) and "n_embed" not in options
    sizes = ("embed_dim",) if is_kl else ("embed_dim", "n_embed")
    found = Section(FIRST_STAGE, sizes, sizes, {"remap": None}, FIRST_STAGE_WITHOUT_EFFECT).read(options)
    used = (*SHAPE, "attn_resolutions", "dropout")
    shape = Section(f"{FIRST_STAGE}.ddconfig", used, SHAPE, {**SHAPE_FIXED, "double_z": is_kl}).read(ddconfig)
    in_channels = shape.pop("in_channels")
    out_channels = shape.pop("out_ch")
    kind = KLAutoencoder if is_kl else VQAutoencoder
    return kind(
        encoder=Encoder(in_channels=in_channels, double_z=is_kl, **shape),
        decoder=Decoder(out_ch=out_channels, **shape),
        z_channels=shape["z_channels"],
        scale_factor=scale_factor,
        **found,
    )


def section(options: Options, name: str, where: str = "") -> Options:
    """The sub-dictionary `name` of a config. Raises InputError where it is absent or no dictionary."""
    found = options.get(name) if isinstance(options, Mapping) else None
    if not isinstance(found, Mapping):
        raise InputError(f"{where}{name}: section missing from the latent diffusion config")
    return found


def autoencoder_resolution(ldm_config: Options) -> int:
    """Side in pixels of the images of a published config. Raises InputError where it is not named."""
    size = section(_part(ldm_config, "first_stage_config"), "ddconfig", f"{FIRST_STAGE}.").get("resolution")
    if type(size) is not int or size < 1:
        raise InputError(f"{FIRST_STAGE}.ddconfig.resolution: found {size!r}, needed a number of pixels")
    return size


def _assemble(ldm_config: Options, unet: UNet, conditioner: nn.Module) -> LatentDiffusion:
    params = MODEL.read(_model_params(ldm_config))
    scale_factor, loss_type = params.get("scale_factor", 1.0), params.get("loss_type", "l2")
    if not isinstance(scale_factor, int | float) or not 0 < scale_factor < math.inf:
        raise InputError(f"{MODEL.where}.scale_factor: found {scale_factor!r}, needed a positive number")
    if loss_type not in tuple(LOSSES):
        raise InputError(f"{MODEL.where}.loss_type: found {loss_type!r}, needed one of {', '.join(LOSSES)}")
    parameterization = params.get("parameterization") or "eps"
    if parameterization not in PARAMETERIZATIONS:
        needed = f"needed one of {', '.join(PARAMETERIZATIONS)}"
        raise InputError(f"{MODEL.where}.parameterization: found {parameterization!r}, {needed}")
    autoencoder = build_autoencoder(_part(ldm_config, "first_stage_config"), scale_factor)
    channels = autoencoder.latent_shape[0]
    if channels != unet.in_channels:
        found = f"{unet.in_channels}, the autoencoder's latents have {channels}"
        raise InputError(f"{UNET.where}.in_channels: found {found}")
    ldm = LatentDiffusion(
        unet=unet,
        autoencoder=autoencoder,
        conditioner=conditioner,
        schedule=build_schedule(ldm_config),
        loss_type=loss_type,
        parameterization=parameterization,
    )
    ldm.config = copy.deepcopy(dict(ldm_config))
    return ldm


def _check_widths(options: Options) -> None:
    """GroupNorm and heads must divide the channels of every level, and lists have an entry a level."""
    factors, head_width = options["channel_mult"], options.get("num_head_channels")
    for name in ("num_res_blocks", "transformer_depth", *(() if head_width else ("num_heads",))):
        values = per_level(options.get(name, 1), len(factors))
        if len(values) != len(factors) or any(type(each) is not int or each < 1 for each in values):
            needed = f"needed a positive number, or one for each of the {len(factors)} levels of channel_mult"
            raise InputError(f"{UNET.where}.{name}: found {options.get(name)!r}, {needed}")
    widths = level_widths(options["model_channels"], factors)
    divisors = per_level(head_width or options.get("num_heads", 1), len(factors))
    for factor, width, divisor in zip(factors, widths, divisors, strict=True):
        if width % GROUPS or width % divisor:
            found = f"{width} channels at channel_mult {factor}"
            needed = f"a multiple of {GROUPS} and of {divisor} (heads)"
            raise InputError(f"{UNET.where}.model_channels: {found}, needed {needed}")


def _model_params(ldm_config: Options) -> Options:
    return section(section(ldm_config, "model"), "params", "model.")


def _part(ldm_config: Options, name: str) -> Options:
    """`params` of one part of the model, such as `unet_config`."""
    return section(section(_model_params(ldm_config), name, f"{MODEL.where}."), "params", f"{MODEL.where}.{name}.")

"""Settings of a diffusers folder as the published config of a latent diffusion model.

What our networks do not have is refused by the name it has there, with the nearest supported value.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mindvis.common.errors import InputError, hint
from mindvis.dc_ldm.layers import GROUPS
from mindvis.dc_ldm.unet import per_level

Config = Mapping[str, Any]

UNET_DEFAULTS = {
    "sample_size": None,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "cross_attention_dim": 1280,
    "transformer_layers_per_block": 1,
    "attention_head_dim": 8,
    "use_linear_projection": False,
    "dropout": 0.0,
}
UNET_FIXED = {  # the one value our UNet has
    "center_input_sample": False,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "only_cross_attention": False,
    "downsample_padding": 1,
    "mid_block_scale_factor": 1,
    "act_fn": "silu",
    "norm_num_groups": GROUPS,
    "norm_eps": 1e-5,
    "dual_cross_attention": False,
    "resnet_time_scale_shift": "default",
    "resnet_skip_time_act": False,
    "resnet_out_scale_factor": 1.0,
    "time_embedding_type": "positional",
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "attention_type": "default",
    "class_embeddings_concat": False,
    "addition_embed_type_num_heads": 64,
}
AUTOENCODER_DEFAULTS = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"],
    "up_block_types": ["UpDecoderBlock2D"],
    "block_out_channels": [64],
    "layers_per_block": 1,
    "sample_size": 32,
    "scaling_factor": 0.18215,
}
AUTOENCODER_FIXED = {"act_fn": "silu", "norm_num_groups": GROUPS, "mid_block_add_attention": True}
AUTOENCODERS: dict[
    str, tuple[dict[str, Any], dict[str, Any]]
] = {  # class -> its own defaults, and its own fixed values
    "AutoencoderKL": (
        {"latent_channels": 4},
        {"use_quant_conv": True, "use_post_quant_conv": True},
    ),
    "VQModel": (
        {"latent_channels": 3, "num_vq_embeddings": 256, "vq_embed_dim": None},
        {"norm_type": "group", "lookup_from_codebook": False},
    ),
}
WITHOUT_EFFECT = ("upcast_attention", "force_upcast")  # types of numbers, which ours are float32 or as `precision` says
DOWN = {"CrossAttnDownBlock2D": True, "DownBlock2D": False}  # whether a block attends
UP = {"CrossAttnUpBlock2D": True, "UpBlock2D": False}
ENCODER_DOWN = {"AttnDownEncoderBlock2D": True, "DownEncoderBlock2D": False}
DECODER_UP = {"AttnUpDecoderBlock2D": True, "UpDecoderBlock2D": False}
MOST_TIMESTEPS = 100_000
SPACINGS = {"scaled_linear": "linear", "linear": "sqrt_linear"}  # theirs -> the published name
PREDICTIONS = {"epsilon": "eps", "v_prediction": "v", "flow_prediction": "flow"}
FLOW_SCHEDULER = "FlowMatchEulerDiscreteScheduler"
FLOW_FIXED = {"shift": 1.0, "use_dynamic_shifting": False}
SCHEDULERS = (
    *("DDIMScheduler", "DDPMScheduler", "PNDMScheduler", "LMSDiscreteScheduler", "EulerDiscreteScheduler"),
    *("EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler", "DPMSolverMultistepScheduler"),
    *("DPMSolverSinglestepScheduler", "DPMSolverSDEScheduler", "DEISMultistepScheduler", "UniPCMultistepScheduler"),
    *("KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "LCMScheduler", FLOW_SCHEDULER),
)


def ldm_config(unet: Config, autoencoder: Config, scheduler: Config, folder: str, place: str) -> dict:
    """The published form, as `build_ldm` takes it, of the three configs of `folder`, the autoencoder's in `place`."""
    network, sample_size = _unet(unet, f"{folder}/unet/config.json")
    first_stage, scale_factor, factor, own_size = _autoencoder(autoencoder, f"{folder}/{place}/config.json")
    for name in ("in_channels", "out_channels"):
        if network[name] != first_stage["embed_dim"]:
            found = f"{folder}/unet/config.json: {name} is {network[name]}"
            raise InputError(f"{found}; needed: {first_stage['embed_dim']}, the channels of the autoencoder's latents")
    size = _side(sample_size, f"{folder}/unet/config.json") or own_size // factor
    first_stage["ddconfig"]["resolution"] = size * factor
    attends = first_stage["ddconfig"].pop("attends")
    first_stage["ddconfig"]["attn_resolutions"] = [
        size * factor // 2**level for level, attend in enumerate(attends) if attend
    ]
    params = {
        **_schedule(scheduler, f"{folder}/scheduler/scheduler_config.json"),
        "scale_factor": scale_factor,
        "image_size": size,
        "channels": network["in_channels"],
        "unet_config": {"params": {"image_size": size, **network}},
        "first_stage_config": {"params": first_stage},
    }
    return {"model": {"params": params}}


def _unet(given: Config, where: str) -> tuple[dict, Any]:
    found = _checked(given, "UNet2DConditionModel", UNET_DEFAULTS, UNET_FIXED, where)
    attends = _attends(found, DOWN, UP, where)
    widths = _numbers(found, "block_out_channels", len(attends), where)
    context_dims = set(_numbers(found, "cross_attention_dim", len(attends), where))
    if len(context_dims) > 1:
        raise _refused(where, "cross_attention_dim", found["cross_attention_dim"], max(context_dims))
    network = {
        "in_channels": found["in_channels"],
        "out_channels": found["out_channels"],
        "model_channels": widths[0],
        "attention_resolutions": [2**level for level, attend in enumerate(attends) if attend],
        "num_res_blocks": shortest(_numbers(found, "layers_per_block", len(attends), where)),
        "channel_mult": [_factor(width, widths[0]) for width in widths],
        # the name is historical: it is the number of heads
        "num_heads": shortest(_numbers(found, "attention_head_dim", len(attends), where)),
        "transformer_depth": shortest(_numbers(found, "transformer_layers_per_block", len(attends), where)),
        "use_linear_in_transformer": bool(found["use_linear_projection"]),
        "use_spatial_transformer": True,
        "context_dim": context_dims.pop(),
        "dropout": found["dropout"],
    }
    return network, found["sample_size"]


def _autoencoder(given: Config, where: str) -> tuple[dict, float, int, int]:
    """Its section, its scale factor, by how much it shrinks a side, and the side of its images."""
    kind = given.get("_class_name")
    if kind not in AUTOENCODERS:
        raise InputError(f"{where}: _class_name is {kind!r}; needed: {' or '.join(AUTOENCODERS)}")
    defaults, fixed = AUTOENCODERS[kind]
    found = _checked(given, kind, {**AUTOENCODER_DEFAULTS, **defaults}, {**AUTOENCODER_FIXED, **fixed}, where)
    attends = _attends(found, ENCODER_DOWN, DECODER_UP, where)
    widths = _numbers(found, "block_out_channels", len(attends), where)
    is_kl, scale = kind == "AutoencoderKL", found["scaling_factor"]
    if type(scale) not in (int, float) or not 0 < scale < math.inf:
        raise InputError(f"{where}: scaling_factor is {scale!r}; needed: a positive number")
    ddconfig = {
        "double_z": is_kl,
        "z_channels": found["latent_channels"],
        "in_channels": found["in_channels"],
        "out_ch": found["out_channels"],
        "ch": widths[0],
        "ch_mult": [_factor(width, widths[0]) for width in widths],
        "num_res_blocks": _numbers(found, "layers_per_block", 1, where)[0],
        "dropout": 0.0,
        "attends": attends,
    }
    sizes = {"embed_dim": found["latent_channels"]}
    if not is_kl:
        sizes = {"embed_dim": found["vq_embed_dim"] or found["latent_channels"], "n_embed": found["num_vq_embeddings"]}
    shrink = 2 ** (len(widths) - 1)
    return {**sizes, "ddconfig": ddconfig}, scale, shrink, _side(found["sample_size"], where) or 32


def _schedule(given: Config, where: str) -> dict:
    kind, timesteps = given.get("_class_name"), given.get("num_train_timesteps", 1000)
    if kind not in SCHEDULERS:
        raise InputError(f"{where}: _class_name is {kind!r}; {hint(str(kind), SCHEDULERS)}")
    if not _is_size(timesteps) or timesteps > MOST_TIMESTEPS:
        raise InputError(f"{where}: num_train_timesteps is {timesteps!r}; needed: a positive number, at most 100000")
    fixed = FLOW_FIXED if kind == FLOW_SCHEDULER else {"trained_betas": None}
    for name, needed in fixed.items():
        if given.get(name, needed) != needed:
            raise _refused(where, name, given[name], needed)
    if kind == FLOW_SCHEDULER:
        return {"timesteps": timesteps, "parameterization": "flow"}
    return {"timesteps": timesteps, **_betas(given, where)}


def _betas(given: Config, where: str) -> dict:
    spacing, prediction = given.get("beta_schedule", "linear"), given.get("prediction_type", "epsilon")
    zero = bool(given.get("rescale_betas_zero_snr", False))
    if spacing not in SPACINGS:
        raise InputError(f"{where}: beta_schedule is {spacing!r}; nearest: scaled_linear, or linear")
    if prediction not in PREDICTIONS:
        raise InputError(f"{where}: prediction_type is {prediction!r}; nearest: epsilon, or v_prediction")
    if zero and prediction == "epsilon":
        raise InputError(f"{where}: rescale_betas_zero_snr is True with epsilon; nearest: False, or v_prediction")
    ends = {"linear_start": ("beta_start", 0.0001), "linear_end": ("beta_end", 0.02)}
    found = {ours: given.get(name, default) for ours, (name, default) in ends.items()}
    for ours, value in found.items():
        if type(value) not in (int, float) or not 0 <= value < 1:
            raise InputError(f"{where}: {ends[ours][0]} is {value!r}; needed: a number from 0 to 1")
    names = {"beta_schedule": SPACINGS[spacing], "parameterization": PREDICTIONS[prediction]}
    return {**found, **names, "zero_terminal_snr": zero}


def _checked(given: Config, kind: str, defaults: Config, fixed: Config, where: str) -> dict:
    """Settings of a model of class `kind`, absent ones at their defaults; others than the fixed values are refused."""
    if given.get("_class_name") != kind:
        raise InputError(f"{where}: _class_name is {given.get('_class_name')!r}; needed: {kind!r}")
    for name, value in given.items():
        if name in fixed and value != fixed[name]:
            raise _refused(where, name, value, fixed[name])
        known = name.startswith("_") or name in (*defaults, *fixed, *WITHOUT_EFFECT)
        if not known and value not in (None, False):
            raise _refused(where, name, value, None)
    found = {name: given.get(name, default) for name, default in defaults.items()}
    _check_sizes(found, where)
    return found


def _check_sizes(found: Config, where: str) -> None:
    for name in ("in_channels", "out_channels", "latent_channels", "num_vq_embeddings"):
        if name in found and not _is_size(found[name]):
            raise InputError(f"{where}: {name} is {found[name]!r}; needed: a positive number")
    if found.get("vq_embed_dim") is not None and not _is_size(found["vq_embed_dim"]):
        raise InputError(f"{where}: vq_embed_dim is {found['vq_embed_dim']!r}; needed: a positive number, or null")
    if type(found.get("dropout", 0)) not in (int, float) or not 0 <= found.get("dropout", 0) < 1:
        raise InputError(f"{where}: dropout is {found['dropout']!r}; needed: a number from 0 to 1")


def _attends(found: Config, down: Mapping[str, bool], up: Mapping[str, bool], where: str) -> list[bool]:
    """Whether each level attends, by the types of its blocks, which must be the same on the way down and up."""
    sides = {"down_block_types": down, "up_block_types": up}
    for name, known in sides.items():
        types = found[name]
        if not isinstance(types, Sequence) or isinstance(types, str) or not types:
            raise InputError(f"{where}: {name} is {types!r}; needed: a list of {' or '.join(known)}")
        for each in types:
            if each not in known:
                raise InputError(f"{where}: {name} has {each!r}; {hint(str(each), known)}")
    attends = [down[each] for each in found["down_block_types"]]
    if attends != [up[each] for each in reversed(found["up_block_types"])]:
        needed = "the same levels with attention as down_block_types, in reverse order"
        raise InputError(f"{where}: up_block_types is {list(found['up_block_types'])}; needed: {needed}")
    return attends


def _numbers(found: Config, name: str, count: int, where: str) -> list[int]:
    """A setting that is one number, or one for each of the `count` levels."""
    values = per_level(found[name], count)
    if len(values) != count or not all(map(_is_size, values)):
        needed = f"a positive number, or one for each of the {count} blocks"
        raise InputError(f"{where}: {name} is {found[name]!r}; needed: {needed}")
    return values


def _side(size: Any, where: str) -> int | None:
    if isinstance(size, list | tuple) and len(set(size)) == 1:
        size = size[0]
    if size is not None and not _is_size(size):
        raise InputError(f"{where}: sample_size is {size!r}; needed: one positive number, the side of a square")
    return size


def _is_size(value: Any) -> bool:
    return type(value) is int and value > 0


def _factor(width: int, first: int) -> int | float:
    return width // first if width % first == 0 else width / first


def shortest(values: list[int]) -> int | list[int]:
    """One number where all levels have the same."""
    return values[0] if len(set(values)) == 1 else values


def _refused(where: str, name: str, found: Any, needed: Any) -> InputError:
    return InputError(f"{where}: {name} is {found!r}, which is not supported; nearest: {needed!r}")

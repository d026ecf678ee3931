"""Settings of a diffusers folder as the published config of a latent diffusion model, and back.

What our networks do not have is refused by the name it has there, with the nearest supported value.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from mindvis.common.errors import InputError, hint
from mindvis.dc_ldm.layers import GROUPS
from mindvis.dc_ldm.unet import heads_of, level_widths, per_level

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
AUTOENCODERS = {  # class -> its own defaults, and its own fixed values
    "AutoencoderKL": (
        {"latent_channels": 4},
        {"use_quant_conv": True, "use_post_quant_conv": True, "shift_factor": None, "latents_mean": None},
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
SPACINGS = {"scaled_linear": "linear", "linear": "sqrt_linear"}  # theirs -> the published name
PREDICTIONS = {"epsilon": "eps", "v_prediction": "v", "flow_prediction": "flow"}
FLOW_SCHEDULER = "FlowMatchEulerDiscreteScheduler"
SCHEDULERS = (
    *("DDIMScheduler", "DDPMScheduler", "PNDMScheduler", "LMSDiscreteScheduler", "EulerDiscreteScheduler"),
    *("EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler", "DPMSolverMultistepScheduler"),
    *("DPMSolverSinglestepScheduler", "DPMSolverSDEScheduler", "DEISMultistepScheduler", "UniPCMultistepScheduler"),
    *("KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "LCMScheduler", FLOW_SCHEDULER),
)


def ldm_config(unet: Config, autoencoder: Config, scheduler: Config, folder: str) -> dict:
    """The published form, as `build_ldm` takes it, of the three config.json of `folder`."""
    network, sample_size = _unet(unet, f"{folder}/unet/config.json")
    first_stage, scale_factor, factor, own_size = _autoencoder(autoencoder, f"{folder}: autoencoder config.json")
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
        "num_res_blocks": _shortest(_numbers(found, "layers_per_block", len(attends), where)),
        "channel_mult": [_factor(width, widths[0]) for width in widths],
        # the name is historical: it is the number of heads
        "num_heads": _shortest(_numbers(found, "attention_head_dim", len(attends), where)),
        "transformer_depth": _shortest(_numbers(found, "transformer_layers_per_block", len(attends), where)),
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
    is_kl = kind == "AutoencoderKL"
    ddconfig = {
        "double_z": is_kl,
        "z_channels": found["latent_channels"],
        "in_channels": found["in_channels"],
        "out_ch": found["out_channels"],
        "ch": widths[0],
        "ch_mult": [_factor(width, widths[0]) for width in widths],
        "num_res_blocks": found["layers_per_block"],
        "dropout": 0.0,
        "attends": attends,
    }
    sizes = {"embed_dim": found["latent_channels"]}
    if not is_kl:
        sizes = {"embed_dim": found["vq_embed_dim"] or found["latent_channels"], "n_embed": found["num_vq_embeddings"]}
    shrink = 2 ** (len(widths) - 1)
    return {**sizes, "ddconfig": ddconfig}, found["scaling_factor"], shrink, _side(found["sample_size"], where) or 32


def _schedule(given: Config, where: str) -> dict:
    kind = given.get("_class_name")
    if kind not in SCHEDULERS:
        raise InputError(f"{where}: _class_name is {kind!r}; {hint(str(kind), SCHEDULERS)}")
    timesteps = given.get("num_train_timesteps", 1000)
    if kind == FLOW_SCHEDULER:
        for name, needed in {"shift": 1.0, "use_dynamic_shifting": False}.items():
            if given.get(name, needed) != needed:
                raise _refused(where, name, given[name], needed)
        return {"timesteps": timesteps, "parameterization": "flow"}
    spacing, prediction = given.get("beta_schedule", "linear"), given.get("prediction_type", "epsilon")
    if given.get("trained_betas") is not None:
        raise _refused(where, "trained_betas", "a list", None)
    if spacing not in SPACINGS:
        raise InputError(f"{where}: beta_schedule is {spacing!r}; nearest: scaled_linear, or linear")
    if prediction not in PREDICTIONS:
        raise InputError(f"{where}: prediction_type is {prediction!r}; nearest: epsilon, or v_prediction")
    return {
        "linear_start": given.get("beta_start", 0.0001),
        "linear_end": given.get("beta_end", 0.02),
        "timesteps": timesteps,
        "beta_schedule": SPACINGS[spacing],
        "zero_terminal_snr": bool(given.get("rescale_betas_zero_snr", False)),
        "parameterization": PREDICTIONS[prediction],
    }


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
    for name in ("in_channels", "out_channels", "latent_channels", "num_vq_embeddings"):
        if name in found and not _is_size(found[name]):
            raise InputError(f"{where}: {name} is {found[name]!r}; needed: a positive number")
    return found


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


def _shortest(values: list[int]) -> int | list[int]:
    return values[0] if len(set(values)) == 1 else values


def _refused(where: str, name: str, found: Any, needed: Any) -> InputError:
    return InputError(f"{where}: {name} is {found!r}, which is not supported; nearest: {needed!r}")


# The way back


def diffusers_configs(config: Config, *, class_embed_type: str | None = None) -> dict[str, dict]:
    """The config.json of `unet`, of `vae` or `vqvae`, and of `scheduler`, from the published form.

    Raises InputError, naming the option, for what diffusers has no setting for.
    """
    params = config["model"]["params"]
    first_stage = params["first_stage_config"]["params"]
    kind = "AutoencoderKL" if first_stage["ddconfig"].get("double_z") else "VQModel"
    unet = _unet_config(params["unet_config"]["params"])
    autoencoder = _autoencoder_config(first_stage, kind, params.get("scale_factor") or 1.0)
    unet["sample_size"] = autoencoder["sample_size"] // 2 ** (len(autoencoder["block_out_channels"]) - 1)
    unet["class_embed_type"] = class_embed_type
    place = "vae" if kind == "AutoencoderKL" else "vqvae"
    return {"unet": unet, place: autoencoder, "scheduler": _scheduler_config(params)}


def levels(config: Config) -> tuple[list[bool], list[int], list[bool], int]:
    """Attention and residual blocks of the levels of the UNet, and of the autoencoder."""
    params = config["model"]["params"]
    unet = params["unet_config"]["params"]
    shape = params["first_stage_config"]["params"]["ddconfig"]
    count = len(unet["channel_mult"])
    attends = [2**level in unet["attention_resolutions"] for level in range(count)]
    resolutions = [shape["resolution"] // 2**level for level in range(len(shape["ch_mult"]))]
    attended = [size in (shape.get("attn_resolutions") or ()) for size in resolutions]
    return attends, per_level(unet["num_res_blocks"], count), attended, shape["num_res_blocks"]


def _unet_config(options: Config) -> dict:
    widths = _first_is_whole(level_widths(options["model_channels"], options["channel_mult"]), options, "channel_mult")
    count = len(widths)
    attends = [2**level in options["attention_resolutions"] for level in range(count)]
    heads = heads_of(widths, options.get("num_heads") or 1, _head_width(options))
    kinds = {attend: name for name, attend in DOWN.items()}, {attend: name for name, attend in UP.items()}
    return {
        "_class_name": "UNet2DConditionModel",
        **UNET_FIXED,
        "in_channels": options["in_channels"],
        "out_channels": options["out_channels"],
        "down_block_types": [kinds[0][attend] for attend in attends],
        "up_block_types": [kinds[1][attend] for attend in reversed(attends)],
        "block_out_channels": widths,
        "layers_per_block": options["num_res_blocks"],
        "cross_attention_dim": options["context_dim"],
        "transformer_layers_per_block": options.get("transformer_depth") or 1,
        "attention_head_dim": _shortest(heads),
        "use_linear_projection": bool(options.get("use_linear_in_transformer")),
        "dropout": options.get("dropout") or 0.0,
    }


def _autoencoder_config(options: Config, kind: str, scale_factor: float) -> dict:
    shape = options["ddconfig"]
    widths = _first_is_whole(level_widths(shape["ch"], shape["ch_mult"]), shape, "ch_mult")
    resolutions = [shape["resolution"] // 2**level for level in range(len(widths))]
    attends = [size in (shape.get("attn_resolutions") or ()) for size in resolutions]
    own = {"vq_embed_dim": options["embed_dim"], "num_vq_embeddings": options.get("n_embed")}
    if kind == "AutoencoderKL" and options["embed_dim"] != shape["z_channels"]:
        found = f"embed_dim {options['embed_dim']} with z_channels {shape['z_channels']}"
        raise InputError(f"first_stage_config: {found}; diffusers needs the same number in an AutoencoderKL")
    kinds = (
        {attend: name for name, attend in ENCODER_DOWN.items()},
        {attend: name for name, attend in DECODER_UP.items()},
    )
    return {
        "_class_name": kind,
        "act_fn": "silu",
        "norm_num_groups": GROUPS,
        "in_channels": shape["in_channels"],
        "out_channels": shape["out_ch"],
        "down_block_types": [kinds[0][attend] for attend in attends],
        "up_block_types": [kinds[1][attend] for attend in reversed(attends)],
        "block_out_channels": widths,
        "layers_per_block": shape["num_res_blocks"],
        "latent_channels": shape["z_channels"],
        "sample_size": shape["resolution"],
        "scaling_factor": scale_factor,
        **({} if kind == "AutoencoderKL" else own),
    }


def _scheduler_config(params: Config) -> dict:
    timesteps, parameterization = params.get("timesteps", 1000), params.get("parameterization") or "eps"
    if parameterization == "flow":
        return {"_class_name": FLOW_SCHEDULER, "num_train_timesteps": timesteps, "shift": 1.0}
    spacings = {ours: theirs for theirs, ours in SPACINGS.items()}
    predictions = {ours: theirs for theirs, ours in PREDICTIONS.items()}
    zero = bool(params.get("zero_terminal_snr"))
    return {
        "_class_name": "DDIMScheduler",
        "beta_start": params.get("linear_start", 0.0015),
        "beta_end": params.get("linear_end", 0.0195),
        "beta_schedule": spacings[params.get("beta_schedule") or "linear"],
        "num_train_timesteps": timesteps,
        "prediction_type": predictions[parameterization],
        "rescale_betas_zero_snr": zero,
        # the steps of our samplers
        "timestep_spacing": "trailing" if zero else "leading",
        "steps_offset": 0 if zero else 1,
        "set_alpha_to_one": False,
        "clip_sample": False,
    }


def _first_is_whole(widths: list[int], options: Config, name: str) -> list[int]:
    if options[name][0] != 1:
        raise InputError(f"{name} is {list(options[name])}; diffusers needs one that begins with 1")
    return widths


def _head_width(options: Config) -> int | None:
    width = options.get("num_head_channels")
    return None if width in (None, -1) else width

"""The published config of a latent diffusion model as the settings of a diffusers folder."""

from collections.abc import Mapping
from typing import Any

from mindvis.checkpoints.diffusers_config import DECODER_UP, DOWN, ENCODER_DOWN, UNET_FIXED, UP, shortest
from mindvis.checkpoints.diffusers_scheduler import FLOW_SCHEDULER, PREDICTIONS, SPACINGS
from mindvis.common.errors import InputError
from mindvis.dc_ldm.layers import GROUPS
from mindvis.dc_ldm.unet import heads_of, level_widths, per_level

Config = Mapping[str, Any]


def diffusers_configs(config: Config, *, class_embed_type: str | None = None) -> dict[str, dict]:
    """The config.json of `unet`, of `vae` or `vqvae`, and of `scheduler`, from the published form.

    Raises InputError, naming the option, for what diffusers has no setting for.
    """
    params = config["model"]["params"]
    attends, _, attended, _ = levels(config)
    unet = _unet_config(params["unet_config"]["params"], attends)
    autoencoder = _autoencoder_config(params["first_stage_config"]["params"], attended)
    autoencoder["scaling_factor"] = params.get("scale_factor") or 1.0
    unet["sample_size"] = autoencoder["sample_size"] // 2 ** (len(attended) - 1)
    unet["class_embed_type"] = class_embed_type
    place = "vae" if autoencoder["_class_name"] == "AutoencoderKL" else "vqvae"
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


def _unet_config(options: Config, attends: list[bool]) -> dict:
    widths = _widths(options, "model_channels", "channel_mult")
    head_width = options.get("num_head_channels")
    heads = heads_of(widths, options.get("num_heads") or 1, None if head_width == -1 else head_width)
    return {
        "_class_name": "UNet2DConditionModel",
        **UNET_FIXED,
        "in_channels": options["in_channels"],
        "out_channels": options["out_channels"],
        "down_block_types": _blocks(DOWN, attends),
        "up_block_types": _blocks(UP, attends)[::-1],
        "block_out_channels": widths,
        "layers_per_block": options["num_res_blocks"],
        "cross_attention_dim": options["context_dim"],
        "transformer_layers_per_block": options.get("transformer_depth") or 1,
        "attention_head_dim": shortest(heads),
        "use_linear_projection": bool(options.get("use_linear_in_transformer")),
        "dropout": options.get("dropout") or 0.0,
    }


def _autoencoder_config(options: Config, attends: list[bool]) -> dict:
    shape = options["ddconfig"]
    is_kl = bool(shape.get("double_z"))
    if is_kl and options["embed_dim"] != shape["z_channels"]:
        found = f"embed_dim {options['embed_dim']} with z_channels {shape['z_channels']}"
        raise InputError(f"first_stage_config: {found}; diffusers needs the same number in an AutoencoderKL")
    codebook = {"vq_embed_dim": options["embed_dim"], "num_vq_embeddings": options.get("n_embed")}
    return {
        "_class_name": "AutoencoderKL" if is_kl else "VQModel",
        "act_fn": "silu",
        "norm_num_groups": GROUPS,
        "in_channels": shape["in_channels"],
        "out_channels": shape["out_ch"],
        "down_block_types": _blocks(ENCODER_DOWN, attends),
        "up_block_types": _blocks(DECODER_UP, attends)[::-1],
        "block_out_channels": _widths(shape, "ch", "ch_mult"),
        "layers_per_block": shape["num_res_blocks"],
        "latent_channels": shape["z_channels"],
        "sample_size": shape["resolution"],
        **({} if is_kl else codebook),
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
        "steps_offset": 1,
        "set_alpha_to_one": False,
        "clip_sample": False,
    }


def _widths(options: Config, width: str, factors: str) -> list[int]:
    if options[factors][0] != 1:
        raise InputError(f"{factors} is {list(options[factors])}; diffusers needs one that begins with 1")
    return level_widths(options[width], options[factors])


def _blocks(kinds: Mapping[str, bool], attends: list[bool]) -> list[str]:
    """The kind of block of each level, with attention or without."""
    names = {attend: name for name, attend in kinds.items()}
    return [names[attend] for attend in attends]

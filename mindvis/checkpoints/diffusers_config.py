"""Settings of a diffusers folder as the published config of a latent diffusion model.

What our networks do not have is refused by the name it has there, with the nearest supported value.
"""

import math
from collections.abc import Mapping
from typing import Any

from mindvis.checkpoints import diffusers_checks as checks
from mindvis.checkpoints.diffusers_checks import MOST_LAYERS, Config, refused, size, sizes, wrong
from mindvis.checkpoints.diffusers_scheduler import schedule
from mindvis.dc_ldm.layers import GROUPS

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
AUTOENCODER_DEFAULTS: dict[str, Any] = {
    "down_block_types": ["DownEncoderBlock2D"],
    "up_block_types": ["UpDecoderBlock2D"],
    "block_out_channels": [64],
    "layers_per_block": 1,
    "sample_size": 32,
    "scaling_factor": 0.18215,
}
AUTOENCODER_FIXED = {
    "in_channels": 3,
    "out_channels": 3,
    "act_fn": "silu",
    "norm_num_groups": GROUPS,
    "mid_block_add_attention": True,
}
# class -> its own defaults, and its own fixed values
AUTOENCODERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "AutoencoderKL": ({"latent_channels": 4}, {"use_quant_conv": True, "use_post_quant_conv": True}),
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


def ldm_config(unet: Config, autoencoder: Config, scheduler: Config, folder: str, place: str) -> dict:
    """The published form, as `build_ldm` takes it, of the three configs of `folder`, the autoencoder's in `place`."""
    where, where_images = f"{folder}/unet/config.json", f"{folder}/{place}/config.json"
    network, sample_size = _unet(unet, where)
    first_stage, scale_factor, own_size = _autoencoder(autoencoder, where_images)
    for name in ("in_channels", "out_channels"):
        if network[name] != first_stage["embed_dim"]:
            needed = f"{first_stage['embed_dim']}, the channels of the autoencoder's latents"
            raise wrong(where, name, network[name], needed)
    ddconfig = first_stage["ddconfig"]
    factor = 2 ** (len(ddconfig["ch_mult"]) - 1)
    latent_size = sample_size or own_size // factor
    if latent_size == 0:
        raise wrong(where_images, "sample_size", own_size, f"at least {factor}, a latent of one pixel")
    ddconfig["resolution"] = latent_size * factor
    attends = ddconfig.pop("attends")
    ddconfig["attn_resolutions"] = [latent_size * factor // 2**level for level, each in enumerate(attends) if each]
    params = {
        **schedule(scheduler, f"{folder}/scheduler/scheduler_config.json"),
        "scale_factor": scale_factor,
        "image_size": latent_size,
        "channels": network["in_channels"],
        "unet_config": {"params": {"image_size": latent_size, **network}},
        "first_stage_config": {"params": first_stage},
    }
    return {"model": {"params": params}}


def _unet(given: Config, where: str) -> tuple[dict, int | None]:
    found = _checked(given, "UNet2DConditionModel", UNET_DEFAULTS, UNET_FIXED, where)
    attends = _attends(found, DOWN, UP, where)
    count = len(attends)
    widths = sizes(found["block_out_channels"], "block_out_channels", count, where)
    # the name is historical: it is the number of heads
    heads = sizes(found["attention_head_dim"], "attention_head_dim", count, where)
    checks.check_multiples(widths, [GROUPS] * count, "the groups of a norm", where)
    checks.check_multiples(widths, heads, "the heads that attention_head_dim gives", where)
    context_dims = set(sizes(found["cross_attention_dim"], "cross_attention_dim", count, where))
    if len(context_dims) > 1:
        raise refused(where, "cross_attention_dim", found["cross_attention_dim"], max(context_dims))
    if type(found["dropout"]) not in (int, float) or not 0 <= found["dropout"] < 1:
        raise wrong(where, "dropout", found["dropout"], "a number from 0 to 1")
    layers = ("layers_per_block", "transformer_layers_per_block")
    num_res_blocks, depths = (shortest(sizes(found[name], name, count, where, MOST_LAYERS)) for name in layers)
    network = {
        "in_channels": size(found["in_channels"], "in_channels", where),
        "out_channels": size(found["out_channels"], "out_channels", where),
        "model_channels": widths[0],
        "attention_resolutions": [2**level for level, attend in enumerate(attends) if attend],
        "num_res_blocks": num_res_blocks,
        "channel_mult": [_factor(width, widths[0]) for width in widths],
        "num_heads": shortest(heads),
        "transformer_depth": depths,
        "use_linear_in_transformer": checks.flag(found["use_linear_projection"], "use_linear_projection", where),
        "use_spatial_transformer": True,
        "context_dim": context_dims.pop(),
        "dropout": found["dropout"],
    }
    return network, checks.side(found["sample_size"], where)


def _autoencoder(given: Config, where: str) -> tuple[dict, float, int]:
    """Its section, its scale factor, and the side of its images."""
    kind = given.get("_class_name")
    if not isinstance(kind, str) or kind not in AUTOENCODERS:
        raise wrong(where, "_class_name", kind, " or ".join(AUTOENCODERS))
    defaults, fixed = AUTOENCODERS[kind]
    found = _checked(given, kind, {**AUTOENCODER_DEFAULTS, **defaults}, {**AUTOENCODER_FIXED, **fixed}, where)
    attends = _attends(found, ENCODER_DOWN, DECODER_UP, where)
    widths = sizes(found["block_out_channels"], "block_out_channels", len(attends), where)
    checks.check_multiples(widths, [GROUPS] * len(widths), "the groups of a norm", where)
    is_kl, scale = kind == "AutoencoderKL", found["scaling_factor"]
    if type(scale) not in (int, float) or not 0 < scale < math.inf:
        raise wrong(where, "scaling_factor", scale, "a positive number")
    latent_channels = size(found["latent_channels"], "latent_channels", where)
    ddconfig = {
        "double_z": is_kl,
        "z_channels": latent_channels,
        "in_channels": AUTOENCODER_FIXED["in_channels"],
        "out_ch": AUTOENCODER_FIXED["out_channels"],
        "ch": widths[0],
        "ch_mult": [_factor(width, widths[0]) for width in widths],
        "num_res_blocks": size(found["layers_per_block"], "layers_per_block", where, MOST_LAYERS),
        "dropout": 0.0,
        "attends": attends,
    }
    own_size = checks.side(found["sample_size"], where) or AUTOENCODER_DEFAULTS["sample_size"]
    first_stage = {"embed_dim": latent_channels, "ddconfig": ddconfig}
    if not is_kl:
        embed_dim = latent_channels if found["vq_embed_dim"] is None else found["vq_embed_dim"]
        if not checks.is_size(embed_dim):
            raise wrong(where, "vq_embed_dim", embed_dim, "a positive number, or null")
        num_codes = size(found["num_vq_embeddings"], "num_vq_embeddings", where)
        first_stage |= {"embed_dim": embed_dim, "n_embed": num_codes}
    return first_stage, scale, own_size


def _checked(given: Config, kind: str, defaults: Config, fixed: Config, where: str) -> dict:
    """Settings of a model of class `kind`, absent ones at their defaults; others than the fixed values are refused."""
    if given.get("_class_name") != kind:
        raise wrong(where, "_class_name", given.get("_class_name"), repr(kind))
    checks.check_fixed(given, fixed, where)
    for name, value in given.items():
        known = name.startswith("_") or name in (*defaults, *fixed, *WITHOUT_EFFECT)
        if not known and value not in (None, False):
            raise refused(where, name, value, None)
    return {name: given.get(name, default) for name, default in defaults.items()}


def _attends(found: Config, down: Mapping[str, bool], up: Mapping[str, bool], where: str) -> list[bool]:
    """Whether each level attends, by the types of its blocks, which must be the same on the way down and up."""
    attends = [down[each] for each in checks.names(found["down_block_types"], "down_block_types", down, where)]
    rising = [up[each] for each in checks.names(found["up_block_types"], "up_block_types", up, where)]
    if attends != rising[::-1]:
        needed = "the same levels with attention as down_block_types, in reverse order"
        raise wrong(where, "up_block_types", found["up_block_types"], needed)
    return attends


def _factor(width: int, first: int) -> int | float:
    return width // first if width % first == 0 else width / first


def shortest(values: list[int]) -> int | list[int]:
    """One number where all levels have the same."""
    return values[0] if len(set(values)) == 1 else values

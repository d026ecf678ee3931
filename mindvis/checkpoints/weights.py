"""A state dict together with the settings of the model it belongs to, and what shapes say about those settings."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from mindvis.common.errors import InputError

KINDS = ("mbm", "label2img", "ldm")
DEFAULT_HEADS = 16  # of the published encoder and decoder, which no shape tells


@dataclass(frozen=True)
class Weights:
    """Weights of one model under our names.

    `kind` is 'mbm' (settings: the arguments of MaskedBrainModel), 'label2img' (settings: the published config.yaml) or
    'ldm' (settings: `encoder`, the arguments of FMRIEncoder; `global_pool`; `use_time_condition`; `ldm_config`, None
    where the file names none). `config` is whatever else the file says about how it was made, `dropped` the names of
    weights in it that are not used here.
    """

    kind: str
    state_dict: dict[str, Tensor]
    settings: dict
    config: dict = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)


def encoder_settings(state: Mapping[str, Tensor], num_heads: int = DEFAULT_HEADS) -> dict:
    """Arguments of an encoder, read off the shapes of its weights; `state` names them without a prefix.

    Raises InputError where a weight they follow from is missing or has another number of dimensions.
    """
    embed_dim, _, patch_size = shape_of(state, "patch_embed.proj.weight", 3)
    return {
        "num_voxels": (shape_of(state, "pos_embed", 3)[1] - 1) * patch_size,
        "patch_size": patch_size,
        "embed_dim": embed_dim,
        "depth": count_blocks(state, "blocks."),
        "num_heads": num_heads,
        "mlp_ratio": shape_of(state, "blocks.0.mlp.fc1.weight", 2)[0] / embed_dim,
    }


def mbm_settings(state: Mapping[str, Tensor], num_heads: int, decoder_num_heads: int) -> dict:
    """Arguments of a masked brain model, read off the shapes of its weights. Raises InputError as above."""
    return {
        **encoder_settings(state, num_heads),
        "decoder_embed_dim": shape_of(state, "decoder_embed.weight", 2)[0],
        "decoder_depth": count_blocks(state, "decoder_blocks."),
        "decoder_num_heads": decoder_num_heads,
    }


def ldm_settings(state: Mapping[str, Tensor], num_heads: int = DEFAULT_HEADS, ldm_config: dict | None = None) -> dict:
    """Settings of a decoder, read off its names and shapes. Raises InputError as above."""
    return {
        "encoder": encoder_settings(part(state, "conditioner.encoder."), num_heads),
        "global_pool": not part(state, "conditioner.channel_mapper."),
        "use_time_condition": bool(part(state, "unet.time_embed_condtion.")),
        "ldm_config": ldm_config,
    }


def part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The weights below a prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def shape_of(state: Mapping[str, Tensor], name: str, num_dims: int) -> tuple[int, ...]:
    """Shape of a weight that must be there."""
    if name not in state:
        raise InputError(f"weight {name!r} is missing")
    if state[name].ndim != num_dims:
        raise InputError(f"weight {name!r}: shape {list(state[name].shape)}, {num_dims} dimensions are needed")
    return tuple(state[name].shape)


def count_blocks(state: Mapping[str, Tensor], prefix: str) -> int:
    """How many transformer blocks the weights below a prefix belong to."""
    return len({name.split(".")[0] for name in part(state, prefix)})

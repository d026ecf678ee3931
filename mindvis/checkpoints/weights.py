"""A state dict together with the settings of the model it belongs to, and what shapes say about those settings."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from mindvis.common.errors import InputError

State = dict[str, Tensor]

KINDS = ("mbm", "label2img", "ldm")
IMAGE_DECODER = "image_decoder."  # prefix of the pretext of image features in a masked brain model
DEFAULT_HEADS = 16  # of the published encoder and decoder, which no shape tells
WRAPPED = re.compile(r"^(module\.|_orig_mod\.)+|(?<=\.)_orig_mod\.")  # by DataParallel or torch.compile


@dataclass(frozen=True)
class Weights:
    """Weights of one model under our names.

    `kind` is 'mbm' (settings: the arguments of MaskedBrainModel), 'label2img' (settings: the published config.yaml) or
    'ldm' (settings: `encoder`, the arguments of FMRIEncoder; `global_pool`; `use_time_condition`; `ldm_config`, None
    where the file names none). `config` is whatever else the file says about how it was made, `dropped` the names of
    weights in it that are not used here.
    """

    kind: str
    state_dict: State
    settings: dict
    config: dict = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)


def check_state(state: object, where: str) -> State:
    """A state dict as a plain dict, without the prefixes `module.` and `_orig_mod.` of wrapped modules.

    Raises InputError where it is none or holds other things than tensors.
    """
    if not isinstance(state, dict) or not state:
        raise InputError(f"{where} is {'empty' if state == {} else type(state).__name__}, a dict of tensors is needed")
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise InputError(f"{where}[{str(name)[:80]!r}] is a {type(tensor).__name__}, a tensor is needed")
    unwrapped = {WRAPPED.sub("", name): tensor for name, tensor in state.items()}
    if len(unwrapped) < len(state):
        raise InputError(f"{where} holds the same weights twice, with and without the prefix of a wrapped module")
    return unwrapped


def mbm_settings(state: Mapping[str, Tensor], num_heads: int, decoder_num_heads: int) -> dict:
    """Arguments of a masked brain model, read off the shapes of its weights.

    Raises InputError where a weight they follow from is missing or has another number of dimensions.
    """
    return {
        **_encoder_settings(state, num_heads),
        "decoder_embed_dim": _shape(state, "decoder_embed.weight", 2)[0],
        "decoder_depth": _count_blocks(state, "decoder_blocks."),
        "decoder_num_heads": decoder_num_heads,
        **_image_features(state),
    }


def ldm_settings(state: Mapping[str, Tensor]) -> dict:
    """Settings of a decoder, read off its names and shapes. Raises InputError as above."""
    return {
        "encoder": _encoder_settings(part(state, "conditioner.encoder."), DEFAULT_HEADS),
        "global_pool": not part(state, "conditioner.channel_mapper."),
        "use_time_condition": bool(part(state, "unet.time_embed_condtion.")),
        "ldm_config": None,
    }


def part(state: Mapping[str, Tensor], prefix: str) -> State:
    """The weights below a prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _image_features(state: Mapping[str, Tensor]) -> dict:
    """Shape of the image features of a model with that pretext; they are square."""
    if not part(state, IMAGE_DECODER):
        return {}
    places = _shape(state, f"{IMAGE_DECODER}decoder_pred.1.weight", 2)[0]
    side = math.isqrt(places)
    return {"image_features": [_shape(state, f"{IMAGE_DECODER}decoder_pred.0.weight", 3)[0], side, places // side]}


def _encoder_settings(state: Mapping[str, Tensor], num_heads: int) -> dict:
    embed_dim, _, patch_size = _shape(state, "patch_embed.proj.weight", 3)
    return {
        "num_voxels": (_shape(state, "pos_embed", 3)[1] - 1) * patch_size,
        "patch_size": patch_size,
        "embed_dim": embed_dim,
        "depth": _count_blocks(state, "blocks."),
        "num_heads": num_heads,
        "mlp_ratio": _shape(state, "blocks.0.mlp.fc1.weight", 2)[0] / embed_dim,
    }


def _shape(state: Mapping[str, Tensor], name: str, num_dims: int) -> tuple[int, ...]:
    """Shape of a weight that must be there."""
    if name not in state:
        raise InputError(f"weight {name!r} is missing")
    if state[name].ndim != num_dims:
        raise InputError(f"weight {name!r}: shape {list(state[name].shape)}, {num_dims} dimensions are needed")
    return tuple(state[name].shape)


def _count_blocks(state: Mapping[str, Tensor], prefix: str) -> int:
    """How many transformer blocks the weights below a prefix belong to."""
    return len({name.split(".")[0] for name in part(state, prefix)})

"""A state dict with the settings of its model: read off shapes, or from our own files, whole or not there at all.

Our checkpoints and safetensors hold an envelope beside the weights: their kind, the settings of the model, and those of
the run.
"""

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from mindvis.checkpoints.torch_files import load_torch
from mindvis.common.errors import InputError, reading
from mindvis.common.loading import unwrapped
from mindvis.common.safe_pickle import as_settings
from mindvis.common.tensor_files import read_safetensors, save_tensors
from mindvis.common.texts import require_groups
from mindvis.config.loading import read_yaml

State = dict[str, Tensor]

GROUPS = ("data", "stage_a", "logging")  # of the settings of a run, those that are read when it is used
KINDS = ("mbm", "label2img", "ldm")
IMAGE_DECODER = "image_decoder."  # prefix of the pretext of image features in a masked brain model
DEFAULT_HEADS = 16  # of the published encoder and decoder, which no shape tells
# What a decoder's settings say of its context, and the published values, which hold where a file is silent.
CONTEXT = {"global_pool": False, "use_time_condition": True, "context_tokens": 77, "ridge": "none"}
LDM_SETTINGS = ("encoder", "ldm_config")  # which a decoder cannot do without
ENVELOPE = "weights"  # key of {kind, settings, config, prefix} beside `state_dict` in our checkpoints
EXPORTED = ("model.safetensors", "settings.yaml")  # files of an exported folder
RIDGE_FILE = "ridge.safetensors"  # the regression that sampling can start from, in a run folder or an exported one


@dataclass(frozen=True)
class Weights:
    """Weights of one model under our names.

    `kind` is 'mbm' (settings: the arguments of MaskedBrainModel), 'label2img' (settings: the published config.yaml) or
    'ldm' (settings: `encoder`, the arguments of FMRIEncoder; those of `CONTEXT`; `ldm_config`, None where the file
    names none). `config` is whatever else the file says about how it was made, `dropped` the names of
    weights in it that are not used here. `classes` [n c] is the class embedding of a 'label2img', in whose place fMRI
    comes: only baselines use it.
    """

    kind: str
    state_dict: State
    settings: dict
    config: dict = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)
    classes: Tensor | None = None


def context_flags(settings: Mapping) -> dict:
    """What the settings of a decoder say of its context, as `build_ldm` takes it."""
    return {name: settings.get(name, published) for name, published in CONTEXT.items()}


def check_state(state: object, where: str) -> State:
    """A state dict as a plain dict, without the prefixes `module.` and `_orig_mod.` of wrapped modules.

    Raises InputError where it is none or holds other things than tensors.
    """
    if not isinstance(state, dict) or not state:
        raise InputError(f"{where} is {'empty' if state == {} else type(state).__name__}, a dict of tensors is needed")
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise InputError(f"{where}[{str(name)[:80]!r}] is a {type(tensor).__name__}, a tensor is needed")
    return unwrapped(state, where)


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


class DescribeWeights(pl.Callback):
    """Writes kind and settings of the network into each checkpoint of a training; the arguments are as of `Weights`.

    `prefix` is what the LightningModule puts before the network's names. `config` are the settings of the run.
    """

    def __init__(self, kind: str, settings: dict, *, config: dict | None = None, prefix: str = "network."):
        self.description = envelope(Weights(kind, {}, settings, config or {}), prefix)

    def on_save_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[ENVELOPE] = self.description


def envelope(weights: Weights, prefix: str = "") -> dict:
    """What our files say about their weights; `prefix` is put before their names in `state_dict`."""
    return {"kind": weights.kind, "settings": weights.settings, "config": weights.config, "prefix": prefix}


def from_envelope(content: object, said: object, where: Path, needed: Collection[str] = LDM_SETTINGS) -> Weights:
    """Weights from a state dict and its envelope. Raises InputError, naming `where`, for one that is incomplete.

    `needed` are settings that weights of an LDM must have beside them.
    """
    with reading(where):
        said = as_settings(said)
    if not isinstance(said, dict) or said.get("kind") not in KINDS or not isinstance(said.get("settings"), dict):
        raise InputError(f"{where}: does not say which model it is; needed: a kind ({', '.join(KINDS)}) and settings")
    for name, kind in {"prefix": str, "config": dict, "data": dict}.items():
        if said.get(name) is not None and not isinstance(said[name], kind):
            raise InputError(f"{where}: {name} is {str(said[name])[:60]!r}; needed: as this program wrote it")
    lacking = [name for name in needed if said["kind"] == "ldm" and name not in said["settings"]]
    if lacking:
        raise InputError(f"{where}: its settings lack {', '.join(lacking)}; needed: as this program wrote them")
    state = part(check_state(content, f"{where}: state_dict"), said.get("prefix") or "")
    config = dict(said.get("config") or {})
    require_groups(config, GROUPS, f"{where}: config.")
    require_groups(config.get("stage_a", {}), GROUPS, f"{where}: config.stage_a.")
    if said.get("data") and not config.keys() & {"data", "dataset"}:  # named when the model was exported
        config["data"] = said["data"]
    return Weights(said["kind"], state, said["settings"], config)


def save_checkpoint(path: str | Path, content: Mapping) -> None:
    """Write tensors and plain containers as a torch file that `weights_only=True` reads.

    Raises TypeError for any other object in it, and OSError or InputError where the file cannot be written: what was
    there before is then whole.
    """
    save_tensors(content, Path(path))


def read_checkpoint(path: str | Path) -> dict:
    """What `save_checkpoint` wrote, tensors mapped. Raises InputError for a missing, damaged or foreign file."""
    content = load_torch(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}, a checkpoint is a dict")
    return content


def safetensors_weights(path: Path) -> Weights:
    """Weights of a safetensors file; its envelope is in its metadata, or the settings.yaml of an exported folder."""
    state, metadata = read_safetensors(path)
    try:
        said = json.loads(metadata[ENVELOPE]) if ENVELOPE in metadata else read_yaml(path.parent / EXPORTED[1])
    except (ValueError, RecursionError) as error:  # InputError is a ValueError
        raise InputError(f"{path}: its settings ({EXPORTED[1]} or metadata) are absent or not readable") from error
    return from_envelope(state, said, path)


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

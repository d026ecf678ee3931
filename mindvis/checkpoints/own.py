"""Our own files, whole or not there at all: checkpoints of trainings and safetensors.

Both hold an envelope beside the weights: their kind, the settings of the model, and those of the run.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mindvis.checkpoints.torch_files import load_torch
from mindvis.checkpoints.weights import KINDS, Weights, check_state, part
from mindvis.common.errors import InputError, one_line, reading
from mindvis.common.files import write_atomic
from mindvis.common.safe_pickle import as_settings
from mindvis.common.tensor_files import save_tensors
from mindvis.config.loading import read_yaml

ENVELOPE = "weights"  # key of {kind, settings, config, prefix} beside `state_dict` in our checkpoints
EXPORTED = ("model.safetensors", "settings.yaml")  # files of an exported folder
RIDGE_FILE = "ridge.safetensors"  # the regression that sampling can start from, in a run folder or an exported one


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


def from_envelope(content: object, said: object, where: Path) -> Weights:
    """Weights from a state dict and its envelope. Raises InputError, naming `where`, for one that is incomplete."""
    with reading(where):
        said = as_settings(said)
    if not isinstance(said, dict) or said.get("kind") not in KINDS or not isinstance(said.get("settings"), dict):
        raise InputError(f"{where}: does not say which model it is; needed: a kind ({', '.join(KINDS)}) and settings")
    state = part(check_state(content, f"{where}: state_dict"), said.get("prefix") or "")
    config = dict(said.get("config") or {})
    if said.get("data") and not config.keys() & {"data", "dataset"}:  # named when the model was exported
        config["data"] = said["data"]
    return Weights(said["kind"], state, said["settings"], config)


def save_checkpoint(path: str | Path, content: Mapping) -> None:
    """Write tensors and plain containers as a torch file that `weights_only=True` reads.

    Raises TypeError for any other object in it, and OSError or InputError where the file cannot be written: what was
    there before is then whole.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    save_tensors(content, Path(path))


def read_checkpoint(path: str | Path) -> dict:
    """What `save_checkpoint` wrote, tensors mapped. Raises InputError for a missing, damaged or foreign file."""
    content = load_torch(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}, a checkpoint is a dict")
    return content


def save_safetensors(path: str | Path, state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors as a safetensors file; those that share memory are written apart. Raises as `save_checkpoint`."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    seen: set[int] = set()
    apart = {}
    for name, tensor in state.items():
        memory = tensor.untyped_storage().data_ptr()
        apart[name] = tensor.detach().clone() if memory in seen else tensor.detach()
        apart[name] = apart[name].contiguous()
        seen.add(memory)
    write_atomic(Path(path), lambda file: save_file(apart, file.name, dict(metadata)))  # it writes to names only


def read_safetensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors, mapped from the file, and metadata. Raises InputError for a missing or damaged file."""
    if not Path(path).is_file():
        raise InputError(f"{path}: no such safetensors file")
    try:
        with safe_open(path, framework="pt") as opened:
            state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a dict
            return state, dict(opened.metadata() or {})
    except (SafetensorError, ValueError, OSError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({one_line(error)})") from error


def safetensors_weights(path: Path) -> Weights:
    """Weights of a safetensors file; its envelope is in its metadata, or the settings.yaml of an exported folder."""
    state, metadata = read_safetensors(path)
    try:
        said = json.loads(metadata[ENVELOPE]) if ENVELOPE in metadata else read_yaml(path.parent / EXPORTED[1])
    except ValueError as error:  # InputError is one
        raise InputError(f"{path}: its settings ({EXPORTED[1]} or metadata) are absent or not readable") from error
    return from_envelope(state, said, path)

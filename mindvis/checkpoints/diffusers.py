"""Diffusers folders in and out: their files are read and written here, without the library.

`unet/`, `vae/` or `vqvae/` and `scheduler/`, each with its config.json; weights as safetensors or .bin, whole or in
shards, in float32 or half precision. A .bin is a pickle, and is read without running anything in it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mindvis.checkpoints.diffusers_config import ldm_config
from mindvis.checkpoints.diffusers_config_out import diffusers_configs, levels
from mindvis.checkpoints.diffusers_names import autoencoder_names, to_ours, to_theirs, unet_names
from mindvis.checkpoints.own import read_safetensors, save_safetensors
from mindvis.checkpoints.torch_files import load_torch
from mindvis.checkpoints.weights import State, check_state, part
from mindvis.common.errors import InputError, beside, one_line
from mindvis.common.files import write_json
from mindvis.dc_ldm import LatentDiffusion, build_autoencoder, build_unet

STEM = "diffusion_pytorch_model"
# the first that is there is read: full precision before half, safetensors before pickles
WEIGHT_FILES = tuple(
    f"{STEM}{name}"
    for name in (
        *(".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json"),
        *(".fp16.safetensors", ".safetensors.index.fp16.json", ".fp16.safetensors.index.json"),
        *(".fp16.bin", ".bin.index.fp16.json"),
    )
)
AUTOENCODER_FOLDERS = ("vae", "vqvae")
CONDITIONER = "conditioner"  # folder of what turns fMRI into a context, in the exported decoders
NEEDED = "needed: a diffusers folder (unet, vae or vqvae, scheduler)"


def is_diffusers(path: str | Path) -> bool:
    """Whether a path is a folder with a part that diffusers wrote."""
    return any((Path(path) / name / "config.json").is_file() for name in ("unet", *AUTOENCODER_FOLDERS))


def read_diffusers(folder: str | Path) -> tuple[dict, State]:
    """The config `build_ldm` takes, and the weights of UNet and autoencoder under our names, in float32 on the CPU.

    Raises InputError, naming the file, for a part that is missing, damaged, or of another shape than its config.json
    says, for code in a pickle, and for a setting that our networks do not have.
    """
    folder = Path(folder)
    config, autoencoder = read_config(folder), _autoencoder_of(folder)
    names, own = _names(config), _own_shapes(config, str(folder))
    state: State = {}
    for place, prefix in (("unet", "unet."), (autoencoder, "autoencoder.")):
        found = to_ours(_read_weights(folder / place), names[prefix])
        _check(found, own[prefix], names[prefix], folder / place)
        state |= {prefix + name: tensor.float() for name, tensor in found.items()}
    return config, state


def read_config(folder: str | Path) -> dict:
    """The config `build_ldm` takes, from the config.json of a folder alone. Raises as `read_diffusers`."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError("; ".join(text for text in (f"{folder}: no such folder", NEEDED, beside(folder)) if text))
    unet = _read_json(folder / "unet" / "config.json")
    place = _autoencoder_of(folder)
    autoencoder = _read_json(folder / place / "config.json")
    scheduler = _read_json(folder / "scheduler" / "scheduler_config.json")
    if (folder / CONDITIONER).is_dir():  # one of ours, whose time-step condition is in there
        unet.pop("class_embed_type", None)
    return ldm_config(unet, autoencoder, scheduler, str(folder), place)


def _autoencoder_of(folder: Path) -> str:
    return next((name for name in AUTOENCODER_FOLDERS if (folder / name / "config.json").is_file()), "vae")


def write_diffusers(ldm: LatentDiffusion, folder: str | Path, config: Mapping[str, Any] | None = None) -> None:
    """Write UNet, autoencoder and noise schedule of a model as diffusers opens them.

    `config` is what it was built from, by default what `build_ldm` has kept in `ldm.config`. The time-step condition
    has no place in a UNet of diffusers: with one, the UNet takes `class_labels` [b 4 model_channels], what the
    condition adds to the time embedding. Raises InputError for a model that has no form there.
    """
    config = config or ldm.config
    if config is None:
        raise InputError(f"{folder}: a model of unknown config; needed: one of build_ldm, or its config")
    condition = ldm.unet.time_embed_condtion is not None
    write_diffusers_state(config, ldm.state_dict(), folder, class_embed_type="identity" if condition else None)


def write_diffusers_state(
    config: Mapping[str, Any], state: Mapping[str, Tensor], folder: str | Path, *, class_embed_type: str | None = None
) -> None:
    """As `write_diffusers`, from weights under our names; what is neither UNet nor autoencoder is left out."""
    folder, names = Path(folder), _names(config)
    configs = diffusers_configs(config, class_embed_type=class_embed_type)
    for place, settings in configs.items():
        name = "scheduler_config.json" if place == "scheduler" else "config.json"
        if place != "scheduler":
            prefix = "unet." if place == "unet" else "autoencoder."
            own = part(state, prefix)
            kept = {key: tensor for key, tensor in own.items() if not key.startswith("time_embed_condtion.")}
            save_safetensors(folder / place / f"{STEM}.safetensors", to_theirs(kept, names[prefix]), {"format": "pt"})
        write_json(folder / place / name, settings)


def _names(config: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    attends, num_res_blocks, attended, num_coder_blocks = levels(config)
    return {
        "unet.": unet_names(attends, num_res_blocks),
        "autoencoder.": autoencoder_names(attended, num_coder_blocks),
    }


def _own_shapes(config: Mapping[str, Any], folder: str) -> dict[str, State]:
    """Names and shapes that UNet and autoencoder have here, on the meta device."""
    params = config["model"]["params"]
    try:
        with torch.device("meta"):
            unet = build_unet(params["unet_config"]["params"], use_time_condition=False)
            autoencoder = build_autoencoder(params["first_stage_config"]["params"])
    except InputError as error:
        raise InputError(f"{folder}: {error}") from error
    return {"unet.": unet.state_dict(), "autoencoder.": autoencoder.state_dict()}


def _check(found: State, own: State, names: Mapping[str, str], where: Path) -> None:
    """Every weight must be there, of its shape, finite, and nothing else; a message gives names as in the files."""
    for name, wanted in own.items():
        theirs = next(iter(to_theirs({name: wanted}, names)))
        if name not in found:
            raise InputError(f"{where}: weight {theirs!r} is missing, which its config.json needs")
        if found[name].shape != wanted.shape:
            shapes = f"shape {list(found[name].shape)}, its config.json needs {list(wanted.shape)}"
            raise InputError(f"{where}: weight {theirs!r}: {shapes}")
        if not found[name].is_floating_point():
            raise InputError(f"{where}: weight {theirs!r} is of {found[name].dtype}; needed: floating-point numbers")
    others = [name for name in found if name not in own]
    if others:
        raise InputError(f"{where}: weight {others[0]!r} has no place in the model of its config.json")


def _read_weights(folder: Path) -> State:
    path = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if path is None:
        raise InputError(f"{folder}: no weights; needed: {WEIGHT_FILES[0]}, {WEIGHT_FILES[2]}, or one of their shards")
    return _read_shards(path) if path.suffix == ".json" else _read_file(path)


def _read_file(path: Path) -> State:
    content = read_safetensors(path)[0] if path.suffix == ".safetensors" else load_torch(path)
    return check_state(content, str(path))


def _read_shards(index: Path) -> State:
    """The weights of an index: a map from names to the files beside it."""
    places = _read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise InputError(f"{index}: no weight_map; needed: the name of a file for each weight")
    state: State = {}
    for name in sorted(set(map(str, places.values()))):
        if Path(name).name != name or Path(name).suffix not in (".safetensors", ".bin"):
            raise InputError(f"{index}: names the shard {name!r}; needed: a .safetensors or .bin file beside it")
        if not (index.parent / name).is_file():
            raise InputError(f"{index.parent / name}: no such file; needed: a shard that {index.name} names")
        state |= _read_file(index.parent / name)
    absent = [name for name in places if name not in state]
    if absent:
        raise InputError(f"{index}: weight {absent[0]!r} is not in its shard {places[absent[0]]}")
    return state


def _read_json(path: Path) -> dict:
    if not path.is_file():
        raise InputError(f"{path}: no such file; {NEEDED}")
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as JSON ({one_line(error)})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}; needed: settings by name")
    return content

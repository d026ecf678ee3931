"""Diffusers folders in and out, with a tuned decoder in them too: read and written here, without the library.

`unet/`, `vae/` or `vqvae/` and `scheduler/`, each with its config.json; weights as safetensors or .bin, whole or in
shards, in float32 or half precision. A .bin is a pickle, and is read without running anything in it. Of a decoder,
`conditioner/` holds what turns fMRI into a context, and the time-step condition, for which a UNet of diffusers has no
place of its own: it takes the condition as `class_labels`, which it adds to the time embedding.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from mindvis.checkpoints.diffusers_config import ldm_config
from mindvis.checkpoints.diffusers_config_out import diffusers_configs, levels
from mindvis.checkpoints.diffusers_names import autoencoder_names, to_ours, to_theirs, unet_names
from mindvis.checkpoints.sharing import check_shareable, copy_ridge, model_card
from mindvis.checkpoints.torch_files import load_torch
from mindvis.checkpoints.weights import (
    EXPORTED,
    RIDGE_FILE,
    State,
    Weights,
    check_state,
    context_flags,
    envelope,
    from_envelope,
    part,
)
from mindvis.common.errors import InputError, beside, joined
from mindvis.common.files import write_json, write_text
from mindvis.common.loading import load_state
from mindvis.common.tensor_files import read_safetensors, save_safetensors
from mindvis.common.texts import read_json
from mindvis.config.loading import read_yaml
from mindvis.dc_ldm import FMRIConditioner, LatentDiffusion, build_autoencoder, build_unet
from mindvis.dc_ldm.conditioner import ridge_like
from mindvis.dc_ldm.unet import time_condition
from mindvis.sc_mbm import FMRIEncoder

STEM = "diffusion_pytorch_model"
# the first that is there is read: full precision before half, safetensors before pickles
SUFFIXES = ".safetensors .safetensors.index.json .bin .bin.index.json .fp16.safetensors .safetensors.index.fp16.json"
SUFFIXES += " .fp16.safetensors.index.json .fp16.bin .bin.index.fp16.json"
WEIGHT_FILES = [STEM + suffix for suffix in SUFFIXES.split()]
AUTOENCODER_FOLDERS = ("vae", "vqvae")
CONDITIONER = "conditioner"  # folder in the exported decoders
CLASS_FILE = Path("class_embedding") / "model.safetensors"
CLASS_EMBEDDER = "ldm.modules.encoders.modules.ClassEmbedder"
NEEDED = "needed: a diffusers folder (unet, vae or vqvae, scheduler)"
OWN = ("conditioner.", "unet.time_embed_condtion.")  # what diffusers does not know
PARTS = {"unet", *AUTOENCODER_FOLDERS, "scheduler", CONDITIONER, RIDGE_FILE, "README.md"}


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
        raise InputError(joined(f"{folder}: no such folder", NEEDED, beside(folder)))
    unet = _read_json(folder / "unet" / "config.json")
    place = _autoencoder_of(folder)
    autoencoder = _read_json(folder / place / "config.json")
    scheduler = _read_json(folder / "scheduler" / "scheduler_config.json")
    if (folder / CONDITIONER).is_dir():  # one of ours, whose time-step condition is in there
        unet.pop("class_embed_type", None)
    return ldm_config(unet, autoencoder, scheduler, str(folder), place)


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
    config: Mapping[str, Any],
    state: Mapping[str, Tensor],
    folder: str | Path,
    *,
    class_embed_type: str | None = None,
    classes: Tensor | None = None,
) -> None:
    """As `write_diffusers`, from weights under our names; what is neither UNet nor autoencoder is left out.

    `classes` [n c]: the class embedding, which the library has no place for, goes into a folder beside the others.
    """
    folder, names = Path(folder), _names(config)
    configs = diffusers_configs(config, class_embed_type=class_embed_type)
    write_json(folder / "scheduler" / "scheduler_config.json", configs.pop("scheduler"))
    for place, settings in configs.items():
        prefix = "unet." if place == "unet" else "autoencoder."
        own = part({name: tensor for name, tensor in state.items() if not name.startswith(OWN)}, prefix)
        save_safetensors(folder / place / f"{STEM}.safetensors", to_theirs(own, names[prefix]), {"format": "pt"})
        write_json(folder / place / "config.json", settings)
    if classes is not None:
        save_safetensors(folder / CLASS_FILE, {"weight": classes}, {"format": "pt"})


class Condition(nn.Module):
    """fMRI -> what a UNet of diffusers takes: `encoder_hidden_states`, and `class_labels` (None: without)."""

    def __init__(self, conditioner: FMRIConditioner, condition: nn.Module | None):
        super().__init__()
        self.conditioner, self.condition = conditioner, condition

    def forward(self, fmri: Tensor) -> tuple[Tensor, Tensor | None]:
        """[b 1 v] -> context [b 77 context_dim], labels [b 4 model_channels]."""
        context = self.conditioner(fmri)
        return context, None if self.condition is None else self.condition(context)[:, 0]


def export_diffusers(
    folder: str | Path,
    weights: Weights,
    *,
    data: Mapping | None = None,
    report: Mapping | None = None,
    source: str | Path | None = None,
) -> list[str]:
    """Write a decoder as a diffusers folder with a model card, and say what; `generate.py run=` takes it too.

    `data`, `report` and `source` are as of `export_model`. Raises InputError for weights that are no decoder or of
    unknown config, for a model that has no form in diffusers, and for a folder that holds something else.
    """
    folder = check_shareable(folder, weights, PARTS)
    settings = weights.settings
    labelled = "identity" if settings["use_time_condition"] else None
    write_diffusers_state(settings["ldm_config"], weights.state_dict, folder, class_embed_type=labelled)
    own = {name: tensor for name, tensor in weights.state_dict.items() if name.startswith(OWN)}
    said = {**envelope(weights), "data": dict(data or {})}
    said["settings"] = {name: value for name, value in settings.items() if name != "ldm_config"}
    save_safetensors(folder / CONDITIONER / EXPORTED[0], own, {"format": "pt"})
    write_text(folder / CONDITIONER / EXPORTED[1], OmegaConf.to_yaml(OmegaConf.create(said)))
    write_text(folder / "README.md", model_card(weights, data or {}, report or {}, form="diffusers"))
    copy_ridge(folder, source)
    return sorted(path.name for path in folder.iterdir())


def diffusers_weights(folder: Path) -> Weights:
    """Weights of a diffusers folder: a model to start Stage B from, or with a conditioner in it a tuned decoder."""
    config, state = read_diffusers(folder)
    if not (folder / CONDITIONER).is_dir():
        classes = _class_embedding(folder / CLASS_FILE, config)
        return Weights("label2img", state, config, classes=classes)
    own = _conditioner(folder)
    return Weights("ldm", {**state, **own.state_dict}, {**own.settings, "ldm_config": config}, own.config)


def _class_embedding(path: Path, config: dict) -> Tensor | None:
    """The class embedding of a folder that `write_diffusers_state` wrote, which `config` then names; None: it has none.

    Raises InputError for a file without one.
    """
    if not path.is_file():
        return None
    embedding = read_safetensors(path)[0].get("weight")
    if embedding is None or embedding.ndim != 2:
        raise InputError(f"{path}: holds no weight [classes features]; needed: a class embedding, or no such file")
    number, width = embedding.shape
    params = {"n_classes": number, "embed_dim": width, "key": "class_label"}
    config["model"]["params"]["cond_stage_config"] = {"target": CLASS_EMBEDDER, "params": params}
    return embedding


def load_conditioner(folder: str | Path) -> Condition:
    """The conditioner of a folder of `export_diffusers`, in evaluation mode. Raises InputError as `read_diffusers`."""
    own = _conditioner(Path(folder))
    context_dim = own.state_dict["conditioner.dim_mapper.weight"].shape[0]
    flags = context_flags(own.settings)
    context = {name: flags[name] for name in ("global_pool", "context_tokens")}
    encoder = FMRIEncoder(**own.settings["encoder"], global_pool=flags["global_pool"])
    ridge = ridge_like(part(own.state_dict, "conditioner.ridge."))
    conditioner = FMRIConditioner(encoder, context_dim=context_dim, ridge=ridge, **context)
    load_state(conditioner, part(own.state_dict, OWN[0]), source=str(folder))
    condition, state = None, part(own.state_dict, OWN[1])
    if state:
        embedding_dim = state["weight" if flags["global_pool"] else "2.weight"].shape[0]
        condition = time_condition(context_dim, embedding_dim, **context)
        load_state(condition, state, source=str(folder))
    return Condition(conditioner, condition).eval().requires_grad_(False)


def _autoencoder_of(folder: Path) -> str:
    return next((name for name in AUTOENCODER_FOLDERS if (folder / name / "config.json").is_file()), "vae")


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
        if not all(end.isfinite() for end in found[name].float().aminmax()):
            raise InputError(f"{where}: weight {theirs!r} holds NaN or infinity; needed: finite numbers")
    others = [name for name in found if name not in own]
    if others:
        raise InputError(f"{where}: weight {others[0]!r} has no place in the model of its config.json")


def _read_weights(folder: Path) -> State:
    path = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if path is None:
        raise InputError(f"{folder}: no weights; needed: {STEM}.safetensors, {STEM}.bin, or one of their shards")
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
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}; needed: settings by name")
    return content


def _conditioner(folder: Path) -> Weights:
    path = folder / CONDITIONER / EXPORTED[0]
    state: State = read_safetensors(path)[0]
    own = from_envelope(state, read_yaml(path.with_name(EXPORTED[1])), path, needed=())
    needed = ("encoder", "global_pool", "use_time_condition")
    absent = [name for name in needed if name not in own.settings]
    if absent or "conditioner.dim_mapper.weight" not in own.state_dict:
        found = ", ".join(absent) or "the weights of its projection"
        raise InputError(f"{path}: {found} absent; needed: a folder of export_model.py --format diffusers")
    return own

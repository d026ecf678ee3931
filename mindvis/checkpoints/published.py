"""The three files the authors released: read without running anything in them, and written as they read them.

`fmri_encoder.pth` {model, config, ...}, `label2img/model.ckpt` {state_dict, ...} with its `config.yaml` beside it, and
`finetuned.pth` {model_state_dict, config, state}. Parameter names differ from ours by prefixes; tensors do not.
"""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import torch
from omegaconf import OmegaConf
from torch import Tensor

from mindvis.checkpoints.torch_files import load_torch
from mindvis.checkpoints.weights import (
    CONTEXT,
    DEFAULT_HEADS,
    IMAGE_DECODER,
    State,
    Weights,
    check_state,
    context_flags,
    ldm_settings,
    mbm_settings,
)
from mindvis.common.errors import InputError, reading
from mindvis.common.files import write_atomic, write_text
from mindvis.common.safe_pickle import as_settings
from mindvis.config.loading import read_yaml
from mindvis.dc_ldm import build_schedule
from mindvis.dc_ldm.schedule import NoiseSchedule

STATE_KEYS = {"model_state_dict": "ldm", "state_dict": "label2img", "model": "mbm"}
PREFIXES = {  # published -> ours
    "model.diffusion_model.": "unet.",
    "first_stage_model.": "autoencoder.",
    "cond_stage_model.mae.": "conditioner.encoder.",
    "cond_stage_model.channel_mapper.": "conditioner.channel_mapper.",
    "cond_stage_model.dim_mapper.": "conditioner.dim_mapper.",
}
# The moving average of the UNet's weights, and what the fMRI encoder replaces: the class embedding, or the transformer
# over text or layout.
CLASSES = "cond_stage_model.embedding.weight"
DROPPED = ("model_ema.", CLASSES, "cond_stage_model.transformer.")
IMAGE_PRETEXT = {"nature_img_": IMAGE_DECODER}  # published -> ours, in Stage A
CLASS_EMBEDDING = {"conditioner.embedding.": "cond_stage_model.embedding."}  # ours -> published
SCHEDULE = frozenset(NoiseSchedule(num_timesteps=2).buffers_published()) | {"lvlb_weights"}
FIGSHARE = "https://figshare.com/s/94cd778e6afafb00946e"
LATENT_DIFFUSION = "https://ommer-lab.com/files/latent-diffusion"
ADDRESSES = {
    "fmri_encoder.pth": FIGSHARE,
    "finetuned.pth": FIGSHARE,
    "label2img": f"{LATENT_DIFFUSION}/nitro/cin/model.ckpt",
    "text2img": f"{LATENT_DIFFUSION}/nitro/txt2img-f8-large/model.ckpt",
    "layout2img": f"{LATENT_DIFFUSION}/layout2img_model.zip",
}
PUBLISHED_DATA = {"god": ("kam_path", "kam_subs"), "bold5000": ("bold5000_path", "bold5000_subs")}
NEEDED_YAML = "needed: the config.yaml that was published with model.ckpt"


def import_mbm(state: Mapping[str, Tensor]) -> State:
    """Stage A under our names: the published ones but for the decoder of image features."""
    return {_rename(name, IMAGE_PRETEXT): tensor for name, tensor in state.items()}


def export_mbm(state: Mapping[str, Tensor]) -> State:
    """Stage A under the published names; the inverse of `import_mbm`."""
    back = {ours: published for published, ours in IMAGE_PRETEXT.items()}
    return {_rename(name, back): tensor for name, tensor in state.items()}


def import_ldm(state: Mapping[str, Tensor]) -> State:
    """A label-, text- or layout-to-image or a decoding LDM under our names.

    The noise schedule (recomputed where it is needed), the moving average and the condition that fMRI replaces are left
    out. Names of no known prefix are kept as they are, so that loading reports them.
    """
    kept = {name: tensor for name, tensor in state.items() if name not in SCHEDULE and not name.startswith(DROPPED)}
    return {_rename(name, PREFIXES): tensor for name, tensor in kept.items()}


def export_ldm(state: Mapping[str, Tensor], schedule: NoiseSchedule | None = None) -> State:
    """An LDM under the published names, its noise schedule (default: the published one) among them.

    The inverse of `import_ldm`: `import_ldm(export_ldm(state))` is `state`.
    """
    back = {ours: published for published, ours in PREFIXES.items()} | CLASS_EMBEDDING
    buffers = (schedule or NoiseSchedule()).buffers_published()
    return {**buffers, **{_rename(name, back): tensor for name, tensor in state.items()}}


def _rename(name: str, prefixes: Mapping[str, str]) -> str:
    old = next((old for old in prefixes if name.startswith(old)), "")
    return prefixes.get(old, "") + name.removeprefix(old)


def load_published(path: str | Path) -> Weights:
    """Weights and settings of a published file; its kind follows from what it holds. Tensors are mapped.

    `num_heads` of an 'ldm', which the file does not name, is the published 16. Raises InputError, naming the file,
    where it is none of the three, damaged, would run code, or lacks what its kind needs.
    """
    return published_weights(load_torch(path), Path(path))


def published_source(path: Path) -> str:
    """Where a published file or its folder comes from, and a substitute; "" for a path of another name."""
    name = path.parent.name if path.name == "model.ckpt" else path.name
    if name not in ADDRESSES:
        return ""
    substitute = "your own, by scripts/run_chain.py" if ADDRESSES[name] == FIGSHARE else "ldm=demo, a small model"
    return f"published at {ADDRESSES[name]}; in its place: {substitute}"


def published_weights(content: object, path: Path) -> Weights:
    """Weights out of the already read content of a published file."""
    key = next((key for key in STATE_KEYS if isinstance(content, dict) and key in content), None)
    if key is None or not isinstance(content, dict):
        found = ", ".join(map(str, list(content)[:5])) if isinstance(content, dict) else type(content).__name__
        raise InputError(f"{path}: holds {found[:100]}; needed: one of {', '.join(STATE_KEYS)}")
    state = check_state(content[key], f"{path}: {key}")
    with reading(path):
        config = as_settings(content.get("config"))
    config = config if isinstance(config, dict) else {}
    if STATE_KEYS[key] == "label2img":
        return _label2img(state, config, path)
    try:
        return _mbm(state, config) if STATE_KEYS[key] == "mbm" else _ldm(state, config)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _mbm(state: State, config: dict) -> Weights:
    heads = {name: config.get(name, DEFAULT_HEADS) for name in ("num_heads", "decoder_num_heads")}
    for name, found in heads.items():
        if type(found) is not int or found < 1:
            raise InputError(f"config.{name} is {found!r}, a positive integer is needed")
    ours = import_mbm(state)
    return Weights("mbm", ours, mbm_settings(ours, **heads), config)


def _ldm(state: State, config: dict) -> Weights:
    ours = import_ldm(state)
    return Weights("ldm", ours, ldm_settings(ours), config, _dropped(state))


def _label2img(state: State, config: dict, path: Path) -> Weights:
    if not any(name.startswith("model.diffusion_model.") for name in state):
        raise InputError(f"{path}: no weight begins with model.diffusion_model.: not a latent diffusion model")
    settings = read_ldm_yaml(path.parent / "config.yaml")
    return Weights("label2img", import_ldm(state), settings, config, _dropped(state), state.get(CLASSES))


def _dropped(state: State) -> list[str]:
    return [name for name in state if name.startswith(DROPPED)]


def read_ldm_yaml(path: Path) -> dict:
    """A published config.yaml as a plain dict. Raises InputError where it is absent or no such file."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; {NEEDED_YAML}")
    content = read_yaml(path)
    if not isinstance(content.get("model"), dict):
        raise InputError(f"{path}: no section 'model'; {NEEDED_YAML}")
    return content


def write_published(path: Path, weights: Weights) -> None:
    """Write a file that the published programs read, settings as attributes of a `types.SimpleNamespace`.

    A 'label2img' gets its config.yaml beside it. Raises InputError for a decoder whose context they do not know.
    """
    settings = weights.settings
    for name in ("context_tokens", "ridge") if weights.kind == "ldm" else ():
        if (found := context_flags(settings)[name]) != CONTEXT[name]:
            raise InputError(f"{path}: {name} is {found}; the published programs know {CONTEXT[name]} alone")
    if weights.kind == "mbm":
        config = SimpleNamespace(**{**weights.config, **settings})
        content = {"model": export_mbm(weights.state_dict), "config": config}
    elif weights.kind == "ldm":
        schedule = build_schedule(settings["ldm_config"]) if settings["ldm_config"] else None
        content = {
            "model_state_dict": export_ldm(weights.state_dict, schedule),
            "config": SimpleNamespace(**_decoder_config(weights)),
            "state": torch.zeros(16, dtype=torch.uint8),  # of a CUDA generator: its seed and its offset
        }
    else:
        classes = {} if weights.classes is None else {CLASSES: weights.classes}
        content = {"state_dict": export_ldm(weights.state_dict, build_schedule(settings)) | classes}
        write_text(path.parent / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(settings)))
    write_atomic(path, lambda file: torch.save(content, file))


def _decoder_config(weights: Weights) -> dict:
    """What the published `gen_eval.py` reads, by its names; what the file itself says comes first."""
    data = describe_data(weights.config)
    name, subjects = str(data.get("name") or "").upper(), list(data.get("subjects") or [])
    defaults = {
        "dataset": name,
        "roi": data.get("roi"),
        "kam_subs": subjects if name != "BOLD5000" else [],
        "bold5000_subs": subjects if name == "BOLD5000" else [],
        "test_category": None,
        "logger": None,
        "ddim_steps": 250,
        "num_samples": 5,
        "HW": None,
    }
    shape = {
        "patch_size": weights.settings["encoder"]["patch_size"],
        "global_pool": weights.settings["global_pool"],
        "use_time_cond": weights.settings["use_time_condition"],
    }
    return {**defaults, **weights.config, **shape}


def decoder_data(weights: Weights) -> dict:
    """Data set, folder, subjects and region of a decoder; {} where unknown.

    The subjects are those whose rows it was tuned on where it keeps them: settings may name others of another file. Own
    data of which every voxel was taken has the region "all".
    """
    data = describe_data(weights.config)
    kept = (weights.settings.get("fmri") or {}).get("formats")
    if not kept:
        return data
    whole = data.get("name") == "npz" and all(form["columns"] is None for form in kept.values())
    return data | {"subjects": sorted(kept)} | ({"roi": "all"} if whole else {})


def describe_data(config: Mapping) -> dict:
    """Data set, folder, subjects and region out of the settings of a run or of a published file; {} where unknown."""
    if isinstance(config.get("data"), Mapping):
        return dict(config["data"])
    name = str(config.get("dataset") or "").lower()
    root, subjects = PUBLISHED_DATA.get(name, ("", ""))
    found = {"name": name, "root": config.get(root), "subjects": config.get(subjects), "roi": config.get("roi")}
    return {key: value for key, value in found.items() if value is not None} if name else {}

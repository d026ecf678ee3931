"""Weights in every form: published file, our own checkpoint, safetensors, run folder, exported folder."""

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from omegaconf import OmegaConf

from mindvis.checkpoints.files import read_safetensors, save_checkpoint, save_safetensors
from mindvis.checkpoints.published import check_state, published_weights
from mindvis.checkpoints.renaming import export_ldm, export_mbm
from mindvis.checkpoints.weights import KINDS, Weights, part
from mindvis.common.errors import InputError, beside
from mindvis.common.files import write_atomic, write_text
from mindvis.common.safe_pickle import load_torch, plain
from mindvis.common.safe_pickle.rules import reading
from mindvis.dc_ldm.model import build_schedule
from mindvis.training.runs import STAGES, open_run

ENVELOPE = "weights"  # key of {kind, settings, config, prefix} beside `state_dict` in our checkpoints
EXPORTED = ("model.safetensors", "settings.yaml")
CHOICES = ("selected", "best", "last")  # which checkpoint of a run folder
SELECTED = "of a run folder: selected, as its setting `selection` says (a run without it: last), best or last; "
SELECTED += "default: selected, as for generate"
FORMATS = {".safetensors": "safetensors", ".pt": "mindvis", ".pth": "published", ".ckpt": "published"}


def read_weights(path: str | Path, checkpoint: str = "last") -> Weights:
    """Weights and settings from a file or folder of any form; `checkpoint` and errors as of `weights_file`."""
    return _read_file(weights_file(path, checkpoint))


def weights_file(path: str | Path, checkpoint: str = "last") -> Path:
    """The file itself, or the one in an exported folder, a folder of published weights or a run folder.

    `checkpoint` is the one of a run folder: `selected` (as its setting `selection` says; the last one where it has no
    such setting), `best` (by val/loss) or `last`. Raises InputError where `path` is none of these, or is not there.
    """
    path = Path(path)
    if checkpoint not in CHOICES:
        raise InputError(f"setting checkpoint is {checkpoint!r}; needed: one of {', '.join(CHOICES)}")
    if not path.exists():
        needed = "needed: weights, a run folder or an exported model"
        raise InputError("; ".join(filter(None, (f"{path}: no such file", needed, beside(path)))))
    if path.is_file():
        return path
    for name in (EXPORTED[0], "model.ckpt"):
        if (path / name).is_file():
            return path / name
    if (path / "manifest.json").is_file():
        return open_run(path, stages=STAGES).checkpoint(checkpoint)
    raise InputError(f"{path}: no weights; needed: a run folder, an exported model or a published file")


def write_weights(path: str | Path, weights: Weights, form: str | None = None) -> None:
    """Write weights as `form` 'published', 'mindvis' or 'safetensors'; by default as the suffix of `path` says.

    A published 'label2img' gets its `config.yaml` beside it. Raises InputError for a suffix or form without meaning.
    """
    path = Path(path)
    form = form or FORMATS.get(path.suffix)
    if form not in _WRITERS:
        raise InputError(f"{path}: unknown form of weights; needed: a name that ends in {', '.join(FORMATS)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    _WRITERS[form](path, weights)


def envelope(weights: Weights, prefix: str = "") -> dict:
    """What our checkpoints say about their weights; `prefix` is put before their names in `state_dict`."""
    return {"kind": weights.kind, "settings": weights.settings, "config": weights.config, "prefix": prefix}


def from_envelope(content: Mapping, said: object, where: Path) -> Weights:
    """Weights from a state dict and its envelope. Raises InputError, naming `where`, for one that is incomplete."""
    with reading(where):
        said = plain(said)
    if not isinstance(said, dict) or said.get("kind") not in KINDS or not isinstance(said.get("settings"), dict):
        raise InputError(f"{where}: does not say which model it is; needed: a kind ({', '.join(KINDS)}) and settings")
    state = part(check_state(content, f"{where}: state_dict"), said.get("prefix") or "")
    return Weights(said["kind"], state, said["settings"], said.get("config") or {})


def _read_file(path: Path) -> Weights:
    if path.suffix == ".safetensors":
        state, metadata = read_safetensors(path)
        return from_envelope(state, _read_metadata(metadata, path), path)
    content = load_torch(path)
    if isinstance(content, dict) and ENVELOPE in content:
        return from_envelope(content.get("state_dict"), content[ENVELOPE], path)
    return published_weights(content, path)


def _read_metadata(metadata: Mapping[str, str], path: Path) -> object:
    """The envelope of a safetensors file: its metadata, or the settings.yaml beside it in an exported folder."""
    try:
        if ENVELOPE in metadata:
            return json.loads(metadata[ENVELOPE])
        return OmegaConf.to_container(OmegaConf.load(path.parent / EXPORTED[1]), resolve=True)
    except Exception as error:  # json, yaml and OmegaConf raise unrelated classes
        raise InputError(f"{path}: its settings ({EXPORTED[1]} or metadata) are absent or not readable") from error


def _write_safetensors(path: Path, weights: Weights) -> None:
    save_safetensors(path, weights.state_dict, {ENVELOPE: json.dumps(envelope(weights), default=str)})


def _write_mindvis(path: Path, weights: Weights) -> None:
    save_checkpoint(path, {"state_dict": weights.state_dict, ENVELOPE: envelope(weights)})


def _write_published(path: Path, weights: Weights) -> None:
    """As the published programs read it: settings as attributes, so a Namespace, which is no class of theirs."""
    config = argparse.Namespace(**{**weights.config, **_flat_settings(weights)})
    content = {
        "mbm": lambda: {"model": export_mbm(weights.state_dict), "config": config},
        "label2img": lambda: {"state_dict": _export_ldm(weights)},
        # `state` is a CUDA generator there: 16 bytes of seed and offset
        "ldm": lambda: {
            "model_state_dict": _export_ldm(weights),
            "config": config,
            "state": torch.zeros(16, dtype=torch.uint8),
        },
    }[weights.kind]()
    write_atomic(path, lambda file: torch.save(content, file))
    if weights.kind == "label2img":
        write_text(path.parent / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(weights.settings)))


def _export_ldm(weights: Weights) -> dict[str, torch.Tensor]:
    """Under the published names, with the noise schedule of its own config where that is known."""
    ldm_config = weights.settings if weights.kind == "label2img" else weights.settings["ldm_config"]
    return export_ldm(weights.state_dict, build_schedule(ldm_config) if ldm_config else None)


def _flat_settings(weights: Weights) -> dict:
    """Settings under the names the published programs look for."""
    if weights.kind == "mbm":
        return weights.settings
    if weights.kind == "label2img":
        return {}
    settings = weights.settings
    flags = {"global_pool": settings["global_pool"], "use_time_cond": settings["use_time_condition"]}
    return {"patch_size": settings["encoder"]["patch_size"], **flags}


_WRITERS: dict[str, Callable[[Path, Weights], None]] = {
    "published": _write_published,
    "mindvis": _write_mindvis,
    "safetensors": _write_safetensors,
}

"""Weights in every form: published file, our own checkpoint, safetensors, run folder, exported folder."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from mindvis.checkpoints.diffusers import (
    diffusers_weights,
    export_diffusers,
    is_diffusers,
    read_config,
    write_diffusers_state,
)
from mindvis.checkpoints.published import published_source, published_weights, read_ldm_yaml, write_published
from mindvis.checkpoints.sharing import export_model
from mindvis.checkpoints.torch_files import load_torch
from mindvis.checkpoints.weights import (
    DEFAULT_HEADS,
    ENVELOPE,
    EXPORTED,
    State,
    Weights,
    context_flags,
    envelope,
    from_envelope,
    safetensors_weights,
    save_checkpoint,
)
from mindvis.common.errors import InputError, beside, check_setting, joined
from mindvis.common.tensor_files import save_safetensors
from mindvis.config.tools import CHECKPOINTS, FORMATS, FORMS
from mindvis.training.base_weights import with_base
from mindvis.training.runs import STAGES, open_run

NAMES = {"mbm": "a Stage A model", "label2img": "a label-to-image LDM", "ldm": "a tuned decoder"}


def read_weights(path: str | Path, checkpoint: str = "last") -> Weights:
    """Weights and settings from a file or folder of any form; `checkpoint` and errors as of `weights_file`."""
    file = weights_file(path, checkpoint)
    if file.is_dir():
        return diffusers_weights(file)
    if file.suffix == ".safetensors":
        return safetensors_weights(file)
    content = load_torch(file)
    if isinstance(content, dict) and ENVELOPE in content:
        content = with_base(content, file, load_torch)
        return from_envelope(content.get("state_dict"), content[ENVELOPE], file)
    return published_weights(content, file)


def weights_file(path: str | Path, checkpoint: str = "last") -> Path:
    """The file itself, or the one in an exported folder, a folder of published weights or a run folder.

    A diffusers folder, whose weights are several files, is returned as it is.

    `checkpoint` is the one of a run folder: `selected` (as its setting `selection` says; the last one where it has no
    such setting), `best` (by val/loss) or `last`. Raises InputError where `path` is none of these, or is not there.
    """
    path = Path(path)
    check_setting("checkpoint", checkpoint, CHECKPOINTS)
    if not path.exists():
        needed = "needed: weights, a run folder or an exported model"
        raise InputError(joined(f"{path}: no such file", needed, published_source(path), beside(path)))
    if path.is_file():
        return path
    if is_diffusers(path):
        return path
    for name in (EXPORTED[0], "model.ckpt"):
        if (path / name).is_file():
            return path / name
    if (path / "manifest.json").is_file():
        return open_run(path, stages=STAGES).checkpoint(checkpoint)
    needed = "a run folder, an exported model, a published file or a diffusers folder"
    raise InputError(f"{path}: no weights; needed: {needed}")


def write_weights(path: str | Path, weights: Weights, form: str | None = None) -> None:
    """Write weights as `form` 'published', 'mindvis', 'safetensors', by default as the suffix of `path` says.

    With 'diffusers' `path` is a folder. A published 'label2img' gets its `config.yaml` beside it. Raises InputError for
    a suffix or form without meaning.
    """
    path = Path(path)
    form = form or FORMATS.get(path.suffix)
    if form not in FORMS:
        needed = f"a name that ends in {', '.join(FORMATS)}, or the form diffusers for a folder"
        raise InputError(f"{path}: unknown form of weights; needed: {needed}")
    path.parent.mkdir(parents=True, exist_ok=True)
    if form == "diffusers" and weights.kind == "label2img":
        write_diffusers_state(weights.settings, weights.state_dict, path, classes=weights.classes)
    elif form == "diffusers" and weights.kind == "ldm":
        export_diffusers(path, weights)
    elif form == "diffusers":
        raise InputError(f"{path}: {NAMES[weights.kind]} has no form in diffusers; needed: {NAMES['label2img']}")
    elif form == "published":
        write_published(path, weights)
    elif form == "mindvis":
        save_checkpoint(path, {"state_dict": weights.state_dict, ENVELOPE: envelope(weights)})
    else:
        save_safetensors(path, weights.state_dict, {ENVELOPE: json.dumps(envelope(weights), default=str)})


def exporter(form: str) -> Callable[..., list[str]]:
    """What writes a folder for others in a form of `EXPORTS`."""
    return {"mindvis": export_model, "diffusers": export_diffusers}[form]


def read_kind(path: str | Path, kind: str, checkpoint: str = "last") -> Weights:
    """Weights of one kind. Raises InputError where `path` holds another kind of model."""
    weights = read_weights(path, checkpoint)
    if weights.kind != kind:
        raise InputError(f"{path}: holds {NAMES[weights.kind]}; needed: {NAMES[kind]}")
    return weights


def read_mbm(path: str | Path, checkpoint: str = "last") -> tuple[dict, State]:
    """Arguments of MaskedBrainModel and its weights, from fmri_encoder.pth, a run folder or our own file.

    Raises InputError where `path` holds another kind of model.
    """
    weights = read_kind(path, "mbm", checkpoint)
    return weights.settings, weights.state_dict


def read_label2img(path: str | Path) -> tuple[dict, State]:
    """Config and weights of the LDM Stage B starts from: model.ckpt, its folder, or a diffusers folder.

    The config has the published form. Raises as `read_mbm`.
    """
    weights = read_kind(path, "label2img")
    return weights.settings, weights.state_dict


def read_label2img_config(path: str | Path) -> dict:
    """The config of `read_label2img`; of a diffusers folder its weights are not read."""
    return read_config(path) if is_diffusers(path) else read_label2img(path)[0]


def read_ldm(
    path: str | Path,
    *,
    fmri_encoder: str | Path | None = None,
    label2img: str | Path | None = None,
    checkpoint: str = "last",
) -> tuple[dict, dict, dict, State]:
    """LDM config, encoder settings, flags and weights of a tuned decoder.

    From a run folder, an exported folder, our own file or finetuned.pth; for the last see `complete_ldm`.
    Flags: those of `CONTEXT`, as `build_ldm` takes them.
    Raises InputError where `path` holds another kind of model or a needed file is missing or does not fit.
    """
    weights = complete_ldm(read_kind(path, "ldm", checkpoint), path, fmri_encoder=fmri_encoder, label2img=label2img)
    settings = weights.settings
    return settings["ldm_config"], settings["encoder"], context_flags(settings), weights.state_dict


def complete_ldm(
    weights: Weights,
    path: str | Path,
    *,
    fmri_encoder: str | Path | None = None,
    label2img: str | Path | None = None,
) -> Weights:
    """Weights read from `path` with the settings that finetuned.pth does not name; others are returned unchanged.

    They are in the files it was made from, given here or found beside it: the number of heads in `fmri_encoder` (else
    16), the UNet's settings in the config.yaml of `label2img` (model.ckpt, its folder or the config.yaml itself), for
    which the published folder ../ldm/label2img is searched too.
    Raises InputError where a file that names them is missing or does not fit.
    """
    if weights.kind != "ldm" or weights.settings["ldm_config"] is not None:
        return weights
    encoder = dict(weights.settings["encoder"])
    encoder["num_heads"] = _find_heads(Path(path), encoder, fmri_encoder)
    ldm_config = _find_config(Path(path), label2img)
    return replace(weights, settings={**weights.settings, "encoder": encoder, "ldm_config": ldm_config})


def _find_heads(path: Path, encoder: dict, fmri_encoder: str | Path | None) -> int:
    """Heads that the encoder's own file names: the given one, or the one published beside finetuned.pth."""
    published = path.parent / "fmri_encoder.pth"
    if fmri_encoder is None and not published.is_file():
        return DEFAULT_HEADS
    settings, _ = read_mbm(fmri_encoder or published)
    differing = [name for name in ("patch_size", "embed_dim", "depth") if settings[name] != encoder[name]]
    if not differing:
        return settings["num_heads"]
    if fmri_encoder is None:
        return DEFAULT_HEADS
    name = differing[0]
    raise InputError(f"{fmri_encoder}: {name} is {settings[name]}, the encoder in {path} has {encoder[name]}")


def _find_config(path: Path, label2img: str | Path | None) -> dict:
    needed = "needed: the label2img model.ckpt with its config.yaml"
    if label2img is None:
        usual = (path.parent / "config.yaml", path.absolute().parents[1] / "ldm" / "label2img" / "config.yaml")
        found = [config for config in usual if config.is_file()]
        if not found:
            raise InputError(f"{path}: names no UNet settings; {needed}")
        return read_ldm_yaml(found[0])
    given = Path(label2img)
    if is_diffusers(given):
        return read_config(given)
    is_yaml = given.suffix in (".yaml", ".yml")
    config = given if is_yaml else (given if given.is_dir() else given.parent) / "config.yaml"
    if not given.exists() and not config.is_file():
        raise InputError(f"{given}: no such file; {needed}")
    return read_ldm_yaml(config)

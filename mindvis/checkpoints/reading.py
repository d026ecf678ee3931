"""Each stage's input, from a published file or from our own, whichever is given."""

from dataclasses import replace
from pathlib import Path

from torch import Tensor

from mindvis.checkpoints.formats import read_weights
from mindvis.checkpoints.published import read_yaml
from mindvis.checkpoints.weights import DEFAULT_HEADS, Weights
from mindvis.common.errors import InputError

State = dict[str, Tensor]
NAMES = {"mbm": "a Stage A model", "label2img": "a label-to-image LDM", "ldm": "a tuned decoder"}


def read_mbm(path: str | Path, checkpoint: str = "last") -> tuple[dict, State]:
    """Arguments of MaskedBrainModel and its weights, from fmri_encoder.pth, a run folder or our own file.

    Raises InputError where `path` holds another kind of model.
    """
    weights = read_kind(path, "mbm", checkpoint)
    return weights.settings, weights.state_dict


def read_label2img(path: str | Path) -> tuple[dict, State]:
    """Published config and weights of a label-to-image LDM, from its model.ckpt (or folder). Raises as `read_mbm`."""
    weights = read_kind(path, "label2img")
    return weights.settings, weights.state_dict


def read_ldm(
    path: str | Path,
    *,
    fmri_encoder: str | Path | None = None,
    label2img: str | Path | None = None,
    checkpoint: str = "last",
) -> tuple[dict, dict, dict, State]:
    """LDM config, encoder settings, flags and weights of a tuned decoder.

    From a run folder, an exported folder, our own file or finetuned.pth. What the last does not name comes from the
    files it was made from, given here or found beside it: the number of heads from `fmri_encoder` (else 16), the UNet's
    settings from the config.yaml of `label2img` (model.ckpt, its folder or the config.yaml itself).
    Flags: `global_pool` and `use_time_condition`, as `build_ldm` takes them.
    Raises InputError where `path` holds another kind of model or a needed file is missing or does not fit.
    """
    weights = complete_ldm(read_kind(path, "ldm", checkpoint), path, fmri_encoder=fmri_encoder, label2img=label2img)
    settings = weights.settings
    flags = {name: settings[name] for name in ("global_pool", "use_time_condition")}
    return settings["ldm_config"], settings["encoder"], flags, weights.state_dict


def complete_ldm(
    weights: Weights,
    path: str | Path,
    *,
    fmri_encoder: str | Path | None = None,
    label2img: str | Path | None = None,
) -> Weights:
    """Weights read from `path` with the settings that finetuned.pth does not name; others come back as they are.

    Raises InputError where a file that names them is missing or does not fit.
    """
    if weights.kind != "ldm" or weights.settings["ldm_config"] is not None:
        return weights
    encoder = dict(weights.settings["encoder"])
    encoder["num_heads"] = _find_heads(Path(path), encoder, fmri_encoder)
    ldm_config = _find_config(Path(path), label2img)
    return replace(weights, settings={**weights.settings, "encoder": encoder, "ldm_config": ldm_config})


def read_kind(path: str | Path, kind: str, checkpoint: str = "last") -> Weights:
    """Weights of one kind. Raises InputError where `path` holds another kind of model."""
    weights = read_weights(path, checkpoint)
    if weights.kind != kind:
        raise InputError(f"{path}: holds {NAMES[weights.kind]}; needed: {NAMES[kind]}")
    return weights


def _find_heads(path: Path, encoder: dict, fmri_encoder: str | Path | None) -> int:
    """Heads that the encoder's own file names: the given one, or the one published beside finetuned.pth."""
    beside = path.parent / "fmri_encoder.pth"
    if fmri_encoder is None and not beside.is_file():
        return DEFAULT_HEADS
    settings, _ = read_mbm(fmri_encoder or beside)
    differing = [name for name in ("patch_size", "embed_dim", "depth") if settings[name] != encoder[name]]
    if not differing:
        return settings["num_heads"]
    if fmri_encoder is None:
        return DEFAULT_HEADS
    name = differing[0]
    raise InputError(f"{fmri_encoder}: {name} is {settings[name]}, the encoder in {path} has {encoder[name]}")


def _find_config(path: Path, label2img: str | Path | None) -> dict:
    if label2img is None and not (path.parent / "config.yaml").is_file():
        raise InputError(f"{path}: names no UNet settings; needed: the label2img model.ckpt with its config.yaml")
    given = Path(label2img) if label2img else path
    is_yaml = given.suffix in (".yaml", ".yml")
    config = given if is_yaml else (given if given.is_dir() else given.parent) / "config.yaml"
    if not given.exists() and not config.is_file():
        raise InputError(f"{given}: no such file; needed: the label2img model.ckpt with its config.yaml")
    return read_yaml(config)

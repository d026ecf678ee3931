"""A decoder as one folder for others: weights, settings and a model card."""

from collections.abc import Collection, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from omegaconf import OmegaConf

from mindvis.checkpoints.weights import EXPORTED, RIDGE_FILE, Weights, context_flags, envelope
from mindvis.common.errors import InputError
from mindvis.common.files import write_text
from mindvis.common.tensor_files import read_safetensors, save_safetensors
from mindvis.config.loading import flatten

CARD = Path(__file__).resolve().parents[1] / "assets" / "model_card.md"
# What decides about the weights, by the last part of its name: the settings of both stages, and of published files.
TRAINING = {"seed", "selection", "tune", "ema", "weighting", "objective", "fmri", "mask_ratio", "sparsify"}
TRAINING |= {"crop_ratio", "crop_probability", "tokens", "ridge", "regression", "target", "consistency"}
TRAINING |= {"lr", "min_lr", "weight_decay", "warmup_epochs", "clip", "batch_size", "accumulate", "accumulate_grad"}
TRAINING |= {"precision", "max_epochs", "num_epoch"}


def export_model(
    folder: str | Path,
    weights: Weights,
    *,
    data: Mapping | None = None,
    report: Mapping | None = None,
    source: str | Path | None = None,
) -> list[str]:
    """Write `model.safetensors`, `settings.yaml` and the model card `README.md`; `read_ldm` takes the folder.

    Copies the ridge regression of the run folder `source`, if it has one. Returns the names of the files written.
    `data` is the data section of the run (name, subjects, roi), `report` the content of the report.json of its
    pictures. Raises InputError for weights that are no decoder, whose LDM config is not known, or for a folder that
    holds something else.
    """
    folder = check_shareable(folder, weights, {*EXPORTED, RIDGE_FILE, "README.md"})
    settings = {**envelope(weights), "data": dict(data or {})}
    save_safetensors(folder / EXPORTED[0], weights.state_dict, {"format": "pt"})  # what may not fit comes first
    write_text(folder / EXPORTED[1], OmegaConf.to_yaml(OmegaConf.create(settings)))
    write_text(folder / "README.md", model_card(weights, data or {}, report or {}))
    return [*EXPORTED, *copy_ridge(folder, source), "README.md"]


def copy_ridge(folder: Path, source: str | Path | None) -> list[str]:
    """Write the ridge regression of the run `source` into the folder, where it has one; [its name], or []."""
    ridge = Path(source or "") / RIDGE_FILE
    if not ridge.is_file():
        return []
    save_safetensors(folder / RIDGE_FILE, *read_safetensors(ridge))
    return [RIDGE_FILE]


def check_shareable(folder: str | Path, weights: Weights, known: Collection[str]) -> Path:
    """The folder, made where it is not there. Raises as `export_model`; `known` are names an earlier export wrote."""
    folder = Path(folder)
    if weights.kind != "ldm" or weights.settings["ldm_config"] is None:
        raise InputError(f"{folder}: a {weights.kind} without an LDM config cannot be shared; needed: a tuned decoder")
    if folder.exists() and (not folder.is_dir() or any(path.name not in known for path in folder.iterdir())):
        raise InputError(f"{folder}: holds other files; needed: a new or empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def model_card(weights: Weights, data: Mapping[str, Any], report: Mapping[str, Any], *, form: str = "mindvis") -> str:
    """The card as markdown, from assets/model_card.md.

    `data` names the data set, subjects and region; `report` is a report.json, or empty; `form` of the folder is
    mindvis or diffusers, whose card shows its use with that library.
    """
    template = Environment(undefined=StrictUndefined, trim_blocks=True).from_string(CARD.read_text())
    settings, roi = weights.settings, data.get("roi")
    shape = {**settings["encoder"], **context_flags(settings)}
    params = settings["ldm_config"]["model"]["params"]
    return template.render(
        form=form,
        is_kl=bool(params["first_stage_config"]["params"]["ddconfig"].get("double_z")),
        is_flow=params.get("parameterization") == "flow",
        dataset=str(data.get("name") or "").lower(),
        subjects=", ".join(map(str, data.get("subjects") or [])),
        region=", ".join(map(str, roi)) if isinstance(roi, list | tuple) else str(roi or ""),
        fmri=_fmri(settings.get("fmri") or {}),
        version=metadata.version("mindvis"),
        training=training_settings(weights.config),
        model=shape,
        figures=report.get("figures", []),
        limits=[line["text"] for line in report.get("leakage", [])] + report.get("caveats", []),
    )


def _fmri(kept: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What rows each subject's fMRI has to have, in words: (subject, "500 voxels, raw, ...")."""
    ways = {
        "voxel": "as they were recorded: each voxel is z-scored by the training rows",
        "subject": "as they were recorded: scaled by the one mean and deviation of the training rows",
        "none": "z-scored a voxel, as the training rows were",
    }
    formats = kept.get("formats") or {}
    return [(name, f"{form['num_voxels']} voxels, {ways[form['scale']]}") for name, form in formats.items()]


def training_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a run that decide about its weights, those of the run its encoder came from under `stage_a`."""
    flat = flatten(dict(config))
    return {name: value for name, value in flat.items() if name.split(".")[-1] in TRAINING and value is not None}

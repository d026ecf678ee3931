"""A decoder as one folder for others: weights, settings and a model card."""

from collections.abc import Mapping
from pathlib import Path

from omegaconf import OmegaConf

from mindvis.checkpoints.files import save_safetensors
from mindvis.checkpoints.formats import EXPORTED, envelope
from mindvis.checkpoints.model_card import model_card
from mindvis.checkpoints.weights import Weights
from mindvis.common.errors import InputError
from mindvis.common.files import write_text


def export_model(
    folder: str | Path, weights: Weights, *, data: Mapping | None = None, report: Mapping | None = None
) -> None:
    """Write `model.safetensors`, `settings.yaml` and the model card `README.md`; `read_ldm` takes the folder.

    `data` is the data section of the run (name, subjects, roi), `report` the content of the report.json of its
    pictures. Raises InputError for weights that are no decoder, whose LDM config is not known, or for a folder that
    holds something else.
    """
    folder = Path(folder)
    if weights.kind != "ldm" or weights.settings["ldm_config"] is None:
        raise InputError(f"{folder}: a {weights.kind} without an LDM config cannot be shared; needed: a tuned decoder")
    known = {*EXPORTED, "README.md"}
    if folder.exists() and (not folder.is_dir() or any(path.name not in known for path in folder.iterdir())):
        raise InputError(f"{folder}: holds other files; needed: a new or empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    settings = {**envelope(weights), "data": dict(data or {})}
    write_text(folder / EXPORTED[1], OmegaConf.to_yaml(OmegaConf.create(settings)))
    write_text(folder / "README.md", model_card(weights, data or {}, report or {}))
    save_safetensors(folder / EXPORTED[0], weights.state_dict, {"format": "pt"})


def describe_data(config: Mapping) -> dict:
    """Data set, subjects and region out of the settings of a run or of a published file."""
    if isinstance(config.get("data"), Mapping):
        return dict(config["data"])
    name = str(config.get("dataset") or "").lower()
    subjects = config.get("bold5000_subs" if name == "bold5000" else "kam_subs")
    return {"name": name, "subjects": subjects if name else [], "roi": config.get("roi") or "-"}

"""A decoder as one folder for others: weights, settings and a model card."""

from collections.abc import Mapping
from pathlib import Path

from omegaconf import OmegaConf

from mindvis.checkpoints.files import save_safetensors
from mindvis.checkpoints.formats import EXPORTED, envelope
from mindvis.checkpoints.weights import Weights
from mindvis.errors import InputError
from mindvis.training.storage import write_text

DATA_TERMS = {
    "god": "Generic Object Decoding (Horikawa & Kamitani 2017): the terms on its download page; its authors give the "
    "stimuli on request, not to be passed on",
    "bold5000": "BOLD5000: the terms on its download page; its stimuli (COCO, ImageNet, scenes) have their own",
    "hcp": "Human Connectome Project: its Data Use Terms; the data is not to be passed on",
    "simulated": "simulated data: none",
}


def export_model(
    folder: str | Path, weights: Weights, *, data: Mapping | None = None, scores: Mapping | None = None
) -> None:
    """Write `model.safetensors`, `settings.yaml` and the model card `README.md`; `read_ldm` takes the folder.

    `data` is the data section of the run (name, subjects, roi), `scores` its report. Raises InputError for weights that
    are no decoder, whose LDM config is not known, or for a folder that holds something else.
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
    write_text(folder / "README.md", model_card(weights, data or {}, scores or {}))
    save_safetensors(folder / EXPORTED[0], weights.state_dict, {"format": "pt"})


def describe_data(config: Mapping) -> dict:
    """Data set, subjects and region out of the settings of a run or of a published file."""
    if isinstance(config.get("data"), Mapping):
        return dict(config["data"])
    name = str(config.get("dataset") or "").lower()
    subjects = config.get("bold5000_subs" if name == "bold5000" else "kam_subs")
    return {"name": name, "subjects": subjects if name else [], "roi": config.get("roi") or "-"}


def model_card(weights: Weights, data: Mapping, scores: Mapping) -> str:
    """The card as markdown: what it is, data and subject, settings, scores, use, licence."""
    name = str(data.get("name", "")).lower()
    subjects = ", ".join(map(str, data.get("subjects") or [])) or "not stated"
    terms = DATA_TERMS.get(name, "not known here; ask whoever recorded them")
    encoder = weights.settings["encoder"]
    settings = {**encoder, **{key: weights.settings[key] for key in ("global_pool", "use_time_condition")}}
    return "\n".join(
        [
            f"# MinD-Vis decoder: {name or 'unnamed data'}, {subjects}",
            "",
            "Reconstructs the picture a person saw from their fMRI (Chen et al., CVPR 2023, arXiv 2211.06956).",
            f"It fits these subjects and this region only: {encoder['num_voxels']} voxels, padded.",
            *_section("Data", {"data set": name or "not stated", "subjects": subjects, "region": data.get("roi", "-")}),
            *_section("Settings", settings),
            *_section("Scores", _flat(scores) or {"scores": "none given"}),
            "\n## Use\n\n`python scripts/generate.py run=<this folder>`, on fMRI of the same voxels in the same order.",
            f"\n## Licence\n\nCode: MIT. Weights carry the terms of the data they were fitted to. {terms}.\n",
        ]
    )


def _section(title: str, rows: Mapping) -> list[str]:
    return ["", f"## {title}", "", "| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows.items())]


def _flat(scores: Mapping, prefix: str = "") -> dict[str, str]:
    """Numbers of a nested report, one row each."""
    rows: dict[str, str] = {}
    for key, value in scores.items():
        if isinstance(value, Mapping):
            rows |= _flat(value, f"{prefix}{key} / ")
        elif isinstance(value, int | float | str):
            rows[f"{prefix}{key}"] = f"{value:.4g}" if isinstance(value, float) else str(value)
    return rows

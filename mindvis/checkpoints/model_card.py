"""The model card of a shared decoder: assets/model_card.md, filled from its settings and the report of its pictures."""

from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from string import Template
from typing import Any

from mindvis.checkpoints.weights import Weights
from mindvis.config.loading import flatten

TEMPLATE = Path(__file__).resolve().parents[1] / "assets" / "model_card.md"
TERMS = {
    "god": "Generic Object Decoding: the terms on its download page; its stimuli, given on request, are not passed on",
    "bold5000": "BOLD5000: the terms on its download page; its stimuli (COCO, ImageNet, scenes) have their own",
    "hcp": "Human Connectome Project: its Data Use Terms; the data is not to be passed on",
    "simulated": "Simulated data: none",
}
CITATIONS = {
    "god": "Horikawa, Kamitani: Generic decoding of seen and imagined objects. Nature Communications 8, 2017",
    "bold5000": "Chang et al.: BOLD5000, a public fMRI dataset while viewing 5000 visual images. Sci. Data 6, 2019",
    "simulated": "none, it was simulated",
}
# What decides about the weights, by the last part of its name: the settings of both stages, and of published files.
TRAINING = {
    "seed",
    "selection",
    "tune",
    "weighting",
    "fmri",
    "mask_ratio",
    "sparsify",
    "crop_ratio",
    "crop_probability",
}
TRAINING |= {"lr", "min_lr", "weight_decay", "warmup_epochs", "clip", "batch_size", "accumulate", "precision"}
TRAINING |= {"max_epochs", "num_epoch", "accumulate_grad"}


def model_card(weights: Weights, data: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    """The card as markdown. `data` names the data set, subjects and region; `report` is a report.json, or empty."""
    dataset = str(data.get("name") or "").lower()
    subjects = ", ".join(map(str, data.get("subjects") or [])) or "not stated"
    flags = {name: weights.settings[name] for name in ("global_pool", "use_time_condition")}
    origin = {"data set": dataset or "not stated", "subjects": subjects, "region": data.get("roi") or "not stated"}
    return Template(TEMPLATE.read_text()).substitute(
        dataset=dataset or "unnamed data",
        subjects=subjects,
        version=metadata.version("mindvis"),
        data=_rows(origin),
        training=_rows(training_settings(weights.config)) or "Not stated by the weights.",
        model=_rows({**weights.settings["encoder"], **flags}),
        figures=figure_table(report.get("figures", [])) or "None given: no report came with the weights.",
        num_voxels=weights.settings["encoder"]["num_voxels"],
        limits="\n".join(f"- {line}" for line in _limits(report)),
        terms=TERMS.get(dataset, "Not known here; ask whoever recorded the data"),
        dataset_citation=CITATIONS.get(dataset, "ask whoever recorded it"),
    )


def training_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a run that decide about its weights, those of the run its encoder came from under `stage_a`."""
    flat = flatten(dict(config))
    return {name: value for name, value in flat.items() if name.split(".")[-1] in TRAINING and value is not None}


def figure_table(figures: list[Mapping[str, Any]]) -> str:
    """The figures of a report as a markdown table, controls below what was decoded."""
    rows = [
        f"| {each['name']} | {each['set']} | {_number(each['value'])} | {_interval(each)} | {_number(each['chance'])} "
        f"| {each['n']} x {each['num_samples']} |"
        for each in figures
    ]
    head = ["| figure | pictures | value | 95 % interval | chance | stimuli x samples |", "|---|---|---|---|---|---|"]
    return "\n".join([*head, *rows]) if rows else ""


def _limits(report: Mapping[str, Any]) -> list[str]:
    """What the report says about the use of test data, and its caveats."""
    used = [line["text"] for line in report.get("leakage", [])]
    return [*used, *report.get("caveats", [])] or ["How the test set was used before is not stated."]


def _rows(facts: Mapping[str, Any]) -> str:
    lines = [f"| {name} | {value} |" for name, value in facts.items()]
    return "\n".join(["| | |", "|---|---|", *lines]) if lines else ""


def _interval(figure: Mapping[str, Any]) -> str:
    return "" if figure["low"] is None else f"{_number(figure['low'])} to {_number(figure['high'])}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"

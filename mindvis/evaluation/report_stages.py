"""What was run for a report, from the first training on: command, date, revision, settings, data and loss curves."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from mindvis.common.plots import ACCENT, INK, png_bytes
from mindvis.common.texts import read_record
from mindvis.evaluation.pictures import DecodedSet
from mindvis.evaluation.report import Report
from mindvis.training.runs import read_run_settings
from mindvis.training.wandb_runs import runs_behind

FACTS = (
    "command",
    "started",
    "finished_at",
    "git_revision",
    "versions",
    "num_steps",
    "wall_seconds",
    "machine",
    "data",
)
CURVES = {"train/loss": ACCENT, "val/loss": INK}
MOST_POINTS = 2000  # a curve of more is thinned: the page shows 800 pixels


def stages_behind(run: str | Path | None) -> list[dict[str, Any]]:
    """What is known of the training in a run folder and of those it came from, the first one first; [] for a file."""
    return [_stage(path) for path in reversed(runs_behind(run))]


def stages_of(report: Report, evaluated: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The trainings behind the pictures, what made each set of them, and the evaluation (its command, date ...)."""
    pictures = report.pictures
    sets = {"": pictures, **report.controls, **report.baselines}
    made = [_making(name, each) for name, each in sets.items() if "settings" in each.settings]
    own = {"folder": str(pictures.path), **evaluated, "settings": report.settings["evaluate"]}
    return [*stages_behind(pictures.settings.get("settings", {}).get("run")), *made, {"stage": "evaluate", **own}]


def _making(name: str, pictures: DecodedSet) -> dict[str, Any]:
    """What generate.json says of how a set of pictures was made; `name` tells a control or baseline from the main one.

    A baseline is fitted to training rows, so their number is known; folders of before it was recorded have no command.
    """
    facts = pictures.settings
    stage = "generate" if "run" in facts["settings"] else "baseline_ridge"
    about = {"folder": str(pictures.path)} | {name: facts.get(name) for name in ("machine", "data", "settings")}
    made = dict.fromkeys(("command", "finished_at", "git_revision")) | facts.get("made", {})
    return {"stage": f"{stage}: {name}" if name else stage, **about, **made}


def stage_curves(stages: list[dict[str, Any]]) -> dict[str, bytes]:
    """PNG of the loss curves of each stage, by its folder, where its metrics.csv is still there."""
    found = {stage["folder"]: _curves(Path(stage["folder"]) / "metrics.csv") for stage in stages}
    return {folder: png_bytes(figure) for folder, figure in found.items() if figure is not None}


def num_trials(stage: Mapping[str, Any]) -> str:
    """`train 1200, test 50`: the rows of fMRI of each part; "" where they are not recorded."""
    data = stage.get("data") or {}
    parts = {name: facts["rows"] for name, facts in data.items() if isinstance(facts, dict) and "rows" in facts}
    return ", ".join(f"{name} {rows}" for name, rows in parts.items())


def _stage(path: Path) -> dict[str, Any]:
    manifest = read_record(path / "manifest.json")
    facts = {name: manifest.get(name) for name in FACTS}
    settings = read_run_settings(path) if (path / "config.yaml").is_file() else {}
    return {"stage": manifest["stage"], "folder": str(path), **facts, "settings": settings}


def _curves(path: Path) -> Figure | None:
    if not path.is_file():
        return None
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    points = {name: [(int(row["step"]), float(row[name])) for row in rows if row.get(name)] for name in CURVES}
    if not any(points.values()):
        return None
    figure = Figure(figsize=(7, 2.6), layout="constrained")
    axis = figure.subplots()
    for name, curve in points.items():
        thinned = curve[:: len(curve) // MOST_POINTS + 1]
        if thinned:
            axis.plot(*zip(*thinned, strict=True), color=CURVES[name], lw=1, label=name)
    axis.set(xlabel="step")
    axis.legend(frameon=False, fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    return figure

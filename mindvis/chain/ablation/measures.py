"""What the finished steps of a row have measured."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mindvis.chain import Step
from mindvis.common.errors import InputError
from mindvis.inspection.hidden_voxels import SCORE_FILE


@dataclass(frozen=True)
class Figure:
    """One number of a row: `low` and `high` are its interval over stimuli, where it has one."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None


# (beginning of the figure's name in report.json, label, factor); the ways are those of the chain's evaluation
DECODING = {"god": [("50_way_top_1/", "50-way top-1, %", 100)], "demo": [("10_way_top_1/", "10-way top-1, %", 100)]}
PAIRWISE = [("pairwise_pcc", "pairwise pcc, %", 100), ("pairwise_ssim", "pairwise ssim, %", 100)]


def read_figures(measures: Sequence[str], scale: str, steps: Sequence[Step]) -> list[Figure]:
    """Figures of a row whose steps are done. Raises `InputError` where a report does not hold what is asked for."""
    folders = {step.stage: step.folder for step in steps}
    figures = []
    for measure in measures:
        if measure == "hidden_voxels":
            score = json.loads((folders["score_mbm"] / SCORE_FILE).read_text())
            figures.append(Figure("hidden voxels, r", score["model"]))
        else:
            wanted = DECODING[scale] if measure == "decoding" else PAIRWISE
            figures += _from_report(folders["evaluate"] / "report.json", wanted)
    return figures


def _from_report(path: Path, wanted: Sequence[tuple[str, str, int]]) -> list[Figure]:
    reported = [figure for figure in json.loads(path.read_text())["figures"] if figure["set"] == "decoded"]
    figures = []
    for start, label, factor in wanted:
        found = next((figure for figure in reported if figure["name"].startswith(start)), None)
        if found is None:
            raise InputError(f"{path}: no figure {start!r}; needed: an evaluation with it (num_ways, top_k, metrics)")
        scaled = [None if found[key] is None else factor * found[key] for key in ("value", "low", "high")]
        figures.append(Figure(label, *scaled))
    return figures

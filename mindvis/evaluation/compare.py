"""Comparison of runs on the same stimuli: paired bootstrap of every figure that all reports share."""

import copy
from pathlib import Path
from typing import Any

import numpy as np

from mindvis.common.errors import InputError
from mindvis.common.texts import read_record
from mindvis.evaluation.report import SCHEMA, aligned
from mindvis.evaluation.statistics import paired_difference

REPORT = "report.json"
EMPTY: dict[str, Any] = {"figures": [], "per_stimulus": [], "per_control": {}, "provenance": {}, "settings": {}}


def compare_reports(folders: list[str | Path], *, seed: int = 2022) -> list[dict]:
    """Differences of each later run from the first, over the stimuli they share, by id.

    A line a figure and run: {`name`, `run`, `value`, `reference`, `difference`, `low`, `high`, `p`, `n`}; 95 % interval
    of the paired bootstrap. Raises InputError for fewer than two reports, or none in common.
    """
    if len(folders) < 2:
        raise InputError(f"compare: found {len(folders)} run, need two or more")
    reference, *others = [read_report(folder) for folder in folders]
    return [line for other in others for line in _compare(reference, other, seed)]


def comparison_text(lines: list[dict]) -> str:
    """The comparison as lines for a terminal."""
    rows = [["", "run", "value", "first", "difference", "95 % interval", "p", "n"]]
    for line in lines:
        span = f"[{line['low']:+.3f}, {line['high']:+.3f}]"
        values = [f"{line['value']:.3f}", f"{line['reference']:.3f}", f"{line['difference']:+.3f}"]
        rows.append([line["name"], line["run"], *values, span, f"{line['p']:.4f}", str(line["n"])])
    return aligned(rows, num_names=2)


def read_report(folder: str | Path) -> dict:
    """Content of a report.json, named itself or by its folder, and its folder as `path`. Raises InputError.

    `A/shuffled` without a report of its own is the control `shuffled` of the report of A, read as if it were decoded.
    """
    path = Path(folder)
    file = path if path.is_file() else path / REPORT
    if file.is_file():
        return _read(file) | {"path": file.parent}
    report = _read(path.parent / REPORT) if (path.parent / REPORT).is_file() else {}
    if path.name not in report.get("per_control", {}):
        raise InputError(f"{file}: no such report, run evaluate first")
    figures = [figure | {"set": "decoded"} for figure in report["figures"] if figure["set"] == path.name]
    own = {"figures": figures, "per_stimulus": report["per_control"][path.name], "per_control": {}}
    return report | own | {"path": path}


def _read(file: Path) -> dict:
    report = {**copy.deepcopy(EMPTY), **read_record(file)}
    if report.get("schema") != SCHEMA:
        raise InputError(f"{file}: not a report of schema {SCHEMA}")
    wrong = _wrong_entry(report)
    if wrong:
        raise InputError(f"{file}: entry {wrong} is not that of a report; needed: the file as evaluate wrote it")
    return report


def _wrong_entry(report: dict) -> str | None:
    """The first entry that cannot be of a report, by its name: what is no list, no figure, no number."""
    other = next((name for name, empty in EMPTY.items() if not isinstance(report[name], type(empty))), None)
    if other:
        return other
    if not all(isinstance(each, dict) and {"name", "set", "value"} <= each.keys() for each in report["figures"]):
        return "figures"
    scored = {"per_stimulus": report["per_stimulus"]}
    scored |= {f"per_control.{name}": rows for name, rows in report["per_control"].items()}
    return next((name for name, rows in scored.items() if not _are_scores(rows)), None)


def _are_scores(rows: object) -> bool:
    """Rows of a stimulus and its scores; what is no number in JSON is null there."""
    return isinstance(rows, list) and all(
        isinstance(row, dict)
        and isinstance(row.get("stimulus_id"), str | int)
        and isinstance(row.get("scores"), dict)
        and all(isinstance(score, int | float | None) for score in row["scores"].values())
        for row in rows
    )


def _compare(reference: dict, other: dict, seed: int) -> list[dict]:
    first, second = [
        {row["stimulus_id"]: row["scores"] for row in report["per_stimulus"]} for report in (reference, other)
    ]
    shared = [stimulus for stimulus in first if stimulus in second]
    if len(shared) < 2:
        raise InputError(f"{other['path']}: {len(shared)} stimuli in common with {reference['path']}, need two or more")
    own, theirs = reference["provenance"], other["provenance"]
    same = own.get("classifier") == theirs.get("classifier")
    if same and own.get("classifier_sha256") != theirs.get("classifier_sha256"):
        found = f"classifier {theirs.get('classifier')} has other weights than in {reference['path']}"
        raise InputError(f"{other['path']}: {found}")
    lines = []
    for name in (name for name in first[shared[0]] if name in second[shared[0]]):
        values, reference_values = [
            np.array([scores[s].get(name) for s in shared], np.float64) for scores in (second, first)
        ]
        difference, low, high, p = paired_difference(values, reference_values, seed)
        means = {"value": float(values.mean()), "reference": float(reference_values.mean())}
        span = {"difference": difference, "low": low, "high": high, "p": p}
        lines.append({"name": name, "run": str(other["path"]), **means, **span, "n": len(shared)})
    return lines

"""Comparison of runs on the same stimuli: paired bootstrap of every figure that all reports share."""

import json
from pathlib import Path

import numpy as np

from mindvis.common.errors import InputError
from mindvis.evaluation.report import SCHEMA
from mindvis.evaluation.statistics import paired_difference


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
    rows = [["", "run", "first", "difference", "95 % interval", "p", "n"]]
    for line in lines:
        span = f"[{line['low']:+.3f}, {line['high']:+.3f}]"
        values = [f"{line['value']:.3f}", f"{line['reference']:.3f}", f"{line['difference']:+.3f}"]
        rows.append([f"{line['name']}  {line['run']}", *values, span, f"{line['p']:.4f}", str(line["n"])])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join([r[0].ljust(widths[0]), *map(str.rjust, r[1:], widths[1:])]).rstrip() for r in rows)


def read_report(folder: str | Path) -> dict:
    """Content of a report.json, named itself or by its folder, and its folder as `path`. Raises InputError."""
    path = Path(folder)
    path = path / "report.json" if path.is_dir() else path
    if not path.is_file():
        raise InputError(f"{path}: no such report, run evaluate first")
    try:
        report = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(report, dict) or report.get("schema") != SCHEMA:
        raise InputError(f"{path}: not a report of schema {SCHEMA}")
    return report | {"path": path.parent}


def _compare(reference: dict, other: dict, seed: int) -> list[dict]:
    first, second = [
        {row["stimulus_id"]: row["scores"] for row in report["per_stimulus"]} for report in (reference, other)
    ]
    shared = [stimulus for stimulus in first if stimulus in second]
    if len(shared) < 2:
        raise InputError(f"{other['path']}: {len(shared)} stimuli in common with {reference['path']}, need two or more")
    _check_same_classifier(reference, other)
    names = [name for name in first[shared[0]] if name in second[shared[0]]]
    lines = []
    for name in names:
        values, reference_values = [np.array([scores[s][name] for s in shared]) for scores in (second, first)]
        difference, low, high, p = paired_difference(values, reference_values, seed)
        means = {"value": float(values.mean()), "reference": float(reference_values.mean())}
        span = {"difference": difference, "low": low, "high": high, "p": p}
        lines.append({"name": name, "run": str(other["path"]), **means, **span, "n": len(shared)})
    return lines


def _check_same_classifier(reference: dict, other: dict) -> None:
    """Figures of one name must come from one set of weights."""
    hashes = [report["provenance"]["classifier_sha256"] for report in (reference, other)]
    names = [report["provenance"]["classifier"] for report in (reference, other)]
    if names[0] == names[1] and hashes[0] != hashes[1]:
        raise InputError(f"{other['path']}: classifier {names[1]} has other weights than in {reference['path']}")

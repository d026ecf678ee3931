"""The scores of a chain's subjects side by side, as Markdown and CSV."""

import json
from collections.abc import Sequence
from pathlib import Path

from mindvis.chain.plan import Step
from mindvis.common.files import to_csv, write_text
from mindvis.evaluation.report import short_number

COLUMNS = ("subject", "figure", "set", "value", "low", "high", "deviation", "best", "chance", "n", "num_samples")
MAIN = ("_way_top_", "fid")  # parts of the names of the figures that the Markdown table shows


def write_overview(root: Path, steps: Sequence[Step]) -> str | None:
    """Write chain.md and chain.csv from the reports of the evaluation steps; returns the table, None without any.

    chain.md has a row a subject and the mean over subjects, chain.csv every figure of every report.
    """
    found = {step.subject: step.folder / "report.json" for step in steps if step.stage == "evaluate"}
    reports = {subject: json.loads(path.read_text())["figures"] for subject, path in found.items() if path.is_file()}
    if not reports:
        return None
    table = markdown_table(reports)
    pages = "".join(f"- {subject}: {found[subject].with_suffix('.html')}\n" for subject in reports)
    write_text(root / "chain.md", f"{table}\n{pages}")
    write_text(root / "chain.csv", long_csv(reports))
    return table


def markdown_table(reports: dict[str, list[dict]]) -> str:
    """Subjects down, main figures across: value, 95 % interval over stimuli, and the shuffled control."""
    names = dict.fromkeys(figure["name"] for figures in reports.values() for figure in figures)
    names = [name for name in names if any(part in name for part in MAIN)]
    lines = [["subject", *names], ["---"] * (1 + len(names))]
    lines += [[subject, *(_cell(figures, name) for name in names)] for subject, figures in reports.items()]
    if len(reports) > 1:
        lines.append(["mean", *(_mean(reports, name) for name in names)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def long_csv(reports: dict[str, list[dict]]) -> str:
    """A line for every subject, figure and set of pictures."""
    rows = [
        {"subject": subject, "figure": figure["name"]} | figure
        for subject, figures in reports.items()
        for figure in figures
    ]
    return to_csv(COLUMNS, rows)


def _cell(figures: list[dict], name: str) -> str:
    sets = {figure["set"]: figure for figure in figures if figure["name"] == name}
    if "decoded" not in sets:
        return ""
    own = sets["decoded"]
    text = short_number(own["value"])
    if own["low"] is not None:
        text += f" [{short_number(own['low'])}, {short_number(own['high'])}]"
    return text + (f", shuffled {short_number(sets['shuffled']['value'])}" if "shuffled" in sets else "")


def _mean(reports: dict[str, list[dict]], name: str) -> str:
    every = [figure for figures in reports.values() for figure in figures]
    values = [figure["value"] for figure in every if (figure["name"], figure["set"]) == (name, "decoded")]
    return short_number(sum(values) / len(values)) if values else ""

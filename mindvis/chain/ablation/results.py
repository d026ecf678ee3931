"""A table of measured rows beside the paper's: Markdown to read, CSV and JSON to work with."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from scipy import stats

from mindvis.chain.ablation.measures import Figure
from mindvis.chain.ablation.tables import Row, Table
from mindvis.common.files import to_csv, write_json, write_text

COLUMNS = ("row", "scaled_to", "paper", "paper_deviation", "measure", "value", "low", "high", "num_seeds", "state")


@dataclass
class Measured:
    """A row with its figures by seed, and what is to be said where there are none."""

    row: Row
    seeds: list[int]  # all that are wanted
    by_seed: dict[int, list[Figure]] = field(default_factory=dict)
    folders: dict[int, list[str]] = field(default_factory=dict)
    state: str = "not run yet"

    @property
    def missing(self) -> list[int]:
        """Seeds without figures, of a row that can be run."""
        return [] if self.state.startswith("not run:") else [seed for seed in self.seeds if seed not in self.by_seed]


def summarise(figures: Sequence[Figure]) -> Figure:
    """One figure of several seeds: mean and 95 % t interval over seeds, or of one seed its interval over stimuli."""
    values = np.array([figure.value for figure in figures])
    if len(values) == 1:
        return figures[0]
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    mean = float(values.mean())
    return Figure(figures[0].label, mean, float(mean - half), float(mean + half))


def summaries(measured: Measured) -> list[Figure]:
    """One figure a measure, over the seeds that are done."""
    return [summarise(list(figures)) for figures in zip(*measured.by_seed.values(), strict=True)]


def write_results(root: Path, table: Table, scale: str, results: Sequence[Measured]) -> str:
    """Write <table>.md, .csv and .json into `root`; returns the Markdown."""
    root.mkdir(parents=True, exist_ok=True)
    text = markdown(table, scale, results)
    write_text(root / f"{table.name}.md", text)
    write_text(root / f"{table.name}.csv", results_csv(results))
    rows = [_plain(measured) for measured in results]
    write_json(root / f"{table.name}.json", {"table": table.name, "title": table.title, "scale": scale, "rows": rows})
    return text


def markdown(table: Table, scale: str, results: Sequence[Measured]) -> str:
    """Rows down; the paper's value, then each measure with its interval and the number of seeds."""
    labels = list(dict.fromkeys(figure.label for measured in results for figure in summaries(measured)))
    scaled_names = scale == "demo" and any(measured.row.scaled_to for measured in results)
    head = [table.title, *(["scaled to"] if scaled_names else []), "paper: 50-way top-1, %", *labels, "seeds"]
    lines = [head, ["---"] * len(head)]
    for measured in results:
        row, found = measured.row, {figure.label: figure for figure in summaries(measured)}
        cells = [_cell(found.get(label)) for label in labels]
        paper = f"{row.paper:g}" + (f" +- {row.deviation:g}" if row.deviation is not None else "")
        lines.append(
            [row.name, *([row.scaled_to or row.name] if scaled_names else []), paper, *cells, _count(measured)]
        )
    notes = (
        "Intervals: 95 %, over seeds of training and sampling (t); with one seed over stimuli, where there is one.\n"
    )
    if scale == "demo":
        notes = f"One simulated experiment, scaled down: {table.scaled}. {notes}"
    missing = [f"{m.row.name} (seed {', '.join(map(str, m.missing))})" for m in results if m.missing]
    notes += f"Unfinished, not measured yet: {'; '.join(missing)}.\n" if missing else ""
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + "\n" + notes


def results_csv(results: Sequence[Measured]) -> str:
    """A line a row and measure; rows without figures have one line."""
    lines = []
    for measured in results:
        row = measured.row
        own = {"row": row.name, "scaled_to": row.scaled_to, "paper": row.paper, "paper_deviation": row.deviation}
        own |= {"num_seeds": len(measured.by_seed), "state": measured.state}
        for figure in summaries(measured) or [None]:
            found = {} if figure is None else {"measure": figure.label, **asdict(figure)}
            lines.append(own | found)
    return to_csv(COLUMNS, lines)


def _count(measured: Measured) -> str:
    """How many seeds a row stands on; what has become of it where some are missing."""
    if not measured.by_seed:
        return measured.state
    trouble = f", {measured.state}" if measured.state in ("failed", "stopped") else ""
    return f"{len(measured.by_seed)}" + (f" of {len(measured.seeds)}{trouble}" if measured.missing else "")


def _plain(measured: Measured) -> dict:
    seeds = {seed: [asdict(figure) for figure in figures] for seed, figures in measured.by_seed.items()}
    summary = [asdict(figure) for figure in summaries(measured)]
    own = {"row": asdict(measured.row), "state": measured.state, "summary": summary}
    return json.loads(json.dumps(own | {"seeds": seeds, "folders": measured.folders}))


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return ""
    digits = 1 if "%" in figure.label else 3
    numbers = [f"{value:.{digits}f}" for value in (figure.value, figure.low, figure.high) if value is not None]
    return numbers[0] + (f" [{numbers[1]}, {numbers[2]}]" if len(numbers) == 3 else "")

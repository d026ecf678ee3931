"""The paper's ablation tables: rows as settings, and what was measured beside the paper's values."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure as MatplotlibFigure
from scipy import stats

from mindvis.common.errors import InputError
from mindvis.common.files import to_csv, write_json, write_text
from mindvis.common.plots import save_png_and_pdf
from mindvis.config.loading import read_yaml

FOLDER = Path(__file__).resolve().parents[1] / "assets" / "ablations"
COLUMNS = ("row", "scaled_to", "paper", "paper_deviation", "measure", "value", "low", "high", "num_seeds", "state")


@dataclass(frozen=True)
class Row:
    """One row: `god` and `demo` are settings by stage, laid over the chain of that scale; a stage of None is left out.

    Where these are None themselves, the row cannot be run at that scale, and `reason` says why.
    """

    name: str
    paper: float | None = None  # 50-way top-1 in per cent, GOD subject 3, mean of 5 sample sets; None: not in the paper
    deviation: float | None = None  # over the sample sets, where the paper gives it
    god: dict[str, Any] | None = None
    demo: dict[str, Any] | None = None
    scaled_to: str = ""  # what the row is called at the scale of the demo, if it differs
    reason: str = ""


@dataclass(frozen=True)
class Table:
    """One table; by scale, `measures` are the names of what is measured, `chains` the chain under it if it has its own.

    `curves`: rows are named `<curve>, <number> %`, and are drawn as curves too.
    """

    name: str
    title: str
    measures: dict[str, list[str]]
    rows: list[Row]
    scaled: str = field(default="")  # how the rows were scaled down
    chains: dict[str, str] = field(default_factory=dict)
    curves: bool = False
    simulated: bool = False  # every seed has an experiment of its own, and pictures have a shuffled control


@dataclass(frozen=True)
class Figure:
    """One number of a row: `low` and `high` are its interval over stimuli, where it has one."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None


@dataclass
class Measured:
    """A row with its figures by seed, and its state where it has none."""

    row: Row
    seeds: list[int]  # all that are wanted
    by_seed: dict[int, list[Figure]] = field(default_factory=dict)
    folders: dict[int, list[str]] = field(default_factory=dict)
    state: str = "not run yet"

    @property
    def missing(self) -> list[int]:
        """Seeds without figures, of a row that can be run."""
        return [] if self.state.startswith("not run:") else [seed for seed in self.seeds if seed not in self.by_seed]


def table_names() -> list[str]:
    """Names of all tables."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_table(name: str) -> Table:
    """The table of that name. Raises `InputError` for another name, and for a file that was edited wrongly."""
    if name not in table_names():
        raise InputError(f"ablation table {name!r}: none of that name; needed: one of {', '.join(table_names())}")
    path = FOLDER / f"{name}.yaml"
    content = read_yaml(path)
    try:
        rows = [
            Row(**row | {key: str(row[key]) for key in ("name", "scaled_to") if key in row}) for row in content["rows"]
        ]
        return Table(name, **content | {"rows": rows})
    except (TypeError, KeyError) as error:
        keys = ", ".join(item.name for item in fields(Row))
        raise InputError(f"{path}: {error}; needed: title, measures, rows, and in a row {keys}") from error


def choose_rows(table: Table, names: list[str]) -> list[Row]:
    """The rows of these names, all for an empty list. Raises `InputError` for a name that is not in the table."""
    known = {row.name: row for row in table.rows}
    for name in names:
        if name not in known:
            # in quotes: names have commas
            raise InputError(f"setting rows names {name!r}; needed: some of {', '.join(map(repr, known))}")
    return [row for row in table.rows if row.name in names or not names]


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
    if table.curves and any(measured.by_seed for measured in results):
        save_png_and_pdf(curves(table, results), root / table.name)
    rows = []
    for measured in results:
        seeds = {seed: [asdict(figure) for figure in figures] for seed, figures in measured.by_seed.items()}
        summary = [asdict(figure) for figure in summaries(measured)]
        row = {"row": asdict(measured.row), "state": measured.state, "summary": summary}
        rows.append(row | {"seeds": seeds, "folders": measured.folders})
    write_json(root / f"{table.name}.json", {"table": table.name, "title": table.title, "scale": scale, "rows": rows})
    return text


def markdown(table: Table, scale: str, results: Sequence[Measured]) -> str:
    """Rows down; the paper's value where there is one, then each measure with its interval and the number of seeds."""
    labels = list(dict.fromkeys(figure.label for measured in results for figure in summaries(measured)))
    scaled_names = scale == "demo" and any(measured.row.scaled_to for measured in results)
    in_paper = any(measured.row.paper is not None for measured in results)
    paper_head = ["paper: 50-way top-1, %"] if in_paper else []
    head = [table.title, *(["scaled to"] if scaled_names else []), *paper_head, *labels, "seeds"]
    lines = [head, ["---"] * len(head)]
    for measured in results:
        row, found = measured.row, {figure.label: figure for figure in summaries(measured)}
        cells = [_cell(found.get(label)) for label in labels]
        names = [row.name, *([row.scaled_to or row.name] if scaled_names else [])]
        deviation = "" if row.deviation is None else f" +- {row.deviation:g}"
        paper = "" if row.paper is None else f"{row.paper:g}{deviation}"
        lines.append([*names, *([paper] if in_paper else []), *cells, _count(measured)])
    notes = "Intervals: 95 %, over seeds of training and sampling (t); with one seed over stimuli, if there is one.\n"
    if scale == "demo":
        of = "A simulated experiment a seed" if table.simulated else "One simulated experiment, scaled down"
        notes = f"{of}: {table.scaled}. {notes}"
    missing = [f"{m.row.name} (seed {', '.join(map(str, m.missing))})" for m in results if m.missing]
    notes += f"Unfinished, not measured yet: {'; '.join(missing)}.\n" if missing else ""
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + "\n" + notes


def curves(table: Table, results: Sequence[Measured]) -> MatplotlibFigure:
    """The first measure against the number in a row's name, a line a curve, with the interval over seeds."""
    figure = MatplotlibFigure(figsize=(5, 3.5), layout="constrained")
    axes = figure.subplots()
    label = ""
    for name in dict.fromkeys(measured.row.name.rpartition(", ")[0] for measured in results):
        own = [m for m in results if m.row.name.rpartition(", ")[0] == name and m.by_seed]
        points = [(float(m.row.name.rpartition(", ")[2].rstrip(" %")), summaries(m)[0]) for m in own]
        amounts, values = [amount for amount, _ in points], [point.value for _, point in points]
        lows, highs = ([getattr(point, end) or point.value for _, point in points] for end in ("low", "high"))
        errors = [np.subtract(values, lows), np.subtract(highs, values)]
        axes.errorbar(amounts, values, errors, marker="o", capsize=3, label=name)
        label = points[0][1].label if points else label
    axes.set(xlabel=table.title, ylabel=label, xscale="log", ylim=(0, None))
    axes.set_xticks([10, 25, 50, 100], ["10 %", "25 %", "50 %", "100 %"])
    axes.legend(frameon=False)
    return figure


def results_csv(results: Sequence[Measured]) -> str:
    """A line a row and measure; rows without figures have one line."""
    lines = []
    for measured in results:
        row = measured.row
        own = {"row": row.name, "scaled_to": row.scaled_to, "paper": row.paper, "paper_deviation": row.deviation}
        own |= {"num_seeds": len(measured.by_seed), "state": measured.state}
        found = [{"measure": figure.label, **asdict(figure)} for figure in summaries(measured)]
        lines += [own | figure for figure in found or [{}]]
    return to_csv(COLUMNS, lines)


def _count(measured: Measured) -> str:
    """How many seeds a row stands on; what has become of it where some are missing."""
    if not measured.by_seed:
        return measured.state
    trouble = f", {measured.state}" if measured.state in ("failed", "stopped") else ""
    return f"{len(measured.by_seed)}" + (f" of {len(measured.seeds)}{trouble}" if measured.missing else "")


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return ""
    digits = 1 if "%" in figure.label else 3
    numbers = [f"{value:.{digits}f}" for value in (figure.value, figure.low, figure.high) if value is not None]
    return numbers[0] + (f" [{numbers[1]}, {numbers[2]}]" if len(numbers) == 3 else "")

"""The scores of a chain's subjects side by side, beside the paper's and chance, as Markdown and CSV."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from mindvis.chain.plan import Step
from mindvis.common.files import to_csv, write_text
from mindvis.evaluation.compare import read_report
from mindvis.evaluation.report import short_number

COLUMNS = ("subject", "figure", "set", "value", "low", "high", "deviation", "best", "chance", "n", "num_samples")
# Parts of the names of the figures that the Markdown table shows; sampled n-way says the same as exact n-way.
MAIN = ("_way_top_", "pairwise_", "two_way_", "fid")
SAMPLED = "_sampled_"
PAPER_CLASSIFIER = "vit_h_14"
# Chen et al. 2023: subject -> figure -> value; top-5 is read off a bar chart
PAPER_BEST = {
    "sbj_1": {"50_way_top_1": 0.091},
    "sbj_2": {"50_way_top_1": 0.139},
    "sbj_3": {"50_way_top_1": 0.274, "100_way_top_1": 0.212, "50_way_top_5": 0.574, "100_way_top_5": 0.466},
    "sbj_4": {"50_way_top_1": 0.152},
    "sbj_5": {"50_way_top_1": 0.143},
    "CSI1": {"50_way_top_1": 0.345},
    "CSI2": {"50_way_top_1": 0.185},
    "CSI3": {"50_way_top_1": 0.210},
    "CSI4": {"50_way_top_1": 0.209},
}
PAPER_MEAN = {"sbj_3": {"50_way_top_1": 0.2385, "100_way_top_1": 0.1736}}
PAPER = {"paper, best of 5 sample sets": PAPER_BEST, "paper, mean of 5 sample sets": PAPER_MEAN}


def write_overview(root: Path, steps: Sequence[Step]) -> str | None:
    """Write chain.md and chain.csv from the reports of the evaluation steps; returns the table, None without any.

    chain.md has a row a subject, their mean, the paper's values for these subjects, and chance; chain.csv every figure
    of every report.
    """
    found = {str(step.subject): step.folder / "report.json" for step in steps if step.stage == "evaluate"}
    reports = {subject: read_report(path)["figures"] for subject, path in found.items() if path.is_file()}
    if not reports:
        return None
    table = markdown_table(reports, _in_the_paper(steps))
    pages = "".join(f"- {subject}: {found[subject].with_suffix('.html')}\n" for subject in reports)
    write_text(root / "chain.md", f"{table}\n{pages}")
    rows = ({"subject": subject, "figure": f["name"]} | f for subject, figures in reports.items() for f in figures)
    write_text(root / "chain.csv", to_csv(COLUMNS, rows))
    return table


def read_summaries(steps: Sequence[Step]) -> str:
    """What the summaries of the demo say, one subject after the other; "" in a chain without any."""
    return "".join((step.folder / "summary.txt").read_text() for step in steps if step.stage == "demo_summary")


def markdown_table(reports: dict[str, list[dict]], in_the_paper: Iterable[str] = ()) -> str:
    """Subjects down, main figures across: value, 95 % interval over stimuli, and the shuffled control.

    Below them the mean, the paper's values of those subjects that are `in_the_paper`, and chance.
    """
    every_name = dict.fromkeys(figure["name"] for figures in reports.values() for figure in figures)
    names = [name for name in every_name if SAMPLED not in name and any(part in name for part in MAIN)]
    lines = [["subject", *names], ["---"] * (1 + len(names))]
    lines += [[subject, *(_cell(figures, name) for name in names)] for subject, figures in reports.items()]
    every = [figure for figures in reports.values() for figure in figures if figure["set"] == "decoded"]
    if len(reports) > 1:
        lines.append(["mean", *(_mean([f["value"] for f in every if f["name"] == name]) for name in names)])
    own = [subject for subject in reports if subject in set(in_the_paper)]
    rows = [[label, *(_of_paper(values, own, name) for name in names)] for label, values in PAPER.items()]
    rows.append(["chance", *(_mean([f["chance"] for f in every if f["name"] == name]) for name in names)])
    lines += [row for row in rows if any(row[1:])]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _in_the_paper(steps: Sequence[Step]) -> set[str]:
    """Subjects whose own fMRI, not a simulation of it, is decoded."""
    if any(step.stage == "simulate" for step in steps):
        return set()
    data = {step.subject: step.settings["data"]["name"] for step in steps if step.stage == "finetune_ldm"}
    return {str(subject) for subject, name in data.items() if name in ("god", "bold5000")}


def _of_paper(values: dict[str, dict[str, float]], subjects: Sequence[str], name: str) -> str:
    measure, _, classifier = name.partition("/")
    known = {s: values[s][measure] for s in subjects if measure in values.get(s, {}) and classifier == PAPER_CLASSIFIER}
    return ", ".join(f"{subject} {short_number(value)}" for subject, value in known.items())


def _cell(figures: list[dict], name: str) -> str:
    sets = {figure["set"]: figure for figure in figures if figure["name"] == name}
    if "decoded" not in sets:
        return ""
    own = sets["decoded"]
    text = short_number(own["value"])
    if own["low"] is not None:
        text += f" [{short_number(own['low'])}, {short_number(own['high'])}]"
    return text + (f", shuffled {short_number(sets['shuffled']['value'])}" if "shuffled" in sets else "")


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return short_number(sum(known) / len(known)) if known else ""

"""What an audit shows: its section of the page, its plots, and its lines for a terminal."""

import json

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mindvis.common.plots import ACCENT, INK, MUTED, png_bytes
from mindvis.evaluation.audit import Audit
from mindvis.evaluation.audit_folders import Audited
from mindvis.evaluation.audit_verdict import Finding, finding_text
from mindvis.evaluation.report import aligned

MEANINGS = {
    "reconstruction": "the pictures show the individual picture that was seen, beyond its class and the training set",
    "classification": "the pictures show the class of what was seen; the rest is not its own",
    "retrieval": "the pictures are training pictures chosen by what was seen",
    "invention": "the pictures say nothing about what was seen",
    "undecided": "what was given does not tell",
}
TABLE = ("own_against_other", "within_class", "copies")  # kinds of figures in the table of baselines and ceilings


def section(found: Audited) -> dict:
    """What the template of the section, `assets/report/audit.html`, shows."""
    return {
        "audit": found.main,
        "meaning": MEANINGS[found.main.verdict],
        "audit_columns": columns(found),
        "audit_table": table(found),
        "differences": list(found.differences.values()),
        "audit_plots": {name: png_bytes(figure) for name, figure in plots(found.main).items()},
        "audit_settings": json.dumps(found.main.settings, indent=1),
    }


def columns(found: Audited) -> list[str]:
    """The figures of the table of baselines and ceilings, in order."""
    return [name for name in found.main.evidence if name.split("/")[0] in TABLE]


def table(found: Audited) -> list[tuple[str, str, list[Finding | None]]]:
    """A row a set of pictures: its name, its verdict, its figures."""
    sets = {"decoded": found.main, **found.others}
    return [(name, audit.verdict, [audit.evidence.get(key) for key in columns(found)]) for name, audit in sets.items()]


def audit_text(found: Audited) -> str:
    """The verdict, how it came about, the table of sets and the caveats, as lines for a terminal."""
    main, names = found.main, columns(found)
    rows = [["", "verdict", *names]]
    rows += [[name, verdict, *map(finding_text, figures)] for name, verdict, figures in table(found)]
    figures = [["figure", "value", "by accident", "p (Holm)"]]
    figures += [[f.name, finding_text(f), _number(f.by_accident), _number(f.p_holm, 4)] for f in main.evidence.values()]
    head = f"verdict: {main.verdict} ({MEANINGS[main.verdict]})"
    parts = [head, *[f"- {step}" for step in main.steps], "", aligned(figures, num_names=1)]
    if found.others:
        parts += ["", aligned(rows, num_names=2)]
    return "\n".join([*parts, *main.caveats])


def _number(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def plots(audit: Audit) -> dict[str, Figure]:
    """Score against closeness to the training set, and how many training pictures are closer than the truth."""
    found = {}
    for space in audit.settings["spaces"]:
        if f"closeness_to_training/{space}" in audit.per_stimulus:
            found[f"score against closeness to the training set ({space})"] = _closeness_plot(audit, space)
            found[f"training pictures closer than the truth ({space})"] = _rank_plot(audit, space)
    return found


def _axis(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.8, 3.4), layout="constrained")
    axis = figure.subplots()
    axis.set_title(title, fontsize=9)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    return figure, axis


def _closeness_plot(audit: Audit, space: str) -> Figure:
    """A point a stimulus."""
    figure, axis = _axis(f"{space}: does the score depend on the training set?")
    closeness = audit.per_stimulus[f"closeness_to_training/{space}"]
    axis.scatter(closeness, audit.per_stimulus[f"own_against_other/{space}"], s=14, color=ACCENT, alpha=0.6, lw=0)
    axis.axhline(0.5, color=INK, ls="--", lw=0.8)
    axis.set_xlabel("correlation of the true picture with its nearest training picture", fontsize=8)
    axis.set_ylabel("own against other", fontsize=8)
    axis.set_ylim(-0.03, 1.03)
    return figure


def _rank_plot(audit: Audit, space: str) -> Figure:
    """A histogram over stimuli, with bins that grow tenfold in three."""
    figure, axis = _axis(f"{space}: how novel are the pictures?")
    rank = audit.per_stimulus[f"rank_of_truth/{space}"]
    most = max(10, int(audit.settings["num_training"]))
    edges = np.concatenate([[0], 10 ** np.arange(0, np.log10(most) + 1 / 3, 1 / 3)])
    axis.bar(range(len(edges) - 1), np.histogram(rank, edges)[0], color=MUTED, width=0.9)
    axis.set_xticks(range(len(edges) - 1), ["none", *[f"{edge:.0f}" for edge in edges[1:-1]]], rotation=60)
    axis.set_xlabel("training pictures closer to the decoded one than the truth (from)", fontsize=8)
    axis.set_ylabel("stimuli", fontsize=8)
    return figure

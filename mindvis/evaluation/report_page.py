"""The files of a report and of an audit: numbers as JSON and CSV, a grid of pictures, pages that need no network.

Pictures, plots and style are inside the page; its text is the jinja2 template `assets/report/page.html`.
"""

import json
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Plot
from PIL import Image

from mindvis.common.errors import InputError
from mindvis.common.files import write_text
from mindvis.common.plots import ACCENT, INK, MUTED, per_class_bars, png_bytes, reconstruction_grid, save_png
from mindvis.evaluation.audit import Audit, json_text
from mindvis.evaluation.audit_folders import Audited
from mindvis.evaluation.audit_verdict import Finding, finding_text
from mindvis.evaluation.pictures import shrink
from mindvis.evaluation.report import Report, aligned, figures_csv, interval_text, short_number
from mindvis.evaluation.report_stages import num_trials

ASSETS = Path(__file__).resolve().parents[1] / "assets" / "report"
THUMBNAIL = 160  # pixels: sharp at the size of the page, and 600 of them stay below 5 MB
SMALL = 72  # pixels: below, the page shows pixels as squares
GRID_SIDE = 128  # pixels: a grid of 113 stimuli stays a file that viewers open
MAX_FAILURES = 10
ANSWERS = {True: ("yes", "yes"), False: ("no", "no"), None: ("unknown", "not known")}  # style, text

MEANINGS = {
    "reconstruction": "the pictures show the individual picture that was seen, beyond its class and the training set",
    "classification": "the pictures show the class of what was seen; the rest is not its own",
    "retrieval": "the pictures are training pictures chosen by what was seen",
    "invention": "the pictures say nothing about what was seen",
    "undecided": "what was given does not tell",
}
TABLE = ("own_against_other", "within_class", "copies")  # kinds of figures in the table of baselines and ceilings


def write_report(
    report: Report,
    folder: str | Path,
    *,
    masked_reconstruction: bytes | None = None,
    curves: Mapping[str, bytes] | None = None,
) -> Path:
    """Write report.json, .csv, .html and the grid, best stimulus first; returns the page. Raises InputError.

    `masked_reconstruction`: PNG of the Stage A plot, for the page; `curves`: those of the losses, by run folder.
    """
    page = report_html(report, masked_reconstruction=masked_reconstruction, curves=curves)
    with _writing(folder) as folder:
        save_png(_sorted_grid(report), folder / "grid_sorted.png")
        write_text(folder / "report.csv", figures_csv(report.figures))
        write_text(folder / "report.html", page)
        if report.audited is not None:
            write_text(folder / "audit.json", json_text(report.audited.as_dict()))
        write_text(folder / "report.json", json_text(report.as_dict()))
        return folder / "report.html"


def write_audit(found: Audited, source: str, folder: str | Path) -> Path:
    """Write audit.json and audit.html; returns the page. Raises InputError where the folder cannot be written."""
    page = page_template("audit_page.html").render(title=source, **section(found))
    with _writing(folder) as folder:
        write_text(folder / "audit.html", page)
        write_text(folder / "audit.json", json_text(found.as_dict()))
        return folder / "audit.html"


@contextmanager
def _writing(folder: str | Path) -> Iterator[Path]:
    """The folder, made where it is missing; what cannot be written in it is one line."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}), need a writable folder") from error


def report_html(
    report: Report, *, masked_reconstruction: bytes | None = None, curves: Mapping[str, bytes] | None = None
) -> str:
    """The page of a report that has its pictures; the others are PNGs, of Stage A and, by run folder, of losses."""
    order = report.ranking()
    names = [f"{row['class']} ({row['n']})" for row in report.per_class]
    values = [row["scores"][report.main] for row in report.per_class]
    bars = per_class_bars(names, values, chance=report.figure(report.main).chance or 0.0, label=report.main)
    facts = {"settings": report.settings, "provenance": report.provenance, "machine": report.machine}
    return page_template().render(
        report=report,
        num_samples=report.pictures.decoded.shape[1],
        other_sets=report.other_sets(),
        pixels="small-pixels" if report.pictures.stimuli.shape[1] < SMALL else "",
        order=order,
        worst=order[::-1][: min(MAX_FAILURES, max(1, len(order) // 4))],  # a quarter of the stimuli
        bars=png_bytes(bars),
        masked_reconstruction=masked_reconstruction,
        curves=curves or {},
        answers=ANSWERS,
        provenance=json.dumps(facts, indent=1, default=str),
        **({} if report.audited is None else section(report.audited)),
    )


def page_template(name: str = "page.html") -> Template:
    """A page with its filters. Whatever it prints is escaped, and a name it does not know is an error."""
    page = Environment(
        loader=FileSystemLoader(ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page.filters |= {"number": short_number, "span": interval_text, "thumbnail": _thumbnail, "png": _inline}
    page.filters |= {"finding": finding_text, "trials": num_trials}
    return page.get_template(name)


def _sorted_grid(report: Report) -> np.ndarray:
    """Stimuli and samples, best first, at no more than `GRID_SIDE` pixels each: uint8 [H W 3]."""
    order, pictures = report.ranking(), report.pictures
    both = np.concatenate([pictures.stimuli[:, None], pictures.decoded], axis=1)[order]
    if both.shape[2] > GRID_SIDE:
        both = shrink(both.reshape(-1, *both.shape[2:]), GRID_SIDE).reshape(*both.shape[:2], GRID_SIDE, GRID_SIDE, 3)
    return reconstruction_grid(both[:, 0], both[:, 1:])


def _thumbnail(image: np.ndarray) -> str:
    """A picture uint8 [h w 3] as a data URL, no larger than the page shows it."""
    picture = Image.fromarray(image)
    kind = "png" if max(picture.size) <= THUMBNAIL // 2 else "jpeg"
    picture.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    content = BytesIO()
    picture.save(content, format=kind, quality=88)  # png has no quality
    return _inline(content.getvalue(), kind)


def _inline(content: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{b64encode(content).decode()}"


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


def plots(audit: Audit) -> dict[str, Plot]:
    """Score against closeness to the training set, and how many training pictures are closer than the truth."""
    found = {}
    for space in audit.settings["spaces"]:
        if f"closeness_to_training/{space}" in audit.per_stimulus:
            found[f"score against closeness to the training set ({space})"] = _closeness_plot(audit, space)
            found[f"training pictures closer than the truth ({space})"] = _rank_plot(audit, space)
    return found


def _axis(title: str) -> tuple[Plot, Axes]:
    figure = Plot(figsize=(4.8, 3.4), layout="constrained")
    axis = figure.subplots()
    axis.set_title(title, fontsize=9)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    return figure, axis


def _closeness_plot(audit: Audit, space: str) -> Plot:
    """A point a stimulus."""
    figure, axis = _axis(f"{space}: does the score depend on the training set?")
    closeness = audit.per_stimulus[f"closeness_to_training/{space}"]
    axis.scatter(closeness, audit.per_stimulus[f"own_against_other/{space}"], s=14, color=ACCENT, alpha=0.6, lw=0)
    axis.axhline(0.5, color=INK, ls="--", lw=0.8)
    axis.set_xlabel("correlation of the true picture with its nearest training picture", fontsize=8)
    axis.set_ylabel("own against other", fontsize=8)
    axis.set_ylim(-0.03, 1.03)
    return figure


def _rank_plot(audit: Audit, space: str) -> Plot:
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

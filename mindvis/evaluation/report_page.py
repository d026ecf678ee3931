"""The files of a report: numbers as JSON and CSV, a grid of pictures, and a page that needs no network.

Pictures, plots and style are inside the page; its text is the jinja2 template `assets/report/page.html`.
"""

import json
from base64 import b64encode
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from PIL import Image

from mindvis.common.errors import InputError
from mindvis.common.files import write_text
from mindvis.common.plots import per_class_bars, png_bytes, reconstruction_grid, save_png
from mindvis.evaluation.audit import audit_json
from mindvis.evaluation.audit_folders import Audited
from mindvis.evaluation.audit_page import section
from mindvis.evaluation.audit_verdict import finding_text
from mindvis.evaluation.pictures import shrink
from mindvis.evaluation.report import Report, figures_csv, interval_text, report_json, short_number
from mindvis.evaluation.report_stages import num_trials

ASSETS = Path(__file__).resolve().parents[1] / "assets" / "report"
THUMBNAIL = 160  # pixels: sharp at the size of the page, and 600 of them stay below 5 MB
SMALL = 72  # pixels: below, the page shows pixels as squares
GRID_SIDE = 128  # pixels: a grid of 113 stimuli stays a file that viewers open
MAX_FAILURES = 10
ANSWERS = {True: ("yes", "yes"), False: ("no", "no"), None: ("unknown", "not known")}  # style, text


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
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        page = report_html(report, masked_reconstruction=masked_reconstruction, curves=curves)
        save_png(_sorted_grid(report), folder / "grid_sorted.png")
        write_text(folder / "report.csv", figures_csv(report.figures))
        write_text(folder / "report.html", page)
        if report.audited is not None:
            write_text(folder / "audit.json", audit_json(report.audited))
        write_text(folder / "report.json", report_json(report))
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}), need a writable folder") from error
    return folder / "report.html"


def write_audit(found: Audited, source: str, folder: str | Path) -> Path:
    """Write audit.json and audit.html; returns the page. Raises InputError where the folder cannot be written."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "audit.html", page_template("audit_page.html").render(title=source, **section(found)))
        write_text(folder / "audit.json", audit_json(found))
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}), need a writable folder") from error
    return folder / "audit.html"


def report_html(
    report: Report, *, masked_reconstruction: bytes | None = None, curves: Mapping[str, bytes] | None = None
) -> str:
    """The page of a report that has its pictures; the others are PNGs, of Stage A and, by run folder, of losses."""
    order = report.ranking()
    facts = {"settings": report.settings, "provenance": report.provenance}
    return page_template().render(
        report=report,
        num_samples=report.pictures.decoded.shape[1],
        other_sets=report.other_sets(),
        pixels="small-pixels" if report.pictures.stimuli.shape[1] < SMALL else "",
        order=order,
        worst=_worst(order),
        bars=_bars(report),
        masked_reconstruction=masked_reconstruction,
        curves=curves or {},
        answers=ANSWERS,
        provenance=json.dumps(facts, indent=1, default=str),
        **({} if report.audited is None else section(report.audited)),
    )


def page_template(name: str = "page.html") -> Template:
    """A page with its filters. Whatever it prints is escaped, and a name it does not know is an error."""
    layout = {"trim_blocks": True, "lstrip_blocks": True}
    page = Environment(loader=FileSystemLoader(ASSETS), autoescape=True, undefined=StrictUndefined, **layout)
    page.filters |= {"number": short_number, "span": interval_text, "thumbnail": _thumbnail, "png": _inline}
    page.filters |= {"finding": finding_text, "trials": num_trials}
    return page.get_template(name)


def _worst(order: list[int]) -> list[int]:
    """The worst quarter of the stimuli, at least one and at most ten, the worst first."""
    return order[::-1][: min(MAX_FAILURES, max(1, len(order) // 4))]


def _bars(report: Report) -> bytes:
    names = [f"{row['class']} ({row['n']})" for row in report.per_class]
    values = [row["scores"][report.main] for row in report.per_class]
    return png_bytes(per_class_bars(names, values, chance=report.figure(report.main).chance, label=report.main))


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
    lossless = max(picture.size) <= THUMBNAIL // 2
    picture.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    content = BytesIO()
    picture.save(content, **({"format": "png"} if lossless else {"format": "jpeg", "quality": 88}))
    return _inline(content.getvalue(), "png" if lossless else "jpeg")


def _inline(content: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{b64encode(content).decode()}"

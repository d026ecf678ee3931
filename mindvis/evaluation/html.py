"""The report as one page that needs no network: pictures, plots and style are inside the file."""

import json
from base64 import b64encode
from html import escape
from io import BytesIO
from pathlib import Path
from string import Template

import numpy as np
from PIL import Image

from mindvis.common.plots import per_class_bars, png_bytes
from mindvis.evaluation.report import Figure, Report, short_number

ASSETS = Path(__file__).resolve().parents[1] / "assets" / "report"
THUMBNAIL = 160  # pixels: sharp at the size of the page, and 600 of them stay below 5 MB
MAX_FAILURES = 10
LABELS = {"mean_fmri": "mean fMRI"}


def report_html(report: Report, *, masked_reconstruction: bytes | None = None) -> str:
    """The page of a report that has its pictures; `masked_reconstruction` is the PNG of the Stage A plot."""
    order = report.ranking()
    page = Template((ASSETS / "page.html").read_text())
    return page.substitute(
        css=(ASSETS / "page.css").read_text(),
        title=escape(str(report.provenance["decoded"])),
        source=_source(report),
        cards=_cards(report),
        table=_table(report),
        main=escape(report.main),
        pixels="small-pixels" if report.pictures.stimuli.shape[1] < 72 else "",
        grid="".join(_stimulus(report, i) for i in order),
        failures="".join(_stimulus(report, i) for i in _worst(order)),
        bars=_bars(report),
        masked=_masked(masked_reconstruction),
        checks=_checks(report),
        provenance=escape(
            json.dumps({"settings": report.settings, "provenance": report.provenance}, indent=1, default=str)
        ),
    )


def _worst(order: list[int]) -> list[int]:
    """The worst quarter of the stimuli, at least one and at most ten, the worst first."""
    return order[::-1][: min(MAX_FAILURES, max(1, len(order) // 4))]


def _source(report: Report) -> str:
    pictures, provenance = report.pictures, report.provenance
    n, k = pictures.decoded.shape[:2]
    text = f"{provenance['decoded']}: {n} stimuli, {k} samples each; classifier {provenance['classifier']}"
    return escape(f"{text} (weights {provenance['classifier_sha256'][:12]})")


def _cards(report: Report) -> str:
    """The main figure for every set, and chance."""
    figures = [figure for figure in report.figures if figure.name == report.main]
    cards = [
        _card(LABELS.get(figure.set, escape(figure.set)), f"{figure.value:.3f}", _span(figure)) for figure in figures
    ]
    cards.append(_card("chance", f"{figures[0].chance:.3f}", escape(report.main)))
    return "".join(cards)


def _card(label: str, value: str, note: str) -> str:
    return f'<div class="card"><span class="soft">{label}</span><b>{value}</b><span class="soft">{note}</span></div>'


def _span(figure: Figure) -> str:
    return "" if figure.low is None else f"[{short_number(figure.low)}, {short_number(figure.high)}]"


def _table(report: Report) -> str:
    sets = list(dict.fromkeys(figure.set for figure in report.figures if figure.set != "decoded"))
    titles = [
        "",
        "decoded",
        "95 % interval",
        "&plusmn; sets",
        "best set",
        *[LABELS.get(s, escape(s)) for s in sets],
        "chance",
    ]
    by_key = {(figure.name, figure.set): figure for figure in report.figures}
    rows = [
        _row(figure, [by_key.get((figure.name, s)) for s in sets])
        for figure in report.figures
        if figure.set == "decoded"
    ]
    return f"<table><tr>{''.join(f'<th>{t}</th>' for t in titles)}</tr>{''.join(rows)}</table>"


def _row(figure: Figure, controls: list[Figure | None]) -> str:
    beats = figure.chance is not None and figure.low is not None and figure.low > figure.chance
    best = figure.best if figure.num_samples > 1 else None
    values = [control.value if control else None for control in controls]
    name = escape(figure.name) + ("" if figure.larger_is_better else ' <span class="soft">lower is better</span>')
    cells = "".join(f"<td>{short_number(v)}</td>" for v in [figure.deviation, best, *values, figure.chance])
    value = f'<td class="{"beats" if beats else ""}">{short_number(figure.value)}</td>'
    return f"<tr><td>{name}</td>{value}<td>{_span(figure)}</td>{cells}</tr>"


def _stimulus(report: Report, index: int) -> str:
    """The framed stimulus, its samples, and their mean score."""
    row, pictures = report.per_stimulus[index], report.pictures
    images = [pictures.stimuli[index], *pictures.decoded[index]]
    label = f"<b>{escape(row['class'])}</b><span class='soft'>stimulus {escape(row['stimulus_id'])}</span>"
    header = f"<header>{label}<span>{row['scores'][report.main]:.3f}</span></header>"
    return f'<div class="stimulus">{header}<div class="pictures">{"".join(map(_thumbnail, images))}</div></div>'


def _thumbnail(image: np.ndarray) -> str:
    picture = Image.fromarray(image)
    lossless = max(picture.size) <= THUMBNAIL // 2
    picture.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    content = BytesIO()
    picture.save(content, **({"format": "png"} if lossless else {"format": "jpeg", "quality": 88}))
    return f'<img alt="" src="{_inline(content.getvalue(), "png" if lossless else "jpeg")}">'


def _bars(report: Report) -> str:
    table = report.per_class
    names = [f"{row['class']} ({row['n']})" for row in table]
    values = [row["scores"][report.main] for row in table]
    figure = per_class_bars(names, values, chance=report.figure(report.main).chance, label=report.main)
    return f'<img class="plot" alt="score by class" src="{_inline(png_bytes(figure), "png")}">'


def _masked(content: bytes | None) -> str:
    if content is None:
        return ""
    image = f'<img class="plot" alt="masked reconstruction" src="{_inline(content, "png")}">'
    return f'<h2>Stage A: masked reconstruction</h2><div class="panel">{image}</div>'


def _checks(report: Report) -> str:
    """Leakage, copying, caveats and what was left out."""
    answers = {True: ("yes", "yes"), False: ("no", "no"), None: ("unknown", "not known")}
    lines = []
    for statement in report.leakage:
        style, answer = answers[statement["touched"]]
        lines.append(f'{escape(statement["what"])}: <span class="{style}">{answer}</span>. {escape(statement["text"])}')
    lines += [escape(_copying(report.copying)), *map(escape, report.caveats), *map(escape, report.skipped)]
    return f"<ul>{''.join(f'<li>{line}</li>' for line in lines)}</ul>"


def _copying(copying: dict | None) -> str:
    if copying is None:
        return "Copying of training pictures: not checked, no training pictures given."
    return (
        "Copying of training pictures: correlation with the nearest one is {decoded_mean:.3f} for decoded pictures and "
        "{true_mean:.3f} for the true ones; {near_copies} of {num_decoded} decoded pictures lie above {threshold}."
    ).format(**copying)


def _inline(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{b64encode(content).decode()}"

"""The figures that the settings ask for, all drawn first, then written; below them each figure and its layout.

Pictures over subjects and over samples, the worst of them, scores, Stage A at work.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import shorten

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mindvis.common.errors import InputError
from mindvis.common.plots import (
    INK,
    PAPER_DPI,
    image_grid,
    interval_bars,
    masked_reconstruction_plot,
    save_png_and_pdf,
    score_label,
)
from mindvis.common.progress import Progress
from mindvis.config.tools import FIGURES, PaperFiguresConfig
from mindvis.evaluation.similarity import between_sample_ssim
from mindvis.figures.subjects import Subject, at_most, find_subjects, shared_stimuli, spread
from mindvis.inspection.hidden_voxels import open_held_out

NEEDED = {
    "masked": "run=FOLDER, a run of pretrain_mbm or finetune_mbm",
    "subjects": "decoded=[FOLDER,...], the output of generate for each subject",
    "consistency": "decoded=[FOLDER], the output of generate",
    "failures": "decoded=[FOLDER], the output of generate and evaluate",
    "accuracy": "decoded=[FOLDER,...], decoded folders with a report.json, or such files",
}
SHOWN = "shown"  # heading over the stimuli
MAX_NAME = 22  # letters of a class beside its pictures
AGREEMENT = "consistency_class/"  # what the report calls agreement by a classifier
CONTROL = "shuffled"  # fMRI rows permuted among the stimuli
# the layout of blocks of pictures, all in inches
MAX_WIDTH, MAX_CELL = 10.0, 0.72  # of the page, of a picture
GAP, MARGIN, HEAD, NOTE = 0.12, 0.08, 0.36, 1.4  # between blocks, around all, of the headings, of the notes
BETWEEN = 0.04  # between pictures, of a picture's side


def make_figures(config: PaperFiguresConfig) -> list[Path]:
    """Draw the chosen figures and write each as PNG and PDF; the consistency and failures of every subject.

    Nothing is written unless all can be drawn. Raises InputError for an unknown figure or a missing input.
    """
    _check_inputs(config)
    subjects = find_subjects(config.decoded, config.labels)
    drawn: dict[str, Figure] = {}
    for name in Progress(config.figures, desc="figures"):
        drawn |= _draw(name, config, subjects)
    return [path for name, figure in drawn.items() for path in save_png_and_pdf(figure, Path(config.output) / name)]


def _check_inputs(config: PaperFiguresConfig) -> None:
    if not config.figures:
        raise InputError(f"setting figures is empty; needed: some of {', '.join(FIGURES)}")
    for name in config.figures:
        if not (config.run if name == "masked" else config.decoded):
            raise InputError(f"figure {name!r} has no input; needed: {NEEDED[name]}, or figures=[...] without it")


def _draw(name: str, config: PaperFiguresConfig, subjects: list[Subject]) -> dict[str, Figure]:
    """A figure by name, or those of every subject."""
    chosen, count, pixels = config.stimuli, config.num_stimuli, config.pixels
    if name == "masked":
        run = str(config.run)
        return {name: masked_figure(run, checkpoint=config.checkpoint, num_rows=config.num_rows, seed=config.seed)}
    if name == "accuracy":
        return {name: accuracy_figure(subjects, config.score)}
    if name == "subjects":
        ids = shared_stimuli(subjects, chosen, count)
        return {name: subjects_figure(subjects, ids, num_samples=config.num_samples, pixels=pixels)}
    if name == "consistency":
        return _each(name, subjects, lambda subject: consistency_figure(subject, chosen, count, pixels=pixels))
    return _each(name, subjects, lambda subject: failures_figure(subject, config.score, count, pixels=pixels))


def _each(name: str, subjects: list[Subject], draw: Callable[[Subject], Figure]) -> dict[str, Figure]:
    """One figure a subject, named after it where there are several."""
    if len(subjects) == 1:
        return {name: draw(subjects[0])}
    labels = [re.sub(r"[^\w.-]", "_", subject.label) for subject in subjects]
    return {f"{name}-{label}": draw(subject) for label, subject in zip(labels, subjects, strict=True)}


def subjects_figure(subjects: Sequence[Subject], ids: Sequence[str], *, num_samples: int, pixels: int) -> Figure:
    """The same stimuli decoded from each subject: a row a stimulus, a block of samples a subject."""
    blocks = [_stimuli(subjects[0], ids, pixels)]
    for subject in subjects:
        decoded = subject.pictures.decoded[[subject.row_of(i) for i in ids], :num_samples]  # [r k h w 3]
        blocks.append(at_most(decoded, pixels))
    return draw_blocks(blocks, [SHOWN, *[subject.label for subject in subjects]])


def consistency_figure(subject: Subject, chosen: Sequence[str] | None, count: int, *, pixels: int) -> Figure:
    """All samples of a stimulus in a row, beside their agreement: the mean SSIM of their pairs.

    Unless chosen, the stimuli run from the most to the least consistent. Where the report has it, the share of pairs
    that the classifier puts into one class stands below. Raises InputError for one sample a stimulus.
    """
    pictures = subject.pictures
    if pictures.decoded.shape[1] < 2:
        raise InputError(f"{subject.folder}: one sample a stimulus; needed: two or more for the figure 'consistency'")
    agreement = dict(zip(pictures.stimulus_ids, between_sample_ssim(pictures.decoded), strict=True))
    ids = chosen if chosen is not None else spread(sorted(agreement, key=agreement.__getitem__, reverse=True), count)
    classes = _class_agreement(subject)
    notes = [f"SSIM {agreement[i]:.2f}" + (f"\nsame class {classes[i]:.0%}" if i in classes else "") for i in ids]
    return _all_samples(subject, ids, pixels, notes=notes, notes_head="agreement")


def failures_figure(subject: Subject, score: str | None, count: int, *, pixels: int) -> Figure:
    """The stimuli decoded worst by `score` (None: the main one), the worst first, with their class and score."""
    score = score or subject.report["main"]
    values = subject.per_stimulus(score)
    sign = 1 if score_of(subject, score)["larger_is_better"] else -1
    worst = sorted(values, key=lambda i: sign * values[i])[:count]
    names = {row["stimulus_id"]: row["class"] for row in subject.report["per_stimulus"]}
    notes = [f"{shorten(names[i], MAX_NAME, placeholder=' ...')}\n{values[i]:.3f}" for i in worst]
    return _all_samples(subject, worst, pixels, notes=notes, notes_head=score_label(score).replace(" (", "\n("))


def accuracy_figure(subjects: Sequence[Subject], score: str | None) -> Figure:
    """A bar a subject with its 95 % interval over stimuli, chance as a line, the shuffled control as a mark.

    `score` None is the main score of the first report. Raises InputError for a report without it, or of another chance.
    """
    score = score or subjects[0].report["main"]
    found = [score_of(subject, score) for subject in subjects]
    spans = [None if item["low"] is None else (item["low"], item["high"]) for item in found]
    values = [item["value"] for item in found]
    figure = interval_bars([subject.label for subject in subjects], values, spans, label=score_label(score))
    axis = figure.axes[0]
    if found[0]["chance"] is not None:
        axis.axhline(found[0]["chance"], color=INK, ls="--", lw=0.8, label=f"chance {found[0]['chance']:.3g}")
    controls = [_find_score(subject, score, CONTROL) for subject in subjects]
    heights = {place: item["value"] for place, item in enumerate(controls) if item is not None}
    if heights:
        axis.plot(*zip(*heights.items(), strict=True), "D", ms=5, mfc="white", mec=INK, label="shuffled fMRI")
    if axis.get_legend_handles_labels()[0]:
        axis.legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.2)
    return figure


def score_of(subject: Subject, name: str) -> dict:
    """The figure of that name of the decoded pictures in a subject's report. Raises InputError where there is none."""
    found = _find_score(subject, name, "decoded")
    if found is None:
        have = ", ".join(item["name"] for item in subject.report["figures"] if item["set"] == "decoded")
        raise InputError(f"{subject.source}: no score {name!r}; needed: one of {have}, the same for every subject")
    return found


def _find_score(subject: Subject, name: str, of: str) -> dict | None:
    return next((item for item in subject.report["figures"] if (item["name"], item["set"]) == (name, of)), None)


@torch.no_grad()
def masked_figure(run: str, *, checkpoint: str = "best", num_rows: int = 3, seed: int = 0) -> Figure:
    """Rows a run of Stage A has not seen: the fMRI, what the encoder saw, the reconstruction with its correlation.

    The correlation is that of the hidden voxels; the mask follows from `seed`. Raises InputError for a run that has
    seen all rows, or that is none of Stage A.
    """
    if num_rows < 1:
        raise InputError(f"setting num_rows is {num_rows}; needed: at least 1")
    trained, network, _, held_out = open_held_out(run, checkpoint)
    rows = np.linspace(0, held_out.num_rows - 1, min(num_rows, held_out.num_rows)).round().astype(int)
    fmri = torch.from_numpy(np.stack([np.asarray(held_out.fmri[int(row)]) for row in rows]).astype(np.float32))  # [n v]
    noise = torch.rand(len(rows), network.num_patches, generator=torch.Generator().manual_seed(seed))  # [n l]
    out = network(fmri[:, None], trained.mask.mask_ratio, noise)
    arrays = (fmri.numpy(), out.mask.numpy(), network.unpatchify(out.reconstruction).numpy())
    figure = masked_reconstruction_plot(*arrays, titles=[f"unseen row {row}" for row in rows])
    for axis in figure.axes[-3:]:
        axis.set_xlabel("voxel", fontsize=9)
    figure.set_dpi(PAPER_DPI)
    return figure


def _all_samples(subject: Subject, ids: Sequence[str], pixels: int, *, notes: list[str], notes_head: str) -> Figure:
    decoded = at_most(subject.pictures.decoded[[subject.row_of(i) for i in ids]], pixels)  # [r k h w 3]
    heads = [SHOWN, f"decoded, {subject.label}"]
    return draw_blocks([_stimuli(subject, ids, pixels), decoded], heads, notes=notes, notes_head=notes_head)


def _stimuli(subject: Subject, ids: Sequence[str], pixels: int) -> np.ndarray:
    return at_most(subject.pictures.stimuli[[subject.row_of(i) for i in ids]], pixels)[:, None]  # [r 1 h w 3]


def _class_agreement(subject: Subject) -> dict[str, float]:
    """Agreement by the classifier of the report, by stimulus; {} without a report."""
    if not subject.has_report:
        return {}
    rows = subject.report["per_stimulus"]
    name = next((name for name in rows[0]["scores"] if name.startswith(AGREEMENT)), None)
    return {} if name is None else subject.per_stimulus(name)


def draw_blocks(
    blocks: Sequence[np.ndarray], heads: Sequence[str], *, notes: Sequence[str] = (), notes_head: str = ""
) -> Figure:
    """A page of blocks, each uint8 [r c h w 3], under its heading; a note of one or two lines after each row."""
    grids = [image_grid(block, gap=round(BETWEEN * block.shape[3])) for block in blocks]
    fixed = 2 * MARGIN + GAP * (len(blocks) - 1) + (NOTE if notes else 0.0)
    scale = min(MAX_CELL / blocks[0].shape[3], (MAX_WIDTH - fixed) / sum(grid.shape[1] for grid in grids))  # of a pixel
    sizes = [(grid.shape[0] * scale, grid.shape[1] * scale) for grid in grids]
    height = HEAD + sizes[0][0] + MARGIN
    width = sum(w for _, w in sizes) + fixed
    figure = Figure(figsize=(width, height), dpi=PAPER_DPI)
    axis = figure.add_axes((0, 0, 1, 1))  # in inches from the upper left corner
    axis.axis("off")
    left = MARGIN
    for grid, head, (grid_height, grid_width) in zip(grids, heads, sizes, strict=True):
        extent = (left, left + grid_width, HEAD + grid_height, HEAD)
        axis.imshow(grid, extent=extent, interpolation="none", aspect="auto")
        _text(axis, left + grid_width / 2, HEAD / 2, head, ha="center")
        left += grid_width + GAP
    for row, note in enumerate(notes):
        _text(axis, left, HEAD + (row + 0.5) * sizes[0][0] / len(notes), note)
    _text(axis, left, HEAD / 2, notes_head)
    axis.set(xlim=(0, width), ylim=(height, 0))  # imshow has moved them
    return figure


def _text(axis: Axes, x: float, y: float, text: str, *, ha: str = "left") -> None:
    va = "center_baseline" if "\n" not in text else "center"
    axis.text(x, y, text, ha=ha, va=va, fontsize=8, color=INK, linespacing=1.3)

"""The figures that the settings ask for: all drawn first, then written."""

from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

from mindvis.common.errors import InputError
from mindvis.common.plots import save_png_and_pdf
from mindvis.common.progress import Progress
from mindvis.config.tools import FIGURES, PaperFiguresConfig
from mindvis.figures.panels import accuracy_figure, consistency_figure, failures_figure, masked_figure, subjects_figure
from mindvis.figures.subjects import Subject, find_subjects, shared_stimuli

NEEDED = {
    "masked": "run=FOLDER, a run of pretrain_mbm or finetune_mbm",
    "subjects": "decoded=[FOLDER,...], the output of generate for each subject",
    "consistency": "decoded=[FOLDER], the output of generate",
    "failures": "decoded=[FOLDER], the output of generate and evaluate",
    "accuracy": "decoded=[FOLDER,...], decoded folders with a report.json, or such files",
}


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
        if name not in FIGURES:
            raise InputError(f"setting figures names {name!r}; needed: some of {', '.join(FIGURES)}")
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
    return {f"{name}-{_file_name(subject.label)}": draw(subject) for subject in subjects}


def _file_name(label: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in label)

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
        drawn |= DRAWN_FROM[name](config, subjects)
    return [path for name, figure in drawn.items() for path in save_png_and_pdf(figure, Path(config.output) / name)]


def _check_inputs(config: PaperFiguresConfig) -> None:
    if not config.figures:
        raise InputError(f"setting figures is empty; needed: some of {', '.join(FIGURES)}")
    for name in config.figures:
        if name not in FIGURES:
            raise InputError(f"setting figures names {name!r}; needed: some of {', '.join(FIGURES)}")
        if not (config.run if name == "masked" else config.decoded):
            raise InputError(f"figure {name!r} has no input; needed: {NEEDED[name]}, or figures=[...] without it")


def _masked(config: PaperFiguresConfig, subjects: list[Subject]) -> dict[str, Figure]:
    options = {"checkpoint": config.checkpoint, "num_rows": config.num_rows, "seed": config.seed}
    return {"masked": masked_figure(config.run, **options)}


def _subjects(config: PaperFiguresConfig, subjects: list[Subject]) -> dict[str, Figure]:
    ids = shared_stimuli(subjects, config.stimuli, config.num_stimuli)
    return {"subjects": subjects_figure(subjects, ids, num_samples=config.num_samples, pixels=config.pixels)}


def _consistency(config: PaperFiguresConfig, subjects: list[Subject]) -> dict[str, Figure]:
    options = {"pixels": config.pixels}
    return _each(
        "consistency", subjects, lambda s: consistency_figure(s, config.stimuli, config.num_stimuli, **options)
    )


def _failures(config: PaperFiguresConfig, subjects: list[Subject]) -> dict[str, Figure]:
    options = {"pixels": config.pixels}
    return _each("failures", subjects, lambda s: failures_figure(s, config.score, config.num_stimuli, **options))


def _accuracy(config: PaperFiguresConfig, subjects: list[Subject]) -> dict[str, Figure]:
    return {"accuracy": accuracy_figure(subjects, config.score)}


def _each(name: str, subjects: list[Subject], draw: Callable[[Subject], Figure]) -> dict[str, Figure]:
    """One figure a subject, named after it where there are several."""
    if len(subjects) == 1:
        return {name: draw(subjects[0])}
    return {f"{name}-{_file_name(subject.label)}": draw(subject) for subject in subjects}


def _file_name(label: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in label)


DRAWN_FROM: dict[str, Callable[[PaperFiguresConfig, list[Subject]], dict[str, Figure]]] = {
    "masked": _masked,
    "subjects": _subjects,
    "consistency": _consistency,
    "failures": _failures,
    "accuracy": _accuracy,
}

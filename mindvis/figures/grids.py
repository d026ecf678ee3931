"""Grids of decoded pictures: over subjects, over samples, and the worst of them."""

from collections.abc import Sequence
from textwrap import shorten

import numpy as np
from matplotlib.figure import Figure

from mindvis.common.errors import InputError
from mindvis.common.plots import score_label
from mindvis.evaluation.similarity import between_sample_ssim
from mindvis.figures.inputs import Subject, at_most, spread
from mindvis.figures.layout import draw_blocks
from mindvis.figures.scores import score_of

SHOWN = "shown"  # heading over the stimuli
MAX_NAME = 22  # letters of a class beside its pictures
AGREEMENT = "consistency_class/"  # what the report calls agreement by a classifier


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
    ids = chosen if chosen is not None else spread(sorted(agreement, key=agreement.get, reverse=True), count)
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

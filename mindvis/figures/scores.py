"""Scores of several reports side by side."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from mindvis.common.errors import InputError
from mindvis.common.plots import INK, interval_bars, score_label
from mindvis.figures.inputs import Subject

CONTROL = "shuffled"  # fMRI rows permuted among the stimuli


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
    controls = [score_of(subject, score, CONTROL) for subject in subjects]
    places = [place for place, item in enumerate(controls) if item is not None]
    if places:
        heights = [controls[place]["value"] for place in places]
        axis.plot(places, heights, ls="", marker="D", ms=5, mfc="white", mec=INK, label="shuffled fMRI")
    if axis.get_legend_handles_labels()[0]:
        axis.legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.2)
    return figure


def score_of(subject: Subject, name: str, of: str = "decoded") -> dict | None:
    """The figure of that name and set in a subject's report; None for a control that is not there.

    Raises InputError where the decoded pictures have no such figure.
    """
    figures = subject.report["figures"]
    found = next((item for item in figures if (item["name"], item["set"]) == (name, of)), None)
    if found is None and of == "decoded":
        have = ", ".join(item["name"] for item in figures if item["set"] == of)
        raise InputError(f"{subject.source}: no score {name!r}; needed: one of {have}, the same for every subject")
    return found

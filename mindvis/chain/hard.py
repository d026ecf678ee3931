"""What the table of decoders at low signal shows of a folder of scored pictures, each figure beside its control."""

import json
from pathlib import Path

import numpy as np

from mindvis.chain.ablation_tables import Figure
from mindvis.common.errors import InputError
from mindvis.evaluation import similarity_matrix
from mindvis.evaluation.pictures import DecodedSet, read_controls, read_decoded
from mindvis.evaluation.statistics import interval

CONTROL = "shuffled"
# (beginning of the figure's name, classes or None for all, label)
FIGURES: tuple[tuple[str, str | None, str], ...] = (
    ("10_way_top_1/", "trained", "10-way top-1, trained classes, %"),
    ("10_way_top_1/", "unseen", "10-way top-1, unseen classes, %"),
    ("pairwise_pcc", None, "pairwise pcc, %"),
    ("pairwise_ssim", None, "pairwise ssim, %"),
)


def hard_figures(folder: Path) -> list[Figure]:
    """Figures of a scored folder, in per cent, each followed by that of the shuffled control.

    Raises `InputError` where the report has no control, or no unseen classes.
    """
    report = json.loads((folder / "report.json").read_text())
    found = []
    for start, classes, label in FIGURES:
        for of in ("decoded", CONTROL):
            listed = report["figures"] if classes is None else report["by_training"]
            wanted = [each for each in listed if each["set"] == of and each["name"].startswith(start)]
            wanted = [each for each in wanted if classes in (None, each.get("classes"))]
            if not wanted:
                needed = "needed: an evaluation with it, of trained and unseen classes, and the control shuffled"
                raise InputError(f"{folder}/report.json: no {label} of {of}; {needed}")
            found.append(_figure(label, of, *(wanted[0][key] for key in ("value", "low", "high"))))
    return found + _within_class(folder)


def _within_class(folder: Path) -> list[Figure]:
    """Share of other test pictures of the same class that correlate less with a decoded picture than its own does."""
    sets = {"decoded": read_decoded(folder), CONTROL: read_controls(folder)[CONTROL]}
    figures = []
    for of, decoded in sets.items():
        shares = within_class(decoded)
        figures.append(_figure("within class, %", of, float(shares.mean()), *interval(shares, seed=0)))
    return figures


def within_class(decoded: DecodedSet) -> np.ndarray:
    """Of each stimulus that is not the only one of its class, identification among its class by pixels: [n]."""
    num_stimuli, class_ids = len(decoded.stimuli), np.asarray(decoded.class_ids)
    closeness = similarity_matrix(decoded.flat, decoded.stimuli, "pcc").reshape(-1, num_stimuli, num_stimuli)
    own = np.diagonal(closeness, axis1=1, axis2=2)[:, :, None]  # [k n 1]
    beaten = ((closeness < own) + 0.5 * (closeness == own)).mean(axis=0)  # [n n]
    others = (class_ids[:, None] == class_ids) & ~np.eye(num_stimuli, dtype=bool)
    chosen = others.any(axis=1)
    return (beaten * others).sum(axis=1)[chosen] / others.sum(axis=1)[chosen]


def _figure(label: str, of: str, *numbers: float | None) -> Figure:
    name = label if of == "decoded" else f"{label.removesuffix(', %')}, {of}, %"
    return Figure(name, *(None if number is None else 100 * number for number in numbers))  # type: ignore[arg-type]

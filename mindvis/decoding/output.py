"""The output folder of `generate`: decoded pictures as arrays, PNGs and a grid, made by one process or several.

decoded.npz     decoded uint8 [n k h w 3], stimuli uint8 [n h w 3], stimulus_ids [n], class_ids [n] or empty,
                fmri_rows [n]: the row of the data set that was decoded, another one for a shuffled control, -1: none,
                subjects [n]: whose row of the data set each is, where it says
generate.json   settings, where the pictures come from, and how they were made: command, date, revision of the sources
grid.png        the stimulus first, then its samples
training.png    the same of some training stimuli, if `num_training` is above 0
pictures/       <stimulus>/stimulus.png and <stimulus>/<sample>.png

Rows of fMRI without pictures have no `stimuli`, no stimulus.png and no first column in the grid.
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mindvis.common.draws import derangement
from mindvis.common.errors import InputError
from mindvis.common.files import staged_folder, write_json, write_npz
from mindvis.common.plots import image_grid, reconstruction_grid, save_png
from mindvis.config.invocation import made_now
from mindvis.data import FMRIDataset, PairedDataset
from mindvis.evaluation.pictures import ARRAYS, OUTPUT_FOLDERS, PICTURES, SETTINGS, read_generated

CONTROLS = ("none", "shuffled", "mean_fmri")
GRID, TRAINING_GRID = "grid.png", "training.png"
# what new pictures replace: earlier ones, and the reports of these
REPORTS = ("report.json", "report.csv", "report.html", "grid_sorted.png", "audit.json", "audit.html", "summary.txt")
REPLACED = (ARRAYS, SETTINGS, GRID, TRAINING_GRID, PICTURES, *REPORTS)
KEPT = (*OUTPUT_FOLDERS, "tensorboard")
GRID_ROWS = 25  # stimuli in grid.png


def choose_rows(dataset: FMRIDataset, stimuli: Sequence[int] | None) -> list[int]:
    """Rows of the data set to decode, all unless given. Raises `InputError` for an unknown or repeated one."""
    if stimuli is None:
        return list(range(dataset.num_rows))
    for row in stimuli:
        if not 0 <= row < dataset.num_rows:
            raise InputError(f"setting stimuli names row {row}; needed: 0 to {dataset.num_rows - 1}")
    if len(set(stimuli)) < len(stimuli) or not stimuli:
        raise InputError(f"setting stimuli is {list(stimuli)}; needed: one or more rows, each once")
    return list(stimuli)


@dataclass(frozen=True)
class ControlledFMRI:
    """fMRI [n v] to decode, the row of the data set each comes from [n] (-1: of none), and what generate.json says."""

    fmri: np.ndarray
    rows: np.ndarray
    facts: dict = field(default_factory=dict)


def control_fmri(dataset: PairedDataset, train: PairedDataset, control: str, seed: int) -> ControlledFMRI:
    """The data set's own fMRI, or a control without information about the stimulus.

    `shuffled` deals the rows to other stimuli, by a draw from `seed` (see `shuffled_rows`); `mean_fmri` is the mean
    training row.
    """
    own = np.arange(dataset.num_rows)
    if control == "none":
        return ControlledFMRI(np.asarray(dataset.fmri), own)
    if control == "shuffled":
        rows = shuffled_rows(dataset, seed)
        kept_class = None
        if dataset.class_ids is not None:
            class_ids = np.asarray(dataset.class_ids)
            kept_class = int((class_ids[rows] == class_ids).sum())
        facts = {"shuffle": {"rows": len(rows), "kept_stimulus": 0, "kept_class": kept_class}}
        return ControlledFMRI(np.asarray(dataset.fmri)[rows], rows, facts)
    if control == "mean_fmri":
        return ControlledFMRI(np.tile(train.mean_row(), (len(own), 1)), np.full_like(own, -1))
    raise InputError(f"setting control is {control!r}; needed: one of {', '.join(CONTROLS)}")


def shuffled_rows(dataset: PairedDataset, seed: int) -> np.ndarray:
    """Which row's fMRI each row is given, so that none keeps its stimulus, nor, where possible, its class: [n].

    Raises `InputError` where more than half of the rows show one stimulus.
    """
    for groups in (dataset.class_ids, dataset.stimulus):
        rows = None if groups is None else derangement(groups, np.random.default_rng(seed))
        if rows is not None:
            return rows
    most = int(np.bincount(dataset.stimulus).max())
    found = f"{most} of {dataset.num_rows} rows show the same stimulus"
    raise InputError(f"setting control is 'shuffled', but {found}; needed: no more than half of them")


def check_output(folder: Path, overwrite: bool, control: str = "none") -> None:
    """Refuse a folder in which pictures cannot be put without loss, before they are decoded.

    Taken are a new or empty folder, one with reports or controls alone, and, where they may be overwritten, earlier
    pictures of the same control. Raises `InputError`.
    """
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise InputError(f"{folder}: {place} is no folder that may be written; needed: another output")
    if not (folder / ARRAYS).exists():
        names = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
        foreign = [name for name in names if not name.startswith(".") and name not in {*REPLACED, *KEPT}]
        if foreign:
            found = f"{folder}: holds {foreign[0]}, which is none of decoded pictures"
            raise InputError(f"{found}; needed: a new or empty folder as output")
        return
    if not overwrite:
        raise InputError(f"{folder}: pictures are there already; needed: another output, or overwrite=true")
    held = read_generated(folder).get("settings", {}).get("control", control)
    if held != control:
        raise InputError(f"{folder}: holds pictures of control={held}, these are of {control}; needed: another output")


def write_decoded(
    output: Path,
    decoded: np.ndarray,
    dataset: FMRIDataset,
    rows: Sequence[int],
    provenance: dict,
    *,
    fmri_rows: np.ndarray | None = None,
    training: np.ndarray | None = None,
) -> Path:
    """Write pictures `decoded` uint8 [n k h w 3] of the data set's `rows` [n], the whole folder, then put it in place.

    Of an older one, controls and whatever else lies in it are kept. Raises `InputError` where a file does not fit.

    `fmri_rows`: the row of the data set whose fMRI each picture was decoded from, where that is not its own.
    `training`: the grid of some training stimuli, uint8 [h w 3].
    """
    ids = np.asarray(rows, np.int64)
    fmri_rows = ids if fmri_rows is None else np.asarray(fmri_rows, np.int64)
    arrays: dict[str, Any] = {"decoded": decoded, "stimulus_ids": ids, "fmri_rows": fmri_rows}
    if dataset.subject is not None:
        arrays["subjects"] = dataset.subject[ids]
    shown = isinstance(dataset, PairedDataset)
    if isinstance(dataset, PairedDataset):
        class_ids = [] if dataset.class_ids is None else [dataset.class_ids[row] for row in rows]
        arrays["stimuli"] = dataset.stimuli[dataset.stimulus[rows]]
        arrays["class_ids"] = np.asarray(class_ids, np.int64)
    with staged_folder(output.with_name(f".{output.name}.partial")) as staging:
        write_npz(staging / ARRAYS, arrays)
        write_json(staging / SETTINGS, provenance | {"made": made_now()})
        for place, row in enumerate(rows):
            folder = staging / PICTURES / f"{row:04d}"
            folder.mkdir(parents=True)
            if shown:
                save_png(arrays["stimuli"][place], folder / "stimulus.png")
            for k, sample in enumerate(decoded[place]):
                save_png(sample, folder / f"{k}.png")
        few = decoded[:GRID_ROWS]
        save_png(reconstruction_grid(arrays["stimuli"][:GRID_ROWS], few) if shown else image_grid(few), staging / GRID)
        if training is not None:
            save_png(training, staging / TRAINING_GRID)
        return _put(staging, output)


def _put(staging: Path, output: Path) -> Path:
    """Move a whole folder to its place: earlier pictures and what was said of them go, anything else in it stays."""
    if not output.exists():
        return staging.replace(output)
    for path in [output / name for name in REPLACED]:  # the arrays first: without them it counts as unfinished
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    for path in sorted(staging.iterdir(), key=lambda path: path.name == ARRAYS):
        path.replace(output / path.name)
    staging.rmdir()
    return output

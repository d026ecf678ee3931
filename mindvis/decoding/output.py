"""The output folder of `generate`: decoded pictures as arrays, PNGs and a grid, made by one process or several.

decoded.npz     decoded uint8 [n k h w 3], stimuli uint8 [n h w 3], stimulus_ids [n], class_ids [n] or empty
generate.json   settings and where the pictures come from       grid.png   the stimulus first, then its samples
pictures/       <stimulus>/stimulus.png and <stimulus>/<sample>.png
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mindvis.common.errors import InputError
from mindvis.common.files import write_json
from mindvis.common.plots import reconstruction_grid, save_png
from mindvis.data import PairedDataset
from mindvis.evaluation.pictures import ARRAYS, SETTINGS, read_settings

CONTROLS = ("none", "shuffled", "mean_fmri")
GRID_ROWS = 25  # stimuli in grid.png


def choose_rows(dataset: PairedDataset, stimuli: Sequence[int] | None) -> list[int]:
    """Rows of the data set to decode, all unless given. Raises `InputError` for an unknown or repeated one."""
    if stimuli is None:
        return list(range(dataset.num_rows))
    for row in stimuli:
        if not 0 <= row < dataset.num_rows:
            raise InputError(f"setting stimuli names row {row}; needed: 0 to {dataset.num_rows - 1}")
    if len(set(stimuli)) < len(stimuli) or not stimuli:
        raise InputError(f"setting stimuli is {list(stimuli)}; needed: one or more rows, each once")
    return list(stimuli)


def control_fmri(dataset: PairedDataset, train: PairedDataset, control: str, seed: int) -> np.ndarray:
    """fMRI [n v] to decode: the data set's own, or a control that knows nothing of the stimulus.

    `shuffled` permutes the rows among the stimuli, by a draw from `seed`; `mean_fmri` is the mean training row.
    """
    if control == "none":
        return np.asarray(dataset.fmri)
    if control == "shuffled":
        return np.asarray(dataset.fmri)[np.random.default_rng(seed).permutation(dataset.num_rows)]
    if control == "mean_fmri":
        return np.tile(mean_fmri(train), (dataset.num_rows, 1))
    raise InputError(f"setting control is {control!r}; needed: one of {', '.join(CONTROLS)}")


def mean_fmri(train: PairedDataset) -> np.ndarray:
    """Mean training row [v]."""
    return np.asarray(train.fmri).mean(axis=0)


def check_output(folder: Path, overwrite: bool, control: str = "none") -> None:
    """Refuse a folder that already holds pictures, unless these may be overwritten and are of the same control.

    Raises `InputError`.
    """
    if not (folder / ARRAYS).exists():
        return
    if not overwrite:
        raise InputError(f"{folder}: pictures are there already; needed: another output, or overwrite=true")
    held = read_settings(folder / SETTINGS).get("settings", {}).get("control", control)
    if held != control:
        raise InputError(f"{folder}: holds pictures of control={held}, these are of {control}; needed: another output")


def write_decoded(
    output: Path, decoded: np.ndarray, dataset: PairedDataset, rows: Sequence[int], provenance: dict
) -> Path:
    """Write the whole folder beside its place, then put it there; controls inside an older one are kept."""
    staging = output.with_name(f".{output.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    stimuli = dataset.stimuli[dataset.stimulus[rows]]
    class_ids = np.asarray([] if dataset.class_ids is None else [dataset.class_ids[row] for row in rows], np.int64)
    ids = np.asarray(rows, np.int64)
    arrays = {"decoded": decoded, "stimuli": stimuli, "stimulus_ids": ids, "fmri_rows": ids, "class_ids": class_ids}
    np.savez(staging / ARRAYS, **arrays)
    write_json(staging / SETTINGS, provenance)
    for row, stimulus, samples in zip(rows, stimuli, decoded, strict=True):
        folder = staging / "pictures" / f"{row:04d}"
        folder.mkdir(parents=True)
        save_png(stimulus, folder / "stimulus.png")
        for k, sample in enumerate(samples):
            save_png(sample, folder / f"{k}.png")
    save_png(reconstruction_grid(stimuli[:GRID_ROWS], decoded[:GRID_ROWS]), staging / "grid.png")
    return _put(staging, output)


def _put(staging: Path, output: Path) -> Path:
    for control in CONTROLS[1:]:
        if (output / control).is_dir():
            (output / control).replace(staging / control)
    shutil.rmtree(output, ignore_errors=True)
    return staging.replace(output)

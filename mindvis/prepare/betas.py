"""A folder of beta images, one a trial, with a table of what was shown -> one .npz of your own data.

NIfTI volumes with a mask or a label image on their grid, or CIFTI files with a parcellation. One image is in memory at
a time; rows and pictures are gathered in files beside the result.
"""

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mindvis.common.errors import InputError
from mindvis.common.progress import Progress
from mindvis.common.texts import read_table
from mindvis.config.tools import BadVoxels
from mindvis.data.images import check_side, read_square
from mindvis.data.own import SPLITS, save_npz
from mindvis.data.reading import PassedOver
from mindvis.prepare.bad_voxels import bad_voxels, check_bad
from mindvis.prepare.parcellation import Regions

# column of the table -> other names for it; `stim_file` is that of BIDS
COLUMNS = {
    "beta_file": ("beta", "file", "filename"),
    "stim_file": ("stimulus", "image"),
    "split": (),
    "volume": (),
    "subject": ("participant_id",),
    "class_id": (),
    "class_name": (),
}
NEEDED = ("beta_file", "stim_file", "split")


@dataclass(frozen=True)
class Trial:
    """One row of the table; `volume` counts from 0 within a 4-D image, None for an image of one volume."""

    beta: Path
    stimulus: Path
    split: str
    volume: int | None
    subject: str
    class_id: str
    class_name: str


def read_trials(table: Path, betas: Path, stimuli: Path) -> list[Trial]:
    """The trials of a table with a header, separated by tabs or commas. Raises InputError that names the line."""
    rows = read_table(table)
    if len(rows) < 2:
        raise InputError(f"{table}: {len(rows)} lines, needs a header and a line for each trial")
    places = _places(table, rows[0])
    trials = []
    for line, row in enumerate(rows[1:], start=2):
        if len(row) != len(rows[0]):
            raise InputError(f"{table}: line {line} has {len(row)} columns, the header has {len(rows[0])}")
        found = {name: row[place] for name, place in places.items()}
        trials.append(_trial(found, f"{table}: line {line}", betas, stimuli))
    missing = [path for trial in trials for path in (trial.beta, trial.stimulus) if not path.is_file()]
    if missing:
        raise InputError(f"{table}: names {len(set(missing))} files that are not there, {missing[0]} first")
    twice = {(trial.beta, trial.volume) for trial in trials}
    if len(twice) < len(trials):
        raise InputError(f"{table}: {len(trials)} trials of {len(twice)} different images, needs each image once")
    return trials


def _places(table: Path, header: Sequence[str]) -> dict[str, int]:
    names = [name.lower() for name in header]
    places = {}
    for column, others in COLUMNS.items():
        found = next((name for name in (column, *others) if name in names), None)
        if found is not None:
            places[column] = names.index(found)
        elif column in NEEDED:
            raise InputError(f"{table}: no column {column!r}, has {', '.join(header)}")
    return places


def _trial(found: dict[str, str], where: str, betas: Path, stimuli: Path) -> Trial:
    empty = [name for name, value in found.items() if value in ("", "n/a")]
    if empty:
        raise InputError(f"{where}: no {empty[0]}, needs one")
    if found["split"].lower() not in SPLITS:
        raise InputError(f"{where}: split is {found['split']!r}, needs one of {', '.join(SPLITS)}")
    for name in ("volume", "class_id"):
        if name in found and not found[name].isdecimal():
            raise InputError(f"{where}: {name} is {found[name]!r}, needs a whole number from 0 on")
    return Trial(
        beta=betas / found["beta_file"],
        stimulus=stimuli / found["stim_file"],
        split=found["split"].lower(),
        volume=int(found["volume"]) if "volume" in found else None,
        subject=found.get("subject", ""),
        class_id=found.get("class_id", ""),
        class_name=found.get("class_name", ""),
    )


def unnamed_images(trials: Sequence[Trial]) -> PassedOver:
    """The images beside those of the table that it does not name."""
    passed, named = PassedOver(), {trial.beta for trial in trials}
    for folder in sorted({path.parent for path in named}):
        for path in sorted(set(folder.glob("*.nii*")) - named):
            passed.add(path, "images that the table does not name")
    return passed


def prepare_betas(
    trials: Sequence[Trial], source: Regions, out: Path, *, size: int = 256, policy: BadVoxels = "zero"
) -> str:
    """Write the .npz of `mindvis.data.own`; returns a line on what it holds. Raises InputError."""
    check_side(size)
    out.parent.mkdir(parents=True, exist_ok=True)
    stimuli = list(dict.fromkeys(trial.stimulus for trial in trials))
    place = {path: i for i, path in enumerate(stimuli)}
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
        first = source.read_one(trials[0].beta, trials[0].volume)
        shown = Progress(trials, desc="betas", unit="image")
        betas = (source.read_one(trial.beta, trial.volume) for trial in shown)
        rows = _gathered(betas, Path(folder) / "rows.npy", np.float32, (len(trials), len(first)))
        masks, bad = source.masks, bad_voxels(rows)
        check_bad(bad, policy, f"{trials[0].beta.parent}: betas")
        if policy == "drop":
            kept = (row[~bad] for row in rows)
            rows = _gathered(kept, Path(folder) / "kept.npy", np.float32, (len(trials), int((~bad).sum())))
            masks = {name: within for name, mask in masks.items() if (within := mask[~bad]).any()}
        else:
            rows[:, bad] = 0
        pictures = (read_square(path, size) for path in Progress(stimuli, desc="pictures", unit="picture"))
        save_npz(
            out,
            rows,
            _gathered(pictures, Path(folder) / "images.npy", np.uint8, (len(stimuli), size, size, 3)),
            [trial.split for trial in trials],
            roi_masks=masks,
            stimulus=np.array([place[trial.stimulus] for trial in trials]),
            **_optional(trials),
        )
    left_out = "left out" if policy == "drop" else "zeros"
    sizes = " ".join(f"{name} {int(mask.sum())}" for name, mask in masks.items())
    counts = " ".join(f"{split} {sum(trial.split == split for trial in trials)}" for split in SPLITS)
    return f"{counts} trials of {len(stimuli)} pictures, {sizes}, {int(bad.sum())} bad voxels ({left_out})"


def _optional(trials: Sequence[Trial]) -> dict[str, np.ndarray]:
    arrays = {}
    if trials[0].subject:
        arrays["subject"] = np.array([trial.subject for trial in trials])
    if trials[0].class_id:
        arrays["class_ids"] = np.array([int(trial.class_id) for trial in trials])
    if trials[0].class_name:
        arrays["class_names"] = np.array([trial.class_name for trial in trials])
    return arrays


def _gathered(arrays: Iterable[np.ndarray], path: Path, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    """The arrays as one that stays in the file `path`, one in memory at a time."""
    gathered = np.lib.format.open_memmap(path, "w+", dtype, shape)
    for i, array in enumerate(arrays):
        gathered[i] = array
    return gathered

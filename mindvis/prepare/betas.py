"""A folder of beta images, one a trial, with a table of what was shown -> one .npz of your own data.

NIfTI volumes with a mask or a label image on their grid, or CIFTI files with a parcellation. One image is in memory at
a time; rows and pictures are gathered in files beside the result.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from nibabel.cifti2 import BrainModelAxis, Cifti2Image, ScalarAxis, SeriesAxis

from mindvis.common.errors import InputError, unreadable
from mindvis.common.progress import Progress
from mindvis.config.tools import BadVoxels
from mindvis.data.images import check_side, read_square
from mindvis.data.own import SPLITS, save_npz
from mindvis.data.reading import PassedOver, read_table
from mindvis.prepare.bad_voxels import bad_voxels, check_bad
from mindvis.prepare.nifti import NIFTI_ERRORS, load_label_image, open_cifti, open_nifti, read_labels, require_grid
from mindvis.prepare.parcellation import load_parcellation

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


class Source(Protocol):
    """What reads the chosen voxels of one image: float [v]; and region -> bool [v]."""

    def read(self, path: Path, volume: int | None) -> np.ndarray: ...

    @property
    def masks(self) -> dict[str, np.ndarray]: ...


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


@dataclass(frozen=True)
class VolumeBetas:
    """NIfTI volumes: voxels inside a mask, or the regions of a label image with its file of names."""

    labels: Path
    names: Path | None = None
    rois: Sequence[str] = ()

    @cached_property
    def _regions(self) -> dict[str, np.ndarray]:
        """Region -> bool [x y z]."""
        if self.names is None:
            return {"mask": read_labels(self.labels) != 0}
        atlas = load_label_image(self.labels, self.names)
        flat = {roi: atlas.voxels(roi) for roi in self.rois or atlas.regions}
        return {
            roi: np.isin(np.arange(atlas.labels.size), found).reshape(atlas.labels.shape) for roi, found in flat.items()
        }

    @cached_property
    def _inside(self) -> np.ndarray:
        inside = np.any(list(self._regions.values()), axis=0)
        if not inside.any():
            raise InputError(f"{self.labels}: selects none of {inside.size} voxels")
        return inside

    @cached_property
    def _affine(self) -> np.ndarray:
        return open_nifti(self.labels, 3).affine

    @property
    def masks(self) -> dict[str, np.ndarray]:
        return {name: mask[self._inside] for name, mask in self._regions.items()}

    def read(self, path: Path, volume: int | None) -> np.ndarray:
        image = open_nifti(path, 3 if volume is None else 4)
        require_grid(path, image, self.labels, self._inside.shape, self._affine)
        if volume is not None and volume >= image.shape[3]:
            raise InputError(f"{path}: has {image.shape[3]} volumes, the table names volume {volume} (from 0)")
        values = _values(path, lambda: image.dataobj if volume is None else image.dataobj[..., volume])
        return values.reshape(self._inside.shape)[self._inside]


@dataclass
class CiftiBetas:
    """CIFTI files (.dscalar.nii or .dtseries.nii): regions of a .dlabel.nii file, or None for Glasser's."""

    rois: Sequence[str]
    parcellation: Path | None = None
    _axis: BrainModelAxis | None = None

    def read(self, path: Path, volume: int | None) -> np.ndarray:
        image = self._open(path)
        if volume is None and image.shape[0] != 1:
            raise InputError(f"{path}: has {image.shape[0]} maps; needs one, or a column `volume` in the table")
        if volume is not None and volume >= image.shape[0]:
            raise InputError(f"{path}: has {image.shape[0]} maps, the table names volume {volume} (from 0)")
        return _values(path, lambda: image.dataobj[volume or 0]).ravel()[self._columns]

    @property
    def masks(self) -> dict[str, np.ndarray]:
        return {roi: np.isin(self._columns, found) for roi, found in self._indices.items()}

    def _open(self, path: Path) -> Cifti2Image:
        first = SeriesAxis if path.name.endswith(".dtseries.nii") else ScalarAxis
        image = open_cifti(path, (first, BrainModelAxis), "beta images (.dscalar.nii or .dtseries.nii)")
        axis = image.header.get_axis(1)
        self._axis = self._axis or axis
        if axis != self._axis:
            raise InputError(f"{path}: its grayordinates are not those of the first image; needs the same for all")
        return image

    @cached_property
    def _indices(self) -> dict[str, np.ndarray]:
        assert self._axis is not None, "an image was read"
        parcellation = load_parcellation(self.parcellation)
        return {roi: parcellation.indices(self._axis, roi) for roi in self.rois}

    @cached_property
    def _columns(self) -> np.ndarray:
        """Grayordinates of the regions, side by side in the order of the regions, each once."""
        both = np.concatenate(list(self._indices.values()))
        return both[np.sort(np.unique(both, return_index=True)[1])]


def _values(path: Path, read: Callable[[], object]) -> np.ndarray:
    with unreadable(f"{path}: unreadable image", NIFTI_ERRORS):
        return np.asarray(read(), np.float32)


def prepare_betas(
    trials: Sequence[Trial], source: Source, out: Path, *, size: int = 256, policy: BadVoxels = "zero"
) -> str:
    """Write the .npz of `mindvis.data.own`; returns a line on what it holds. Raises InputError."""
    check_side(size)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
        rows = _gather_rows(trials, source, Path(folder) / "rows.npy")
        masks, bad = source.masks, bad_voxels(rows)
        check_bad(bad, policy, f"{trials[0].beta.parent}: betas")
        if policy == "drop":
            rows = _copy(rows, Path(folder) / "kept.npy", (len(rows), int((~bad).sum())), lambda row: row[~bad])
            masks = {name: kept for name, mask in masks.items() if (kept := mask[~bad]).any()}
        else:
            rows[:, bad] = 0
        stimuli = list(dict.fromkeys(trial.stimulus for trial in trials))
        images = _gather_pictures(stimuli, size, Path(folder) / "images.npy")
        place = {path: i for i, path in enumerate(stimuli)}
        save_npz(
            out,
            rows,
            images,
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


def _gather_rows(trials: Sequence[Trial], source: Source, path: Path) -> np.ndarray:
    first = source.read(trials[0].beta, trials[0].volume)
    rows = np.lib.format.open_memmap(path, "w+", np.float32, (len(trials), len(first)))
    for i, trial in enumerate(Progress(trials, desc="betas", unit="image")):
        rows[i] = source.read(trial.beta, trial.volume)
    return rows


def _gather_pictures(paths: Sequence[Path], size: int, path: Path) -> np.ndarray:
    images = np.lib.format.open_memmap(path, "w+", np.uint8, (len(paths), size, size, 3))
    for i, picture in enumerate(Progress(paths, desc="pictures", unit="picture")):
        images[i] = read_square(picture, size)
    return images


def _copy(rows: np.ndarray, path: Path, shape: tuple, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    copied = np.lib.format.open_memmap(path, "w+", np.float32, shape)
    for i, row in enumerate(rows):
        copied[i] = change(row)
    return copied

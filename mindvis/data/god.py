"""GOD (Horikawa & Kamitani 2017) as published with SelfSuperReconst: `sbj_N.npz`, images, labels -> paired data."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mindvis.common.errors import InputError
from mindvis.data.arrays import (
    NpzReader,
    check_images,
    check_indices,
    check_mask,
    require_choice,
    require_folder,
    require_rows,
)
from mindvis.data.datasets import PairedDataset
from mindvis.data.subjects import SubjectRows, chosen_subjects, join_subjects, padded_mask
from mindvis.data.voxels import moments, normalise, pad_to_patches

Classes = list[tuple[int, str]]  # (class id, class name) of every image


def load_god(
    root: str | Path,
    subjects: Sequence[str] | str = (),
    roi: str = "VC",
    patch_size: int = 16,
    include_single_trials: bool = False,
    *,
    scale_test: str = "none",
    pad_mode: str = "wrap",
) -> tuple[PairedDataset, PairedDataset]:
    """Training and test pairs of GOD subjects ("sbj_3"; all that are there, unless given) from `Kamitani/npz`.

    fmri float32 [n v], wrap-padded to patches and, among subjects, to the longest. Training rows are scaled by the
    subject's one mean and deviation; test rows are left as they are, because the released ones are scaled already
    (`scale_test="train"` scales them by the moments of the training rows: for newly prepared files). Test rows are the
    averages, then (`include_single_trials`) the trials image by image. Raises InputError.
    """
    folder = require_folder(root, "the GOD files (sbj_1.npz, images_256.npz, ...)")
    require_choice(scale_test, ("none", "train"), "scale_test")
    names = chosen_subjects(subjects, _available(folder), folder)
    (train_images, train_classes), (test_images, test_classes) = _read_stimuli(folder)
    train, test = [], []
    for name in names:
        reader = _SubjectFile(folder, name, roi, patch_size, pad_mode)
        train.append(reader.training_rows(len(train_images)))
        test.append(reader.test_rows(len(test_images), include_single_trials, scale_test))
    return (
        join_subjects(train, train_images, pad_mode, train_classes),
        join_subjects(test, test_images, pad_mode, test_classes),
    )


class _SubjectFile:
    """One `sbj_N.npz`: its rows reduced to a region and padded to patches."""

    def __init__(self, folder: Path, subject: str, roi: str, patch_size: int, pad_mode: str):
        self.subject, self.patch_size, self.pad_mode = subject, patch_size, pad_mode
        self.npz = NpzReader(folder / f"{subject}.npz")
        training = self.npz.real("arr_0")  # [n raw]
        self.num_raw_voxels = training.shape[1]
        regions = [name for name in self.npz.names if not name.startswith("arr_")]
        self.roi_mask = self._mask(require_choice(roi, regions, f"{self.npz.path}: ROI"))
        self.regions = [name for name in regions if self.npz.header(name) == (self.roi_mask.shape, self.roi_mask.dtype)]
        self.training = self._fitted(training)
        self.scale = moments(self.training, self.npz.label("arr_0"))

    def training_rows(self, num_images: int) -> SubjectRows:
        """The single trials of arr_0, in their order, with the image index of arr_3 (from 0)."""
        fmri = normalise(self.training, *self.scale)
        stimulus = check_indices(self.npz.raw("arr_3"), self.npz.label("arr_3"), num_images)
        require_rows(stimulus, len(fmri), self.npz.label("arr_3"), "arr_0")
        return self._part(fmri, stimulus, np.zeros(len(fmri), np.int64))

    def test_rows(self, num_images: int, include_single_trials: bool, scale_test: str) -> SubjectRows:
        """The averages of arr_2 in image order, then the trials of arr_1, which lie grouped by image."""
        fmri, stimulus = self._rows("arr_2"), np.arange(num_images)
        require_rows(fmri, num_images, self.npz.label("arr_2"), "test_images of images_256.npz")
        repeat = np.zeros(num_images, np.int64)
        if include_single_trials:
            trials = self._rows("arr_1")
            num_repeats, rest = divmod(len(trials), num_images)
            if rest:
                raise InputError(f"{self.npz.label('arr_1')} has {len(trials)} rows, needs a multiple of {num_images}")
            fmri = np.concatenate([fmri, trials])
            stimulus = np.concatenate([stimulus, np.repeat(stimulus, num_repeats)])
            repeat = np.concatenate([repeat, np.tile(np.arange(1, num_repeats + 1), num_images)])
        return self._part(normalise(fmri, *self.scale) if scale_test == "train" else fmri, stimulus, repeat)

    def _rows(self, name: str) -> np.ndarray:
        rows = self.npz.real(name)  # [n raw]
        if rows.shape[1] != self.num_raw_voxels:
            raise InputError(f"{self.npz.label(name)} has {rows.shape[1]} voxels, arr_0 has {self.num_raw_voxels}")
        return self._fitted(rows)

    def _fitted(self, rows: np.ndarray) -> np.ndarray:
        return pad_to_patches(rows[:, self.roi_mask], self.patch_size, self.pad_mode)  # [n raw] -> [n v]

    def _mask(self, region: str) -> np.ndarray:
        return check_mask(self.npz.raw(region), self.npz.label(region), self.num_raw_voxels)

    def _part(self, fmri: np.ndarray, stimulus: np.ndarray, repeat: np.ndarray) -> SubjectRows:
        within = {name: self.npz.raw(name)[self.roi_mask] for name in self.regions}
        masks = {name: padded_mask(mask, fmri.shape[1]) for name, mask in within.items() if mask.any()}
        return SubjectRows(self.subject, fmri, stimulus, repeat, masks)


def _available(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("sbj_*.npz"))


def _read_stimuli(folder: Path) -> list[tuple[np.ndarray, Classes]]:
    """Images uint8 [m h w 3] with their classes: of the training set, of the test set."""
    index = _read_class_index(folder / "imagenet_class_index.json")
    npz = NpzReader(folder / "images_256.npz")
    stimuli = []
    for split, labels in (("train", "imagenet_training_label.csv"), ("test", "imagenet_testing_label.csv")):
        images = check_images(npz.raw(f"{split}_images"), npz.label(f"{split}_images"))
        classes = _read_labels(folder / labels, index)
        require_rows(classes, len(images), f"{folder / labels}", f"{split}_images of images_256.npz")
        stimuli.append((images, classes))
    return stimuli


def _read_class_index(path: Path) -> dict[str, tuple[int, str]]:
    """WordNet id -> (class id, class name); an entry is [wnid, ..., name]."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return {wnid: (int(i), entry[-1]) for i, entry in entries.items() for wnid in entry[:-1]}
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (OSError, ValueError, AttributeError, TypeError, IndexError) as error:
        raise InputError(f"{path}: no class index, needs JSON of index -> [wnid, ..., name]") from error


def _read_labels(path: Path, index: dict[str, tuple[int, str]]) -> Classes:
    """(class id, class name) of every image, from a first column `<wnid number>.<image>`."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            numbers = [row[0].strip().partition(".")[0] for row in csv.reader(file) if row]
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path}: no readable CSV file") from error
    for line, number in enumerate(numbers, start=1):
        if not number.isdecimal():
            raise InputError(f"{path}: row {line} begins with {number!r}, needs <wnid number>.<image>")
        if f"n{int(number):08d}" not in index:
            raise InputError(f"{path}: row {line} names n{int(number):08d}, which the class index does not list")
    return [index[f"n{int(number):08d}"] for number in numbers]

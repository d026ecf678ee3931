"""GOD (Horikawa & Kamitani 2017) as published with SelfSuperReconst: `sbj_N.npz`, images, labels -> paired data."""

import logging
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from mindvis.common.errors import InputError
from mindvis.common.texts import read_json, read_table
from mindvis.data.arrays import Array, NpzReader, require_choice, require_rows
from mindvis.data.datasets import PairedDataset
from mindvis.data.reading import PassedOver, list_folder, require_folder, without_twins
from mindvis.data.regions import masks_within, region_columns
from mindvis.data.row_format import FAR, subject_format
from mindvis.data.subjects import SubjectRows, averages_then_trials, chosen_files, chosen_share, join_subjects
from mindvis.data.voxels import moments, normalise, pad_to_patches

log = logging.getLogger(__name__)

IMAGE_FILE, INDEX_FILE = "images_256.npz", "imagenet_class_index.json"
LABEL_TABLES = {"train": "imagenet_training_label.csv", "test": "imagenet_testing_label.csv"}
SUBJECT_FILE = re.compile(r"sbj_[\w-]+\.npz", re.ASCII)

# n, s and m rows of training, single test trials and test averages; v voxels; i training images
AVERAGES = [Array("arr_0", "real", "n v"), Array("arr_2", "real", "m v"), Array("arr_3", "index", "n", below="i")]
SINGLE_TRIALS = [Array("arr_1", "real", "s v")]
# q rows of imagery, and the test image of the category of each
IMAGERY = [Array("imagery", "real", "q v"), Array("imagery_images", "index", "q", below="m")]
IMAGES = [Array("train_images", "images", "i h w 3"), Array("test_images", "images", "m h w 3")]

Classes = list[tuple[int, str]]  # (class id, class name) of every image
ClassIndex = dict[str, list[str]]  # class number -> [wnid, ..., name]


def load_god(
    root: str | Path,
    subjects: Sequence[str] | str = (),
    roi: str | Sequence[str] = "VC",
    patch_size: int = 16,
    include_single_trials: bool = False,
    *,
    scale_test: str = "none",
    pad_mode: str = "wrap",
    fraction: float = 1.0,
    fraction_seed: int = 0,
) -> tuple[PairedDataset, PairedDataset]:
    """Training and test pairs of GOD subjects ("sbj_3"; all that are there, unless given) from `Kamitani/npz`.

    fmri float32 [n v]: the voxels of `roi` (a region, several, or "all"), wrap-padded to patches and, among subjects,
    to the longest. Training rows are scaled by the subject's one mean and deviation; test rows are left as they are,
    because the released ones are scaled already (`scale_test="train"` scales them by the moments of the training rows:
    for newly prepared files). Test rows are the averages, then (`include_single_trials`) the trials image by image. A
    `fraction` of the training pictures can be drawn: mean and deviation are then those of its rows. Raises InputError.
    """
    study = _Study(Path(root), subjects, roi, patch_size, pad_mode, scale_test)
    parts: dict[str, list[SubjectRows]] = {"train": [], "test": []}
    for one in study.read(AVERAGES + SINGLE_TRIALS * include_single_trials, fraction, fraction_seed):
        fmri, images = normalise(one.training, *one.moments), one.rows["arr_3"][one.kept]
        parts["train"].append(one.subject_rows(fmri, images, np.zeros(len(fmri), np.int64)))
        averages = one.rows["arr_2"]
        trials = np.split(one.rows.get("arr_1", averages), len(averages))  # grouped by image in the file
        fmri, stimulus, repeat = averages_then_trials(trials, include_single_trials, averages)
        parts["test"].append(one.subject_rows(one.scaled(fmri), stimulus, repeat))
    train, test = (join_subjects(parts[kind], study.images[kind], pad_mode, study.classes[kind]) for kind in parts)
    return train, test


def load_god_imagery(
    root: str | Path,
    subjects: Sequence[str] | str = (),
    roi: str | Sequence[str] = "VC",
    patch_size: int = 16,
    include_single_trials: bool = False,
    *,
    scale_test: str = "none",
    pad_mode: str = "wrap",
    fraction: float = 1.0,
    fraction_seed: int = 0,
) -> PairedDataset:
    """What GOD subjects imagined, as `load_god` gives test rows: means over the trials of a category, then the trials.

    Nothing was shown: the image of a row is the test picture of the category that was imagined, and its class is that
    category. `sbj_N.npz` of prepare_god hold these rows, those of the SelfSuperReconst release do not. Raises
    InputError.
    """
    study = _Study(Path(root), subjects, roi, patch_size, pad_mode, scale_test)
    for path in study.paths.values():
        with NpzReader(path) as npz:
            if "imagery" not in npz:
                found = "no array 'imagery': the released arrays have none"
                raise InputError(f"{path}: {found}, scripts/prepare_god.py makes it from the raw fMRI")
    parts = []
    for one in study.read(AVERAGES + IMAGERY, fraction, fraction_seed):
        fmri, images = one.scaled(one.rows["imagery"]), one.rows["imagery_images"]
        shown = np.unique(images)
        rows, position, repeat = averages_then_trials([fmri[images == i] for i in shown], include_single_trials)
        parts.append(one.subject_rows(rows, shown[position], repeat))
    return join_subjects(parts, study.images["test"], pad_mode, study.classes["test"])


class _Study:
    """A folder of GOD: its subjects, and images and classes of "train" and "test". Raises InputError."""

    def __init__(
        self,
        root: Path,
        subjects: Sequence[str] | str,
        roi: str | Sequence[str],
        patch_size: int,
        pad_mode: str,
        scale_test: str,
    ):
        self.roi, self.patch_size, self.pad_mode = roi, patch_size, pad_mode
        self.scale_test = require_choice(scale_test, ("none", "train"), "scale_test")
        self.folder = require_folder(root, "the GOD files (sbj_1.npz, images_256.npz, ...)")
        self.paths = chosen_files(find_subjects, self.folder, subjects)
        self.images, self.classes = _read_stimuli(self.folder)
        self.counts = {
            "i": (len(self.images["train"]), f"train_images of {IMAGE_FILE}"),
            "m": (len(self.images["test"]), f"test_images of {IMAGE_FILE}"),
        }

    def read(self, declared: list[Array], fraction: float, seed: int) -> list["_Subject"]:
        """All subjects, with those training rows whose picture is in the share."""
        subjects = [_Subject(self, name, path, declared) for name, path in self.paths.items()]
        shown = np.concatenate([one.rows["arr_3"] for one in subjects])
        share = shown[chosen_share(shown, fraction, seed)]
        for one in subjects:
            one.kept = np.isin(one.rows["arr_3"], share)
        return subjects


class _Subject:
    """Arrays of one subject, those of fMRI [n v] cut to the regions and padded; which training rows are `kept`."""

    kept: np.ndarray

    def __init__(self, study: _Study, name: str, path: Path, declared: list[Array]):
        self.study, self.name, self.path = study, name, path
        arrays, masks = read_subject(self.path, study.counts, declared)
        self.num_recorded = arrays["arr_0"].shape[1]
        self.columns = region_columns(study.roi, masks, self.path)
        self.rows = arrays
        for key, rows in arrays.items():
            if rows.ndim == 2:
                within = rows if self.columns is None else rows[:, self.columns]
                self.rows[key] = pad_to_patches(within, study.patch_size, study.pad_mode)
        self.masks = masks_within(masks, self.columns, self.rows["arr_0"].shape[1])

    @property
    def training(self) -> np.ndarray:
        return self.rows["arr_0"] if self.kept.all() else self.rows["arr_0"][self.kept]

    @cached_property
    def moments(self) -> tuple[float, float]:
        """Mean and deviation of the training rows."""
        return moments(self.training, f"{self.path}: array 'arr_0'")

    def scaled(self, fmri: np.ndarray) -> np.ndarray:
        """Test rows, or others like them, as `scale_test` says."""
        if self.study.scale_test == "train":
            return normalise(fmri, *self.moments)
        middle = float(np.median(np.abs(fmri)))
        if middle > FAR:
            found = f"half of the values of test rows are {middle:.3g} or more from 0, they are no z-scores"
            log.warning("%s: %s; data.scale_test=train scales them as the training rows", self.path, found)
        return fmri

    def subject_rows(self, fmri: np.ndarray, stimulus: np.ndarray, repeat: np.ndarray) -> SubjectRows:
        """Rows ready to be joined, with how rows of the test set became input."""
        scaling = self.moments if self.study.scale_test == "train" else None
        form = subject_format(self.num_recorded, self.columns, self.study.pad_mode, scaling)
        return SubjectRows(self.name, fmri, stimulus, repeat, self.masks, form)


def find_subjects(folder: Path, passed: PassedOver) -> dict[str, Path]:
    """Subject ("sbj_3") -> its file, sorted; what only looks like one is passed over."""
    named = [path for path in list_folder(folder, passed) if re.fullmatch(r"sbj_.*\.npz", path.name, re.I)]
    for path in named:
        if not SUBJECT_FILE.fullmatch(path.name):
            passed.add(path, "not called sbj_<number>.npz")
    paths = [path for path in named if SUBJECT_FILE.fullmatch(path.name)]
    return {path.stem: path for path in without_twins(paths, passed, [path.stem for path in paths])}


def read_subject(
    path: Path, counts: Mapping[str, tuple[int, str]], declared: list[Array]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The `declared` arrays of one `sbj_N.npz`, and its regions, each a boolean [v].

    `counts` says how many images there are (letters i and m of the declared shapes, with what says so).
    Raises InputError.
    """
    with NpzReader(path) as npz:
        masks = [Array(name, "mask", "v", optional=True) for name in npz if npz[name].dtype == bool]
        arrays = npz.read(declared + masks, **counts)
    num_single, num_images = len(arrays.get("arr_1", ())), len(arrays["arr_2"])
    if num_single % num_images:
        raise InputError(f"{path}: array 'arr_1' has {num_single} rows, needs a multiple of {num_images}")
    return arrays, {item.name: arrays.pop(item.name) for item in masks}


def _read_stimuli(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Classes]]:
    """Images uint8 [i h w 3] and their classes, of "train" and "test"."""
    index = read_class_index(folder / INDEX_FILE)
    class_of = {wnid: (int(number), entry[-1]) for number, entry in index.items() for wnid in entry[:-1]}
    with NpzReader(folder / IMAGE_FILE) as npz:
        arrays = npz.read(IMAGES)
    images = {kind: arrays[f"{kind}_images"] for kind in LABEL_TABLES}
    classes = {}
    for kind, table in LABEL_TABLES.items():
        wnids = [wnid_of(label) for label in read_labels(folder / table)]
        for row, wnid in enumerate(wnids, start=1):
            if wnid not in class_of:
                raise InputError(f"{folder / table}: row {row} names {wnid}, which {INDEX_FILE} does not list")
        require_rows(wnids, len(images[kind]), f"{folder / table}", f"{kind}_images of {IMAGE_FILE}")
        classes[kind] = [class_of[wnid] for wnid in wnids]
    return images, classes


def read_class_index(path: Path) -> ClassIndex:
    """A class index, number -> [wnid, ..., name]. Raises InputError."""
    index = read_json(path)
    if not isinstance(index, dict) or not index or not all(_is_entry(*pair) for pair in index.items()):
        raise InputError(f"{path}: no class index, needs JSON of number -> [wnid, ..., name]")
    return {str(int(number)): [word.strip() for word in entry] for number, entry in index.items()}


def _is_entry(number: str, entry: object) -> bool:
    words = entry if isinstance(entry, list) else []
    return number.strip().isdecimal() and len(words) >= 2 and all(isinstance(word, str) for word in words)


def read_labels(path: Path) -> list[str]:
    """Stimulus ids of a label table, its first column: "1518878.010130" is image 10130 of n01518878.

    Spreadsheets drop the zeros at the end of what they take for a number; they are put back. Raises InputError.
    """
    labels = []
    for line, row in enumerate(read_table(path), start=1):
        found = re.fullmatch(r"([0-9]{1,8})(?:[.,]([0-9]+))?", row[0])
        if not found:
            raise InputError(f"{path}: row {line} begins with {row[0]!r}, needs <wnid number>.<image>")
        labels.append(f"{int(found[1])}.{(found[2] or '').ljust(6, '0')}")
    return labels


def wnid_of(label: str) -> str:
    """ImageNet class of a stimulus id: "1518878.005958" -> "n01518878"."""
    return f"n{int(label.partition('.')[0]):08d}"

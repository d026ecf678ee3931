"""BOLD5000 (release with GLMsingle ROI estimates): responses, presentation lists and stimuli -> paired data."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from mindvis.common.errors import InputError
from mindvis.common.texts import read_json, read_lines
from mindvis.data.arrays import FMRI, IMAGES, Array, check_array, check_arrays, load_npy, load_object_npy, require_rows
from mindvis.data.datasets import PairedDataset
from mindvis.data.reading import Names, PassedOver, list_folder, require_folder
from mindvis.data.regions import masks_within, region_columns
from mindvis.data.row_format import subject_format
from mindvis.data.rows import rows_by
from mindvis.data.subjects import (
    SubjectRows,
    averages_then_trials,
    chosen_share,
    chosen_subjects,
    join_subjects,
)
from mindvis.data.voxels import moments, normalise, pad_to_patches

REGIONS = ("EarlyVis", "LOC", "OPA", "PPA", "RSC")
RESPONSES = "BOLD5000_GLMsingle_ROI_betas/py"
RESPONSE_FILE = "{subject}_GLMbetas-TYPED-FITHRF-GLMDENOISE-RR_allses_{region}.npy"
STIMULI = "BOLD5000_Stimuli/Scene_Stimuli/Presented_Stimuli"
REPEATED = "BOLD5000_Stimuli/Scene_Stimuli/repeated_stimuli_113_list.txt"
PRESENTATIONS = "BOLD5000_Stimuli/Stimuli_Presentation_Lists"
IMAGE_FILE, NAME_FILE, PICKLE_FILE = "img_dict_images.npy", "img_dict_names.json", "img_dict.npy"

Sessions = dict[str, list[str]]  # session -> names of the images, in the order of the trials


def load_bold5000(
    root: str | Path,
    subjects: Sequence[str] | str = (),
    patch_size: int = 16,
    include_single_trials: bool = False,
    *,
    roi: str | Sequence[str] = "VC",
    pad_mode: str = "wrap",
    fraction: float = 1.0,
    fraction_seed: int = 0,
) -> tuple[PairedDataset, PairedDataset]:
    """Training and test pairs of BOLD5000 subjects ("CSI1"; all that are there, unless given) from `BOLD5000`.

    fmri float32 [n v]: both hemispheres of the regions of `roi` ("VC" and "all" are all five), wrap-padded to patches
    (and, among subjects, to the longest), scaled by the subject's one mean and deviation over training and test trials
    together, as published. The images listed as repeated are the test set: their averages in the order of that list,
    then (`include_single_trials`) the trials image by image. A `fraction` of the training images can be drawn: mean and
    deviation are then those of its trials and the test trials. Raises InputError.
    """
    folder = require_folder(root, "BOLD5000_GLMsingle_ROI_betas and BOLD5000_Stimuli")
    passed = PassedOver()
    names = chosen_subjects(subjects, _available(folder, passed), folder)
    images, image_names = read_images(folder / STIMULI)
    known = Names(image_names)
    sessions = {name: read_presentations(folder, name, passed) for name in names}
    presented = {name: match_presented(folder, name, shown, known) for name, shown in sessions.items()}
    passed.log(folder)
    shown = {image for trials in presented.values() for image in trials}
    test_names = [image for image in dict.fromkeys(read_repeated(folder, known)) if image in shown]
    row_of = {name: row for row, name in enumerate(image_names)}
    left_out = _left_out(presented, row_of, set(test_names), fraction, fraction_seed)
    train, test = [], []
    for name in names:
        fmri, masks = _read_responses(folder, name, len(presented[name]), roi)
        padded = pad_to_patches(fmri, patch_size, pad_mode)
        used = [image not in left_out for image in presented[name]]
        scaling = moments(padded if all(used) else padded[used], f"{folder / RESPONSES}: fMRI of {name}")
        form = subject_format(fmri.shape[1], None, pad_mode, scaling)
        fmri = normalise(padded, *scaling)
        masks = masks_within(masks, None, fmri.shape[1])
        rows = _training_rows(name, fmri, presented[name], row_of, left_out.union(test_names))
        train.append(SubjectRows(name, *rows, masks, form))
        rows = _test_rows(name, fmri, presented[name], test_names, include_single_trials)
        test.append(SubjectRows(name, *rows, masks, form))
    test_images = images[[row_of[image] for image in test_names]]
    return join_subjects(train, images, pad_mode), join_subjects(test, test_images, pad_mode)


def _left_out(
    presented: dict[str, list[str]], row_of: dict[str, int], repeated: set[str], fraction: float, seed: int
) -> set[str]:
    """The training images that are in no share of those that any of the subjects has seen."""
    images = sorted({image for trials in presented.values() for image in trials} - repeated, key=row_of.__getitem__)
    kept = chosen_share(np.arange(len(images)), fraction, seed)
    return {image for image, is_kept in zip(images, kept, strict=True) if not is_kept}


Rows = tuple[np.ndarray, np.ndarray, np.ndarray]  # fmri [n v], index of the image [n], number of the repeat [n]


def _training_rows(
    subject: str, fmri: np.ndarray, presented: list[str], row_of: dict[str, int], others: set[str]
) -> Rows:
    """The trials of all images but `others`."""
    trials = np.array([i for i, image in enumerate(presented) if image not in others], dtype=np.int64)
    if not len(trials):
        found = "every presented image is a repeated one or outside data.fraction"
        raise InputError(f"{subject}: {found}, no training trial is left")
    return fmri[trials], np.array([row_of[presented[i]] for i in trials]), np.zeros(len(trials), np.int64)


def _test_rows(
    subject: str, fmri: np.ndarray, presented: list[str], test_names: list[str], include_single_trials: bool
) -> Rows:
    trials_of = rows_by(presented)
    seen = [k for k, image in enumerate(test_names) if image in trials_of]  # CSI4 never saw some of them
    if not seen:
        raise InputError(f"{subject}: none of the repeated images was presented, no test trial is left")
    rows, position, repeat = averages_then_trials([fmri[trials_of[test_names[k]]] for k in seen], include_single_trials)
    return rows, np.array(seen)[position], repeat


def response_files(root: Path, subject: str) -> Iterator[tuple[str, Path]]:
    """Region with its hemisphere (LHEarlyVis, RHEarlyVis, LHLOC ...), and the file of its responses."""
    for region in REGIONS:
        for hemisphere in ("LH", "RH"):
            file = RESPONSE_FILE.format(subject=subject, region=hemisphere + region)
            yield hemisphere + region, root / RESPONSES / file


def _read_responses(folder: Path, subject: str, num_trials: int, roi: str | Sequence[str]) -> tuple[np.ndarray, dict]:
    """Responses [trials v] of one subject in the regions asked for, and the boolean [v] of each (both hemispheres)."""
    trials = {"n": (num_trials, f"the presentation lists of {subject}")}
    columns, region_of = [], []
    for region, path in response_files(folder, subject):
        columns.append(check_array(load_npy(path), FMRI, str(path), **trials))  # [n v]
        region_of += [region[2:]] * columns[-1].shape[1]
    fmri = np.concatenate(columns, axis=1)
    masks = {name: np.array(region_of) == name for name in REGIONS}
    chosen = None if roi == "VC" else region_columns(roi, masks, folder / RESPONSES)
    if chosen is None:
        return fmri, masks
    return fmri[:, chosen], {name: mask[chosen] for name, mask in masks.items()}


def find_runs(folder: Path, subject: str, passed: PassedOver) -> list[Path]:
    """Presentation lists of one subject, `<session>/*_run01.txt`, sessions and runs sorted. Raises InputError."""
    lists = require_folder(folder / PRESENTATIONS / subject, "a folder of presentation lists per session")
    runs = []
    for session in filter(Path.is_dir, list_folder(lists, passed)):
        texts = [path for path in list_folder(session, passed) if path.suffix.lower() == ".txt"]
        named = [path for path in texts if re.search(r"run[ _-]?[0-9]", path.stem, re.I)]
        for path in texts if named else ():
            if path not in named:
                passed.add(path, "no presentation list, which has the number of its run in its name")
        runs += named or texts
    if not runs:
        raise InputError(f"{lists}: no presented image in <session>/*.txt")
    return runs


def read_presentations(folder: Path, subject: str, passed: PassedOver) -> Sessions:
    """Names of the presented images by session, a leading `rep_` dropped. Raises InputError."""
    sessions: Sessions = {}
    for path in find_runs(folder, subject, passed):
        names = [re.sub(r"^rep_", "", name, flags=re.I) for name in read_lines(path)]
        if not names:
            raise InputError(f"{path}: an empty run, needs one image name a line")
        sessions.setdefault(path.parent.name, []).extend(names)
    return sessions


def match_presented(folder: Path, subject: str, sessions: Sessions, known: Names) -> list[str]:
    """The pictures of all trials, under their own names. Raises InputError that names the session of a missing one."""
    matched = []
    for session, names in sessions.items():
        where = folder / PRESENTATIONS / subject / session
        matched += known.find_all(names, f"{where}: {{count}} presented images have no picture, {{first}} first")
    return matched


def read_repeated(folder: Path, known: Names) -> list[str]:
    """The pictures listed as repeated. Raises InputError for a name that has no picture."""
    names, needed = read_lines(folder / REPEATED), "they would be trained on"
    if not names:
        raise InputError(f"{folder / REPEATED}: names no image, needs those that were repeated: they are the test set")
    error = f"{folder / REPEATED}: {{count}} images have no picture, {{first}} first; {needed}"
    return known.find_all(names, error)


def read_images(folder: Path) -> tuple[np.ndarray, list[str]]:
    """All stimuli uint8 [m h w 3] and the name of each, from the mapped pair of files or the published pickle."""
    require_folder(folder, f"{IMAGE_FILE} with {NAME_FILE}, or {PICKLE_FILE}")
    if not any((folder / name).is_file() for name in (IMAGE_FILE, PICKLE_FILE)):
        made = "made by scripts/prepare_bold5000.py"
        raise InputError(f"{folder}: no {IMAGE_FILE} with {NAME_FILE} in it ({made}), and no {PICKLE_FILE}")
    if not (folder / IMAGE_FILE).is_file():
        pictures = read_picture_dict(folder / PICKLE_FILE)
        return np.stack(list(pictures.values())), list(pictures)
    images = check_array(load_npy(folder / IMAGE_FILE, mmap=True), IMAGES, str(folder / IMAGE_FILE))
    names = read_json(folder / NAME_FILE)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{folder / NAME_FILE}: needs a JSON list of names")
    require_rows(names, len(images), str(folder / NAME_FILE), IMAGE_FILE)
    if len(set(names)) < len(names):
        raise InputError(f"{folder / NAME_FILE}: {len(names)} names, {len(set(names))} different, needs each once")
    return images, names


def read_picture_dict(path: Path) -> dict[str, np.ndarray]:
    """A pickled `img_dict.npy`, name -> uint8 [h w 3] of one size, read without running it. Raises InputError."""
    pictures = load_object_npy(path)
    if not isinstance(pictures, dict) or not pictures:
        raise InputError(f"{path}: holds a {type(pictures).__name__}, needs a dict of name -> uint8 image")
    for name, picture in pictures.items():
        if not isinstance(name, str) or not isinstance(picture, np.ndarray):
            raise InputError(f"{path}: image {name!r} is a {type(picture).__name__}, needs uint8 [h w 3]")
    return check_arrays(pictures, [Array(name, "images", "h w 3") for name in pictures], path)


def _available(folder: Path, passed: PassedOver) -> list[str]:
    responses = require_folder(folder / RESPONSES, "the responses, <subject>_GLMbetas-..._LHEarlyVis.npy ...")
    suffix = RESPONSE_FILE.format(subject="", region="LHEarlyVis")
    names = [path.name for path in list_folder(responses, passed)]
    return [name.removesuffix(suffix) for name in names if name.endswith(suffix)]

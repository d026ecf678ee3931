"""BOLD5000 (release with GLMsingle ROI estimates): responses, presentation lists and stimuli -> paired data."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from mindvis.common.errors import InputError
from mindvis.common.safe_pickle import load_object_npy
from mindvis.data.arrays import check_images, check_real, load_npy, require_folder, require_rows
from mindvis.data.datasets import PairedDataset
from mindvis.data.subjects import SubjectRows, averages_then_trials, chosen_subjects, join_subjects, padded_mask
from mindvis.data.voxels import moments, normalise, pad_to_patches

REGIONS = ("EarlyVis", "LOC", "OPA", "PPA", "RSC")
RESPONSES = "BOLD5000_GLMsingle_ROI_betas/py"
RESPONSE_FILE = "{subject}_GLMbetas-TYPED-FITHRF-GLMDENOISE-RR_allses_{region}.npy"
STIMULI = "BOLD5000_Stimuli/Scene_Stimuli/Presented_Stimuli"
REPEATED = "BOLD5000_Stimuli/Scene_Stimuli/repeated_stimuli_113_list.txt"
PRESENTATIONS = "BOLD5000_Stimuli/Stimuli_Presentation_Lists"


def load_bold5000(
    root: str | Path,
    subjects: Sequence[str] | str = (),
    patch_size: int = 16,
    include_single_trials: bool = False,
    *,
    pad_mode: str = "wrap",
) -> tuple[PairedDataset, PairedDataset]:
    """Training and test pairs of BOLD5000 subjects ("CSI1"; all that are there, unless given) from `BOLD5000`.

    fmri float32 [n v]: both hemispheres of five regions, wrap-padded to patches (and, among subjects, to the longest),
    scaled by the subject's one mean and deviation over training and test trials together, as published. The images
    listed as repeated are the test set: their averages in the order of that list, then (`include_single_trials`) the
    trials image by image. Raises InputError.
    """
    folder = require_folder(root, "BOLD5000_GLMsingle_ROI_betas and BOLD5000_Stimuli")
    names = chosen_subjects(subjects, _available(folder), folder)
    repeated = _read_lines(folder / REPEATED)
    presented = {name: _read_presented(folder, name) for name in names}
    images, row_of = _read_images(folder / STIMULI, {image for images in presented.values() for image in images})
    test_names = [image for image in dict.fromkeys(repeated) if any(image in shown for shown in presented.values())]
    train, test = [], []
    for name in names:
        fmri, masks = _read_responses(folder, name, len(presented[name]), patch_size, pad_mode)
        train.append(_training_rows(name, fmri, masks, presented[name], row_of, set(repeated)))
        test.append(_test_rows(name, fmri, masks, presented[name], test_names, include_single_trials))
    test_images = images[[row_of[image] for image in test_names]]
    return join_subjects(train, images, pad_mode), join_subjects(test, test_images, pad_mode)


def _training_rows(
    subject: str, fmri: np.ndarray, masks: dict, presented: list[str], row_of: dict[str, int], repeated: set[str]
) -> SubjectRows:
    trials = np.array([i for i, image in enumerate(presented) if image not in repeated], dtype=np.int64)
    if not len(trials):
        raise InputError(f"{subject}: every presented image is in the list of repeated ones, no training trial is left")
    stimulus = np.array([row_of[presented[i]] for i in trials])
    return SubjectRows(subject, fmri[trials], stimulus, np.zeros(len(trials), np.int64), masks)


def _test_rows(
    subject: str,
    fmri: np.ndarray,
    masks: dict,
    presented: list[str],
    test_names: list[str],
    include_single_trials: bool,
) -> SubjectRows:
    trials_of: dict[str, list[int]] = {image: [] for image in test_names}
    for i, image in enumerate(presented):
        if image in trials_of:
            trials_of[image].append(i)
    seen = [k for k, image in enumerate(test_names) if trials_of[image]]  # CSI4 never saw some of them
    if not seen:
        raise InputError(f"{subject}: none of the repeated images was presented, no test trial is left")
    rows, position, repeat = averages_then_trials([fmri[trials_of[test_names[k]]] for k in seen], include_single_trials)
    return SubjectRows(subject, rows, np.array(seen)[position], repeat, masks)


def _read_responses(
    folder: Path, subject: str, num_trials: int, patch_size: int, pad_mode: str
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Scaled responses [trials v] of one subject and the boolean [v] of every region (both hemispheres)."""
    columns, region_of = [], []
    for region in REGIONS:
        for hemisphere in ("LH", "RH"):
            path = folder / RESPONSES / RESPONSE_FILE.format(subject=subject, region=hemisphere + region)
            response = check_real(load_npy(path), str(path))  # [trials voxels]
            require_rows(response, num_trials, str(path), f"the presentation lists of {subject}")
            columns.append(response)
            region_of += [region] * response.shape[1]
    padded = pad_to_patches(np.concatenate(columns, axis=1), patch_size, pad_mode)
    fmri = normalise(padded, *moments(padded, f"{folder / RESPONSES}: fMRI of {subject}"))
    return fmri, {name: padded_mask(np.array(region_of) == name, fmri.shape[1]) for name in REGIONS}


def _read_presented(folder: Path, subject: str) -> list[str]:
    """Names of the images in the order of the trials: sessions and runs sorted, `rep_` dropped."""
    lists = require_folder(folder / PRESENTATIONS / subject, "a folder of presentation lists per session")
    runs = sorted(lists.glob("*/*.txt"), key=lambda path: (path.parent.name, path.name))
    names = [name.removeprefix("rep_") for run in runs for name in _read_lines(run)]
    if not names:
        raise InputError(f"{lists}: no presented image in <session>/*.txt")
    return names


def _read_images(folder: Path, needed: Iterable[str]) -> tuple[np.ndarray, dict[str, int]]:
    """All stimuli uint8 [m h w 3] and the row of each name, from the mapped pair of files or the published pickle."""
    require_folder(folder, "img_dict_images.npy with img_dict_names.json, or img_dict.npy")
    pair = folder / "img_dict_images.npy", folder / "img_dict_names.json"
    images, names = _read_pair(*pair) if pair[0].is_file() else _read_pickle(folder / "img_dict.npy")
    row_of = {name: row for row, name in enumerate(names)}
    missing = sorted(set(needed) - row_of.keys())
    if missing:
        raise InputError(f"{folder}: {len(missing)} presented images are missing, {missing[0]!r} first")
    return images, row_of


def _read_pair(images_path: Path, names_path: Path) -> tuple[np.ndarray, list[str]]:
    images = check_images(load_npy(images_path, mmap=True), str(images_path))
    try:
        names = json.loads(names_path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{names_path}: missing or no JSON, needs the list of the images' names") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{names_path}: needs a JSON list of names")
    require_rows(names, len(images), str(names_path), images_path.name)
    return images, names


def _read_pickle(path: Path) -> tuple[np.ndarray, list[str]]:
    if not path.is_file():
        raise InputError(f"{path}: no such file (made by scripts/prepare_bold5000.py)")
    pictures = load_object_npy(path)
    if not isinstance(pictures, dict) or not pictures:
        raise InputError(f"{path}: holds a {type(pictures).__name__}, needs a dict of name -> uint8 image")
    for name, picture in pictures.items():
        if not isinstance(picture, np.ndarray):
            raise InputError(f"{path}: image {name!r} is a {type(picture).__name__}, needs uint8 [h w 3]")
        check_images(picture[None], f"{path}: image {name!r}")
    shapes = {picture.shape for picture in pictures.values()}
    if len(shapes) > 1:
        raise InputError(f"{path}: images of {len(shapes)} sizes, {sorted(shapes)[:2]} among them, needs one size")
    return np.stack(list(pictures.values())), list(pictures)


def _available(folder: Path) -> list[str]:
    suffix = RESPONSE_FILE.format(subject="", region="LHEarlyVis")
    return sorted(path.name.removesuffix(suffix) for path in (folder / RESPONSES).glob(f"*{suffix}"))


def _read_lines(path: Path) -> list[str]:
    """Lines that are not blank. Raises InputError when the file is missing or no text."""
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: missing or no text file") from error

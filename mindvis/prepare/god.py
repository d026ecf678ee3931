"""Generic Object Decoding: BData files -> `sbj_N.npz`, pictures -> `images_256.npz`, label tables and class index.

Every row keeps the identity of its stimulus, so that fMRI and pictures cannot get out of step unnoticed.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mindvis.common.errors import InputError
from mindvis.common.files import write_npz, write_text
from mindvis.common.progress import Progress
from mindvis.common.texts import read_lines
from mindvis.config.tools import BadVoxels, Scaling
from mindvis.data.god import IMAGE_FILE, INDEX_FILE, LABEL_TABLES, read_class_index, read_labels, wnid_of
from mindvis.data.images import is_picture, read_square
from mindvis.data.reading import (
    PassedOver,
    files_below,
    list_folder,
    original_of,
    require_folder,
    without_twins,
)
from mindvis.data.voxels import ABSURD
from mindvis.prepare.bad_voxels import bad_voxels, check_bad, zscore
from mindvis.prepare.bdata import BData, is_bdata, read_bdata

TRAIN, TEST, IMAGERY = 1, 2, 3  # DataType
SUFFIXES = (".h5", ".hdf5", ".mat")  # of two forms of one subject the first is taken
PICTURE_FOLDERS = {"train": "training", "test": "test"}
NUM_CLASSES = 1000


def find_subjects(folder: Path, passed: PassedOver, wanted: Sequence[int] | None = None) -> dict[int, Path]:
    """Subject number (the last number of the file name) -> BData file, sorted; all of them, or those `wanted`."""
    found: dict[int, Path] = {}
    paths = list_folder(require_folder(folder, "Subject1.h5 ..."), passed)
    for path in sorted(paths, key=_form_and_name):
        number = _subject_of(path, passed)
        other = found.setdefault(number, path) if number is not None else path
        if other != path and other.suffix.lower() == path.suffix.lower():
            raise InputError(f"{path}: the subject of {other.name} again; keep one of the two")
        if other != path:
            passed.add(path, f"the same subject as a {other.suffix} file")
    if not found:
        needed = "; ".join([f"needs {' or '.join(SUFFIXES)} files, Subject1.h5 ...", *passed.lines()])
        raise InputError(f"{folder}: no subject's file in it; {needed}")
    kept = without_twins(list(found.values()), passed, [path.stem for path in found.values()])
    found = {number: path for number, path in found.items() if path in kept}
    absent = set(wanted or ()) - set(found)
    if absent:
        raise InputError(f"{folder}: no file of subject {min(absent)}; it has {sorted(found)}")
    return {number: found[number] for number in sorted(wanted or found)}


def _form_and_name(path: Path) -> tuple[int, Path]:
    suffix = path.suffix.lower()
    return SUFFIXES.index(suffix) if suffix in SUFFIXES else len(SUFFIXES), path


def _subject_of(path: Path, passed: PassedOver) -> int | None:
    """The number in the name of a subject's file; None for a file that is none."""
    numbers = re.findall(r"[0-9]+", Path(original_of(path.name) or path.name).stem)
    if path.suffix.lower() not in SUFFIXES:
        passed.add(path, f"no {' or '.join(SUFFIXES)} file")
    elif not numbers:
        passed.add(path, "no subject number in its name")
    elif not is_bdata(path):
        passed.add(path, "no fMRI (BData) in it")
    else:
        return int(numbers[-1])
    return None


def prepare_subject(
    source: Path, target: Path, labels: Path, *, scaling: Scaling = "train", policy: BadVoxels = "zero"
) -> str:
    """Write one `sbj_N.npz` from one BData file and the two label tables in `labels`; returns a line on what it holds.

    arr_0 training rows, arr_1 single test trials (in time within an image), arr_2 test averages, all in the order of
    the images; arr_3 and arr_4 the image of each row of arr_0 and arr_1, from 0. `train_stimuli`, `test_stimuli` and
    `average_stimuli` are the stimulus ids read from the file beside each row. Where the file has rows of imagery, these
    are `imagery`, in time, and `imagery_images` the test image of the category that was imagined. scaling: "train"
    takes the moments of each voxel over the training rows, "run" over the rows of its run, "none" leaves the responses
    as they are.
    """
    whole = read_bdata(source)
    kind = whole.one("DataType")
    if not {TRAIN, TEST} <= set(kind):
        raise InputError(f"{source}: DataType is {np.unique(kind)[:5].tolist()}; needs 1 (training) and 2 (test)")
    data = whole.rows((kind == TRAIN) | (kind == TEST))  # what rows without a picture hold does not matter
    bad = bad_voxels(data.select("VoxelData"))
    check_bad(bad, policy, f"{data.path}: VoxelData")
    kept = ~bad if policy == "drop" else np.ones_like(bad)
    masks = {name: mask[kept] for name, mask in _masks(data).items()}
    responses = _scale(data, bad, scaling)[:, kept]
    stimuli = stimulus_ids(data)
    train, train_images = _order(data, stimuli, TRAIN, labels / LABEL_TABLES["train"])
    test, test_images = _order(data, stimuli, TEST, labels / LABEL_TABLES["test"])
    single = responses[test]  # [n v], grouped by image
    counts = np.bincount(test_images)
    if counts.min() != counts.max():
        found = f"test images were shown {counts.min()} to {counts.max()} times"
        raise InputError(f"{source}: {found}; needs equally often")
    repeats = int(counts[0])
    averages = single.reshape(-1, repeats, single.shape[1]).mean(axis=1)  # [n v]
    stimuli_of = {"train_stimuli": stimuli[train], "test_stimuli": stimuli[test]}
    stimuli_of["average_stimuli"] = stimuli[test][::repeats]
    arrays = [responses[train], single, averages, train_images, test_images]
    imagery, of_imagery = _imagery(whole, bad, scaling, unique_labels(labels / LABEL_TABLES["test"]))
    if imagery:
        imagery["imagery"] = imagery["imagery"][:, kept]
    write_npz(target, {f"arr_{i}": array for i, array in enumerate(arrays)} | masks | stimuli_of | imagery)
    sizes = f"{len(arrays[0])} training, {len(single)} single and {len(averages)} averaged test rows"
    return f"{sizes}, {of_imagery}, {single.shape[1]} voxels, {int(masks['VC'].sum())} in VC"


def stimulus_ids(data: BData) -> np.ndarray:
    """Stimulus of each row, as the label tables write it (`1518878.005958`, wnid and image): str [rows]."""
    return np.array([f"{value:.6f}" for value in data.one("stimulus_id", "Label")])


def unique_labels(path: Path) -> list[str]:
    """Stimulus ids of a label table, in its order. Raises InputError for an image that is listed twice, or none."""
    if not path.exists():
        raise InputError(f"{path}: no such file; --stimuli makes it from the folder of pictures")
    ids = read_labels(path)
    if len(set(ids)) < len(ids) or not ids:
        raise InputError(f"{path}: {len(ids)} lines, {len(set(ids))} different images; needs each image once")
    return ids


def _imagery(whole: BData, bad: np.ndarray, scaling: Scaling, table: list[str]) -> tuple[dict[str, np.ndarray], str]:
    """Arrays of the rows of imagery, scaled as those of pictures, and a few words; none where they are of no use."""
    kind = whole.one("DataType")
    imagined = kind == IMAGERY
    if not imagined.any():
        return {}, "no imagery"
    try:
        rows = whole.rows(imagined)
        if not (np.abs(rows.select("VoxelData")[:, ~bad]) <= ABSURD).all():
            raise InputError("rows of imagery hold NaN, infinity or values that no measurement comes near")
        stimuli = stimulus_ids(rows)
        images = np.array([_image_of(name, table) for name in stimuli], np.int64)
        scaled = _scale(whole.rows(imagined | (kind == TRAIN)), bad, scaling)[imagined[imagined | (kind == TRAIN)]]
    except InputError as error:
        return {}, f"imagery left out ({error})"
    arrays = {"imagery": scaled, "imagery_images": images, "imagery_stimuli": stimuli}
    return arrays, f"{len(scaled)} rows of imagery of {len(set(images.tolist()))} categories"


def _image_of(name: str, table: list[str]) -> int:
    """The test image of an imagined category: the one of this id, else the first of its class."""
    if name in table:
        return table.index(name)
    alike = [i for i, other in enumerate(table) if wnid_of(other) == wnid_of(name)]
    if not alike:
        raise InputError(f"imagery of {wnid_of(name)}, no category of the test images")
    return alike[0]


def _masks(data: BData) -> dict[str, np.ndarray]:
    masks = data.rois()
    if not masks.get("VC", np.zeros(1)).any():
        found = ", ".join(f"ROI_{name}" for name in masks) or "no ROI_ key"
        raise InputError(f"{data.path}: no voxel in ROI_VC; needs it marked in the metadata (it has {found})")
    return masks


def _scale(data: BData, bad: np.ndarray, scaling: Scaling) -> np.ndarray:
    """Responses float32 [rows v], bad voxels 0."""
    responses = data.select("VoxelData")  # [rows v]
    if scaling == "none":
        return np.where(bad, 0, responses).astype(np.float32)
    if scaling == "run":
        run = 10_000 * data.one("DataType") + data.one("Run")
        scaled = np.empty(responses.shape, dtype=np.float32)
        for number in np.unique(run):
            scaled[run == number] = zscore(responses[run == number], bad)
        return scaled
    kept = np.where(bad, 0, responses)
    train = kept[data.one("DataType") == TRAIN]
    deviation = train.std(axis=0)
    return ((kept - train.mean(axis=0)) / np.where(deviation > 0, deviation, 1)).astype(np.float32)


def _order(data: BData, stimuli: np.ndarray, kind: int, table: Path) -> tuple[np.ndarray, np.ndarray]:
    """Rows of one kind in the order of the table, in time within an image, and the image of each: int [n] twice."""
    position = {name: i for i, name in enumerate(unique_labels(table))}
    rows = np.flatnonzero(data.one("DataType") == kind)
    unknown = [stimuli[row] for row in rows if stimuli[row] not in position]
    if unknown:
        narrow = f"; the file keeps its numbers as {data.stored}, too short for stimulus ids" * data.is_narrow
        found = f"stimulus {unknown[0]} (and {len(unknown) - 1} more rows)"
        raise InputError(f"{data.path}: {found} is not in {table}{narrow}")
    images = np.array([position[stimuli[row]] for row in rows], dtype=np.int64)
    missing = len(position) - len(set(images.tolist()))
    if missing:
        found = f"{len(rows)} rows of DataType {kind} show {len(position) - missing} images"
        raise InputError(f"{data.path}: {found}; needs all {len(position)} of {table.name}")
    order = np.argsort(images, kind="stable")
    return rows[order], images[order]


def prepare_stimuli(
    stimuli: Path, out: Path, passed: PassedOver, size: int = 256, labels: Path | None = None
) -> dict[str, list[str]]:
    """Write the pictures and label tables; returns the stimulus ids of "train" and "test" in the order of the arrays.

    `stimuli` holds the folders `training` and `test`. `labels`: a folder with label tables to take the order from;
    without it the order is that of the ids.
    """
    names, arrays = {}, {}
    for kind, folder in PICTURE_FOLDERS.items():
        pictures = find_pictures(stimuli / folder, passed)
        names[kind] = _ordered(pictures, labels / LABEL_TABLES[kind] if labels else None, stimuli / folder)
        paths = [pictures[name] for name in names[kind]]
        squares = [read_square(path, size) for path in Progress(paths, desc=f"{kind} images")]
        arrays[f"{kind}_images"] = np.stack(squares)
    write_npz(out / IMAGE_FILE, arrays)
    for kind, table in LABEL_TABLES.items():
        wnids = sorted({wnid_of(name) for name in names[kind]})
        lines = [f"{name},{1 + wnids.index(wnid_of(name))}\n" for name in names[kind]]
        write_text(out / table, "".join(lines))
    return names


def find_pictures(folder: Path, passed: PassedOver) -> dict[str, Path]:
    """Stimulus id -> picture, sorted by id, of a folder of pictures called `n01518878_5958.JPEG`."""
    pictures: dict[str, Path] = {}
    for path in files_below(require_folder(folder, "the stimulus pictures"), passed):
        if not is_picture(path):
            passed.add(path, "no picture")
            continue
        found = re.fullmatch(r"n([0-9]{8})_([0-9]+)", path.stem.strip(), re.I)
        if not found:
            raise InputError(f"{path}: needs a name n<wnid>_<image>, e.g. n01518878_5958{path.suffix}")
        name = f"{int(found[1])}.{int(found[2]):06d}"
        if name in pictures:
            raise InputError(f"{path}: the same stimulus as {pictures[name]}; needs each once")
        pictures[name] = path
    if not pictures:
        raise InputError(f"{folder}: no pictures in it; needs n01518878_5958.JPEG ...")
    return dict(sorted(pictures.items(), key=lambda item: tuple(map(int, item[0].split(".")))))


def _ordered(pictures: Mapping[str, Path], table: Path | None, folder: Path) -> list[str]:
    if table is None:
        return list(pictures)
    names = unique_labels(table)
    missing = [name for name in names if name not in pictures]
    if missing or len(names) != len(pictures):
        example = f", {missing[0]} is missing" if missing else ""
        raise InputError(f"{folder}: {len(pictures)} pictures{example}; needs the {len(names)} of {table}")
    return names


def prepare_class_index(
    source: Path, out: Path, stimuli: Mapping[str, Sequence[str]], same_as: Mapping[str, int]
) -> str:
    """Write the class index with the classes of all `stimuli` ("train" and "test") in it; returns a line about them.

    `source` is the usual index of ImageNet (number -> [wnid, name]). A class that is not one of its 1000 joins the
    entry that `same_as` names for it, or gets the next number from 1000 on, which no classifier of 1000 classes gives.
    """
    index = read_class_index(source)
    wnids = {wnid_of(name) for names in stimuli.values() for name in names}
    new = sorted(wnids - {wnid for entry in index.values() for wnid in entry[:-1]})
    own = [wnid for wnid in new if wnid not in same_as]
    for wnid in sorted(set(new) - set(own)):
        entry = index.get(str(same_as[wnid]))
        if entry is None:
            raise InputError(f"{source}: no class {same_as[wnid]}, which was named for {wnid}")
        entry.insert(-1, wnid)
    first = max(NUM_CLASSES, 1 + max(map(int, index)))
    index |= {str(first + i): [wnid, wnid] for i, wnid in enumerate(own)}
    write_text(out / INDEX_FILE, json.dumps(index) + "\n")
    return f"{len(wnids)} stimulus classes, {len(own)} of them numbered from 1000 on"


def read_same_as(path: Path | None) -> dict[str, int]:
    """Lines of `<wnid>,<class number>`: which of the 1000 classes a stimulus class counts as. None: no lines."""
    lines = [] if path is None else read_lines(path)
    found = {}
    for line in lines:
        pair = re.fullmatch(r"(n[0-9]{8})\s*[,;\t]\s*([0-9]+)", line)
        if not pair:
            raise InputError(f"{path}: line {line!r}; needs `<wnid>,<class number>`")
        found[pair[1]] = int(pair[2])
    return found

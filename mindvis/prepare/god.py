"""fMRI of Generic Object Decoding, one subject: BData -> `sbj_N.npz`, every row with the identity of its stimulus."""

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from mindvis.common.errors import InputError
from mindvis.common.files import write_npz
from mindvis.prepare.bdata import BData, read_bdata
from mindvis.prepare.files import need_folder, one_line
from mindvis.prepare.scaling import BadVoxels, bad_voxels, check_bad, zscore

TRAIN, TEST = 1, 2  # DataType; 3 is imagery
TRAIN_LABELS, TEST_LABELS = "imagenet_training_label.csv", "imagenet_testing_label.csv"
SUFFIXES = (".h5", ".hdf5", ".mat")
Scaling = Literal["train", "run", "none"]
SCALINGS: tuple[str, ...] = get_args(Scaling)


def find_subjects(folder: Path, wanted: Sequence[int] | None = None) -> dict[int, Path]:
    """Subject number (the last number of the file name) -> BData file, sorted; all of them, or those `wanted`."""
    need_folder(folder, "Subject1.h5 ...")
    found: dict[int, Path] = {}
    for path in sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES):
        numbers = re.findall(r"\d+", path.stem)
        if not numbers:
            raise InputError(f"{path}: no subject number in its name; needs e.g. Subject1{path.suffix}")
        other = found.setdefault(int(numbers[-1]), path)
        if other != path:
            raise InputError(f"{path}: the subject of {other.name} again; keep one of the two")
    if not found:
        raise InputError(f"{folder}: no {' or '.join(SUFFIXES)} file in it; needs Subject1.h5 ...")
    absent = set(wanted or ()) - set(found)
    if absent:
        raise InputError(f"{folder}: no file of subject {min(absent)}; it has {sorted(found)}")
    return {number: found[number] for number in sorted(wanted or found)}


def prepare_subject(
    source: Path, target: Path, labels: Path, *, scaling: Scaling = "train", policy: BadVoxels = "zero"
) -> str:
    """Write one `sbj_N.npz` from one BData file and the two label tables in `labels`; returns a line on what it holds.

    arr_0 training rows, arr_1 single test trials (in time within an image), arr_2 test averages, all in the order of
    the images; arr_3 and arr_4 the image of each row of arr_0 and arr_1, from 0. `train_stimuli`, `test_stimuli` and
    `average_stimuli` are the stimulus ids read from the file beside each row. scaling: "train" takes the moments of
    each voxel over the training rows, "run" over the rows of its run, "none" leaves the responses as they are.
    """
    data = read_bdata(source)
    responses, masks = _responses(data, scaling, policy)
    stimuli = stimulus_ids(data)
    rows, images = {}, {}
    for kind, table in ((TRAIN, TRAIN_LABELS), (TEST, TEST_LABELS)):
        rows[kind], images[kind] = _order(data, stimuli, kind, labels / table)
    single = responses[rows[TEST]]  # [n v], grouped by image
    repeats = _repeats(source, images[TEST])
    averages = single.reshape(-1, repeats, single.shape[1]).mean(axis=1)  # [n v]
    stimuli_of = {
        "train_stimuli": stimuli[rows[TRAIN]],
        "test_stimuli": stimuli[rows[TEST]],
        "average_stimuli": stimuli[rows[TEST]][::repeats],
    }
    arrays = [responses[rows[TRAIN]], single, averages, images[TRAIN], images[TEST]]
    write_npz(target, {f"arr_{i}": array for i, array in enumerate(arrays)} | masks | stimuli_of)
    sizes = f"{len(arrays[0])} training, {len(single)} single and {len(averages)} averaged test rows"
    return f"{sizes}, {single.shape[1]} voxels, {int(masks['VC'].sum())} in VC"


def stimulus_ids(data: BData) -> np.ndarray:
    """Stimulus of each row, as the label tables write it (`1518878.005958`, wnid and image): str [rows]."""
    return np.array([f"{value:.6f}" for value in data.one("stimulus_id", "Label")])


def read_labels(path: Path) -> list[str]:
    """Stimulus ids of a label table (its first column), in its order."""
    try:
        with path.open(newline="") as stream:
            ids = [row[0].strip() for row in csv.reader(stream) if row]
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; --stimuli makes it from the folder of pictures") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: unreadable table ({one_line(error)})") from None
    for number, name in enumerate(ids, start=1):
        if not re.fullmatch(r"\d+\.\d+", name):
            raise InputError(f"{path}: line {number} starts with {name!r}; needs `<wnid number>.<image>`")
    if len(set(ids)) < len(ids) or not ids:
        raise InputError(f"{path}: {len(ids)} lines, {len(set(ids))} different images; needs each image once")
    return ids


def _responses(data: BData, scaling: Scaling, policy: BadVoxels) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    responses, masks = data.select("VoxelData"), _masks(data)  # [rows v], bool [v]
    kind = data.one("DataType")
    if not {TRAIN, TEST} <= set(kind):
        raise InputError(f"{data.path}: DataType is {np.unique(kind)[:5].tolist()}; needs 1 (training) and 2 (test)")
    bad = bad_voxels(responses[(kind == TRAIN) | (kind == TEST)])
    check_bad(bad, policy, f"{data.path}: VoxelData")
    kept = ~bad if policy == "drop" else np.ones_like(bad)
    scaled = _scale(data, responses, bad, scaling)
    return scaled[:, kept], {name: mask[kept] for name, mask in masks.items()}


def _masks(data: BData) -> dict[str, np.ndarray]:
    masks = data.rois()
    if not masks.get("VC", np.zeros(1)).any():
        found = ", ".join(f"ROI_{name}" for name in masks) or "no ROI_ key"
        raise InputError(f"{data.path}: no voxel in ROI_VC; needs it marked in the metadata (it has {found})")
    return masks


def _scale(data: BData, responses: np.ndarray, bad: np.ndarray, scaling: Scaling) -> np.ndarray:
    if scaling == "none":
        return np.where(bad, 0, responses).astype(np.float32)
    if scaling == "run":
        return _by_run(responses, bad, 10_000 * data.one("DataType") + data.one("Run"))
    kept = np.where(bad, 0, responses)
    train = kept[data.one("DataType") == TRAIN]
    deviation = train.std(axis=0)
    return ((kept - train.mean(axis=0)) / np.where(deviation > 0, deviation, 1)).astype(np.float32)


def _by_run(responses: np.ndarray, bad: np.ndarray, run: np.ndarray) -> np.ndarray:
    scaled = np.empty(responses.shape, dtype=np.float32)
    for number in np.unique(run):
        scaled[run == number] = zscore(responses[run == number], bad)
    return scaled


def _order(data: BData, stimuli: np.ndarray, kind: int, table: Path) -> tuple[np.ndarray, np.ndarray]:
    """Rows of one kind in the order of the table, in time within an image, and the image of each: int [n] twice."""
    position = {name: i for i, name in enumerate(read_labels(table))}
    rows = np.flatnonzero(data.one("DataType") == kind)
    unknown = [stimuli[row] for row in rows if stimuli[row] not in position]
    if unknown:
        raise InputError(f"{data.path}: stimulus {unknown[0]} (and {len(unknown) - 1} more rows) is not in {table}")
    images = np.array([position[stimuli[row]] for row in rows], dtype=np.int64)
    missing = len(position) - len(set(images.tolist()))
    if missing:
        raise InputError(
            f"{data.path}: {len(rows)} rows of DataType {kind} show {len(position) - missing} images; "
            f"needs all {len(position)} of {table.name}"
        )
    order = np.argsort(images, kind="stable")
    return rows[order], images[order]


def _repeats(path: Path, images: np.ndarray) -> int:
    counts = np.bincount(images)
    if counts.min() != counts.max():
        raise InputError(f"{path}: test images were shown {counts.min()} to {counts.max()} times; needs equally often")
    return int(counts[0])

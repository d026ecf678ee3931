"""Report on `Kamitani/npz`."""

from pathlib import Path

import numpy as np

from mindvis.common.errors import InputError
from mindvis.prepare.check import Report, Settings, count_constant, short_hash
from mindvis.prepare.files import load_npz
from mindvis.prepare.god import TEST_LABELS, TRAIN_LABELS, read_labels
from mindvis.prepare.god_stimuli import IMAGE_FILE, INDEX_FILE, read_class_index, wnid_of
from mindvis.prepare.origins import GOD, GOD_RELEASED

VC_VOXELS = {1: 4466, 2: 4404, 3: 4643, 4: 4133, 5: 4370}
NUM_TRAIN, NUM_TEST, NUM_SINGLE = 1200, 50, 1750


def check_god(root: Path, settings: Settings) -> Report:
    """Subjects with their rows and regions, pictures, label tables, class index."""
    report = Report("GOD", root, [GOD, GOD_RELEASED])
    for name, check in ((IMAGE_FILE, _check_images), (TRAIN_LABELS, _check_labels), (INDEX_FILE, _check_index)):
        _each(report, root / name, check, settings)
    found = {int(path.stem[4:]): path for path in root.glob("sbj_*.npz") if path.stem[4:].isdigit()}
    expected = set(VC_VOXELS) if settings.published_sizes else set(found) or {1}
    for number in sorted(expected | set(found)):
        _each(report, root / f"sbj_{number}.npz", _check_subject, settings)
    return report


def _each(report: Report, path: Path, check, settings: Settings) -> None:
    if path.is_file():
        report.attempt(check, path, settings)
    else:
        report.add("missing", str(path))


def _check_subject(report: Report, path: Path, settings: Settings) -> None:
    arrays = load_npz(path)
    responses = {name: _array(path, arrays, name) for name in ("arr_0", "arr_1", "arr_2")}
    _check_rows(path, responses)
    train, single, averages = responses.values()
    _check_stimuli(path, _array(path, arrays, "arr_3"), len(train))
    _check_order(path, arrays)
    sizes = _sizes(path, arrays, train.shape[1])
    values = f", finite, {_count_constant(path, responses)} constant voxels" if settings.read_values else ""
    rows = f"{len(train)} training, {len(single)} single and {len(averages)} averaged test rows"
    regions = " ".join(f"{name} {size}" for name, size in sizes.items())
    ending = f"{train.shape[1]} voxels ({regions}){values}{short_hash(path, settings)}"
    report.add("ok", f"{path.name}: {rows}, {ending}")
    if settings.published_sizes:
        published = VC_VOXELS.get(int(path.stem[4:]), sizes["VC"])
        report.expect(f"{path.name}: voxels in VC", sizes["VC"], published)
        report.expect(f"{path.name}: rows", [len(train), len(single), len(averages)], [NUM_TRAIN, NUM_SINGLE, NUM_TEST])


def _sizes(path: Path, arrays: dict[str, np.ndarray], num_voxels: int) -> dict[str, int]:
    """Voxels of each region; raises InputError for a mask of another length, or without a voxel in VC."""
    masks = {name: array for name, array in arrays.items() if array.dtype == bool}
    for name, mask in masks.items():
        if mask.shape != (num_voxels,):
            raise InputError(f"{path}: mask {name} of shape {list(mask.shape)}; needs [{num_voxels}]")
    sizes = {name: int(mask.sum()) for name, mask in masks.items()}
    if not sizes.get("VC"):
        raise InputError(f"{path}: no voxel in a mask VC; it has {', '.join(sizes) or 'no mask'}")
    return sizes


def _count_constant(path: Path, responses: dict[str, np.ndarray]) -> int:
    """Constant voxels of the training rows; values of all three must be finite."""
    return [count_constant(rows, f"{path}: {name}") for name, rows in responses.items()][0]


def _check_stimuli(path: Path, images: np.ndarray, num_rows: int) -> None:
    if images.shape != (num_rows,) or images.dtype.kind not in "iu":
        found = f"{images.dtype} {list(images.shape)}"
        raise InputError(f"{path}: arr_3 is {found}; needs integers [{num_rows}], the image of each training row")
    table = path.with_name(TRAIN_LABELS)
    num_images = len(read_labels(table)) if table.is_file() else int(images.max()) + 1
    if images.min() < 0 or images.max() >= num_images:
        raise InputError(f"{path}: arr_3 spans {images.min()} to {images.max()}; needs 0 to {num_images - 1}")


def _check_rows(path: Path, responses: dict[str, np.ndarray]) -> None:
    shapes = {name: list(rows.shape) for name, rows in responses.items()}
    if any(rows.ndim != 2 or rows.dtype.kind != "f" or 0 in rows.shape for rows in responses.values()):
        raise InputError(f"{path}: shapes {shapes}; needs floats [rows voxels]")
    if len({rows.shape[1] for rows in responses.values()}) > 1:
        raise InputError(f"{path}: shapes {shapes}; needs the same voxels in all three")
    _, single, averages = responses.values()
    if len(single) % len(averages):
        raise InputError(f"{path}: {len(single)} single test rows of {len(averages)} images; needs a multiple")


def _check_order(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """The stimulus ids that prepare_god wrote beside the rows against the label tables (released files have none)."""
    tables = [path.with_name(name) for name in (TRAIN_LABELS, TEST_LABELS)]
    if "train_stimuli" not in arrays or not all(table.is_file() for table in tables):
        return
    train, test = (np.array(read_labels(table)) for table in tables)
    for name, table, expected in (
        ("train_stimuli", tables[0], train[arrays["arr_3"]]),
        ("average_stimuli", tables[1], test),
    ):
        if not np.array_equal(arrays.get(name), expected):
            raise InputError(f"{path}: {name} beside the rows are not in the order of {table}; prepare it again")


def _check_images(report: Report, path: Path, settings: Settings) -> None:
    arrays = load_npz(path)
    counts = {}
    for name, table in (("train_images", TRAIN_LABELS), ("test_images", TEST_LABELS)):
        images = _array(path, arrays, name)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
            raise InputError(f"{path}: {name} is {images.dtype} {list(images.shape)}; needs uint8 [n h w 3]")
        labels = path.with_name(table)
        if labels.is_file() and len(read_labels(labels)) != len(images):
            raise InputError(f"{path}: {len(images)} {name}; needs the {len(read_labels(labels))} of {labels}")
        counts[name] = len(images)
    size = "x".join(map(str, images.shape[1:3]))
    found = f"{counts['train_images']} training and {counts['test_images']} test images of {size}"
    report.add("ok", f"{path.name}: {found}{short_hash(path, settings)}")
    if settings.published_sizes:
        report.expect(f"{path.name}: images", list(counts.values()), [NUM_TRAIN, NUM_TEST])


def _check_labels(report: Report, path: Path, settings: Settings) -> None:
    test = path.with_name(TEST_LABELS)
    if not test.is_file():
        report.add("missing", str(test))
        return
    counts = {table.name: len(read_labels(table)) for table in (path, test)}
    report.add("ok", ", ".join(f"{name}: {count} images" for name, count in counts.items()))


def _check_index(report: Report, path: Path, settings: Settings) -> None:
    index = read_class_index(path)
    known = {wnid for entry in index.values() for wnid in entry[:-1]}
    tables = [path.with_name(name) for name in (TRAIN_LABELS, TEST_LABELS)]
    wanted = {wnid_of(name) for table in tables if table.is_file() for name in read_labels(table)}
    unknown = sorted(wanted - known)
    if unknown:
        raise InputError(f"{path}: {len(unknown)} stimulus classes are not in it, the first is {unknown[0]}")
    report.add("ok", f"{path.name}: {len(index)} classes, all {len(wanted)} stimulus classes in it")


def _array(path: Path, arrays: dict[str, np.ndarray], name: str) -> np.ndarray:
    if name not in arrays:
        raise InputError(f"{path}: no array {name!r}; it has {', '.join(arrays) or 'none'}")
    return arrays[name]

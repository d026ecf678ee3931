"""The checks of HCP, GOD and BOLD5000, each a report; what a loader refuses is broken."""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mindvis.common.errors import InputError
from mindvis.common.files import digest, sha256
from mindvis.common.progress import Progress
from mindvis.data import bold5000 as bold
from mindvis.data import god, hcp
from mindvis.data.arrays import FMRI, NpzReader, check_array, check_shapes, load_npy
from mindvis.data.regions import KNOWN_COUNTS, VISUAL_CORTEX
from mindvis.prepare.bad_voxels import bad_voxels
from mindvis.prepare.bold5000 import check_subject, find_subjects
from mindvis.prepare.check import BOLD5000, GOD, GOD_RELEASED, HCP, CheckReport, CheckSettings
from mindvis.prepare.god import unique_labels

NUM_HCP_SUBJECTS = 1091
VC_VOXELS = {1: 4466, 2: 4404, 3: 4643, 4: 4133, 5: 4370}
NUM_TRAIN, NUM_TEST, NUM_SINGLE = 1200, 50, 1750
SUBJECTS = ("CSI1", "CSI2", "CSI3", "CSI4")
# The numbers of voxels differ between releases and are only shown.
ABOUT_VOXELS = {"CSI1": "1685", "CSI2": "1129 to 1287", "CSI3": "1466", "CSI4": "2787"}
# sessions, trials, training trials, test images
PUBLISHED = {subject: (15, 5254, 4803, 113) for subject in SUBJECTS[:3]} | {"CSI4": (9, 3108, 2846, 106)}


@dataclass(frozen=True)
class _HCPSubject:
    """What the file of one subject holds; `constant` voxels and the hash where its values are read."""

    num_frames: int
    sizes: tuple[tuple[str, int], ...]  # regions and their voxels
    constant: int = 0
    sha256: str = ""


def check_hcp(root: Path, settings: CheckSettings) -> CheckReport:
    """Subjects, frames, voxels of each region, one hash over all files."""
    report = CheckReport("HCP", root, [HCP], settings)
    found = hcp.find_runs(root, report.passed) if root.is_dir() else {}
    if not found:
        report.add("missing", f"no <subject>/{hcp.FILE_NAME} in {root}")
        return report
    checked = [report.attempt(_check_hcp_subject, path) for path in Progress(found.values(), unit="subject")]
    subjects: list[_HCPSubject] = [subject for subject in checked if subject is not None]
    sizes = Counter(subject.sizes for subject in subjects)
    for size, count in sizes.items():
        regions = " ".join(f"{roi} {voxels}" for roi, voxels in size)
        voxels = [voxels for _, voxels in size]
        report.add("ok", f"{count} {'subject' if count == 1 else 'subjects'} with {regions} = {sum(voxels)} voxels")
        if settings.published_sizes:
            report.expect("voxels", voxels, list(KNOWN_COUNTS.values()))
    if len({tuple(name for name, _ in size) for size in sizes}) > 1:
        report.add("differs", "subjects have different regions; the setting data.roi can only take those of all")
    if subjects:
        frames = [subject.num_frames for subject in subjects]
        published = f"(published: {NUM_HCP_SUBJECTS} subjects, runs of 1200 frames)"
        report.add("ok", f"{min(frames)} to {max(frames)} frames {published}")
    if subjects and settings.read_values:
        constant = sum(subject.constant for subject in subjects)
        all_files = digest(subject.sha256 for subject in subjects)[:16]
        report.add("ok", f"finite, {constant} constant voxels in all, sha256 of all files {all_files}")
    return report


def _check_hcp_subject(report: CheckReport, path: Path) -> _HCPSubject:
    with NpzReader(path) as npz:
        regions = VISUAL_CORTEX if report.settings.published_sizes else tuple(npz)
        missing = [name for name in regions if name not in npz]
        if missing:
            raise InputError(f"{path}: no {', '.join(missing)}, has {', '.join(npz)}; --any-size takes any regions")
        if any(npz[name].dtype.kind != "f" for name in regions):
            types = ", ".join(str(npz[name].dtype) for name in regions)
            raise InputError(f"{path}: {types}; needs z-scored floats")
        sizes = check_shapes(npz, hcp.region_arrays(regions), path)
        arrays = npz.read(hcp.region_arrays(regions)) if report.settings.read_values else {}
    frames_and_sizes = sizes["f"][0], tuple((name, sizes[name][0]) for name in regions)
    if not report.settings.read_values:
        return _HCPSubject(*frames_and_sizes)
    report.outliers({f"{path}: {name}": rows for name, rows in arrays.items()})
    return _HCPSubject(*frames_and_sizes, sum(int(bad_voxels(rows).sum()) for rows in arrays.values()), sha256(path))


def check_god(root: Path, settings: CheckSettings) -> CheckReport:
    """Subjects with their rows and regions, pictures, label tables, class index."""
    report = CheckReport("GOD", root, [GOD, GOD_RELEASED], settings)
    report.attempt_file(root / god.IMAGE_FILE, _check_images)
    report.attempt_file(root / god.LABEL_TABLES["train"], _check_labels)
    report.attempt_file(root / god.INDEX_FILE, _check_index)
    found = {path.name for path in god.find_subjects(root, report.passed).values()} if root.is_dir() else set()
    published = [f"sbj_{number}.npz" for number in VC_VOXELS]
    for name in sorted(found | set(published if settings.published_sizes or not found else ())):
        report.attempt_file(root / name, _check_god_subject)
    return report


def _check_god_subject(report: CheckReport, path: Path) -> None:
    arrays, masks = god.read_subject(path, _image_counts(path.parent), god.AVERAGES + god.SINGLE_TRIALS)
    _check_order(path, arrays["arr_3"])
    sizes = {name: int(mask.sum()) for name, mask in masks.items()}
    if not sizes.get("VC"):
        raise InputError(f"{path}: no voxel in a mask VC; it has {', '.join(sizes) or 'no mask'}")
    report.outliers({f"{path}: {name}": rows for name, rows in arrays.items() if name != "arr_3"})
    train, single, averages = (arrays[name] for name in ("arr_0", "arr_1", "arr_2"))
    rows = f"{len(train)} training, {len(single)} single and {len(averages)} averaged test rows"
    regions = " ".join(f"{name} {size}" for name, size in sizes.items())
    values = f", finite, {int(bad_voxels(train).sum())} constant voxels" * report.settings.read_values
    ending = f"{train.shape[1]} voxels ({regions}){values}{report.short_hash(path)}"
    report.add("ok", f"{path.name}: {rows}, {ending}")
    if report.settings.published_sizes:
        number = re.fullmatch(r"sbj_([0-9]+)", path.stem)
        published = VC_VOXELS.get(int(number[1]) if number else 0, sizes["VC"])
        report.expect(f"{path.name}: voxels in VC", sizes["VC"], published)
        report.expect(f"{path.name}: rows", [len(train), len(single), len(averages)], [NUM_TRAIN, NUM_SINGLE, NUM_TEST])


def _image_counts(folder: Path) -> dict[str, tuple[int, str]]:
    """Letter of the declared arrays -> how many images the label tables list, as far as they are there."""
    tables = {"i": folder / god.LABEL_TABLES["train"], "m": folder / god.LABEL_TABLES["test"]}
    return {letter: (len(god.read_labels(path)), path.name) for letter, path in tables.items() if path.is_file()}


def _check_order(path: Path, train_images: np.ndarray) -> None:
    """The stimulus ids that prepare_god wrote beside the rows against the label tables (released files have none)."""
    tables = [path.with_name(name) for name in god.LABEL_TABLES.values()]
    with NpzReader(path) as npz:
        beside = {name: npz.raw(name) for name in ("train_stimuli", "average_stimuli") if name in npz}
    if "train_stimuli" not in beside or not all(table.is_file() for table in tables):
        return
    train, test = (np.array(god.read_labels(table)) for table in tables)
    expectations = [("train_stimuli", tables[0], train[train_images]), ("average_stimuli", tables[1], test)]
    for name, table, expected in expectations:
        if name not in beside or not np.array_equal(beside[name], expected):
            raise InputError(f"{path}: {name} beside the rows are not in the order of {table}; prepare it again")


def _check_images(report: CheckReport, path: Path) -> None:
    with NpzReader(path) as npz:
        sizes = check_shapes(npz, god.IMAGES, path, _image_counts(path.parent))
        for item in god.IMAGES if report.settings.read_values else ():
            npz.raw(item.name)  # reading checks the CRC
    found = f"{sizes['i'][0]} training and {sizes['m'][0]} test images of {sizes['h'][0]}x{sizes['w'][0]}"
    report.add("ok", f"{path.name}: {found}{report.short_hash(path)}")
    if report.settings.published_sizes:
        report.expect(f"{path.name}: images", [sizes["i"][0], sizes["m"][0]], [NUM_TRAIN, NUM_TEST])


def _check_labels(report: CheckReport, path: Path) -> None:
    test = path.with_name(god.LABEL_TABLES["test"])
    if not test.is_file():
        report.add("missing", str(test))
        return
    counts = {table.name: len(unique_labels(table)) for table in (path, test)}
    report.add("ok", ", ".join(f"{name}: {count} images" for name, count in counts.items()))


def _check_index(report: CheckReport, path: Path) -> None:
    index = god.read_class_index(path)
    known = {wnid for entry in index.values() for wnid in entry[:-1]}
    tables = [path.with_name(name) for name in god.LABEL_TABLES.values()]
    wanted = {god.wnid_of(name) for table in tables if table.is_file() for name in god.read_labels(table)}
    unknown = sorted(wanted - known)
    if unknown:
        raise InputError(f"{path}: {len(unknown)} stimulus classes are not in it, the first is {unknown[0]}")
    report.add("ok", f"{path.name}: {len(index)} classes, all {len(wanted)} stimulus classes in it")


def check_bold5000(root: Path, settings: CheckSettings) -> CheckReport:
    """Pictures, presentation lists and responses of every subject."""
    report = CheckReport("BOLD5000", root, [BOLD5000], settings)
    needed = {bold.RESPONSES: Path.is_dir, bold.PRESENTATIONS: Path.is_dir}
    needed |= {bold.REPEATED: Path.is_file, bold.STIMULI: Path.is_dir}
    absent = [name for name, is_there in needed.items() if not is_there(root / name)]
    for name in absent:
        report.add("missing", str(root / name))
    if absent:
        return report
    names = report.attempt(_check_pictures, root)
    if names:
        report.attempt(_check_subjects, root, names)
    return report


def _check_pictures(report: CheckReport, root: Path) -> list[str] | None:
    """Names of the pictures, where there are any."""
    paths = [root / bold.STIMULI / name for name in (bold.IMAGE_FILE, bold.PICKLE_FILE)]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        report.add("missing", f"{paths[0]} and {bold.NAME_FILE}")
        return None
    images, names = bold.read_images(root / bold.STIMULI)
    size = "x".join(map(str, images.shape[1:3]))
    mapped = path == paths[0]
    ending = report.short_hash(path) if mapped else " (pickled: --from-pickle of prepare_bold5000 maps it)"
    report.add("ok", f"{path.name}: {len(names)} images of {size}{ending}")
    return names


def _check_subjects(report: CheckReport, root: Path, names: list[str]) -> None:
    found = find_subjects(root, report.passed)
    for subject in sorted({*found, *(SUBJECTS if report.settings.published_sizes else ())}):
        if subject in found:
            report.attempt(_check_bold5000_subject, root, subject, names)
        else:
            report.add("missing", f"{root / bold.PRESENTATIONS / subject}")


def _check_bold5000_subject(report: CheckReport, root: Path, name: str, names: list[str]) -> None:
    subject = check_subject(root, name, names, report.passed)
    for path in subject.absent:
        report.add("missing", str(path))
    report.add("ok", subject.describe())
    values = _bold5000_values(report, root, name) if report.settings.read_values else ""
    regions = " ".join(f"{region} {count}" for region, count in subject.voxels.items()) or "no region"
    about = f", published about {ABOUT_VOXELS[name]}" if report.settings.published_sizes and name in SUBJECTS else ""
    report.add("ok", f"{name}: {sum(subject.voxels.values())} voxels{about} ({regions}){values}")
    if report.settings.published_sizes and name in PUBLISHED:
        report.expect(f"{name}: sessions, trials, training trials, test images", subject.counts, PUBLISHED[name])


def _bold5000_values(report: CheckReport, root: Path, subject: str) -> str:
    constant = 0
    for path in (path for _, path in bold.response_files(root, subject) if path.is_file()):
        rows = check_array(load_npy(path, mmap=True), FMRI, str(path))
        report.outliers({f"{path}: array": rows})
        constant += int(bad_voxels(rows).sum())
    return f", finite, {constant} constant voxels"

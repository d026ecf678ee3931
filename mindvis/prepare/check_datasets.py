"""The checks of HCP, GOD and BOLD5000, each a report; what a loader refuses is broken."""

import re
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
from mindvis.prepare.check import BOLD5000, GOD, GOD_RELEASED, HCP, Report, Settings, short_hash
from mindvis.prepare.god import unique_labels

NUM_HCP_SUBJECTS = 1091
VC_VOXELS = {1: 4466, 2: 4404, 3: 4643, 4: 4133, 5: 4370}
NUM_TRAIN, NUM_TEST, NUM_SINGLE = 1200, 50, 1750
SUBJECTS = ("CSI1", "CSI2", "CSI3", "CSI4")
# The numbers of voxels differ between releases and are only shown.
ABOUT_VOXELS = {"CSI1": "1685", "CSI2": "1129 to 1287", "CSI3": "1466", "CSI4": "2787"}
# sessions, trials, training trials, test images
PUBLISHED = {subject: (15, 5254, 4803, 113) for subject in SUBJECTS[:3]} | {"CSI4": (9, 3108, 2846, 106)}


def check_hcp(root: Path, settings: Settings) -> Report:
    """Subjects, frames, voxels of each region, one hash over all files."""
    report = Report("HCP", root, [HCP])
    found = hcp.find_runs(root, report.passed) if root.is_dir() else {}
    if not found:
        report.add("missing", f"no <subject>/{hcp.FILE_NAME} in {root}")
        return report
    seen = _HcpSubjects()
    for path in Progress(found.values(), unit="subject"):
        report.attempt(seen.add, path, settings)
    seen.summarise(report, settings)
    return report


class _HcpSubjects:
    """What the subjects that could be read have in common."""

    def __init__(self) -> None:
        self.frames: list[int] = []
        self.sizes: dict[tuple[tuple[str, int], ...], int] = {}
        self.constant = 0
        self.hashes: list[str] = []

    def add(self, report: Report, path: Path, settings: Settings) -> None:
        with NpzReader(path) as npz:
            regions = VISUAL_CORTEX if settings.published_sizes else tuple(npz)
            missing = [name for name in regions if name not in npz]
            if missing:
                raise InputError(f"{path}: no {', '.join(missing)}, has {', '.join(npz)}; --any-size takes any regions")
            if any(npz[name].dtype.kind != "f" for name in regions):
                raise InputError(
                    f"{path}: {', '.join(str(npz[name].dtype) for name in regions)}; needs z-scored floats"
                )
            sizes = check_shapes(npz, hcp.region_arrays(regions), path)
            arrays = npz.read(hcp.region_arrays(regions)) if settings.read_values else {}
        if settings.read_values:
            report.outliers({f"{path}: {name}": rows for name, rows in arrays.items()})
            self.constant += sum(int(bad_voxels(rows).sum()) for rows in arrays.values())
            self.hashes.append(sha256(path))
        self.frames.append(sizes["f"][0])
        size = tuple((name, sizes[name][0]) for name in regions)
        self.sizes[size] = self.sizes.get(size, 0) + 1

    def summarise(self, report: Report, settings: Settings) -> None:
        for size, subjects in self.sizes.items():
            regions = " ".join(f"{roi} {count}" for roi, count in size)
            counts = [count for _, count in size]
            subject = "subject" if subjects == 1 else "subjects"
            report.add("ok", f"{subjects} {subject} with {regions} = {sum(counts)} voxels")
            if settings.published_sizes:
                report.expect("voxels", counts, list(KNOWN_COUNTS.values()))
        if len({tuple(name for name, _ in size) for size in self.sizes}) > 1:
            report.add("differs", "subjects have different regions; the setting data.roi can only take those of all")
        if self.frames:
            frames = f"{min(self.frames)} to {max(self.frames)} frames"
            report.add("ok", f"{frames} (published: {NUM_HCP_SUBJECTS} subjects, runs of 1200 frames)")
        if self.frames and settings.read_values:
            all_files = f"sha256 of all files {digest(self.hashes)[:16]}"
            report.add("ok", f"finite, {self.constant} constant voxels in all, {all_files}")


def check_god(root: Path, settings: Settings) -> Report:
    """Subjects with their rows and regions, pictures, label tables, class index."""
    report = Report("GOD", root, [GOD, GOD_RELEASED])
    report.attempt_file(root / god.IMAGE_FILE, _check_images, settings)
    report.attempt_file(root / god.LABEL_TABLES["train"], _check_labels)
    report.attempt_file(root / god.INDEX_FILE, _check_index)
    found = {path.name for path in god.find_subjects(root, report.passed)} if root.is_dir() else set()
    published = [f"sbj_{number}.npz" for number in VC_VOXELS]
    for name in sorted(found | set(published if settings.published_sizes or not found else ())):
        report.attempt_file(root / name, _check_god_subject, settings)
    return report


def _check_god_subject(report: Report, path: Path, settings: Settings) -> None:
    arrays, masks = god.read_subject(path, _image_counts(path.parent), god.AVERAGES + god.SINGLE_TRIALS)
    _check_order(path, arrays["arr_3"])
    sizes = {name: int(mask.sum()) for name, mask in masks.items()}
    if not sizes.get("VC"):
        raise InputError(f"{path}: no voxel in a mask VC; it has {', '.join(sizes) or 'no mask'}")
    report.outliers({f"{path}: {name}": rows for name, rows in arrays.items() if name != "arr_3"})
    train, single, averages = (arrays[name] for name in ("arr_0", "arr_1", "arr_2"))
    rows = f"{len(train)} training, {len(single)} single and {len(averages)} averaged test rows"
    regions = " ".join(f"{name} {size}" for name, size in sizes.items())
    values = f", finite, {int(bad_voxels(train).sum())} constant voxels" * settings.read_values
    ending = f"{train.shape[1]} voxels ({regions}){values}{short_hash(path, settings)}"
    report.add("ok", f"{path.name}: {rows}, {ending}")
    if settings.published_sizes:
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
    for name, table, expected in (
        ("train_stimuli", tables[0], train[train_images]),
        ("average_stimuli", tables[1], test),
    ):
        if name not in beside or not np.array_equal(beside[name], expected):
            raise InputError(f"{path}: {name} beside the rows are not in the order of {table}; prepare it again")


def _check_images(report: Report, path: Path, settings: Settings) -> None:
    with NpzReader(path) as npz:
        sizes = check_shapes(npz, god.IMAGES, path, _image_counts(path.parent))
        _ = [npz.raw(item.name) for item in god.IMAGES] if settings.read_values else []  # reading checks their CRC
    found = f"{sizes['i'][0]} training and {sizes['m'][0]} test images of {sizes['h'][0]}x{sizes['w'][0]}"
    report.add("ok", f"{path.name}: {found}{short_hash(path, settings)}")
    if settings.published_sizes:
        report.expect(f"{path.name}: images", [sizes["i"][0], sizes["m"][0]], [NUM_TRAIN, NUM_TEST])


def _check_labels(report: Report, path: Path) -> None:
    test = path.with_name(god.LABEL_TABLES["test"])
    if not test.is_file():
        report.add("missing", str(test))
        return
    counts = {table.name: len(unique_labels(table)) for table in (path, test)}
    report.add("ok", ", ".join(f"{name}: {count} images" for name, count in counts.items()))


def _check_index(report: Report, path: Path) -> None:
    index = god.read_class_index(path)
    known = {wnid for entry in index.values() for wnid in entry[:-1]}
    tables = [path.with_name(name) for name in god.LABEL_TABLES.values()]
    wanted = {god.wnid_of(name) for table in tables if table.is_file() for name in god.read_labels(table)}
    unknown = sorted(wanted - known)
    if unknown:
        raise InputError(f"{path}: {len(unknown)} stimulus classes are not in it, the first is {unknown[0]}")
    report.add("ok", f"{path.name}: {len(index)} classes, all {len(wanted)} stimulus classes in it")


def check_bold5000(root: Path, settings: Settings) -> Report:
    """Pictures, presentation lists and responses of every subject."""
    report = Report("BOLD5000", root, [BOLD5000])
    needed = {bold.RESPONSES: Path.is_dir, bold.PRESENTATIONS: Path.is_dir}
    needed |= {bold.REPEATED: Path.is_file, bold.STIMULI: Path.is_dir}
    absent = [name for name, is_there in needed.items() if not is_there(root / name)]
    for name in absent:
        report.add("missing", str(root / name))
    if absent:
        return report
    names: list[str] = []
    report.attempt(_check_pictures, root, settings, names)
    if names:
        report.attempt(_check_subjects, root, settings, names)
    return report


def _check_pictures(report: Report, root: Path, settings: Settings, names: list[str]) -> None:
    """Adds to `names` those of the pictures."""
    paths = [root / bold.STIMULI / name for name in (bold.IMAGE_FILE, bold.PICKLE_FILE)]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        report.add("missing", f"{paths[0]} and {bold.NAME_FILE}")
        return
    images, found = bold.read_images(root / bold.STIMULI)
    names += found
    size = "x".join(map(str, images.shape[1:3]))
    mapped = path == paths[0]
    ending = short_hash(path, settings) if mapped else " (pickled: --from-pickle of prepare_bold5000 maps it)"
    report.add("ok", f"{path.name}: {len(names)} images of {size}{ending}")


def _check_subjects(report: Report, root: Path, settings: Settings, names: list[str]) -> None:
    found = find_subjects(root, report.passed)
    for subject in sorted({*found, *(SUBJECTS if settings.published_sizes else ())}):
        if subject in found:
            report.attempt(_check_bold5000_subject, root, subject, settings, names)
        else:
            report.add("missing", f"{root / bold.PRESENTATIONS / subject}")


def _check_bold5000_subject(report: Report, root: Path, name: str, settings: Settings, names: list[str]) -> None:
    subject = check_subject(root, name, names, report.passed)
    for path in subject.absent:
        report.add("missing", str(path))
    report.add("ok", subject.describe())
    values = _bold5000_values(report, root, name) if settings.read_values else ""
    regions = " ".join(f"{region} {count}" for region, count in subject.voxels.items()) or "no region"
    about = f", published about {ABOUT_VOXELS[name]}" if settings.published_sizes and name in SUBJECTS else ""
    report.add("ok", f"{name}: {sum(subject.voxels.values())} voxels{about} ({regions}){values}")
    if settings.published_sizes and name in PUBLISHED:
        report.expect(f"{name}: sessions, trials, training trials, test images", subject.counts, PUBLISHED[name])


def _bold5000_values(report: Report, root: Path, subject: str) -> str:
    constant = 0
    for path in (path for _, path in bold.response_files(root, subject) if path.is_file()):
        rows = check_array(load_npy(path, mmap=True), FMRI, str(path))
        report.outliers({f"{path}: array": rows})
        constant += int(bad_voxels(rows).sum())
    return f", finite, {constant} constant voxels"

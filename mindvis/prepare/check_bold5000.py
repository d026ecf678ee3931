"""Report on `BOLD5000`."""

from pathlib import Path

import numpy as np

from mindvis.data.arrays import load_npy
from mindvis.data.bold5000 import PRESENTATIONS, REPEATED, RESPONSES, STIMULI
from mindvis.prepare import bold5000
from mindvis.prepare.check import Report, Settings, count_constant, short_hash
from mindvis.prepare.origins import BOLD5000

SUBJECTS = ("CSI1", "CSI2", "CSI3", "CSI4")
# The numbers of voxels differ between releases and are only shown.
ABOUT_VOXELS = {"CSI1": "1685", "CSI2": "1129 to 1287", "CSI3": "1466", "CSI4": "2787"}
# sessions, trials, training trials, test images
PUBLISHED = {subject: (15, 5254, 4803, 113) for subject in SUBJECTS[:3]} | {"CSI4": (9, 3108, 2846, 106)}


def check_bold5000(root: Path, settings: Settings) -> Report:
    """Pictures, presentation lists and responses of every subject."""
    report = Report("BOLD5000", root, [BOLD5000])
    needed = {RESPONSES: Path.is_dir, PRESENTATIONS: Path.is_dir, REPEATED: Path.is_file, STIMULI: Path.is_dir}
    absent = [name for name, is_there in needed.items() if not is_there(root / name)]
    for name in absent:
        report.add("missing", str(root / name))
    if absent:
        return report
    report.attempt(_check_images, root, settings)
    report.attempt(_check_subjects, root, settings)
    return report


def _check_images(report: Report, root: Path, settings: Settings) -> None:
    folder = root / STIMULI
    paths = [folder / bold5000.IMAGE_FILE, folder / bold5000.NAME_FILE]
    if all(path.is_file() for path in paths):
        shape = load_npy(paths[0], mmap=True).shape
        names = bold5000.read_names(folder)
        ending = short_hash(paths[0], settings)
        report.add("ok", f"{paths[0].name}: {len(names)} images of {'x'.join(map(str, shape[1:3]))}{ending}")
        return
    pickled = folder / bold5000.PICKLE_FILE
    if not pickled.is_file():
        report.add("missing", f"{paths[0]} and {paths[1].name}")
        return
    names = bold5000.open_images(folder, pickle=pickled).names
    report.add("ok", f"{pickled.name}: {len(names)} images (pickled: --from-pickle of prepare_bold5000 maps it)")


def _check_subjects(report: Report, root: Path, settings: Settings) -> None:
    found = bold5000.find_subjects(root)
    for subject in sorted({*found, *(SUBJECTS if settings.published_sizes else ())}):
        if subject in found:
            report.attempt(_check_subject, root, subject, settings)
        else:
            report.add("missing", f"{root / PRESENTATIONS / subject}")


def _check_subject(report: Report, root: Path, subject: str, settings: Settings) -> None:
    shown = bold5000.read_presentations(root, subject)
    names = _names(root)
    if names:
        bold5000.check_names(root, shown, names)
    voxels, absent = bold5000.check_responses(root, shown)
    for path in absent:
        report.add("missing", str(path))
    report.add("ok", bold5000.describe(root, shown))
    values = _values(root, subject) if settings.read_values else ""
    regions = " ".join(f"{region} {count}" for region, count in voxels.items()) or "no region"
    about = f", published about {ABOUT_VOXELS[subject]}" if settings.published_sizes and subject in SUBJECTS else ""
    report.add("ok", f"{subject}: {sum(voxels.values())} voxels{about} ({regions}){values}")
    if settings.published_sizes and subject in PUBLISHED:
        trials = bold5000.count(root, shown)
        report.expect(f"{subject}: sessions, trials, training trials, test images", trials, PUBLISHED[subject])


def _values(root: Path, subject: str) -> str:
    paths = [path for _, path in bold5000.response_files(root, subject) if path.is_file()]
    constant = sum(count_constant(np.asarray(load_npy(path, mmap=True)), str(path)) for path in paths)
    return f", finite, {constant} constant voxels"


def _names(root: Path) -> set[str]:
    folder = root / STIMULI
    if (folder / bold5000.NAME_FILE).is_file() and (folder / bold5000.IMAGE_FILE).is_file():
        return set(bold5000.read_names(folder))
    return set()

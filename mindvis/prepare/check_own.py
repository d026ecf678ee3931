"""The check of anyone's own data: one .npz file, read as the stages read it."""

from pathlib import Path

import numpy as np

from mindvis.common.errors import InputError
from mindvis.data.arrays import BLOCK
from mindvis.data.own import SPLITS, OwnArrays, load_npz, read_own, voxel_moments
from mindvis.data.pairs import overlap
from mindvis.data.rows import VoxelRows
from mindvis.data.voxels import find_outlier
from mindvis.prepare.check import Origin, Report, Settings, short_hash

OWN = Origin(
    "own data, one .npz file as docs/data.md describes it",
    "docs/data.md, Your own data",
    "yours",
    "yours",
    "python scripts/check_data.py --datasets npz --root my_data.npz",
)


def check_npz(path: Path, settings: Settings) -> Report:
    """Rows, pictures, voxels and regions of one file; constant voxels; test pictures that are training pictures too."""
    report = Report("npz", path, [OWN])
    if not path.is_file():
        report.add("missing", f"no file {path}; --root names the .npz file itself")
        return report
    report.attempt(_check_arrays, path, settings)
    return report


def _check_arrays(report: Report, path: Path, settings: Settings) -> None:
    data = read_own(path)
    counts = ", ".join(f"{int((data.split == split).sum())} {split}" for split in SPLITS)
    report.add("ok", f"{len(data.fmri)} rows ({counts}), {data.fmri.shape[1]} voxels{short_hash(path, settings)}")
    regions = " ".join(f"{name} {int(mask.sum())}" for name, mask in data.roi_masks.items())
    report.add("ok", f"regions: {regions or 'none named, data.roi=all takes every voxel'}")
    shown = f"{len(np.unique(data.stimulus))} of {len(data.images)}"
    side = "x".join(map(str, data.images.shape[1:3]))
    report.add("ok", f"{shown} images of {side} shown, {_classes(data)}")
    subjects = sorted(set(data.subject.tolist()))
    report.add("ok", f"subjects: {', '.join(filter(None, subjects)) or 'none named, so all rows are of one'}")
    if settings.read_values:
        for subject in subjects:
            _check_voxels(report, data, subject, str(path))
    _check_overlap(report, path)


def _classes(data: OwnArrays) -> str:
    if data.class_ids is None:
        return "no class_ids: the classifier's class of the true picture is taken"
    return f"{len(np.unique(data.class_ids))} classes"


def _check_voxels(report: Report, data: OwnArrays, subject: str, where: str) -> None:
    """Constant voxels and the level of the responses of one subject's training rows."""
    name = subject or "all rows"
    rows = VoxelRows([data.fmri]).subset(np.flatnonzero((data.subject == subject) & (data.split == "train")))
    if not len(rows):
        raise InputError(f"{where}: {name}: no training row")
    mean, deviation = voxel_moments(rows, f"{where}: {name}")
    varies = np.isfinite(deviation)
    within = float(np.sqrt(np.square(deviation[varies]).mean()))
    found = (
        f"{name}: finite, {int((~varies).sum())} constant voxels, voxels differ in mean by {mean.std():.3g} and vary by"
    )
    hint = " (raw responses: data.scale=voxel, the default, z-scores them)" if mean.std() > within else ""
    report.add("ok", f"{found} {within:.3g}{hint}")
    outlier = find_outlier(rows[: 4 * BLOCK])
    if outlier:
        report.add("differs", f"{name}: fmri {outlier}")


def _check_overlap(report: Report, path: Path) -> None:
    train, test, _ = load_npz(path, patch_size=1, scale="none")
    found = overlap(train, test)
    if found["also_in_training"]:
        counts = f"{found['also_in_training']} of {found['test_pictures']}"
        report.add("differs", f"{counts} test pictures are training pictures too: their scores are of no worth")
    else:
        report.add("ok", f"none of {found['test_pictures']} test pictures is a training picture")

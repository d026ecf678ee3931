"""The checks of MOSAIC, NSD and own data, each a report; what a loader refuses is broken."""

from collections import Counter
from pathlib import Path

import numpy as np

from mindvis.common.errors import InputError
from mindvis.common.progress import Progress
from mindvis.data import mosaic, nsd
from mindvis.data import mosaic_files as files
from mindvis.data.arrays import BLOCK, FMRI, check_array
from mindvis.data.hdf5 import open_hdf5
from mindvis.data.own import SPLITS, OwnArrays, load_npz, read_own
from mindvis.data.pairs import overlap
from mindvis.data.regions import EVERY, NUM_GRAYORDINATES
from mindvis.data.rows import VoxelRows, voxel_moments
from mindvis.prepare.bad_voxels import bad_voxels
from mindvis.prepare.check import MOSAIC, NSD, OWN, CheckReport, CheckSettings

SUBJECTS = {"BOLD5000": 4, "BMD": 10, "NSD": 8, "GOD": 5, "NOD": 30, "HAD": 30, "THINGS": 3, "deeprecon": 3}
SESSIONS = {"subj03": 32, "subj04": 30, "subj06": 32, "subj08": 30}  # 40 of the others
GENERAL = {"subj01": 15724, "subj02": 14278, "subj05": 13039, "subj07": 12682}  # voxels of nsdgeneral
PICTURES = (73_000, 425, 425, 3)
ROWS = 64  # trials in memory at a time


def check_mosaic(root: Path, settings: CheckSettings) -> CheckReport:
    """Subjects with their trials, splits, NaN grayordinates and noise ceilings; their stimuli; the split files."""
    report = CheckReport("MOSAIC", root, [MOSAIC], settings)
    found = files.find_subjects(root, report.passed) if root.is_dir() else {}
    if not found:
        report.add("missing", f"no sub-<number>_<set>.hdf5 in {root}")
        return report
    for short, count in Counter(name.rpartition("_")[2] for name in found).items():
        of = f" of {SUBJECTS[short]}" if short in SUBJECTS else ", not one of the eight sets"
        report.add("ok" if short in SUBJECTS else "differs", f"{short}: {count}{of} subjects")
    stimuli: set[str] = set()
    for name, path in found.items():
        report.attempt(_check_mosaic_subject, name, path, stimuli)
    if stimuli:
        report.attempt(_check_mosaic_stimuli, root / "stimuli", sorted(stimuli))
    if (root / "testtrain").is_dir():
        report.attempt(_check_splits, root / "testtrain")
    return report


def _check_mosaic_subject(report: CheckReport, name: str, path: Path, stimuli: set[str]) -> None:
    """Add to `stimuli` the names of those it was shown, also where a later check fails."""
    trials = files.read_trials(path)
    stimuli |= set(trials.stimuli)
    phases = Counter(trials.phases)
    counts = ", ".join(f"{phases[phase]} {phase}" for phase in files.SPLITS if phases[phase])
    ceilings = files.best_noise_ceiling(files.read_noise_ceilings(path))
    ceiling = "no noise ceiling" if ceilings is None else f"noise ceiling from {ceilings[0]} repeats"
    values = ""
    if report.settings.read_values:
        bad = _nan_grayordinates(path, trials)
        values = f", {int(bad.sum())} grayordinates NaN in some trial"
        listed = _listed_nan(path)
        if listed is not None and not np.array_equal(listed, np.flatnonzero(bad)):
            found = f"nan_indices_all lists {len(listed)}, {int(bad.sum())} are NaN in some trial"
            report.add("differs", f"{path}: {found}")
    shown = f"{len(set(trials.stimuli))} stimuli"
    report.add("ok", f"{name}: {len(trials.names)} trials ({counts}) of {shown}, {ceiling}{values}")


def _nan_grayordinates(path: Path, trials: files.Trials) -> np.ndarray:
    bad, every = np.zeros(NUM_GRAYORDINATES, bool), np.arange(NUM_GRAYORDINATES)
    for start in Progress(range(0, len(trials.names), ROWS), desc=path.stem, unit="block"):
        rows = range(start, min(start + ROWS, len(trials.names)))
        bad |= ~np.isfinite(files.read_betas(path, trials, rows, every)).all(axis=0)
    return bad


def _listed_nan(path: Path) -> np.ndarray | None:
    """The grayordinates that the file itself lists, sorted; of trials and noise ceilings alike. None: it does not."""
    with open_hdf5(path, files.NEEDED) as file:
        listed = file.get("nan_indices_all", None)
        ceilings = [np.asarray(one[()]) for one in (file.get("noiseceilings", None) or {}).values()]
        if listed is None or listed.dtype.kind not in "iu":
            return None
        found = np.unique(listed[()])
    of_ceilings = ~np.isfinite(np.stack(ceilings)).all(axis=0) if ceilings else np.zeros(NUM_GRAYORDINATES, bool)
    return np.setdiff1d(found, np.flatnonzero(of_ceilings))


def _check_mosaic_stimuli(report: CheckReport, folder: Path, names: list[str]) -> None:
    if not folder.is_dir():
        report.add("missing", f"{folder}, with {len(names)} stimuli")
        return
    try:
        mosaic.StimulusFolder(folder, image_size=8).open(names)
        report.add("ok", f"{folder}: a picture of each of {len(names)} stimuli")
    except InputError as error:
        report.add("missing", str(error))


def _check_splits(report: CheckReport, folder: Path) -> None:
    splits = files.read_splits(folder)
    counts = ", ".join(f"{len(names)} {split}" for split, names in splits.items())
    report.add("ok", f"{folder}: {counts} trials of all subjects")


def check_nsd(root: Path, settings: CheckSettings) -> CheckReport:
    """What prepare_nsd.py made of each subject, and the pictures."""
    report = CheckReport("NSD", root, [NSD], settings)
    report.attempt_file(root / nsd.STIMULI, _check_nsd_pictures)
    found = nsd.find_subjects(root, report.passed) if root.is_dir() else {}
    if not found:
        report.add("missing", f"no <subject>/{nsd.SUBJECT_FILE} in {root}")
    for folder in found.values():
        report.attempt(_check_nsd_subject, folder)
    return report


def _check_nsd_pictures(report: CheckReport, path: Path) -> None:
    images = nsd.open_stimuli(path)
    report.add("ok", f"{path.name}: {len(images)} pictures of {images.shape[1]}x{images.shape[2]}")
    if report.settings.published_sizes:
        report.expect(f"{path.name}: pictures", images.shape, PICTURES)


def _check_nsd_subject(report: CheckReport, folder: Path) -> None:
    name, subject = folder.name, nsd.read_subject(folder, EVERY)
    constant = 0
    if report.settings.read_values:
        for rows in Progress(subject.sources, desc=name, unit="session"):
            check_array(rows, FMRI, rows.path)
            constant += int(bad_voxels(rows[:]).sum())
    splits, sizes = Counter(subject.splits), {region: int(mask.sum()) for region, mask in subject.masks.items()}
    regions = " ".join(f"{region} {size}" for region, size in sizes.items())
    values = f", finite, {constant} constant voxels" * report.settings.read_values
    trials = f"{splits['train']} training and {splits['test']} test trials"
    sessions = f"{len(subject.sources)} sessions"
    report.add("ok", f"{name}: {sessions}, {trials}, {len(subject.bad)} voxels ({regions}){values}")
    if report.settings.published_sizes:
        report.expect(f"{name}: sessions", len(subject.sources), SESSIONS.get(name, 40))
        if nsd.GENERAL in sizes and name in GENERAL:
            report.expect(f"{name}: voxels in {nsd.GENERAL}", sizes[nsd.GENERAL], GENERAL[name])


def check_npz(path: Path, settings: CheckSettings) -> CheckReport:
    """Rows, pictures, voxels and regions of one file; constant voxels; test pictures that are training pictures too."""
    report = CheckReport("npz", path, [OWN], settings)
    if not path.is_file():
        report.add("missing", f"no file {path}; --root names the .npz file itself")
        return report
    report.attempt(_check_own_arrays, path)
    return report


def _check_own_arrays(report: CheckReport, path: Path) -> None:
    data = read_own(path)
    counts = ", ".join(f"{int((data.split == split).sum())} {split}" for split in SPLITS)
    report.add("ok", f"{len(data.fmri)} rows ({counts}), {data.fmri.shape[1]} voxels{report.short_hash(path)}")
    regions = " ".join(f"{name} {int(mask.sum())}" for name, mask in data.roi_masks.items())
    report.add("ok", f"regions: {regions or 'none named, data.roi=all takes every voxel'}")
    shown = f"{len(np.unique(data.stimulus))} of {len(data.images)}"
    side = "x".join(map(str, data.images.shape[1:3]))
    classes = "no class_ids: the classifier's class of the true picture is taken"
    if data.class_ids is not None:
        classes = f"{len(np.unique(data.class_ids))} classes"
    report.add("ok", f"{shown} images of {side} shown, {classes}")
    subjects = sorted(set(data.subject.tolist()))
    report.add("ok", f"subjects: {', '.join(filter(None, subjects)) or 'none named, so all rows are of one'}")
    if report.settings.read_values:
        for subject in subjects:
            _check_voxels(report, data, subject, str(path))
    _check_overlap(report, path)


def _check_voxels(report: CheckReport, data: OwnArrays, subject: str, where: str) -> None:
    """Constant voxels and the level of the responses of one subject's training rows."""
    name = subject or "all rows"
    rows = VoxelRows([data.fmri]).subset(np.flatnonzero((data.subject == subject) & (data.split == "train")))
    if not len(rows):
        raise InputError(f"{where}: {name}: no training row")
    mean, deviation = voxel_moments(rows, f"{where}: {name}")
    varies = np.isfinite(deviation)
    within = float(np.sqrt(np.square(deviation[varies]).mean()))
    level = f"voxels differ in mean by {mean.std():.3g} and vary by {within:.3g}"
    hint = " (raw responses: data.scale=voxel, the default, z-scores them)" if mean.std() > within else ""
    report.add("ok", f"{name}: finite, {int((~varies).sum())} constant voxels, {level}{hint}")
    report.outliers({f"{name}: fmri": rows[: 4 * BLOCK]})


def _check_overlap(report: CheckReport, path: Path) -> None:
    train, test, _ = load_npz(path, patch_size=1, scale="none")
    found = overlap(train, test)
    if found["also_in_training"]:
        counts = f"{found['also_in_training']} of {found['test_pictures']}"
        report.add("differs", f"{counts} test pictures are training pictures too: their scores are of no worth")
    else:
        report.add("ok", f"none of {found['test_pictures']} test pictures is a training picture")

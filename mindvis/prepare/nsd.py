"""The Natural Scenes Dataset as its authors distribute it -> chosen voxels, z-scored a session, as `load_nsd` reads.

One session is in memory at a time and process; a session that is there is kept, so what was stopped goes on.
"""

import multiprocessing
import re
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mindvis.common.errors import InputError, unreadable
from mindvis.common.files import write_npy, write_npz
from mindvis.common.progress import Progress
from mindvis.config.tools import BadVoxels
from mindvis.data.arrays import load_npy
from mindvis.data.hdf5 import open_hdf5, require_member
from mindvis.data.nsd import GENERAL, STIMULI, SUBJECT_FILE, TRIALS, open_stimuli, session_file
from mindvis.data.reading import PassedOver, list_folder, require_file, require_folder
from mindvis.data.regions import NUM_AREAS, area_names, require_area
from mindvis.data.rows import MappedArray, VoxelRows, rows_by
from mindvis.data.voxels import noise_ceiling
from mindvis.prepare.bad_voxels import bad_voxels, check_bad, zscore
from mindvis.prepare.nifti import read_labels

SCALE = 300.0  # betas are integers of 300 x per cent signal change
BLOCK = 2**25  # bytes of a file that are read at a time
EXPERIMENT = "nsddata/experiments/nsd/nsd_expdesign.mat"
ROIS = "nsddata/ppdata/{subject}/func1pt8mm/roi"
BETAS = "nsddata_betas/ppdata/{subject}/func1pt8mm/{version}"
VERSION = "betas_fithrf_GLMdenoise_RR"
PICTURES = f"nsddata_stimuli/stimuli/nsd/{STIMULI}"
PRF = {"V1v": [1], "V1d": [2], "V2v": [3], "V2d": [4], "V3v": [5], "V3d": [6], "hV4": [7]}
PRF |= {"V1": [1, 2], "V2": [3, 4], "V3": [5, 6]}
DEFAULT_ROIS = (GENERAL, "V1", "V2", "V3", "hV4")


def read_design(path: Path, subject: str, num_sessions: int) -> tuple[np.ndarray, np.ndarray]:
    """What `nsd_expdesign.mat` says was shown in the first sessions of "subj01"; pictures are numbered from 0.

    Returns the picture of each trial, int [750 s], and the pictures shared by all subjects. Raises InputError.
    """
    arrays = _read_mat(path, ("masterordering", "subjectim", "sharedix"))
    order = _numbers(path, "masterordering", arrays, high=arrays["subjectim"].shape[-1]).ravel()
    images = _numbers(path, "subjectim", arrays, high=73_000)
    shared = _numbers(path, "sharedix", arrays, high=73_000).ravel()
    if images.ndim != 2:
        raise InputError(f"{path}: subjectim is {list(images.shape)}, needs [subjects pictures]")
    number = int(subject.removeprefix("subj"))
    if not 1 <= number <= len(images):
        raise InputError(f"{path}: has {len(images)} subjects, none is {subject}")
    if num_sessions * TRIALS > len(order):
        raise InputError(f"{path}: orders {len(order)} trials, {num_sessions} sessions have more")
    return images[number - 1, order[: num_sessions * TRIALS]], shared


def _read_mat(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    from scipy.io import loadmat

    require_file(path, "the design of NSD")
    with unreadable(f"{path}: no readable MATLAB file", (Exception,)):  # a damaged one fails in ways of its own
        arrays = loadmat(path, variable_names=names)
    missing = [name for name in names if name not in arrays]
    if missing:
        raise InputError(f"{path}: no {missing[0]!r}, needs {', '.join(names)}")
    return arrays


def _numbers(path: Path, name: str, arrays: dict[str, np.ndarray], high: int) -> np.ndarray:
    """Numbers that count from 1, as int from 0."""
    values = arrays[name]
    if values.dtype.kind not in "fiu" or not values.size or not np.isfinite(values).all():
        raise InputError(f"{path}: {name} is {values.dtype} {list(values.shape)}, needs finite numbers")
    if (values != np.round(values)).any() or values.min() < 1 or values.max() > high:
        raise InputError(f"{path}: {name} spans {values.min()} .. {values.max()}, needs whole numbers in 1 .. {high}")
    return values.astype(np.int64) - 1


def find_sessions(raw: Path, subject: str, passed: PassedOver, version: str = VERSION) -> list[Path]:
    """The files of a subject's sessions, from the first to the last that is there. Raises InputError for a gap."""
    folder = raw / BETAS.format(subject=subject, version=version)
    found = {}
    for path in list_folder(require_folder(folder, "betas_session01.hdf5 ..."), passed):
        number = re.fullmatch(r"betas_session([0-9]{2})\.hdf5", path.name)
        if number:
            found[int(number[1])] = path
        else:
            passed.add(path, "no betas_session01.hdf5 ...")
    if not found:
        raise InputError(f"{folder}: no betas_session01.hdf5 ... in it")
    missing = sorted(set(range(1, max(found) + 1)) - set(found))
    if missing:
        raise InputError(f"{folder}: no betas_session{missing[0]:02d}.hdf5, but one of session {max(found):02d}")
    return [found[number] for number in sorted(found)]


def read_regions(raw: Path, subject: str, rois: Sequence[str]) -> dict[str, np.ndarray]:
    """Region -> bool [x y z]: nsdgeneral, V1v to hV4 and V1 V2 V3, HCP_MMP1/<area>, <atlas>/<number>.

    Raises InputError.
    """
    folder = raw / ROIS.format(subject=subject)
    masks = {}
    for roi in rois:
        file, labels = _file_and_labels(roi)
        masks[roi] = np.isin(read_labels(folder / f"{file}.nii.gz"), labels)
    grids = {mask.shape for mask in masks.values()}
    if len(grids) > 1:
        raise InputError(f"{folder}: regions of different grids, {' and '.join(map(str, sorted(grids)))}")
    for roi, mask in masks.items():
        if not mask.any():
            raise InputError(f"{folder}: region {roi!r} has no voxel")
    return masks


def _file_and_labels(roi: str) -> tuple[str, list[int]]:
    """The label image that has a region, and its labels there."""
    atlas, _, label = roi.partition("/")
    if roi == GENERAL:
        return GENERAL, [1]
    if roi in PRF:
        return "prf-visualrois", PRF[roi]
    if label.isdecimal():
        return atlas, [int(label)]
    if atlas == "HCP_MMP1" and label:
        require_area(label, area_names().values(), "HCP_MMP1")
        return atlas, [i for i, name in area_names().items() if name == label and i <= NUM_AREAS]
    known = f"{GENERAL}, {', '.join(PRF)}, HCP_MMP1/<area> or <atlas>/<number>"
    raise InputError(f"region {roi!r} is unknown, needs {known}")


def read_session(path: Path, mask: np.ndarray) -> np.ndarray:
    """Per cent signal change [750 v] in the voxels of bool [x y z], ordered as the file has them (z y x).

    A value at the end of its integers' range overflowed and becomes NaN. Raises InputError.
    """
    inside = mask.transpose(2, 1, 0)  # [z y x]
    with open_hdf5(path, "the betas of a session") as file:
        betas = require_member(path, file, "betas")
        if betas.dtype != np.int16 or betas.shape != (TRIALS, *inside.shape):
            found = f"{betas.dtype} {list(betas.shape)}"
            raise InputError(f"{path}: betas is {found}, needs int16 {[TRIALS, *inside.shape]}, 300 x per cent")
        integers = _read_inside(betas, inside)
    limits = np.iinfo(np.int16)
    series = integers.astype(np.float32) / np.float32(SCALE)
    series[(integers == limits.min) | (integers == limits.max)] = np.nan
    return series


def _read_inside(betas: Any, inside: np.ndarray) -> np.ndarray:
    """int16 [750 v], read some trials at a time, or some slices where the file keeps a voxel's trials together."""
    series = np.empty((TRIALS, int(inside.sum())), np.int16)
    if betas.chunks is None or betas.chunks[0] < TRIALS:
        step = max(1, BLOCK // (2 * inside.size))
        for start in range(0, TRIALS, step):
            series[start : start + step] = betas[start : start + step][:, inside]
        return series
    step = max(1, BLOCK // (2 * TRIALS * inside[0].size))
    before = 0
    for z in range(0, len(inside), step):
        part = inside[z : z + step]
        after = before + int(part.sum())
        if after > before:
            series[:, before:after] = betas[:, z : z + step][:, part]
        before = after
    return series


def prepare_session(path: Path, target: Path, mask: np.ndarray, policy: BadVoxels = "zero") -> None:
    """Write one session, z-scored a voxel, float32 [750 v]; kept where it is there. Raises InputError."""
    if target.is_file():
        return
    series = read_session(path, mask)
    bad = bad_voxels(series)
    check_bad(bad, policy, str(path))
    write_npy(target, zscore(series, bad))


def prepare_subject(
    raw: Path,
    subject: str,
    out: Path,
    passed: PassedOver,
    *,
    rois: Sequence[str] = DEFAULT_ROIS,
    version: str = VERSION,
    num_sessions: int | None = None,
    policy: BadVoxels = "zero",
    workers: int = 1,
) -> str:
    """Write one subject, `<out>/<subject>/`; returns a line on what it holds. Raises InputError."""
    paths = find_sessions(raw, subject, passed, version)
    if num_sessions is not None and not 1 <= num_sessions <= len(paths):
        raise InputError(f"{raw}: {subject} has {len(paths)} sessions, --sessions is {num_sessions}")
    paths = paths[:num_sessions]
    image, shared = read_design(raw / EXPERIMENT, subject, len(paths))
    regions = read_regions(raw, subject, rois)
    mask = np.any(list(regions.values()), axis=0)  # [x y z]
    folder = out / subject
    _begin(folder, mask)
    _prepare_sessions(paths, folder, mask, policy, workers)
    inside = mask.transpose(2, 1, 0)
    sessions = [load_npy(session_file(folder, number), mmap=True) for number in range(1, len(paths) + 1)]
    bad = np.any([(rows[:2] == 0).all(axis=0) for rows in sessions], axis=0)  # in some session: z-scores are all 0
    arrays = {
        "image": image,
        "session": np.repeat(np.arange(1, len(paths) + 1), TRIALS),
        "shared": shared,
        "roi_names": np.array(list(regions)),
        "roi_masks": np.stack([region.transpose(2, 1, 0)[inside] for region in regions.values()]),
    }
    test = np.isin(image, shared)
    arrays |= {"bad": bad} if policy == "drop" else {}
    arrays |= _noise_ceiling(sessions, image, ~test)
    write_npz(folder / SUBJECT_FILE, arrays)
    shown = f"{len(np.unique(image[~test]))} training and {len(np.unique(image[test]))} test pictures"
    sizes = " ".join(f"{name} {int(region.sum())}" for name, region in regions.items())
    left_out = "left out" if policy == "drop" else "zeros"
    return f"{len(paths)} sessions, {len(image)} trials, {shown}, {sizes}, {int(bad.sum())} bad voxels ({left_out})"


def link_stimuli(raw: Path, out: Path) -> str:
    """Name the file of the pictures beside the subjects, without a copy; returns a line about it. Raises InputError."""
    images = open_stimuli(raw / PICTURES)
    target = out / STIMULI
    out.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        target.unlink(missing_ok=True)
        target.symlink_to((raw / PICTURES).resolve())
    return f"{len(images)} pictures of {images.shape[1]}x{images.shape[2]}, not copied: {target.resolve()}"


def _begin(folder: Path, mask: np.ndarray) -> None:
    """Note which voxels the files in a folder are of. Raises InputError where those there are of others."""
    note = folder / "voxels.npy"
    if note.is_file() and not np.array_equal(load_npy(note), mask):
        raise InputError(f"{folder}: was prepared with other regions; needs another --out, or the folder removed")
    if not note.is_file():
        write_npy(note, mask)


def _prepare_sessions(paths: list[Path], folder: Path, mask: np.ndarray, policy: BadVoxels, workers: int) -> None:
    targets = [session_file(folder, number) for number in range(1, len(paths) + 1)]
    prepare = partial(prepare_session, mask=mask, policy=policy)
    if workers < 2:
        for path, target in Progress(list(zip(paths, targets, strict=True)), desc=folder.name, unit="session"):
            prepare(path, target)
        return
    # spawn: a fork would inherit the threads and locks of whatever else is loaded.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            for _ in Progress(pool.map(prepare, paths, targets), total=len(paths), desc=folder.name, unit="session"):
                pass
        except BrokenProcessPool as error:
            killed = "a worker process was killed (out of memory?); use fewer --workers"
            raise InputError(f"{folder}: {killed}") from error


def _noise_ceiling(sessions: list[np.ndarray], image: np.ndarray, is_training: np.ndarray) -> dict[str, np.ndarray]:
    """From the repeats of training pictures, so that voxels can be chosen by it without a look at the test set."""
    rows = VoxelRows([MappedArray.of(session) for session in sessions])
    training = np.flatnonzero(is_training)
    groups = list(rows_by(image[training].tolist(), training.tolist()).values())
    if sum(len(group) > 1 for group in groups) < 2:
        return {}
    shown = Progress(groups, desc="noise ceiling", unit="picture")
    return {"noise_ceiling": noise_ceiling(rows, list(shown)).astype(np.float32)}

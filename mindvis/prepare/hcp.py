"""Resting-state runs, CIFTI or volumes, to `<subject>/HCP_visual_voxel.npz`: regions [frames v], z-scored in time."""

import filecmp
import multiprocessing
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from mindvis.common.errors import InputError, one_line
from mindvis.common.files import write_npz
from mindvis.common.progress import Progress
from mindvis.config.tools import HCP_PATTERN, BadVoxels
from mindvis.data.hcp import FILE_NAME, VOLUMETRIC, regions_of
from mindvis.data.reading import PassedOver, files_below, require_folder
from mindvis.prepare.bad_voxels import bad_voxels, check_bad, zscore
from mindvis.prepare.nifti import VolumeRegions
from mindvis.prepare.parcellation import Regions

Run = dict[str, np.ndarray]


@dataclass(frozen=True)
class Outcome:
    """What became of one subject: status "written", "present" or "failed", and the line that says more."""

    subject: str
    status: str
    detail: str


def find_runs(raw: Path, passed: PassedOver, pattern: str = HCP_PATTERN) -> dict[str, list[Path]]:
    """Runs of each subject, both in sorted order, anywhere below `raw`; a second copy of a run is passed over."""
    runs: dict[str, list[Path]] = {}
    if not pattern.strip(". "):
        raise InputError(f"--pattern is {pattern!r}; needs that of a file's name, such as {HCP_PATTERN}")
    for path in files_below(require_folder(raw, "the downloaded time series"), passed):
        if not path.match(pattern):
            passed.add(path, f"not called {pattern}")
            continue
        known = runs.setdefault(subject_of(path, raw), [])
        if any(other.name == path.name and filecmp.cmp(other, path, shallow=False) for other in known):
            passed.add(path, "the same run again, in another folder")
        else:
            known.append(path)
    if not runs:
        few = "; ".join([f"no file called {pattern} below it", "name another with --pattern", *passed.lines()])
        raise InputError(f"{raw}: {few}")
    return dict(sorted(runs.items()))


def subject_of(path: Path, raw: Path) -> str:
    """Subject of a run: what precedes the first underscore of its name; for rfMRI_* and tfMRI_* the first folder."""
    inside = path.relative_to(raw)
    if re.match(r"[rt]fMRI_", path.name):
        if len(inside.parts) == 1:
            raise InputError(f"{path}: no subject in its name; needs <subject>_{path.name} or a folder of the subject")
        return inside.parts[0]
    return path.name.partition("_")[0].partition(".")[0]


def prepare_subject(
    paths: Sequence[Path], target: Path, source: Regions, *, policy: BadVoxels = "zero", overwrite: bool = False
) -> Outcome:
    """Z-score each run in time, put the runs one after another and write one subject; "failed" instead of an error."""
    subject = target.parent.name
    if not overwrite and _is_done(target, source.rois):
        return Outcome(subject, "present", "kept as it is; --overwrite makes it again")
    at_work = paths[0]
    try:
        regions, num_bad = _join([source.read(path) for path in paths], paths, policy)
        at_work = target
        write_npz(target, regions)
        (target.parent / VOLUMETRIC).unlink(missing_ok=True)
        if isinstance(source, VolumeRegions):
            (target.parent / VOLUMETRIC).touch()
    except InputError as error:
        return Outcome(subject, "failed", str(error))
    except Exception as error:  # of a thousand subjects one must never stop the rest
        return Outcome(subject, "failed", f"{at_work}: {type(error).__name__}: {one_line(error)}")
    sizes = " ".join(f"{roi} {series.shape[1]}" for roi, series in regions.items())
    frames = next(iter(regions.values())).shape[0]
    return Outcome(subject, "written", f"{len(paths)} runs, {frames} frames, {sizes}, {num_bad} bad voxels")


def prepare_all(
    runs: dict[str, list[Path]], out: Path, source: Regions, *, policy: BadVoxels, overwrite: bool, workers: int
) -> Iterator[Outcome]:
    """Outcome of every subject, as they end; `workers` > 1 spreads the subjects over processes."""
    source.check()
    jobs = [(paths, out / subject / FILE_NAME, source) for subject, paths in runs.items()]
    prepare = partial(prepare_subject, policy=policy, overwrite=overwrite)
    if workers < 2:
        yield from (prepare(*job) for job in Progress(jobs, unit="subject"))
        return
    # spawn: a fork would inherit the threads and locks of whatever else is loaded.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = {pool.submit(prepare, *job): job[1].parent.name for job in jobs}
        for future in Progress(as_completed(futures), total=len(futures), unit="subject"):
            try:
                yield future.result()
            except BrokenProcessPool:
                killed = "a worker process was killed (out of memory?); use fewer --workers"
                yield Outcome(futures[future], "failed", killed)


def _join(series: list[Run], paths: Sequence[Path], policy: BadVoxels) -> tuple[Run, int]:
    """The runs of each region one after another, z-scored, and the number of voxels that are bad in any run."""
    regions, num_bad = {}, 0
    for roi in series[0]:
        bad = []  # of each run
        for run, path in zip(series, paths, strict=True):
            if len(run[roi]) < 2:
                raise InputError(f"{path}: {len(run[roi])} frames; needs at least 2 to be z-scored in time")
            bad.append(bad_voxels(run[roi]))
            check_bad(bad[-1], policy, f"{path}: {roi}")
        anywhere = np.any(bad, axis=0)  # [v]
        num_bad += int(anywhere.sum())
        # A voxel that is left out must be left out of every run, or the runs would not fit together.
        kept = ~anywhere if policy == "drop" else slice(None)
        scaled = [zscore(run[roi], one)[:, kept] for run, one in zip(series, bad, strict=True)]
        regions[roi] = np.concatenate(scaled)  # [frames v]
    return regions, num_bad


def _is_done(target: Path, rois: Sequence[str]) -> bool:
    try:
        return target.exists() and set(regions_of(target)) >= set(rois)
    except InputError:  # left broken by something else: made again
        return False

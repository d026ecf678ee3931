"""MOSAIC as it is distributed: what one subject's HDF5 file and the files of its splits say.

`sub-01_NSD.hdf5` (or `sub-01_NSD_crc32-<digits>.hdf5`): group `betas` with a data set [91282] for every trial, named
`sub-01_NSD_stimulus-<stem>_phase-<phase>_rep-<n>`, with the attributes phase, repetition, presented_stimulus_filename;
group `noiseceilings` (not for all) with data sets `..._phase-<phase>_n-<1|avg>...` [91282] in percent.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mindvis.common.errors import InputError
from mindvis.common.progress import Progress
from mindvis.common.texts import read_json
from mindvis.data.hdf5 import open_hdf5, require_member, text_of
from mindvis.data.reading import PassedOver, list_folder, require_folder
from mindvis.data.regions import NUM_GRAYORDINATES

SPLITS = ("train", "test", "artificial")
NEEDED = "a subject of MOSAIC, e.g. sub-01_NSD.hdf5"
SUBJECT_FILE = re.compile(r"(sub-\w+?_[A-Za-z0-9]+)(?:_crc32-[0-9a-f]+)?\.(?:hdf5|h5)", re.ASCII)
SPLIT_FILES = {
    "train": ("train.json", "train_naturalistic.json"),
    "test": ("test.json", "test_naturalistic.json"),
    "artificial": ("artificial.json", "test_artificial.json"),
}
ATTRIBUTES = ("phase", "repetition", "presented_stimulus_filename")


@dataclass(frozen=True)
class Trials:
    """The trials of one file, in its order: name, split, repetition and stimulus file of each, [n].

    `offsets` [n]: where the numbers of each begin in the file; None where some are compressed or in pieces.
    `dtype` is theirs, one for all.
    """

    names: list[str]
    phases: list[str]
    repetitions: list[int]
    stimuli: list[str]
    offsets: list[int] | None
    dtype: str


def find_subjects(root: str | Path, passed: PassedOver) -> dict[str, Path]:
    """Subject ("sub-01_NSD") -> its file, sorted. Raises InputError for a subject with two files."""
    found: dict[str, Path] = {}
    for path in list_folder(require_folder(root, f"the files of MOSAIC, {NEEDED}"), passed):
        name = SUBJECT_FILE.fullmatch(path.name)
        if not name:
            if path.suffix.lower() in (".hdf5", ".h5"):
                passed.add(path, "not called sub-<number>_<set>.hdf5")
            continue
        if found.setdefault(name[1], path) != path:
            raise InputError(f"{path}: the subject of {found[name[1]].name} again; keep one of the two")
    return found


def read_trials(path: Path) -> Trials:
    """What the file says of its trials, none of them read. Raises InputError that names the trial."""
    found = []  # of each trial what `Trials` has of all
    with open_hdf5(path, NEEDED) as file:
        betas = require_member(path, file, "betas")
        if not hasattr(betas, "items") or not len(betas):
            raise InputError(f"{path}: 'betas' holds no trial, needs a group with a data set for each")
        for name, dataset in Progress(betas.items(), total=len(betas), desc=f"{path.stem}: trials", unit="trial"):
            dtype = _check_trial(path, name, dataset)
            phase, repetition, stimulus = _attributes(path, name, dataset)
            offset = dataset.id.get_offset()
            found.append((name, text_of(phase), int(repetition), text_of(stimulus), offset, dtype))
    names, phases, repetitions, stimuli, offsets, dtypes = map(list, zip(*found, strict=True))
    alike = len(set(dtypes)) == 1
    readable = alike and None not in offsets  # as plain numbers, without HDF5
    trials = Trials(names, phases, repetitions, stimuli, offsets if readable else None, dtypes[0] if alike else "<f4")
    _check_trials(path, trials)
    return trials


def _check_trial(path: Path, name: str, dataset: Any) -> str:
    """The type of its numbers. Raises InputError for a trial of another shape, or that is none."""
    shape = getattr(dataset, "shape", None)
    dtype = getattr(dataset, "dtype", np.dtype(object))
    if shape != (NUM_GRAYORDINATES,) or dtype.kind != "f":
        found = "a group" if shape is None else f"{dtype} {list(shape)}"
        raise InputError(f"{path}: trial {name!r} is {found}, needs floats [{NUM_GRAYORDINATES}]")
    return dtype.str


def _attributes(path: Path, name: str, dataset: Any) -> list[Any]:
    """The values of `ATTRIBUTES`. Raises InputError for one that is missing, and a repetition that is no number."""
    there = dataset.attrs
    found = [there.get(attribute) for attribute in ATTRIBUTES]
    for attribute, value in zip(ATTRIBUTES, found, strict=True):
        if value is None:
            raise InputError(f"{path}: trial {name!r} has no attribute {attribute!r}, has {', '.join(there) or 'none'}")
    if not isinstance(found[1], int | np.integer):
        raise InputError(f"{path}: trial {name!r}: its repetition is {found[1]!r}, needs a whole number")
    return found


def _check_trials(path: Path, trials: Trials) -> None:
    for name, phase in zip(trials.names, trials.phases, strict=True):
        if phase not in SPLITS:
            raise InputError(f"{path}: trial {name!r} is of phase {phase!r}, needs one of {', '.join(SPLITS)}")
    seen: dict[tuple[str, str, int], str] = {}
    for trial in zip(trials.names, trials.stimuli, trials.phases, trials.repetitions, strict=True):
        other = seen.setdefault(trial[1:], trial[0])
        if other != trial[0]:
            raise InputError(f"{path}: trial {trial[0]!r} is repetition {trial[3]} of {trial[1]!r}, as {other!r} is")


def read_betas(path: Path, trials: Trials, rows: Sequence[int], columns: np.ndarray) -> np.ndarray:
    """Trials as float32 [n v], of which `columns` are kept. Raises InputError for one cut short, or NaN all over."""
    betas = np.empty((len(rows), len(columns)), np.float32)
    with np.errstate(over="ignore"):  # too large for float32 is infinite, and left out as that is
        for place, (row, beta) in enumerate(zip(rows, _whole_betas(path, trials, rows), strict=True)):
            if len(beta) != NUM_GRAYORDINATES:
                raise InputError(f"{path}: trial {trials.names[row]!r} is cut short, the file is not complete")
            betas[place] = beta[columns]
            if np.isnan(betas[place, :1]).all() and np.isnan(beta).all():
                raise InputError(f"{path}: trial {trials.names[row]!r} is NaN in every grayordinate, needs a response")
    return betas


def _whole_betas(path: Path, trials: Trials, rows: Sequence[int]) -> Iterator[np.ndarray]:
    if trials.offsets is not None:
        for row in rows:
            yield np.fromfile(path, trials.dtype, NUM_GRAYORDINATES, offset=trials.offsets[row])
        return
    with open_hdf5(path, NEEDED) as file:
        for row in rows:
            yield file["betas"][trials.names[row]][()]


def read_noise_ceilings(path: Path) -> dict[tuple[str, str], np.ndarray]:
    """(phase, "1" or "avg") -> share of each grayordinate's variance that the stimulus explains, [91282]; {}: none.

    The file has percent; values that never exceed 1 are taken as shares. Raises InputError.
    """
    found = {}
    with open_hdf5(path, NEEDED) as file:
        for name, dataset in file["noiseceilings"].items() if "noiseceilings" in file else ():
            kind = re.search(r"_phase-([a-z]+)_n-(1|avg)(?![a-z0-9])", name)
            if not kind:
                continue
            if dataset.shape != (NUM_GRAYORDINATES,) or dataset.dtype.kind != "f":
                shape = f"{dataset.dtype} {list(dataset.shape)}"
                raise InputError(f"{path}: noise ceiling {name!r} is {shape}, needs floats [{NUM_GRAYORDINATES}]")
            values = dataset[()].astype(np.float64)
            finite = values[np.isfinite(values)]
            if not len(finite) or finite.min() < 0 or finite.max() > 100:
                raise InputError(f"{path}: noise ceiling {name!r} needs percent, some of it finite and all in 0 .. 100")
            found[kind[1], kind[2]] = values / 100 if finite.max() > 1 else values
    return found


def best_noise_ceiling(ceilings: dict[tuple[str, str], np.ndarray]) -> tuple[str, np.ndarray] | None:
    """What it was measured on ("train", else "test", "artificial"; of averages where there are any), and the shares."""
    for key in [(phase, n) for phase in SPLITS for n in ("avg", "1")]:
        if key in ceilings:
            return key[0], ceilings[key]
    return None


def read_splits(folder: str | Path) -> dict[str, set[str]]:
    """Split -> names of its trials, from the JSON files of all sets (train.json, test.json, artificial.json)."""
    folder = require_folder(folder, "train.json, test.json and artificial.json")
    splits = {}
    for split, names in SPLIT_FILES.items():
        path = next((folder / name for name in names if (folder / name).is_file()), None)
        if path is None and split == "artificial":
            continue
        if path is None:
            raise InputError(f"{folder}: no {' or '.join(names)} in it")
        splits[split] = {name.removesuffix(".npz") for name in _texts(read_json(path))}
        if not any("_stimulus-" in name for name in splits[split]):
            raise InputError(f"{path}: names no trial, needs sub-01_NSD_stimulus-<stem>_phase-<phase>_rep-<n> ...")
    twice = [name for name, count in Counter(name for names in splits.values() for name in names).items() if count > 1]
    if twice:
        raise InputError(f"{folder}: trial {sorted(twice)[0]!r} is in more than one split ({len(twice)} are)")
    return splits


def split_of(trials: Trials, splits: dict[str, set[str]] | None) -> list[str | None]:
    """The split of every trial, [n]: as the file says, or the JSON files (None: left out of all of them)."""
    if splits is None:
        return list(trials.phases)
    return [next((split for split, names in splits.items() if name in names), None) for name in trials.names]


def _texts(content: Any) -> Sequence[str]:
    """All texts that are values of a nest of lists and dicts."""
    if isinstance(content, str):
        return [content]
    parts = content.values() if isinstance(content, dict) else content if isinstance(content, list) else ()
    return [text for part in parts for text in _texts(part)]

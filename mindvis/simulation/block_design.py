"""Real fMRI of a block design as data that Stage B can be trained on: each category is shown by drawings of one kind.

Which pictures were shown is not needed: the volumes of a category are paired with drawings of one kind of object, a
new drawing for every volume, so what can be decoded is the category alone.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.signal import detrend

from mindvis.common.errors import InputError
from mindvis.data.arrays import Array, NpzReader, check_arrays
from mindvis.data.own import save_npz
from mindvis.prepare.bad_voxels import bad_voxels, check_bad
from mindvis.simulation.stimuli import CLASS_NAMES, draw_stimuli

log = logging.getLogger(__name__)

REST = "rest"
# The eight categories of Haxby et al. 2001 (doi 10.1126/science.1063736), each by one kind of drawing.
HAXBY = {"face": "sun", "cat": "cat", "house": "house", "shoe": "boat"}
HAXBY |= {"scissors": "key", "bottle": "cup", "chair": "umbrella", "scrambledpix": "flower"}
NAMES = {"signal": ("signal", "bold"), "labels": ("labels", "label"), "runs": ("runs", "run")}
LAYOUT = [Array("signal", "real", "t v"), Array("labels", "label", "t"), Array("runs", "index", "t")]


class Recording(NamedTuple):
    """Volumes float32 [t v] in the order of time, the label of each [t] and its run [t]."""

    signal: np.ndarray
    labels: np.ndarray
    runs: np.ndarray


class Volumes(NamedTuple):
    """Volumes that show a category: fmri [n v], its label [n], the run [n] and the block [n] it belongs to."""

    fmri: np.ndarray
    labels: np.ndarray
    runs: np.ndarray
    blocks: np.ndarray


def read_recording(path: str | Path) -> Recording:
    """Arrays `signal` (or `bold`), `labels`, `runs` of an .npz. Raises InputError where one is absent or does not fit.

    Runs are numbers; volumes are in the order of time. Voxels that are no measurement become 0, with a line in the log.
    """
    with NpzReader(Path(path)) as file:
        found = {name: next((given for given in names if given in file), None) for name, names in NAMES.items()}
        for name, given in found.items():
            if given is None:
                raise InputError(f"{path}: no array {name!r}; needed: {', '.join(NAMES)}, one entry a volume")
        arrays = {name: file.raw(str(given)) for name, given in found.items()}
    check_arrays(arrays, LAYOUT, str(path))
    signal = np.array(arrays["signal"], np.float32)
    bad = bad_voxels(signal)
    check_bad(bad, "zero", f"{path}: signal")
    if bad.any():
        log.warning("%s: signal: %d of %d voxels are constant or absurd, and set to 0", path, bad.sum(), len(bad))
        signal[:, bad] = 0
    labels = [label.strip() for label in arrays["labels"].astype(str)]
    return Recording(signal, np.array([REST if x.casefold() == REST else x for x in labels]), arrays["runs"])


def rows_of(recording: Recording, lag: int = 2) -> Volumes:
    """The volumes `lag` later than those that are labelled, without rest; each run is detrended and z-scored a voxel.

    The signal follows what is seen by some 5 s: two volumes of 2.5 s. A block is a run of volumes of one label.
    """
    parts = []
    num_blocks = 0
    for run in np.unique(recording.runs):
        own = recording.runs == run
        volumes = detrend(recording.signal[own], axis=0)
        deviation = volumes.std(axis=0)
        volumes = volumes / np.where(deviation <= 1e-6 * np.abs(recording.signal[own]).max(axis=0), 1, deviation)
        labels = np.concatenate([np.full(lag, REST), recording.labels[own]])[: own.sum()]
        blocks = num_blocks + np.cumsum(np.concatenate([[0], labels[1:] != labels[:-1]]))
        num_blocks = int(blocks.max()) + 1
        shown = labels != REST
        parts.append((volumes[shown], labels[shown], recording.runs[own][shown], blocks[shown]))
    return Volumes(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def write_fold(
    path: str | Path, rows: Volumes, held_out: Sequence[int], *, kinds: Mapping[str, str] = HAXBY, seed: int = 0
) -> int:
    """Write the file of one fold in the layout of own data: `held_out` runs are the test; returns the test blocks.

    A training row is one volume, with a drawing of its own. The volumes of a test block share one drawing, so that they
    are averaged when the file is read. Raises InputError for runs that are not there, or a category without a kind.
    """
    classes = class_ids_of(rows.labels, kinds)
    test = np.isin(rows.runs, list(held_out))
    absent = sorted(set(held_out) - set(rows.runs.tolist()))
    if absent or not test.any() or test.all():
        known = ", ".join(map(str, np.unique(rows.runs)))
        raise InputError(f"held-out runs are {list(held_out)}; needed: some of {known}, and some left for training")
    shows = np.where(test, len(rows.labels) + rows.blocks, np.arange(len(rows.labels)))
    _, first, stimulus = np.unique(shows, return_index=True, return_inverse=True)
    images = draw_stimuli(seed, classes[first], shows[first])
    split = np.where(test, "test", "train")
    save_npz(path, rows.fmri.astype(np.float32), images, split, stimulus=stimulus, class_ids=classes,
             class_names=np.array(CLASS_NAMES)[classes])  # fmt: skip
    return len(np.unique(rows.blocks[test]))


def class_ids_of(labels: np.ndarray, kinds: Mapping[str, str]) -> np.ndarray:
    """The class of drawings of every label [n]. Raises InputError for a label without one, or a kind shown twice."""
    for label in dict.fromkeys(labels.tolist()):
        if kinds.get(label) not in CLASS_NAMES:
            found = f"category {label!r} is shown by {kinds.get(label)!r}"
            raise InputError(f"{found}; needed: --kinds {label}=KIND, one of {', '.join(CLASS_NAMES)}")
    used = [kinds[label] for label in dict.fromkeys(labels.tolist())]
    if len(set(used)) < len(used):
        raise InputError(f"kinds: {sorted(used)} shows two categories alike; needed: another kind for each")
    return np.array([CLASS_NAMES.index(kinds[label]) for label in labels])

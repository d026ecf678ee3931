"""Work on whole data sets: joining, shared pictures, swapping categories, mapping subjects into the voxels of one."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from mindvis.common.draws import generator
from mindvis.common.errors import InputError
from mindvis.common.ridge import fit_ridge
from mindvis.data.datasets import FMRIDataset, PairedDataset
from mindvis.data.images import LazyImages
from mindvis.data.learned_map import train_further
from mindvis.data.row_format import Adapter
from mindvis.data.rows import VoxelRows

log = logging.getLogger(__name__)

SETTING = "setting data.test_category"
MIN_SHARED = 10  # pictures that two subjects have seen, for a map between their voxels
STEP = 8  # pixels: a picture is looked up by every eighth of each side, then compared as a whole

Parts = tuple[PairedDataset, PairedDataset, PairedDataset | None]


def join_for_pretraining(datasets: Sequence[FMRIDataset], *, pad_mode: str = "wrap") -> FMRIDataset:
    """The fMRI of several sources (HCP, GOD training trials) as one data set of the longest one's length.

    Wrap-padded (or zero-padded, or cut to the shortest: `pad_mode`) row by row when read, so mapped sources stay so.
    """
    if not datasets:
        raise InputError("no data set to pretrain on")
    if len(datasets) == 1:
        return FMRIDataset(datasets[0]._fmri, subject=datasets[0].subject, roi_masks=datasets[0].roi_masks)
    subjects = [np.full(d.num_rows, "") if d.subject is None else d.subject for d in datasets]
    rows = VoxelRows([dataset._fmri for dataset in datasets], pad_mode=pad_mode)
    return FMRIDataset(rows, subject=np.concatenate(subjects))


def join_pairs(parts: Sequence[PairedDataset], roi_masks: dict[str, np.ndarray] | None) -> PairedDataset:
    """The rows of all parts, one part after another; pictures that all have in common are kept once."""
    first = parts[0].stimuli
    others = [part.stimuli for part in parts if part.stimuli is not first]
    same = all(other.shape == first.shape and np.array_equal(other, first) for other in others)  # a shape is not read
    starts = np.zeros(len(parts), int) if same else np.cumsum([0, *(len(part.stimuli) for part in parts[:-1])])
    rows = [part.fmri for part in parts]
    in_memory = all(isinstance(part, np.ndarray) and not isinstance(part, np.memmap) for part in rows)
    return PairedDataset(
        np.concatenate(rows) if in_memory else VoxelRows(rows),
        first if same else np.concatenate([part.stimuli for part in parts]),
        _column(parts, "class_ids"),
        class_names=_column(parts, "class_names"),
        stimulus_names=_column(parts, "stimulus_names"),
        stimulus=np.concatenate([part.stimulus + start for part, start in zip(parts, starts, strict=True)]),
        repeat=np.concatenate([part.repeat for part in parts]),
        subject=_column(parts, "subject"),
        roi_masks=roi_masks,
        formats={name: form for part in parts for name, form in part.formats.items()},
    )


def _column(parts: Sequence[PairedDataset], name: str) -> list | None:
    """A column of all parts, or None where one of them has not got it."""
    columns = [getattr(part, name) for part in parts]
    return None if any(column is None for column in columns) else [value for column in columns for value in column]


def shared_pictures(first: PairedDataset, second: PairedDataset) -> dict[int, int]:
    """Stimulus of `second` -> stimulus of `first` that shows the identical picture; only those that rows refer to.

    Pictures that stay in their files, tens of thousands, are compared by their names.
    """
    if isinstance(first.stimuli, LazyImages) and first.stimulus_names and second.stimulus_names:
        place_of = dict(zip(first.stimulus_names, first.stimulus.tolist(), strict=True))
        own = dict(zip(second.stimulus_names, second.stimulus.tolist(), strict=True))
        return {place: place_of[name] for name, place in own.items() if name in place_of}
    if first.stimuli.shape[1:] != second.stimuli.shape[1:]:
        return {}
    places: dict[bytes, list[int]] = {}
    for place in np.unique(first.stimulus).tolist():
        places.setdefault(_key(first.stimuli[place]), []).append(place)
    found = {}
    for place in np.unique(second.stimulus).tolist():
        picture = second.stimuli[place]
        alike = places.get(_key(picture), [])
        same = next((other for other in alike if np.array_equal(first.stimuli[other], picture)), None)
        if same is not None:
            found[place] = same
    return found


def overlap(train: PairedDataset, test: PairedDataset) -> dict:
    """How many test pictures are training pictures too, and which: for the manifest."""
    shared = sorted(shared_pictures(train, test))
    return {"test_pictures": len(np.unique(test.stimulus)), "also_in_training": len(shared), "stimuli": shared}


def _key(picture: np.ndarray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(picture[::STEP, ::STEP]).tobytes(), digest_size=16).digest()


def swap_categories(
    train: PairedDataset, test: PairedDataset, categories: Sequence[str], seed: int
) -> tuple[PairedDataset, PairedDataset]:
    """Training and test pairs with one picture of each training category tested, drawn from `seed`.

    The pictures of the test set join training: the published option `test_category`.
    A category is the name of a class, or its number, from 0, in the order of the training pictures (of GOD 0 to 149).
    Test rows come in the order of `categories`, subject by subject. Raises InputError for data without classes, an
    unknown or repeated category, and one without a second picture.
    """
    if train.class_ids is None or test.class_ids is None:
        raise InputError(f"{SETTING} is {list(categories)}, but the classes of the pictures are not known")
    chosen = [_draw(train, name, seed) for name in _class_ids(train, categories)]
    rank = {stimulus: place for place, stimulus in enumerate(chosen)}
    moved = np.flatnonzero(np.isin(train.stimulus, chosen))
    of_category = np.array([rank[stimulus] for stimulus in train.stimulus[moved]])
    order = np.lexsort((of_category, np.zeros(len(moved)) if train.subject is None else train.subject[moved]))
    kept = np.setdiff1d(np.arange(train.num_rows), moved)
    return join_pairs([train.subset(kept), test], train.roi_masks), train.subset(moved[order])


def _class_ids(train: PairedDataset, categories: Sequence[str]) -> list[int]:
    """The class of each category."""
    assert train.class_ids is not None
    _, first = np.unique(train.stimulus, return_index=True)
    in_order = list(dict.fromkeys(train.class_ids[row] for row in first))
    named = {} if train.class_names is None else dict(zip(train.class_names, train.class_ids, strict=True))
    numbered = {str(number): class_id for number, class_id in enumerate(in_order)}
    known = {**numbered, **named}
    unknown = [name for name in categories if name not in known]
    if unknown:
        raise InputError(f"{SETTING} names {unknown[0]!r}; needed: 0 to {len(in_order) - 1}, or the name of a class")
    found = [known[name] for name in categories]
    if len(set(found)) < len(found):
        raise InputError(f"{SETTING} is {list(categories)}; needed: each category once")
    return found


def _draw(train: PairedDataset, class_id: int, seed: int) -> int:
    """One of the training pictures of a class."""
    pictures = np.unique(train.stimulus[np.asarray(train.class_ids) == class_id])
    if len(pictures) < 2:
        raise InputError(f"{SETTING}: class {class_id} has one training picture; needed: another one to train on")
    return int(pictures[generator((seed, class_id), "test category").integers(len(pictures))])


def to_common_space(
    parts: Mapping[str, Parts], reference: PairedDataset, name: str, rank: int, num_steps: int = 0
) -> Parts:
    """Training, test and validation pairs of all subjects, one after another, in the voxels of the subject `name`.

    Each other subject's rows go through a small linear map, fitted by ridge on training pictures that both have seen,
    and cut to its strongest directions (reduced-rank regression, Izenman 1975). With `num_steps` it is trained further.
    `reference` are the training pairs of that subject, whose own rows stay as they are. Raises InputError where another
    subject has seen too few of its training pictures.
    """
    moved = [
        pairs if subject == name else _moved(pairs, fit_adapter(pairs[0], reference, subject, name, rank, num_steps))
        for subject, pairs in parts.items()
    ]
    trains, tests, vals = zip(*moved, strict=True)
    known = [val for val in vals if val is not None]
    masks = reference.roi_masks
    return join_pairs(trains, masks), join_pairs(tests, masks), join_pairs(known, masks) if known else None


def fit_adapter(
    train: PairedDataset, reference: PairedDataset, subject: str, name: str, rank: int, num_steps: int = 0
) -> Adapter:
    """The map from the rows of `train` to those of `reference`, fitted on the training pictures that both show.

    By ridge regression, and from there by at most `num_steps` gradient steps (`train_further`).
    """
    shared = shared_pictures(reference, train)
    if len(shared) < MIN_SHARED:
        found = f"subjects {subject} and {name} share {len(shared)} training pictures"
        raise InputError(f"{found}; needed: {MIN_SHARED} or more for data.reference, or data.reference=null")
    rows = _means(train, list(shared))
    targets = _means(reference, list(shared.values()))
    log.info("%s: into the voxels of %s by ridge regression on %d training pictures", subject, name, len(shared))
    if num_steps == 0:
        return _ridge_map(rows, targets, rank)
    adapter, steps = train_further(lambda x, y: _ridge_map(x, y, rank), rows, targets, num_steps)
    log.info("%s: the map was trained further for %d of %d steps", subject, steps, num_steps)
    return adapter


def _ridge_map(rows: np.ndarray, targets: np.ndarray, rank: int) -> Adapter:
    """The map of rank `rank` that ridge regression gives from rows [n v] to targets [n w] of the same pictures."""
    ridge = fit_ridge(rows, targets)
    weights = ridge.weights / ridge.scale[:, None]  # [v w]
    fitted = (rows - ridge.mean) @ weights  # [n w]
    basis = np.linalg.svd(fitted, full_matrices=False)[2][:rank].T  # [w r]
    # predictions of ridge are weaker than what they predict: one factor brings them to the strength of the reference
    factor = targets.std() / (fitted @ basis @ basis.T).std()
    down, up = factor * (weights @ basis), basis.T
    bias = ridge.intercept - ridge.mean @ down @ up
    log.info("ridge regression between subjects: penalty %g, rank %d", ridge.alpha, len(up))
    return Adapter(*(array.astype(np.float32) for array in (down, up, bias)))


def _means(dataset: PairedDataset, places: list[int]) -> np.ndarray:
    """Mean row of each of these stimuli: float64 [m v]."""
    fmri, stimulus = np.asarray(dataset.fmri, np.float64), np.asarray(dataset.stimulus)
    return np.stack([fmri[stimulus == place].mean(axis=0) for place in places])


def _moved(pairs: Parts, adapter: Adapter) -> Parts:
    def move(dataset: PairedDataset) -> PairedDataset:
        formats = {name: replace(form, adapter=adapter) for name, form in dataset.formats.items()}
        return dataset.with_fmri(adapter(np.asarray(dataset.fmri)), formats=formats)

    train, test, val = pairs
    return move(train), move(test), None if val is None else move(val)

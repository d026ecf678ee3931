"""Training categories as the test set: how well new pictures of classes that were trained on are decoded.

One training picture of each category becomes a test picture, and the pictures of the test set join training: the
published option `test_category`.
"""

from collections.abc import Sequence

import numpy as np

from mindvis.common.draws import generator
from mindvis.common.errors import InputError
from mindvis.data.datasets import PairedDataset
from mindvis.data.rows import VoxelRows

SETTING = "setting data.test_category"


def swap_categories(
    train: PairedDataset, test: PairedDataset, categories: Sequence[str], seed: int
) -> tuple[PairedDataset, PairedDataset]:
    """Training and test pairs with one picture of each training category tested, drawn from `seed`.

    A category is the name of a class, or its number, from 0, in the order of the training pictures (of GOD 0 to 149).
    Test rows come in the order of `categories`, subject by subject. Raises InputError for data without classes, an
    unknown or repeated category, and one without a second picture.
    """
    if train.class_ids is None or test.class_ids is None:
        raise InputError(f"{SETTING} is {list(categories)}, but the classes of the pictures are not known")
    chosen = [_draw(train, name, seed) for name in _class_ids(train, categories)]
    rank = {stimulus: place for place, stimulus in enumerate(chosen)}
    moved = np.flatnonzero(np.isin(train.stimulus, chosen))
    subject = (
        np.zeros(train.num_rows, int) if train.subject is None else np.unique(train.subject, return_inverse=True)[1]
    )
    order = np.lexsort(([rank[stimulus] for stimulus in train.stimulus[moved]], subject[moved]))
    kept = np.setdiff1d(np.arange(train.num_rows), moved)
    return _joined(train.subset(kept), test), train.subset(moved[order])


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


def _joined(train: PairedDataset, test: PairedDataset) -> PairedDataset:
    """Training pairs, then those of the test set."""
    parts = [train.fmri, test.fmri]
    whole = all(isinstance(part, np.ndarray) and not isinstance(part, np.memmap) for part in parts)
    names = None if train.class_names is None or test.class_names is None else [*train.class_names, *test.class_names]
    known = train.subject is not None and test.subject is not None
    return PairedDataset(
        np.concatenate(parts) if whole else VoxelRows(parts),
        np.concatenate([train.stimuli, test.stimuli]),
        class_ids=[*(train.class_ids or []), *(test.class_ids or [])],
        class_names=names,
        stimulus=np.concatenate([train.stimulus, test.stimulus + len(train.stimuli)]),
        repeat=np.concatenate([train.repeat, test.repeat]),
        subject=np.concatenate([train.subject, test.subject]) if known else None,
        roi_masks=train.roi_masks,
        formats=train.formats,
    )

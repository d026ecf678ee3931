"""Several subjects in the voxels of one: each other subject's rows go through a small linear map, fitted by ridge.

The map is fitted on training pictures that both have seen, and cut to its strongest directions (reduced-rank
regression, Izenman 1975). Where subjects have common grayordinates no map is needed.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from mindvis.common.errors import InputError
from mindvis.common.ridge import fit_ridge
from mindvis.data.adapter import Adapter
from mindvis.data.datasets import PairedDataset
from mindvis.data.overlap import shared_pictures

log = logging.getLogger(__name__)

MIN_SHARED = 10  # pictures that both subjects have seen

Parts = tuple[PairedDataset, PairedDataset, PairedDataset | None]


def to_common_space(parts: Mapping[str, Parts], reference: PairedDataset, name: str, rank: int) -> Parts:
    """Training, test and validation pairs of all subjects, one after another, in the voxels of the subject `name`.

    `reference` are the training pairs of that subject, whose own rows stay as they are. Raises InputError where another
    subject has seen too few of its training pictures.
    """
    moved = [
        pairs if subject == name else _moved(pairs, fit_adapter(pairs[0], reference, subject, name, rank))
        for subject, pairs in parts.items()
    ]
    trains, tests, vals = zip(*moved, strict=True)
    known = [val for val in vals if val is not None]
    return _joined(trains, reference), _joined(tests, reference), _joined(known, reference) if known else None


def fit_adapter(train: PairedDataset, reference: PairedDataset, subject: str, name: str, rank: int) -> Adapter:
    """The map from the rows of `train` to those of `reference`, fitted on the training pictures that both show."""
    shared = shared_pictures(reference, train)
    if len(shared) < MIN_SHARED:
        found = f"subjects {subject} and {name} share {len(shared)} training pictures"
        raise InputError(f"{found}; needed: {MIN_SHARED} or more for data.reference, or data.reference=null")
    rows = _means(train, list(shared))
    targets = _means(reference, list(shared.values()))
    ridge = fit_ridge(rows, targets)
    weights = ridge.weights / ridge.scale[:, None]  # [v w]
    fitted = (rows - ridge.mean) @ weights  # [n w]
    basis = np.linalg.svd(fitted, full_matrices=False)[2][:rank].T  # [w r]
    # predictions of ridge are weaker than what they predict: one factor brings them to the strength of the reference
    factor = targets.std() / (fitted @ basis @ basis.T).std()
    down, up = factor * (weights @ basis), basis.T
    bias = ridge.intercept - ridge.mean @ down @ up
    log.info(
        "%s: into the voxels of %s by ridge regression on %d training pictures, penalty %g, rank %d",
        subject,
        name,
        len(shared),
        ridge.alpha,
        len(up),
    )
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


def _joined(parts: list[PairedDataset], reference: PairedDataset) -> PairedDataset:
    """The rows of all parts; pictures that all have in common are kept once. Regions are those of the reference."""
    same = all(part.stimuli is parts[0].stimuli or _same_pictures(part, parts[0]) for part in parts)
    starts = np.zeros(len(parts), int) if same else np.cumsum([0, *(len(part.stimuli) for part in parts[:-1])])
    return PairedDataset(
        np.concatenate([np.asarray(part.fmri) for part in parts]),
        parts[0].stimuli if same else np.concatenate([part.stimuli for part in parts]),
        _column(parts, "class_ids"),
        class_names=_column(parts, "class_names"),
        stimulus_names=_column(parts, "stimulus_names"),
        stimulus=np.concatenate([part.stimulus + start for part, start in zip(parts, starts, strict=True)]),
        repeat=np.concatenate([part.repeat for part in parts]),
        subject=np.concatenate([part.subject for part in parts]),
        roi_masks=reference.roi_masks,
        formats={name: form for part in parts for name, form in part.formats.items()},
    )


def _same_pictures(first: PairedDataset, second: PairedDataset) -> bool:
    return first.stimuli.shape == second.stimuli.shape and np.array_equal(first.stimuli, second.stimuli)


def _column(parts: list[PairedDataset], name: str) -> list | None:
    """A column of all parts, or None where one of them has not got it."""
    columns = [getattr(part, name) for part in parts]
    return None if any(column is None for column in columns) else [value for column in columns for value in column]

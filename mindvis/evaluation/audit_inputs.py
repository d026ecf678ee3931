"""Pictures that enter an audit, checked, with one line about what is wrong."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mindvis.common.errors import InputError
from mindvis.evaluation.audit_features import Pictures
from mindvis.evaluation.audit_training import MIN_TRAINING


@dataclass(frozen=True)
class Unique:
    """Different stimuli among n rows: own [n], the number of each row's stimulus; first [m], the first row of each."""

    own: np.ndarray
    first: np.ndarray


def unique_stimuli(stimuli: np.ndarray) -> Unique:
    """Rows uint8 [n h w 3] that show the same picture share a number. Raises InputError for fewer than two pictures."""
    digests = [hashlib.sha256(np.ascontiguousarray(picture)).hexdigest() for picture in stimuli]
    number = {digest: place for place, digest in enumerate(dict.fromkeys(digests))}
    own = np.array([number[digest] for digest in digests])
    if len(number) < 2:
        raise InputError(f"stimuli: found {len(number)} different picture, an audit needs two or more")
    return Unique(own, np.array([digests.index(digest) for digest in number]))


def check_decoded(decoded: np.ndarray, stimuli: np.ndarray, name: str = "decoded") -> None:
    """Raises InputError unless decoded is uint8 [n k h w 3] and stimuli uint8 [n h w 3] of the same size."""
    _check_pictures(stimuli, "stimuli", "[n h w 3]", 4)
    _check_pictures(decoded, name, "[n k h w 3]", 5)
    if decoded.shape[:1] + decoded.shape[2:] != stimuli.shape:
        found = f"found {list(decoded.shape)} for stimuli {list(stimuli.shape)}"
        raise InputError(f"{name}: {found}, need [n k h w 3] for [n h w 3]")


def check_training(training: Pictures | None, class_ids: Sequence[int] | None) -> None:
    """Raises InputError unless training pictures are uint8 [t h w 3], enough of them, with a class each or none."""
    if training is None:
        return
    if len(training) < MIN_TRAINING:
        raise InputError(f"training: found {len(training)} pictures, an audit needs {MIN_TRAINING} or more, or none")
    _check_pictures(np.asarray(training[:1]), "training", "[t h w 3]", 4)
    if class_ids is not None and len(class_ids) != len(training):
        raise InputError(f"training_class_ids: found {len(class_ids)}, need {len(training)}, one a training picture")


def _check_pictures(array: np.ndarray, name: str, layout: str, ndim: int) -> None:
    array = np.asarray(array)
    if array.dtype != np.uint8 or array.ndim != ndim or array.shape[-1] != 3 or 0 in array.shape:
        raise InputError(f"{name}: found {array.dtype} {list(array.shape)}, need uint8 {layout}, none of them 0")

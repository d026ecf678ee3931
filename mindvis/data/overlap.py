"""Pictures that are the same, in two parts of a data set or in the data of two subjects."""

import hashlib
import logging

import numpy as np

from mindvis.data.datasets import PairedDataset
from mindvis.data.lazy_images import LazyImages

log = logging.getLogger(__name__)

STEP = 8  # pixels: a picture is looked up by every eighth of each side, then compared as a whole


def shared_pictures(first: PairedDataset, second: PairedDataset) -> dict[int, int]:
    """Stimulus of `second` -> stimulus of `first` that shows the identical picture; only those that rows refer to.

    Pictures that are read when asked for, tens of thousands, are the same where their names are.
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


def warn_of_overlap(train: PairedDataset, test: PairedDataset, where: object) -> None:
    """Say in the log that test pictures are among the training pictures, where some are."""
    found = overlap(train, test)
    if found["also_in_training"]:
        first = ", ".join(map(str, found["stimuli"][:3])) + ", ..." * (len(found["stimuli"]) > 3)
        counts = f"{found['also_in_training']} of {found['test_pictures']} test pictures"
        log.warning(
            "%s: %s are training pictures too (stimulus %s): their scores say nothing about new pictures",
            where,
            counts,
            first,
        )


def _key(picture: np.ndarray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(picture[::STEP, ::STEP]).tobytes(), digest_size=16).digest()

"""What enters an audit: pictures, checked, and what they are compared by: pixels, the features of a network."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Protocol

import numpy as np

from mindvis.common.errors import InputError
from mindvis.common.files import digest
from mindvis.common.progress import Progress
from mindvis.evaluation.classifiers import LITE0_PACKAGE, load_classifier
from mindvis.evaluation.pictures import check_pictures, shrink

Embed = Callable[[np.ndarray], np.ndarray]  # uint8 [b h w 3] -> [b d]


class Pictures(Protocol):
    """uint8 [n h w 3]: an array, or anything else that has a length and can be sliced."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> np.ndarray: ...


SIDE = 32  # pixels: enough to tell pictures apart, small enough for thousands
BATCH = 64
PIXELS = "pixels"
MIN_TRAINING = 20  # pictures: of fewer, "the nearest ten" says little


@dataclass(frozen=True)
class Space:
    """A name and the features of pictures in it: unit rows, so that products are Pearson correlations.

    Features that were `kept` are not computed again for the same pictures: training pictures, in several audits.
    """

    name: str
    embed: Embed
    _kept: list[tuple[Pictures, np.ndarray]] = field(default_factory=list, compare=False)

    def kept(self, pictures: Pictures) -> np.ndarray:
        """As a call, remembered for this very object."""
        found = next((rows for seen, rows in self._kept if seen is pictures), None)
        if found is None:
            found = self(pictures)
            self._kept.append((pictures, found))
        return found

    def __call__(self, pictures: Pictures) -> np.ndarray:
        """Centred unit rows: uint8 [n h w 3] in an array or anything that can be sliced -> float32 [n d]."""
        found = np.empty((0, 0), np.float32)
        for start in Progress(range(0, len(pictures), BATCH), desc=self.name, leave=False):
            rows = self._rows(np.asarray(pictures[start : start + BATCH]))
            if not start:
                found = np.empty((len(pictures), rows.shape[1]), np.float32)  # once: a list of parts is held twice
            found[start : start + BATCH] = rows
        return found

    def _rows(self, batch: np.ndarray) -> np.ndarray:
        features = np.asarray(self.embed(batch), np.float64).reshape(len(batch), -1)
        if not np.isfinite(features).all():
            raise InputError(f"features {self.name}: found NaN or infinity, need finite numbers")
        features = features - features.mean(axis=1, keepdims=True)
        return (features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-6)).astype(np.float32)


def choose_spaces(features: str | Embed | list[Space] | None = None) -> list[Space]:
    """The pixels, and the features that are named; None: those of EfficientNet-lite0 where its weights are installed.

    `features`: "pixels" (nothing else), the name of a classifier, a function from pictures to features, or spaces that
    were chosen before. Raises InputError for a name whose weights are not there.
    """
    if isinstance(features, list):
        return features
    pixels = Space(PIXELS, small_pixels)
    if features is None:
        features = "efficientnet_lite0" if find_spec(LITE0_PACKAGE) else PIXELS
    if features == PIXELS:
        return [pixels]
    if callable(features):
        return [pixels, Space(getattr(features, "__name__", "features"), features)]
    classifier = load_classifier(features)
    return [pixels, Space(features, lambda pictures: classifier.classify(pictures).features)]


def small_pixels(pictures: np.ndarray) -> np.ndarray:
    """All values at 32 x 32 pixels: uint8 [b h w 3] -> uint8 [b 3072]."""
    return shrink(pictures, SIDE).reshape(len(pictures), -1)


def unique_stimuli(stimuli: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of rows uint8 [n h w 3] the number [n] of the picture each shows, and the first row [m] of each picture.

    Raises InputError for fewer than two different pictures.
    """
    digests = [digest([picture]) for picture in stimuli]
    different = list(dict.fromkeys(digests))
    if len(different) < 2:
        raise InputError(f"stimuli: found {len(different)} different picture, an audit needs two or more")
    return np.array([different.index(found) for found in digests]), np.array([digests.index(d) for d in different])


def check_training(training: Pictures | None, class_ids: Sequence[int] | None) -> None:
    """Raises InputError unless training pictures are uint8 [t h w 3], enough of them, with a class each or none."""
    if training is None:
        return
    if len(training) < MIN_TRAINING:
        raise InputError(f"training: found {len(training)} pictures, an audit needs {MIN_TRAINING} or more, or none")
    check_pictures(training[:1], "training", "[t h w 3]")
    if class_ids is not None and len(class_ids) != len(training):
        raise InputError(f"training_class_ids: found {len(class_ids)}, need {len(training)}, one a training picture")

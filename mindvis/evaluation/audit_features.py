"""What the audit compares pictures by: their pixels, and the features of a network that is there."""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Protocol

import numpy as np

from mindvis.common.errors import InputError
from mindvis.common.progress import Progress
from mindvis.evaluation.classifiers import LITE0_PACKAGE, load_classifier
from mindvis.evaluation.pictures import shrink

Embed = Callable[[np.ndarray], np.ndarray]  # uint8 [b h w 3] -> [b d]


class Pictures(Protocol):
    """uint8 [n h w 3]: an array, or anything else that has a length and can be sliced."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> np.ndarray: ...


SIDE = 32  # pixels: enough to tell pictures apart, small enough for thousands
BATCH = 64
PIXELS = "pixels"


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
        starts = Progress(range(0, len(pictures), BATCH), desc=self.name, leave=False)
        return np.concatenate([self._rows(np.asarray(pictures[start : start + BATCH])) for start in starts])

    def _rows(self, batch: np.ndarray) -> np.ndarray:
        features = np.asarray(self.embed(batch), np.float64).reshape(len(batch), -1)
        if not np.isfinite(features).all():
            raise InputError(f"features {self.name}: found NaN or infinity, need finite numbers")
        features = features - features.mean(axis=1, keepdims=True)
        return (features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-6)).astype(np.float32)


def choose_spaces(features: str | Embed | list[Space] | None = None) -> list[Space]:
    """The pixels, and besides them the features asked for; None: those of EfficientNet-lite0 where its weights are.

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
    return [pixels, Space(features, _network(features))]


def small_pixels(pictures: np.ndarray) -> np.ndarray:
    """All values at 32 x 32 pixels: uint8 [b h w 3] -> uint8 [b 3072]."""
    return shrink(pictures, SIDE).reshape(len(pictures), -1)


def _network(name: str) -> Embed:
    """Features before the last layer of a classifier."""
    classifier = load_classifier(name)
    return lambda pictures: classifier.classify(pictures).features

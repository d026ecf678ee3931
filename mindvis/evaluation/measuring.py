"""What costs time in an evaluation, as tables by row that several processes can fill: networks, pairs of pictures."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch

from mindvis.common.errors import InputError
from mindvis.common.shares import Compute
from mindvis.evaluation import features as nsd
from mindvis.evaluation.classifiers import Classifier
from mindvis.evaluation.consistency import between_sample_ssim
from mindvis.evaluation.fid import INCEPTION_SIZES, load_inception
from mindvis.evaluation.folder import DecodedSet
from mindvis.evaluation.protocol import Protocol
from mindvis.evaluation.similarity import similarity_matrix

PAIRED = {"pixcorr_425": nsd.pixel_correlation, "ssim_grey_425": nsd.grey_ssim}


@dataclass
class Tables:
    """The tables of one set of n stimuli with k samples; rows are those of `DecodedSet.flat` unless said otherwise.

    Computing rows raises InputError where that measure cannot be had, mostly for absent weights.
    """

    pictures: DecodedSet
    classifier: Classifier
    protocol: Protocol
    flat: np.ndarray = field(init=False)  # uint8 [kn h w 3]

    def __post_init__(self) -> None:
        self.flat = self.pictures.flat

    def listed(self, *, is_control: bool) -> Iterator[tuple[str, int, Compute]]:
        """Name, number of rows, and how to compute some of them; a control is spared all but the pairwise ones."""
        rows, stimuli = len(self.flat), len(self.pictures.stimuli)
        for metric in self.protocol.metrics:
            yield f"pairwise_{metric}", rows, partial(self._similarity, metric)
        if is_control:
            return
        for name in self.protocol.fid:
            if name not in ("classifier", self.classifier.name):
                yield f"fid_{name}", rows + stimuli, partial(self._inception, name)
        yield "consistency", stimuli, self._consistency
        if self.protocol.features is not None:
            yield from ((name, rows, partial(self._paired, name)) for name in PAIRED)
            yield from ((name, rows, partial(self._feature_correlation, spec)) for name, spec in nsd.SPECS.items())

    def _similarity(self, metric: str, rows: np.ndarray) -> np.ndarray:
        """Of decoded pictures with every stimulus: [m n]."""
        options = {"device": self.classifier.device, "lpips_weights": self.protocol.lpips_weights}
        return similarity_matrix(self.flat[rows], self.pictures.stimuli, metric, **options)

    @torch.no_grad()
    def _inception(self, size: str, rows: np.ndarray) -> np.ndarray:
        """Features [m d] of all decoded pictures, then of all stimuli."""
        if size not in map(str, INCEPTION_SIZES):
            raise InputError(f"fid: found {size!r}, need 64, 2048 or {self.classifier.name!r}, the classifier in use")
        if self.protocol.fid_weights is None:
            raise InputError("no file of Inception weights given")
        network = load_inception(self.protocol.fid_weights, int(size)).to(self.classifier.device)
        images = np.concatenate([self.flat, self.pictures.stimuli])[rows]
        batches = torch.from_numpy(images).permute(0, 3, 1, 2).split(self.protocol.batch_size)
        return torch.cat([network(batch.to(self.classifier.device)).cpu() for batch in batches]).numpy()

    def _consistency(self, rows: np.ndarray) -> np.ndarray:
        """SSIM between the samples of stimuli: [m]."""
        if self.pictures.decoded.shape[1] < 2:
            raise InputError("one sample a stimulus, need at least two")
        return between_sample_ssim(self.pictures.decoded[rows], self.classifier.device)

    def _paired(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Of decoded pictures with their own stimuli: [m]. One pair at a time, for they are large at 425 pixels."""
        own = rows % len(self.pictures.stimuli)
        pairs = zip(self.flat[rows], self.pictures.stimuli[own], strict=True)
        return np.array([PAIRED[name](decoded[None], true[None])[0] for decoded, true in pairs])

    def _feature_correlation(self, spec: nsd.FeatureSpec, rows: np.ndarray) -> np.ndarray:
        """Of the features of decoded pictures with those of every stimulus: [m n]."""
        network = nsd.load_feature_network(spec, self.protocol.features.get(spec.network))
        options = {"device": self.classifier.device, "batch_size": self.protocol.batch_size}
        images = (self.flat[rows], self.pictures.stimuli)
        return nsd.correlation_matrix(*(nsd.layer_features(network, spec, x, **options) for x in images))

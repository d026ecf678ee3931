"""Every measure of one set of decoded pictures, as a table of stimuli by samples."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from mindvis.errors import InputError
from mindvis.evaluation import features as nsd
from mindvis.evaluation.classifiers import Classified, Classifier
from mindvis.evaluation.consistency import between_sample_ssim, classifier_agreement
from mindvis.evaluation.fid import INCEPTION_SIZES, frechet_distance, load_inception, small_sample_caveat
from mindvis.evaluation.folder import DecodedSet
from mindvis.evaluation.identification import (
    chance_level,
    identification_from_matrix,
    n_way_accuracy_sampled,
    n_way_table,
)
from mindvis.evaluation.similarity import LARGER_IS_CLOSER, similarity_matrix


@dataclass
class Protocol:
    """What is measured. Weights are paths; a measure without its weights is skipped with a line in the report."""

    num_ways: Sequence[int] = (50, 100)
    top_k: Sequence[int] = (1, 5)
    num_trials: int = 0  # also the sampled n-way protocol with so many trials (the paper: 1000)
    metrics: Sequence[str] = ("mse", "pcc", "ssim")
    lpips_weights: str | Path | None = None
    fid: Sequence[str] = ("classifier",)  # "classifier", "64", "2048" (Inception)
    fid_weights: str | Path | None = None
    features: Mapping[str, str] | None = field(default_factory=dict)  # network -> weights; None leaves the suite out
    num_bootstrap: int = 10_000
    seed: int = 2022
    batch_size: int = 16


@dataclass
class Scores:
    """One measure of every decoded picture: float64 [n k], or [1 k] where it concerns a whole sample set (FID)."""

    name: str
    values: np.ndarray
    chance: float | None = None
    larger_is_better: bool = True


@dataclass
class Judge:
    """One classifier and protocol for all sets of an evaluation; what could not be measured is said in `skipped`."""

    classifier: Classifier
    protocol: Protocol
    skipped: list[str] = field(default_factory=list)
    caveats: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        unknown = set(self.protocol.metrics) - LARGER_IS_CLOSER.keys()
        if unknown:
            raise InputError(f"metrics: found {unknown.pop()!r}, need some of {', '.join(LARGER_IS_CLOSER)}")

    def classify(self, images: np.ndarray) -> Classified:
        """Logits and features of pictures: uint8 [n h w 3]."""
        return self.classifier.classify(images, batch_size=self.protocol.batch_size)

    def score(self, pictures: DecodedSet, true: Classified, *, is_control: bool = False) -> list[Scores]:
        """All measures of a set; a control is spared FID, consistency and the suite of feature networks."""
        judged = self.classify(pictures.flat)
        scores = [*self._n_way(judged, true), *self._pairwise(pictures)]
        if not is_control:
            scores += [*self._fid(pictures, judged, true), *self._consistency(pictures, judged), *self._suite(pictures)]
        return scores

    def _n_way(self, judged: Classified, true: Classified) -> Iterator[Scores]:
        """n-way top-k; the target is the classifier's top class of the true picture (paper, Algorithm D.1)."""
        protocol, n = self.protocol, len(true.logits)
        target = np.tile(true.top_class, len(judged.logits) // n)
        table = n_way_table(judged.logits, target, num_ways=protocol.num_ways, top_k=protocol.top_k)
        for w, ways in enumerate(protocol.num_ways):
            for j, k in enumerate(protocol.top_k):
                name = f"{ways}_way_top_{k}/{self.classifier.name}"
                yield Scores(name, by_stimulus(table[:, w, j], n), chance_level(ways, k))
                if protocol.num_trials:
                    trials = {"num_trials": protocol.num_trials, "seed": protocol.seed}
                    sampled = n_way_accuracy_sampled(judged.logits, target, ways, k, **trials)
                    name = f"{ways}_way_top_{k}_sampled_{protocol.num_trials}/{self.classifier.name}"
                    yield Scores(name, by_stimulus(sampled, n), chance_level(ways, k))

    def _pairwise(self, pictures: DecodedSet) -> Iterator[Scores]:
        """Pairwise identification and the similarity itself, from one matrix a metric."""
        n = len(pictures.stimuli)
        options = {"device": self.classifier.device, "lpips_weights": self.protocol.lpips_weights}
        for metric in self.protocol.metrics:
            try:
                matrix = similarity_matrix(pictures.flat, pictures.stimuli, metric, **options)
            except InputError as error:
                self._skip(f"pairwise_{metric}", error)
                continue
            larger = LARGER_IS_CLOSER[metric]
            identified = identification_from_matrix(matrix, larger_is_closer=larger)
            own = matrix[np.arange(len(matrix)), np.arange(len(matrix)) % n]
            yield Scores(f"pairwise_{metric}", by_stimulus(identified, n), 0.5)
            yield Scores(metric, by_stimulus(own, n), None, larger)

    def _fid(self, pictures: DecodedSet, judged: Classified, true: Classified) -> Iterator[Scores]:
        for name in self.protocol.fid:
            try:
                label, decoded, stimuli = self._fid_features(name, pictures, judged, true)
            except InputError as error:
                self._skip(f"fid_{name}", error)
                continue
            sets = np.split(decoded, len(decoded) // len(stimuli))
            values = np.array([[frechet_distance(features, stimuli) for features in sets]])
            self.caveats.append(f"{label}: {small_sample_caveat(*stimuli.shape)}")
            yield Scores(label, values, None, False)

    def _fid_features(
        self, name: str, pictures: DecodedSet, judged: Classified, true: Classified
    ) -> tuple[str, np.ndarray, np.ndarray]:
        if name in ("classifier", self.classifier.name):
            return f"fid_{self.classifier.name}_{true.features.shape[1]}", judged.features, true.features
        if name not in map(str, INCEPTION_SIZES):
            raise InputError(f"fid: found {name!r}, need 64, 2048 or {self.classifier.name!r}, the classifier in use")
        if self.protocol.fid_weights is None:
            raise InputError("no file of Inception weights given")
        network = load_inception(self.protocol.fid_weights, int(name)).to(self.classifier.device)
        both = [self._inception_features(network, images) for images in (pictures.flat, pictures.stimuli)]
        return f"fid_inception_{name}", *both

    @torch.no_grad()
    def _inception_features(self, network: torch.nn.Module, images: np.ndarray) -> np.ndarray:
        batches = torch.from_numpy(images).permute(0, 3, 1, 2).split(self.protocol.batch_size)
        return torch.cat([network(batch.to(self.classifier.device)).cpu() for batch in batches]).numpy()

    def _consistency(self, pictures: DecodedSet, judged: Classified) -> Iterator[Scores]:
        n, k = pictures.decoded.shape[:2]
        if k < 2:
            self.skipped.append("consistency skipped: one sample a stimulus, need at least two")
            return
        yield Scores("consistency_ssim", between_sample_ssim(pictures.decoded, self.classifier.device)[:, None])
        agreement = classifier_agreement(by_stimulus(judged.top_class, n))
        yield Scores(f"consistency_class/{self.classifier.name}", agreement[:, None])

    def _suite(self, pictures: DecodedSet) -> Iterator[Scores]:
        """The measures of the NSD line of work."""
        if self.protocol.features is None:
            return
        n, k = pictures.decoded.shape[:2]
        for name, measure in {"pixcorr_425": nsd.pixel_correlation, "ssim_grey_425": nsd.grey_ssim}.items():
            columns = [
                [measure(sample[None], true[None])[0] for sample, true in zip(column, pictures.stimuli, strict=True)]
                for column in pictures.decoded.swapaxes(0, 1)
            ]
            yield Scores(name, np.array(columns).T)
        for name, spec in nsd.SPECS.items():
            try:
                network = nsd.load_feature_network(spec, self.protocol.features.get(spec.network))
            except InputError as error:
                self._skip(name, error)
                continue
            yield self._suite_score(name, spec, network, pictures)

    def _suite_score(self, name: str, spec: nsd.FeatureSpec, network: torch.nn.Module, pictures: DecodedSet) -> Scores:
        options = {"device": self.classifier.device, "batch_size": self.protocol.batch_size}
        both = [nsd.layer_features(network, spec, x, **options) for x in (pictures.flat, pictures.stimuli)]
        matrix, n = nsd.correlation_matrix(*both), len(pictures.stimuli)
        if spec.two_way:
            identified = identification_from_matrix(matrix, larger_is_closer=True)
            return Scores(f"two_way_{name}", by_stimulus(identified, n), 0.5)
        own = matrix[np.arange(len(matrix)), np.arange(len(matrix)) % n]
        return Scores(f"distance_{name}", by_stimulus(1 - own, n), None, False)

    def _skip(self, name: str, error: InputError) -> None:
        line = f"{name} skipped: {error}"
        if line not in self.skipped:
            self.skipped.append(line)


def by_stimulus(values: np.ndarray, n: int) -> np.ndarray:
    """Sample set after sample set -> a row a stimulus: [k n] flattened -> [n k]."""
    return values.reshape(-1, n).T

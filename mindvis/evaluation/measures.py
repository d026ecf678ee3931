"""What an evaluation measures: every measure of one set of decoded pictures, as a table of stimuli by samples.

What costs time, networks and pairs of pictures, is computed in tables by row that several processes can share.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import product
from typing import Any

import numpy as np
import torch

from mindvis.common.errors import InputError
from mindvis.common.shares import Compute, Shares
from mindvis.config.decoding import Protocol
from mindvis.evaluation import networks
from mindvis.evaluation.classifiers import Classified, Classifier, classifier_agreement
from mindvis.evaluation.identification import (
    chance_level,
    identification_from_matrix,
    n_way_accuracy_sampled,
    n_way_table,
)
from mindvis.evaluation.networks import INCEPTION_SIZES, SPECS, FeatureSpec
from mindvis.evaluation.pictures import DecodedSet
from mindvis.evaluation.similarity import (
    LARGER_IS_CLOSER,
    between_sample_ssim,
    grey_ssim,
    pixel_correlation,
    similarity_matrix,
)

PAIRED = {"pixcorr_425": pixel_correlation, "ssim_grey_425": grey_ssim}
Measured = dict[str, np.ndarray]  # tables by name, see `Tables`


@dataclass
class Scores:
    """One measure of every decoded picture: float64 [n k], or [1 k] where it concerns a whole sample set (FID)."""

    name: str
    values: np.ndarray
    chance: float | None = None
    larger_is_better: bool = True


@dataclass
class Tables:
    """The tables of one set of n stimuli with k samples; rows are those of `DecodedSet.flat` unless said otherwise.

    Computing rows raises InputError where the measure cannot be computed, mostly for absent weights.
    """

    pictures: DecodedSet
    classifier: Classifier
    protocol: Protocol

    @cached_property
    def flat(self) -> np.ndarray:
        """The decoded pictures: uint8 [kn h w 3]."""
        return self.pictures.flat

    def listed(self, *, is_control: bool) -> Iterator[tuple[str, int, Compute]]:
        """Name, number of rows and function of rows of each table; a control has the pairwise ones alone."""
        rows, stimuli = len(self.flat), len(self.pictures.stimuli)
        for metric in self.protocol.metrics:
            yield f"pairwise_{metric}", rows, partial(self._similarity, metric)
        if is_control:
            return
        for name in self.protocol.fid:
            if name not in ("classifier", self.classifier.name):
                yield f"fid_{name}", rows + stimuli, partial(self._inception, name)
        yield "consistency", stimuli, self._consistency
        if self.protocol.nsd_suite:
            yield from ((name, rows, partial(self._paired, name)) for name in PAIRED)
            yield from ((name, rows, partial(self._feature_correlation, spec)) for name, spec in SPECS.items())

    def _similarity(self, metric: str, rows: np.ndarray) -> np.ndarray:
        """Of decoded pictures with every stimulus: [m n]."""
        weights, device = self.protocol.lpips_weights, self.classifier.device
        return similarity_matrix(self.flat[rows], self.pictures.stimuli, metric, lpips_weights=weights, device=device)

    @torch.no_grad()
    def _inception(self, size: str, rows: np.ndarray) -> np.ndarray:
        """Features [m d] of all decoded pictures, then of all stimuli."""
        network = networks.load_inception(self.protocol.fid_weights, int(size)).to(self.classifier.device)
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

    def _feature_correlation(self, spec: FeatureSpec, rows: np.ndarray) -> np.ndarray:
        """Of the features of decoded pictures with those of every stimulus: [m n]."""
        network = networks.load_feature_network(spec, self.protocol.features.get(spec.network))
        options: dict[str, Any] = {"device": self.classifier.device, "batch_size": self.protocol.batch_size}
        images = (self.flat[rows], self.pictures.stimuli)
        return networks.correlation_matrix(*(networks.layer_features(network, spec, x, **options) for x in images))


@dataclass
class Judge:
    """One classifier and protocol for all sets of an evaluation; what could not be measured is said in `skipped`.

    Of several processes (`shares`) only the first one gets what is measured; the others do their share of it.
    """

    classifier: Classifier
    protocol: Protocol
    shares: Shares = Shares()
    skipped: list[str] = field(default_factory=list)
    caveats: list[str] = field(default_factory=list)
    seen: np.ndarray | None = None  # the classes seen in the decoded pictures, int [n k]

    def __post_init__(self) -> None:
        """Raise InputError for a name that no measure has, and for a protocol without one way or one k."""
        known = {
            "metrics": LARGER_IS_CLOSER,
            "fid": ("classifier", self.classifier.name, *map(str, INCEPTION_SIZES)),
            "features": dict.fromkeys(spec.network for spec in SPECS.values()),
        }
        for setting, names in known.items():
            for name in getattr(self.protocol, setting):
                if name not in names:
                    raise InputError(f"{setting}: found {name!r}, need some of {', '.join(names)}")
        for setting in ("num_ways", "top_k"):
            if not getattr(self.protocol, setting):
                raise InputError(f"{setting}: found none, need one at least")

    def classify(self, images: np.ndarray) -> Classified | None:
        """Logits and features of pictures, uint8 [n h w 3]; None in a process that only does its share."""

        def compute(rows: np.ndarray) -> np.ndarray:
            seen = self.classifier.classify(images[rows], batch_size=self.protocol.batch_size)
            return np.hstack([seen.logits, seen.features])  # [m c+d]

        name = "classified" + self.shares.key(images)
        both = self.shares.begin(name, len(images), compute, block=self.protocol.batch_size)
        if not self.shares.process.leads:
            return None
        return Classified(*np.split(both(), [self.classifier.num_classes], axis=1))

    def score(self, pictures: DecodedSet, true: Classified | None, *, is_control: bool = False) -> list[Scores]:
        """All measures of a set; a control without FID, consistency and the suite of feature networks.

        None at all in a process that only does its share.
        """
        judged = self.classify(pictures.flat)
        if judged is not None and not is_control:
            self.seen = by_stimulus(judged.top_class, len(pictures.stimuli))
        measured = self._measure(pictures, is_control)
        if judged is None or true is None:
            return []
        scores = [*self._n_way(judged, true), *self._labelled(judged, true, pictures.class_ids)]
        scores += self._pairwise(measured, len(true.logits))
        if not is_control:
            scores += [*self._fid(measured, judged, true), *self._consistency(measured, judged, len(true.logits))]
            scores += self._suite(measured, len(true.logits))
        return scores

    def _measure(self, pictures: DecodedSet, is_control: bool) -> Measured:
        """The tables that could be computed: this process does its share of each before it waits for others."""
        tables, begun = Tables(pictures, self.classifier, self.protocol), {}
        key, block = self.shares.key(tables.flat, pictures.stimuli), self.protocol.batch_size
        for name, num_rows, compute in tables.listed(is_control=is_control):
            try:
                begun[name] = self.shares.begin(name + key, num_rows, compute, block=block)
            except InputError as error:
                self._skip(name, error)
        return {name: whole() for name, whole in begun.items()} if self.shares.process.leads else {}

    def _n_way(self, judged: Classified, true: Classified) -> Iterator[Scores]:
        """n-way top-k; the target is the classifier's top class of the true picture (paper, Algorithm D.1)."""
        protocol, n = self.protocol, len(true.logits)
        target = np.tile(true.top_class, len(judged.logits) // n)
        table = n_way_table(judged.logits, target, num_ways=protocol.num_ways, top_k=protocol.top_k)
        for (w, ways), (j, k) in product(enumerate(protocol.num_ways), enumerate(protocol.top_k)):
            if k >= ways:
                self._skip(f"{ways}-way top-{k}", InputError("every picture would be identified"))
                continue
            name = f"{ways}_way_top_{k}"
            yield Scores(f"{name}/{self.classifier.name}", by_stimulus(table[:, w, j], n), chance_level(ways, k))
            if protocol.num_trials:
                trials = {"num_trials": protocol.num_trials, "seed": protocol.seed}
                sampled = n_way_accuracy_sampled(judged.logits, target, ways, k, **trials)
                name += f"_sampled_{protocol.num_trials}"
                yield Scores(f"{name}/{self.classifier.name}", by_stimulus(sampled, n), chance_level(ways, k))

    def _labelled(self, judged: Classified, true: Classified, class_ids: list[int] | None) -> Iterator[Scores]:
        """The same with the annotated class as the target: the classifier's mistakes are then not taken for truth."""
        if class_ids is None:
            return
        labels = np.asarray(class_ids)
        agreeing = int((labels == true.top_class).sum())
        if 2 * agreeing < len(labels) or labels.min() < 0 or labels.max() >= true.logits.shape[1]:
            found = f"the classifier sees the class of that number in {agreeing} of {len(labels)} true pictures"
            self._skip("n-way against the annotated classes", InputError(f"{found}, so its classes are others"))
            return
        line = (
            f"n-way: the classifier sees the annotated class in {agreeing} of {len(labels)} true pictures; figures "
            "called labelled take the annotated class as the target, the others what the classifier sees"
        )
        self.caveats += [] if line in self.caveats else [line]  # of every set the same
        for scores in self._n_way(judged, Classified(np.eye(true.logits.shape[1])[labels], true.features)):
            if "_sampled_" not in scores.name:
                yield Scores(f"labelled_{scores.name}", scores.values, scores.chance)

    def _pairwise(self, measured: Measured, n: int) -> Iterator[Scores]:
        """Pairwise identification and the similarity itself, from one matrix a metric."""
        for metric in self.protocol.metrics:
            name, larger = f"pairwise_{metric}", LARGER_IS_CLOSER[metric]
            if name in measured:
                identified = identification_from_matrix(measured[name], larger_is_closer=larger)
                yield Scores(name, by_stimulus(identified, n), 0.5)
                yield Scores(metric, by_stimulus(_own(measured[name]), n), None, larger)

    def _fid(self, measured: Measured, judged: Classified, true: Classified) -> Iterator[Scores]:
        for name in self.protocol.fid:
            if name in ("classifier", self.classifier.name):
                label = f"fid_{self.classifier.name}_{true.features.shape[1]}"
                decoded, stimuli = judged.features, true.features
            elif f"fid_{name}" in measured:
                label = f"fid_inception_{name}"
                decoded, stimuli = np.split(measured[f"fid_{name}"], [len(judged.features)])
            else:
                continue
            sets = np.split(decoded, len(decoded) // len(stimuli))
            values = np.array([[networks.frechet_distance(features, stimuli) for features in sets]])
            self.caveats.append(f"{label}: {networks.small_sample_caveat(*stimuli.shape)}")
            yield Scores(label, values, None, False)

    def _consistency(self, measured: Measured, judged: Classified, n: int) -> Iterator[Scores]:
        if "consistency" in measured:
            yield Scores("consistency_ssim", measured["consistency"][:, None])
            agreement = classifier_agreement(by_stimulus(judged.top_class, n))
            yield Scores(f"consistency_class/{self.classifier.name}", agreement[:, None])

    def _suite(self, measured: Measured, n: int) -> Iterator[Scores]:
        """The measures of the NSD line of work."""
        for name in (name for name in PAIRED if name in measured):
            yield Scores(name, by_stimulus(measured[name], n))
        for name, spec in SPECS.items():
            if name not in measured:
                continue
            if spec.two_way:
                identified = identification_from_matrix(measured[name], larger_is_closer=True)
                yield Scores(f"two_way_{name}", by_stimulus(identified, n), 0.5)
            else:
                yield Scores(f"distance_{name}", by_stimulus(1 - _own(measured[name]), n), None, False)

    def _skip(self, name: str, error: InputError) -> None:
        line = f"{name} skipped: {error}"
        if line not in self.skipped:
            self.skipped.append(line)


def by_stimulus(values: np.ndarray, n: int) -> np.ndarray:
    """Sample set after sample set -> a row a stimulus: [k n] flattened -> [n k]."""
    return values.reshape(-1, n).T


def _own(matrix: np.ndarray) -> np.ndarray:
    """Of every decoded picture, the value with its own stimulus: [kn n] -> [kn]."""
    rows = np.arange(len(matrix))
    return matrix[rows, rows % matrix.shape[1]]

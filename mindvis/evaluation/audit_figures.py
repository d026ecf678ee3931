"""The figures of an audit, one group a function: own against other, within class, against lures, copies, overlap."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.stats import spearmanr

from mindvis.evaluation import audit_training as near
from mindvis.evaluation.audit_statistics import accident_level, as_table, permutation_p, shares_beaten
from mindvis.evaluation.audit_verdict import Finding
from mindvis.evaluation.statistics import Estimate, d_prime, estimate, holm, sign_flip_p


@dataclass(frozen=True)
class Rows:
    """Features of one space, and which stimulus each decoded picture belongs to."""

    space: str
    decoded: np.ndarray  # [r d]
    true: np.ndarray  # [m d], each picture once
    own: np.ndarray  # [r] row of `true`
    training: np.ndarray | None = None  # [t d]
    controls: Mapping[str, np.ndarray] = field(default_factory=dict)  # name -> [r' d]
    controls_own: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def closeness(self) -> np.ndarray:
        return self.decoded @ self.true.T  # [r m]


@dataclass(frozen=True)
class Known:
    """What is known: classes of the stimuli [m] and of training pictures [t], subject of each decoded picture [r]."""

    class_ids: np.ndarray | None = None
    training_class_ids: np.ndarray | None = None
    subjects: np.ndarray | None = None
    seed: int = 0


def identification(rows: Rows, known: Known) -> Iterator[Finding]:
    """Own against other pictures, the same within the class, and the differences from the controls."""
    closeness = rows.closeness
    shares = shares_beaten(closeness, rows.own)
    yield _area("own_against_other", rows, shares, None, known)
    own_scores = _own(shares, rows.own)
    for name, control in rows.controls.items():
        of_control = _own(shares_beaten(control @ rows.true.T, rows.controls_own[name]), rows.controls_own[name])
        yield _paired(f"minus_control/{rows.space}/{name}", own_scores, of_control, rows, name, known)
    if known.class_ids is not None:
        within = shares_beaten(closeness, rows.own, known.class_ids)
        if np.isfinite(_own(within, rows.own)).any():
            yield _area("within_class", rows, within, known.class_ids, known)


def scores(rows: Rows, class_ids: np.ndarray | None = None) -> np.ndarray:
    """Area of own against other pictures (of the class) of each stimulus: [m], NaN where there are no others."""
    return by_stimulus(_own(shares_beaten(rows.closeness, rows.own, class_ids), rows.own), rows.own, len(rows.true))


def _area(kind: str, rows: Rows, shares: np.ndarray, class_ids: np.ndarray | None, known: Known) -> Finding:
    mean = _estimate(_own(shares, rows.own), rows.own, known)
    p = permutation_p(as_table(shares, rows.own), class_ids, known.seed)
    area = d_prime(mean.value, mean.n)
    return Finding(f"{kind}/{rows.space}", mean.value, mean.low, mean.high, 0.5, p, None, area, mean.n)


def _paired(name: str, scores: np.ndarray, of_control: np.ndarray, rows: Rows, control: str, known: Known) -> Finding:
    """Decoded minus control, paired over stimuli."""
    m = len(rows.true)
    difference = by_stimulus(scores, rows.own, m) - by_stimulus(of_control, rows.controls_own[control], m)
    mean = estimate(difference, known.seed)
    p = sign_flip_p(difference, known.seed)
    return Finding(name, mean.value, mean.low, mean.high, 0.0, p, n=mean.n)


def against_nearest(rows: Rows, true: near.Neighbours, known: Known) -> Finding:
    """Share of stimuli that are closer to their decoded picture than the training picture most like them is.

    By accident: the same of other stimuli of the class, as far as classes are known.
    """
    to_nearest = rows.decoded @ rows.training[true.nearest].T  # [r m]
    wins = (rows.closeness > to_nearest) + 0.5 * (rows.closeness == to_nearest)
    table = as_table(wins, rows.own)
    if known.class_ids is not None:
        table = np.where(known.class_ids[:, None] == known.class_ids, table, np.nan)
    mean = _estimate(_own(wins, rows.own), rows.own, known)
    p = permutation_p(table, known.class_ids, known.seed, two_sided=True)
    name = f"truth_against_nearest_training/{rows.space}"
    return Finding(name, mean.value, mean.low, mean.high, accident_level(table), p, n=mean.n)


def copies(of_spaces: Sequence[np.ndarray], rows: Rows, known: Known) -> Finding:
    """Share of decoded pictures that are training pictures in some space; `of_spaces`: bool [r] each."""
    mean = _estimate(np.logical_or.reduce(list(of_spaces)).astype(float), rows.own, known)
    return Finding("copies", mean.value, mean.low, mean.high, near.COPY_RISK * len(of_spaces), n=mean.n)


def novelty(rows: Rows, known: Known) -> tuple[Finding, np.ndarray]:
    """Share of decoded pictures with a training picture closer than the truth; rank of the truth among them: [r]."""
    to_own = np.einsum("rd,rd->r", rows.decoded, rows.true[rows.own])
    rank = near.closer_in_training(rows.decoded, to_own, rows.training)
    mean = _estimate((rank > 0).astype(float), rows.own, known)
    return Finding(f"training_closer_than_truth/{rows.space}", mean.value, mean.low, mean.high, n=mean.n), rank


def overlap(rows: Rows, true: near.Neighbours, known: Known) -> Iterator[Finding]:
    """How close the stimuli lie to the training set, and whether the score depends on it."""
    mean = estimate(true.closeness, known.seed)
    yield Finding(f"truth_to_training/{rows.space}", mean.value, mean.low, mean.high, n=mean.n)
    inside = estimate(near.in_clusters(rows.true, rows.training, known.seed).astype(float), known.seed)
    yield Finding(f"in_training_clusters/{rows.space}", inside.value, inside.low, inside.high, 0.95, n=inside.n)
    own_scores = scores(rows)
    if np.ptp(own_scores) > 0 and np.ptp(true.closeness) > 0:
        found = spearmanr(true.closeness, own_scores)
        yield Finding(
            f"score_with_closeness/{rows.space}", float(found.statistic), None, None, 0.0, float(found.pvalue), n=mean.n
        )


def collapse(rows: Rows, known: Known) -> Iterator[Finding]:
    """How much of true and decoded pictures lies in the span of the training ones, along how many axes."""
    mean, axes = near.training_span(rows.training, known.seed)
    for name, features, own in (("truth", rows.true, np.arange(len(rows.true))), ("decoded", rows.decoded, rows.own)):
        share = _estimate(near.share_in_span(features, mean, axes), own, replace(known, subjects=None))
        yield Finding(f"{name}_in_training_span/{rows.space}", share.value, share.low, share.high, n=share.n)
    for name, features in (("truth", rows.true), ("decoded", rows.decoded)):
        yield Finding(f"{name}_dimensions/{rows.space}", near.effective_dimensions(features), n=len(features))


def corrected(findings: Sequence[Finding]) -> list[Finding]:
    """The same with p values corrected for all tests together."""
    tested = [finding.p for finding in findings if finding.p is not None]
    p_holm = iter(holm(tested))
    return [finding if finding.p is None else replace(finding, p_holm=next(p_holm)) for finding in findings]


def by_stimulus(values: np.ndarray, own: np.ndarray, m: int) -> np.ndarray:
    """Mean over the decoded pictures of each stimulus: [r] -> [m]."""
    return np.bincount(own, values, m) / np.bincount(own, minlength=m)


def _own(shares: np.ndarray, own: np.ndarray) -> np.ndarray:
    return shares[np.arange(len(own)), own]


def _estimate(values: np.ndarray, own: np.ndarray, known: Known) -> Estimate:
    """Mean over stimuli, or, with subjects, over their stimuli and over them."""
    m = int(own.max()) + 1
    if known.subjects is None:
        return estimate(by_stimulus(values, own, m), known.seed)
    pairs = known.subjects.astype(int) * m + own
    names, place = np.unique(pairs, return_inverse=True)
    return estimate(by_stimulus(values, place, len(names)), known.seed, subjects=names // m)

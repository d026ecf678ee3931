"""The figures of an audit, one group a function: own against other, within class, against lures, copies, overlap.

Below them is how pictures lie to the training pictures: neighbours, copies, twins, clusters, span. Rows of features
have unit length and mean 0 (`Space`), so products are correlations; "close" means a high one.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.stats import spearmanr
from sklearn.cluster import KMeans

from mindvis.common import draws
from mindvis.evaluation.audit_features import Pictures, small_pixels
from mindvis.evaluation.audit_verdict import Finding
from mindvis.evaluation.statistics import (
    Estimate,
    accident_level,
    as_table,
    d_prime,
    estimate,
    holm,
    permutation_p,
    shares_beaten,
    sign_flip_p,
)

NUM_NEAREST = 10
SAME_PICTURE = 0.98  # correlation from which two training pictures count as one
TWIN = 2.0  # grey levels: mean difference at 32 x 32 pixels up to which two pictures are the same picture
TWINS_CORRELATE = 0.9  # by far more than this, at 32 x 32 pixels; saves looking at the others
COPY_RISK = 0.01  # share of true pictures that would be called copies of training pictures
MAX_SPANNING = 2000  # training pictures whose span is taken: ten thousand would take minutes
VARIANCE_KEPT = 0.95
CHUNK = 256


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

    @property
    def of_training(self) -> np.ndarray:
        """`training`, where there are training pictures."""
        assert self.training is not None
        return self.training


@dataclass(frozen=True)
class Neighbours:
    """Of each of r pictures: its nearest training picture, how close, and how much closer than the next other one."""

    nearest: np.ndarray  # [r] index
    closeness: np.ndarray  # [r]
    ratio: np.ndarray  # [r] (1 - closeness to the nearest) / (1 - closeness to the next), near 0 for a copy


@dataclass(frozen=True)
class Known:
    """What is known: classes of the stimuli [m] and of training pictures [t], subject of each decoded picture [r]."""

    class_ids: np.ndarray | None = None
    training_class_ids: np.ndarray | None = None
    subjects: np.ndarray | None = None
    seed: int = 0


def identification(rows: Rows, known: Known) -> Iterator[Finding]:
    """Own against other pictures, the same within the class, and the differences from the controls."""
    closeness, m = rows.closeness, len(rows.true)
    shares = shares_beaten(closeness, rows.own)
    yield _area("own_against_other", rows, shares, None, known)
    for name, control in rows.controls.items():
        own = rows.controls_own[name]
        of_control = by_stimulus(_own(shares_beaten(control @ rows.true.T, own), own), own, m)
        difference = by_stimulus(_own(shares, rows.own), rows.own, m) - of_control
        p = sign_flip_p(difference, known.seed)
        mean = estimate(difference, known.seed)
        yield _finding(f"minus_control/{rows.space}/{name}", mean, by_accident=0.0, p=p)
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
    return _finding(f"{kind}/{rows.space}", mean, by_accident=0.5, p=p, d_prime=d_prime(mean.value, mean.n))


def _finding(name: str, mean: Estimate, **facts: float | None) -> Finding:
    return Finding(name, mean.value, mean.low, mean.high, n=mean.n, **facts)


def against_nearest(rows: Rows, true: Neighbours, known: Known) -> Finding:
    """Share of stimuli that are closer to their decoded picture than the training picture most like them is.

    By accident: the same of other stimuli of the class, as far as classes are known.
    """
    to_nearest = rows.decoded @ rows.of_training[true.nearest].T  # [r m]
    wins = (rows.closeness > to_nearest) + 0.5 * (rows.closeness == to_nearest)
    table = as_table(wins, rows.own)
    if known.class_ids is not None:
        table = np.where(known.class_ids[:, None] == known.class_ids, table, np.nan)
    mean = _estimate(_own(wins, rows.own), rows.own, known)
    p = permutation_p(table, known.class_ids, known.seed, two_sided=True)
    name = f"truth_against_nearest_training/{rows.space}"
    return _finding(name, mean, by_accident=accident_level(table), p=p)


def copies(of_spaces: Sequence[np.ndarray], rows: Rows, known: Known) -> Finding:
    """Share of decoded pictures that are training pictures in some space; `of_spaces`: bool [r] each."""
    mean = _estimate(np.logical_or.reduce(list(of_spaces)).astype(float), rows.own, known)
    return _finding("copies", mean, by_accident=COPY_RISK * len(of_spaces))


def novelty(rows: Rows, known: Known) -> tuple[Finding, np.ndarray]:
    """Share of decoded pictures with a training picture closer than the truth; rank of the truth among them: [r]."""
    to_own = np.einsum("rd,rd->r", rows.decoded, rows.true[rows.own])
    rank = closer_in_training(rows.decoded, to_own, rows.of_training)
    mean = _estimate((rank > 0).astype(float), rows.own, known)
    return _finding(f"training_closer_than_truth/{rows.space}", mean), rank


def overlap(rows: Rows, true: Neighbours, known: Known) -> Iterator[Finding]:
    """How close the stimuli lie to the training set, and whether the score depends on it."""
    mean = estimate(true.closeness, known.seed)
    yield _finding(f"truth_to_training/{rows.space}", mean)
    inside = estimate(in_clusters(rows.true, rows.of_training, known.seed).astype(float), known.seed)
    yield _finding(f"in_training_clusters/{rows.space}", inside, by_accident=0.95)
    own_scores = scores(rows)
    if np.ptp(own_scores) > 0 and np.ptp(true.closeness) > 0:
        found, p = map(float, spearmanr(true.closeness, own_scores))
        yield Finding(f"score_with_closeness/{rows.space}", found, by_accident=0.0, p=p, n=mean.n)


def collapse(rows: Rows, known: Known) -> Iterator[Finding]:
    """How much of true and decoded pictures lies in the span of the training ones, along how many axes."""
    mean, axes = training_span(rows.of_training, known.seed)
    for name, features, own in (("truth", rows.true, np.arange(len(rows.true))), ("decoded", rows.decoded, rows.own)):
        share = _estimate(share_in_span(features, mean, axes), own, replace(known, subjects=None))
        yield _finding(f"{name}_in_training_span/{rows.space}", share)
    for name, features in (("truth", rows.true), ("decoded", rows.decoded)):
        yield Finding(f"{name}_dimensions/{rows.space}", effective_dimensions(features), n=len(features))


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


def neighbours(rows: np.ndarray, training: np.ndarray) -> Neighbours:
    """Nearest training pictures: [r d], [t d] -> Neighbours. Training pictures that are the same one count as one."""
    parts = [_neighbours(part, training) for part in _chunks(rows)]
    return Neighbours(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _neighbours(rows: np.ndarray, training: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    closeness = rows @ training.T
    found = np.argpartition(-closeness, NUM_NEAREST - 1, axis=1)[:, :NUM_NEAREST]
    order = np.argsort(-np.take_along_axis(closeness, found, axis=1), axis=1, kind="stable")
    found = np.take_along_axis(found, order, axis=1)  # [r 10], the nearest first
    near = np.take_along_axis(closeness, found, axis=1)
    alike = np.einsum("rd,rkd->rk", training[found[:, 0]], training[found]) > SAME_PICTURE
    alike[:, -1] = False
    next_other = np.argmin(alike, axis=1)
    next_other[next_other == 0] = 1  # a flat picture is not even like itself
    second = np.take_along_axis(near, next_other[:, None], axis=1)[:, 0]
    return found[:, 0], near[:, 0], (1 - near[:, 0]) / np.maximum(1 - second, 1e-6)


def copied(decoded: Neighbours, true: Neighbours, own: np.ndarray) -> np.ndarray:
    """Whether each decoded picture is a training picture: bool [r].

    It is when it lies closer to one than its own stimulus does, and sets that one apart from all others as only 1 in
    100 true pictures do: a blurred picture is close to many training pictures, a copy to one.
    """
    apart = np.quantile(true.ratio, COPY_RISK)
    return (decoded.ratio < apart) & (decoded.closeness > true.closeness[own])


def nearest(rows: np.ndarray, training: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The training picture closest to each row, and how close: [r d], [t d] -> int [r], [r]."""
    found = np.concatenate([(part @ training.T).argmax(axis=1) for part in _chunks(rows)])
    return found, np.einsum("rd,rd->r", rows, training[found], dtype=np.float64)


def shown_again(stimuli: Pictures, rows: np.ndarray, training: Pictures, training_rows: np.ndarray) -> np.ndarray:
    """Which stimuli are training pictures, but for storage: uint8 pictures [m], [t], their pixels' rows -> bool [m].

    The training picture whose pixels correlate most is looked at where they correlate highly, and for flat pictures,
    which correlate with nothing.
    """
    closest, closeness = nearest(rows, training_rows)
    found = np.zeros(len(closest), bool)
    for i in np.flatnonzero((closeness > TWINS_CORRELATE) | (closeness == 0)):
        j = int(closest[i])
        one, other = (small_pixels(np.asarray(part)) for part in (stimuli[i : i + 1], training[j : j + 1]))
        found[i] = np.abs(one.astype(int) - other).mean() <= TWIN
    return found


def closer_in_training(rows: np.ndarray, to_own: np.ndarray, training: np.ndarray) -> np.ndarray:
    """How many training pictures are closer to each decoded picture than its own stimulus: [r d], [r], [t d] -> [r]."""
    pairs = zip(_chunks(rows), _chunks(to_own), strict=True)
    return np.concatenate([(part @ training.T > own[:, None]).sum(axis=1) for part, own in pairs])


def in_clusters(true: np.ndarray, training: np.ndarray, seed: int) -> np.ndarray:
    """Whether each stimulus lies in a cluster of training pictures: [m d], [t d] -> bool [m].

    k-means with a cluster for every 20 training pictures, at most 50. A stimulus lies in one if it is no farther from
    the centre than 95 % of the training pictures there.
    """
    count = int(np.clip(len(training) // 20, 2, 50))
    random_state = int(draws.generator((seed,), "clusters").integers(2**31))
    clusters = KMeans(count, n_init=1, random_state=random_state).fit(training)
    distance = clusters.transform(training).min(axis=1)
    label = clusters.labels_  # of pictures that are all alike, some clusters are empty
    radius = np.array([np.quantile(distance[label == c], 0.95) if (label == c).any() else -1.0 for c in range(count)])
    to_centres = clusters.transform(true)
    own = to_centres.argmin(axis=1)
    return to_centres[np.arange(len(true)), own] <= radius[own]


def training_span(training: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean [d] and orthonormal axes [d q] that hold 95 % of the variance of the training pictures [t d].

    Of more than 2000 pictures 2000 are drawn by the seed.
    """
    if len(training) > MAX_SPANNING:
        chosen = draws.generator((seed,), "span").choice(len(training), MAX_SPANNING, replace=False)
        training = training[np.sort(chosen)]
    mean = training.mean(axis=0)
    centred = training - mean
    if len(centred) < centred.shape[1]:
        variance, left = np.linalg.eigh(centred @ centred.T)
        axes = centred.T @ (left / np.sqrt(np.maximum(variance, 1e-12)))
    else:
        variance, axes = np.linalg.eigh(centred.T @ centred)
    order = np.argsort(-variance)
    kept = np.cumsum(variance[order]) / variance.sum()
    return mean, axes[:, order[: int(np.searchsorted(kept, VARIANCE_KEPT)) + 1]]


def share_in_span(rows: np.ndarray, mean: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Share of each picture's deviation from the mean that lies along the axes: [r d] -> [r] in [0, 1]."""
    centred = rows - mean
    return ((centred @ axes) ** 2).sum(axis=1) / np.maximum((centred**2).sum(axis=1), 1e-12)


def effective_dimensions(rows: np.ndarray) -> float:
    """Participation ratio of the variances of [r d]: how many directions the pictures differ along."""
    centred = rows - rows.mean(axis=0)
    gram = centred @ centred.T if len(rows) < rows.shape[1] else centred.T @ centred
    return float(np.trace(gram) ** 2 / max((gram**2).sum(), 1e-12))


def _chunks(rows: np.ndarray) -> Iterator[np.ndarray]:
    return (rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK))

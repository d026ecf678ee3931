"""How decoded and true pictures lie to the training pictures: twins, copies, clusters, span.

Rows of features have unit length and mean 0 (`Space`), so products are correlations; "close" means a high one.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.cluster.vq import kmeans2

from mindvis.common import draws
from mindvis.evaluation.audit_features import Pictures, small_pixels

NUM_NEAREST = 10
MIN_TRAINING = 2 * NUM_NEAREST  # below, "nearest" says little
SAME_PICTURE = 0.98  # correlation from which two training pictures count as one
TWIN = 2.0  # grey levels: mean difference at 32 x 32 pixels up to which two pictures are the same picture
TWINS_CORRELATE = 0.9  # by far more than this, at 32 x 32 pixels; saves looking at the others
COPY_RISK = 0.01  # share of true pictures that would be called copies of training pictures
MAX_SPANNING = 2000  # training pictures whose span is taken: ten thousand would take minutes
VARIANCE_KEPT = 0.95
CHUNK = 256


@dataclass(frozen=True)
class Neighbours:
    """Of each of r pictures: its nearest training picture, how close, and how much closer than the next other one."""

    nearest: np.ndarray  # [r] index
    closeness: np.ndarray  # [r]
    ratio: np.ndarray  # [r] (1 - closeness to the nearest) / (1 - closeness to the next), near 0 for a copy


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


def twins(stimuli: Pictures, training: Pictures, nearest: np.ndarray, closeness: np.ndarray) -> np.ndarray:
    """Which stimuli are training pictures, but for storage: uint8 pictures [m], [t] -> bool [m].

    `nearest` [m] is the training picture whose pixels correlate most with each, `closeness` [m] that correlation. Flat
    pictures correlate with nothing, so those are looked at as well.
    """
    found = np.zeros(len(nearest), bool)
    for i in np.flatnonzero((closeness > TWINS_CORRELATE) | (closeness == 0)):
        j = int(nearest[i])
        found[i] = _differ_by(stimuli[i : i + 1], training[j : j + 1]) <= TWIN
    return found


def _differ_by(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(small_pixels(np.asarray(one)).astype(int) - small_pixels(np.asarray(other))).mean())


def closer_in_training(rows: np.ndarray, to_own: np.ndarray, training: np.ndarray) -> np.ndarray:
    """How many training pictures are closer to each decoded picture than its own stimulus: [r d], [r], [t d] -> [r]."""
    counts = [
        (part @ training.T > own[:, None]).sum(axis=1) for part, own in zip(_chunks(rows), _chunks(to_own), strict=True)
    ]
    return np.concatenate(counts)


def in_clusters(true: np.ndarray, training: np.ndarray, seed: int) -> np.ndarray:
    """Whether each stimulus lies in a cluster of training pictures: [m d], [t d] -> bool [m].

    k-means with a cluster for every 20 training pictures, at most 50. A stimulus lies in one if it is no farther from
    the centre than 95 % of the training pictures there.
    """
    count = int(np.clip(len(training) // 20, 2, 50))
    centres, label = kmeans2(training, count, minit="++", seed=draws.generator((seed,), "clusters"))
    distance = np.linalg.norm(training - centres[label], axis=1)
    radius = np.array([np.quantile(distance[label == c], 0.95) if (label == c).any() else -1.0 for c in range(count)])
    to_centres = _distances(true, centres)
    own = to_centres.argmin(axis=1)
    return to_centres[np.arange(len(true)), own] <= radius[own]


def _distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    squared = (x**2).sum(1)[:, None] + (y**2).sum(1) - 2 * x @ y.T
    return np.sqrt(np.maximum(squared, 0))


def training_span(training: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean [d] and orthonormal axes [d q] that hold 95 % of the variance of the training pictures [t d].

    Of more than 2000 so many are drawn from the seed.
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

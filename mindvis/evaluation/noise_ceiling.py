"""The noise ceiling: what repeats of the same stimulus say about how well anybody could decode."""

import numpy as np

from mindvis.common import draws
from mindvis.common.errors import InputError
from mindvis.data import PairedDataset
from mindvis.data.voxels import noise_ceiling
from mindvis.evaluation.audit_verdict import Finding
from mindvis.evaluation.statistics import Estimate, d_prime, estimate, shares_beaten


def noise_ceilings(test: PairedDataset, seed: int) -> list[Finding]:
    """Mean correlation that a perfect prediction of a voxel would reach, and how well halves of the trials identify.

    Mean over subjects of `test`, whose rows after the first of a stimulus are single trials. Noise
    ceilings that come with the data are taken as they are. Raises InputError for data with neither.
    """
    if test.noise_ceilings:
        shares = np.concatenate([np.asarray(share, float) for share in test.noise_ceilings.values()])
        return [_voxel_correlation(np.clip(shares[np.isfinite(shares)], 0, 1))]
    single = np.flatnonzero(np.asarray(test.repeat) > 0)
    if len(single) == 0:
        raise InputError("the test data has no single trials")
    subject = np.zeros(test.num_rows, int) if test.subject is None else np.asarray(test.subject)
    of_subjects, areas = [], []
    for name in np.unique(subject[single]):
        rows = single[subject[single] == name]
        trials, stimulus = np.asarray(test.fmri[rows]), np.asarray(test.stimulus)[rows]
        of_subjects.append(voxel_noise_ceiling(trials, stimulus))
        areas.append(half_identification(trials, stimulus, seed))
    value, low, high = np.mean([(area.value, area.low, area.high) for area in areas], axis=0).tolist()
    n = areas[0].n
    halves = Finding("noise_ceiling/fmri_halves", value, low, high, 0.5, d_prime=d_prime(value, n), n=n)
    return [_voxel_correlation(np.concatenate(of_subjects)), halves]


def _voxel_correlation(shares: np.ndarray) -> Finding:
    roots = np.sqrt(shares)
    return Finding("noise_ceiling/voxel_correlation", float(roots.mean()), n=len(roots))


def voxel_noise_ceiling(trials: np.ndarray, stimulus: np.ndarray, averaged: int | None = None) -> np.ndarray:
    """Share of the variance of each voxel that the stimulus explains in a mean of `averaged` trials: [r v], [r] -> [v].

    Analysis of variance: noise is the variance among repeats, signal the variance of the means beyond what noise
    explains (Allen et al. 2022, Natural Scenes Dataset, "noise ceiling"). Its root bounds the correlation of any
    prediction with such a mean. `averaged`: by default the mean number of repeats. Raises InputError where no stimulus
    is repeated, or there are fewer than two.
    """
    trials, stimulus = _repeated(trials, stimulus)
    return noise_ceiling(trials, [np.flatnonzero(stimulus == name).tolist() for name in np.unique(stimulus)], averaged)


def half_identification(trials: np.ndarray, stimulus: np.ndarray, seed: int) -> Estimate:
    """How often one half of the trials of a stimulus is closer to its other half than to the others': [r v], [r].

    The area under the curve of own against other, of the fMRI itself, without pictures and without a decoder; 1/2 by
    accident. Raises InputError as `voxel_noise_ceiling`.
    """
    trials, stimulus = _repeated(trials, stimulus)
    names = np.unique(stimulus)
    rng = draws.generator((seed,), "halves")
    halves = np.empty((2, len(names), trials.shape[1]))
    for place, name in enumerate(names):
        rows = rng.permutation(np.flatnonzero(stimulus == name))
        halves[0, place] = trials[rows[::2]].mean(axis=0)
        halves[1, place] = trials[rows[1::2]].mean(axis=0)
    halves -= halves.mean(axis=2, keepdims=True)
    first, second = halves / np.maximum(np.linalg.norm(halves, axis=2, keepdims=True), 1e-12)
    own = np.arange(len(names))
    return estimate(np.diagonal(shares_beaten(first @ second.T, own)), seed)


def _repeated(trials: np.ndarray, stimulus: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows whose stimulus has two or more."""
    trials, stimulus = np.asarray(trials, np.float64), np.asarray(stimulus)
    if trials.ndim != 2 or stimulus.shape != trials.shape[:1]:
        found = f"trials {list(trials.shape)} of stimuli {list(stimulus.shape)}"
        raise InputError(f"noise ceiling: found {found}, need [r v], [r]")
    names, place, counts = np.unique(stimulus, return_inverse=True, return_counts=True)
    kept = counts[place] > 1
    num_repeated = int((counts > 1).sum())
    if num_repeated < 2:
        raise InputError(f"noise ceiling: {num_repeated} of {len(names)} stimuli are repeated, need two or more")
    return trials[kept], stimulus[kept]

"""What a scanner measures of simulated cortices: responses to pictures under noise, and the activity of rest."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.signal import fftconvolve
from scipy.stats import gamma

from mindvis.common.draws import generator
from mindvis.simulation.cortex import AREAS, Features, area_responses, correlate, standardise
from mindvis.simulation.experiment import Experiment, Stimuli

NOISE_LENGTH = 8.0  # voxels over which noise stays alike along the cortex
# shares of the noise variance: neighbouring cortex, single voxels (thermal), whole areas (breathing, attention)
LOCAL_SHARE, VOXEL_SHARE, AREA_SHARE = 0.35, 0.5, 0.15
SNR_SPREAD = 0.6  # deviation of log SNR among voxels
# what is left of a voxel's response to a picture that is only imagined: weaker, and none where the retina drives it
IMAGERY_GAIN = {"V1": 0.0, "V2": 0.0, "V3": 0.0, "V4": 0.3, "LOC": 0.5, "FFA": 0.5, "PPA": 0.5}
SPONTANEOUS_SHARE = 0.5  # of resting variance that looks like evoked activity (Kenet et al. 2003)
HRF_SECONDS = 32.0


@dataclass(frozen=True)
class Viewing:
    """One subject's responses, each voxel scaled by the mean and deviation of its training rows."""

    train: np.ndarray  # [n v], repeats averaged
    trials: np.ndarray  # [m*r v], image by image
    averages: np.ndarray  # [m v]
    snr: np.ndarray  # [v], of a single trial
    area_sizes: list[int]
    imagery: np.ndarray | None = None  # [m*i v], trials in which the test pictures are imagined, image by image


def view(experiment: Experiment, stimuli: Stimuli, subject: int) -> Viewing:
    """What the scanner measures while one subject (from 1) sees all stimuli."""
    rng = generator((experiment.seed, subject, 0), "viewing")
    signal, sizes = responses(experiment, stimuli.features, rng)
    snr = voxel_snr(signal.shape[1], experiment.protocol.snr, rng)
    signal *= np.sqrt(snr)  # noise has unit variance
    train, test = np.split(signal, [stimuli.num_train])
    train = train + trial_noise(len(train), sizes, rng) / np.float32(experiment.protocol.train_repeats**0.5)
    repeats = experiment.protocol.test_repeats
    trials = np.repeat(test, repeats, axis=0) + trial_noise(len(test) * repeats, sizes, rng)
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    trials = (trials - mean) / deviation
    averages = trials.reshape(len(test), repeats, -1).mean(axis=1)
    imagery = None
    if experiment.protocol.imagery_repeats:
        imagery = (_imagine(experiment, test, sizes, subject) - mean) / deviation
    return Viewing((train - mean) / deviation, trials, averages, snr, sizes, imagery)


def _imagine(experiment: Experiment, signal: np.ndarray, sizes: Sequence[int], subject: int) -> np.ndarray:
    """Trials in which a subject imagines the test pictures: signal [m v] -> [m*i v], with noise of its own stream."""
    repeats = experiment.protocol.imagery_repeats
    rng = generator((experiment.seed, subject, 0), "imagery")
    gain = np.repeat([IMAGERY_GAIN[area] for area in AREAS], sizes).astype(np.float32)
    return np.repeat(signal * gain, repeats, axis=0) + trial_noise(len(signal) * repeats, sizes, rng)


def responses(experiment: Experiment, features: Features, rng: np.random.Generator) -> tuple[np.ndarray, list[int]]:
    """Unit-variance signals [n v] of a new subject, and the voxels in each area, a few more or less than asked for."""
    sizes = [max(2, round(experiment.voxels[area] * rng.uniform(0.95, 1.05))) for area in AREAS]
    areas = [standardise(area_responses(features, area, n, rng)) for area, n in zip(AREAS, sizes, strict=True)]
    return np.concatenate(areas, axis=1).astype(np.float32), sizes


def trial_noise(num_rows: int, area_sizes: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """Unit-variance noise [n v], correlated along the cortical order within each area and shared over it."""
    areas = []
    for size in area_sizes:
        local = correlate(rng.standard_normal((num_rows, size), dtype=np.float32), NOISE_LENGTH)
        voxel = rng.standard_normal((num_rows, size), dtype=np.float32)
        shared = rng.standard_normal((num_rows, 1), dtype=np.float32)
        areas.append(LOCAL_SHARE**0.5 * local + VOXEL_SHARE**0.5 * voxel + AREA_SHARE**0.5 * shared)
    return np.concatenate(areas, axis=1)


def voxel_snr(num_voxels: int, mean: float, rng: np.random.Generator) -> np.ndarray:
    """Signal to noise variance ratio of every voxel, log-normal with the given mean exactly: [v]."""
    ratio = np.exp(SNR_SPREAD * rng.standard_normal(num_voxels))
    return (mean * ratio / ratio.mean()).astype(np.float32)


def haemodynamic_response(t_r: float) -> np.ndarray:
    """The usual double-gamma response (peak at 5 s, undershoot at 15 s), sampled every `t_r` seconds: [k]."""
    seconds = np.arange(0, HRF_SECONDS, t_r)
    return (gamma.pdf(seconds, 6) - gamma.pdf(seconds, 16) / 6).astype(np.float32)


def resting_run(
    evoked: np.ndarray, area_sizes: Sequence[int], *, num_frames: int, t_r: float, rng: np.random.Generator
) -> np.ndarray:
    """Resting-state frames [num_frames v], each voxel with mean 0 and variance 1 over the run.

    Patterns that pictures evoke (rows of `evoked` [m v]) come and go at random on top of noise with the spatial
    correlation of `trial_noise`; both pass through the haemodynamic response.
    """
    response = haemodynamic_response(t_r)[:, None]
    num_drawn = num_frames + len(response) - 1  # the start, where the response is incomplete, is cut off
    waxing = rng.standard_normal((num_drawn, len(evoked)), dtype=np.float32)
    spontaneous = standardise(waxing @ standardise(evoked))
    noise = trial_noise(num_drawn, area_sizes, rng)
    neural = SPONTANEOUS_SHARE**0.5 * spontaneous + (1 - SPONTANEOUS_SHARE) ** 0.5 * noise
    return standardise(fftconvolve(neural, response, mode="valid", axes=0)).astype(np.float32)

"""Noise and haemodynamics of simulated fMRI: what a scanner adds to responses, and the activity of an idle cortex."""

from collections.abc import Sequence

import numpy as np
from scipy.signal import fftconvolve
from scipy.stats import gamma

from mindvis.simulation.cortex import correlate, standardise

NOISE_LENGTH = 8.0  # voxels over which noise stays alike along the cortex
# shares of the noise variance: neighbouring cortex, single voxels (thermal), whole areas (breathing, attention)
LOCAL_SHARE, VOXEL_SHARE, AREA_SHARE = 0.35, 0.5, 0.15
SNR_SPREAD = 0.6  # deviation of log SNR among voxels
SPONTANEOUS_SHARE = 0.5  # of resting variance that looks like evoked activity (Kenet et al. 2003)
HRF_SECONDS = 32.0


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

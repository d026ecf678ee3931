"""What the simulated visual areas see in a picture: contrast energy, surface colour, shape.

All maps are [n f 16 16]: pictures, features, a grid over the visual field.
"""

from functools import cache

import numpy as np
from scipy import fft

GRID = 16  # samples of the visual field along each side
NUM_ORIENTATIONS = 4
FREQUENCIES = (3.0, 6.0, 11.0)  # cycles a picture
NUM_ENERGIES = NUM_ORIENTATIONS * len(FREQUENCIES)
_SPECTRUM = 32  # side of the spectrum kept: nothing passes the filters beyond it
_OPPONENT = np.array(  # luminance, red - green, blue - yellow, of RGB in [0, 1]
    [[0.3, 0.6, 0.1], [1.0, -1.0, 0.0], [-0.5, -0.5, 1.0]], dtype=np.float32
)


def gabor_energy(images: np.ndarray) -> np.ndarray:
    """Contrast energy by frequency and orientation: uint8 [n h w 3] -> float32 [n f 16 16].

    Squared quadrature pair of log-Gabor filters, one octave wide (Field 1987; Kay et al. 2008 for fMRI).
    """
    luminance = images.astype(np.float32) @ (_OPPONENT[0] / 255)  # [n h w]
    luminance -= luminance.mean(axis=(1, 2), keepdims=True)
    spectrum = _low_frequencies(fft.fft2(luminance, workers=2))  # [n s s]
    maps = [np.square(np.abs(fft.ifft2(spectrum * one, workers=2))) for one in _filters()]
    return _pool(np.stack(maps, axis=1), GRID)


def surfaces(images: np.ndarray) -> np.ndarray:
    """Luminance, red - green and blue - yellow about the mean of the picture: uint8 [n h w 3] -> [n 3 16 16]."""
    coarse = _pool(np.moveaxis(images, -1, 1), GRID) / 255  # [n 3 g g]
    opponent = np.einsum("oc,nchw->nohw", _OPPONENT, coarse)
    return opponent - opponent.mean(axis=(2, 3), keepdims=True)


def shapes(energy: np.ndarray) -> np.ndarray:
    """Corners and curves, where two orientations meet at one place: energy [n f 16 16] -> [n 18 16 16]."""
    amplitude = np.sqrt(energy).reshape(len(energy), len(FREQUENCIES), NUM_ORIENTATIONS, GRID, GRID)
    first, second = np.triu_indices(NUM_ORIENTATIONS, k=1)
    meetings = np.sqrt(amplitude[:, :, first] * amplitude[:, :, second])  # [n scale pair g g]
    return meetings.reshape(len(energy), -1, GRID, GRID)


def object_features(maps: np.ndarray, *, num_features: int, rng: np.random.Generator) -> np.ndarray:
    """Non-linear features of the whole picture: maps [n f 16 16] -> [n num_features].

    A random layer of rectified units over the coarse maps: what invariant object areas compute, short of naming it.
    """
    coarse = _pool(maps, 4).reshape(len(maps), -1)
    coarse = (coarse - coarse.mean(axis=0)) / (coarse.std(axis=0) + 1e-6)
    weights = rng.standard_normal((coarse.shape[1], num_features), dtype=np.float32) / np.sqrt(coarse.shape[1])
    return np.maximum(coarse @ weights, 0)


def _pool(maps: np.ndarray, side: int) -> np.ndarray:
    """Mean over blocks: [n c h w] -> float32 [n c side side]."""
    n, c, h, w = maps.shape
    return maps.reshape(n, c, side, h // side, side, w // side).mean(axis=(3, 5), dtype=np.float32)


def _low_frequencies(spectrum: np.ndarray) -> np.ndarray:
    """The centre of a spectrum in FFT order: [n h w] -> [n 32 32], scaled so that the inverse keeps amplitudes."""
    half, side = _SPECTRUM // 2, spectrum.shape[-1]
    kept = np.r_[0:half, side - half : side]
    return spectrum[:, kept[:, None], kept] * np.float32((_SPECTRUM / side) ** 2)


@cache
def _filters() -> np.ndarray:
    """One-sided log-Gabor transfer functions, frequency by orientation: float32 [f 32 32]."""
    axis = fft.fftfreq(_SPECTRUM, 1 / _SPECTRUM)
    fx, fy = np.meshgrid(axis, axis)
    radius, angle = np.maximum(np.hypot(fx, fy), 1e-6), np.arctan2(fy, fx)
    octave = [np.exp(-(np.log2(radius / f) ** 2) / (2 * 0.5**2)) for f in FREQUENCIES]
    preferred = np.pi * np.arange(NUM_ORIENTATIONS) / NUM_ORIENTATIONS
    apart = [np.angle(np.exp(1j * (angle - theta))) for theta in preferred]
    tuned = [2 * np.exp(-(d**2) / (2 * np.radians(25) ** 2)) for d in apart]
    return np.array([o * t for o in octave for t in tuned], dtype=np.float32)

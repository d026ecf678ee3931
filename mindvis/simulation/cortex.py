"""A simulated visual cortex: what its areas see in a picture, and the noiseless responses of voxels with known tuning.

Traits taken from the literature: retinotopy with receptive fields that grow with eccentricity and from V1 to V4
(Dumoulin & Wandell 2008), contrast-energy tuning with compression (Kay et al. 2008, 2013), colour and curvature in V4,
object categories in LOC, FFA and PPA (Grill-Spector & Weiner 2014). Neighbouring voxels are tuned alike.
All maps are [n f 16 16]: pictures, features, a grid over the visual field.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import fft

from mindvis.common.draws import generator
from mindvis.simulation.objects import KINDS

GRID = 16  # samples of the visual field along each side
NUM_ORIENTATIONS = 4
FREQUENCIES = (3.0, 6.0, 11.0)  # cycles a picture
NUM_ENERGIES = NUM_ORIENTATIONS * len(FREQUENCIES)
_SPECTRUM = 32  # side of the spectrum kept: nothing passes the filters beyond it
_OPPONENT = np.array(  # luminance, red - green, blue - yellow, of RGB in [0, 1]
    [[0.3, 0.6, 0.1], [1.0, -1.0, 0.0], [-0.5, -0.5, 1.0]], dtype=np.float32
)
EARLY, OBJECT_AREAS = ("V1", "V2", "V3"), ("LOC", "FFA", "PPA")
AREAS = (*EARLY, "V4", *OBJECT_AREAS)
# receptive field radius = first + second * eccentricity, in units of half a picture; after Dumoulin & Wandell 2008
RECEPTIVE_FIELD = {"V1": (0.05, 0.1), "V2": (0.07, 0.15), "V3": (0.1, 0.22), "V4": (0.15, 0.35)}
COLOUR_SHARE = {"V1": 0.3, "V2": 0.3, "V3": 0.2, "V4": 0.6}  # of the drive that comes from surfaces
# share of category against picture features, and the groups of kinds that drive the area most
CATEGORY_SHARE = {"LOC": 0.5, "FFA": 0.7, "PPA": 0.7}
PREFERRED_GROUPS = {"LOC": (), "FFA": ("animal",), "PPA": ("place", "vehicle", "sky")}
NUM_OBJECT_FEATURES = 64
NUM_SEMANTIC = 24
TUNING_LENGTH = 4.0  # voxels over which tuning stays alike


@dataclass(frozen=True)
class Features:
    """Everything the areas take from n pictures."""

    energy: np.ndarray  # [n f g g]
    surface: np.ndarray  # [n 3 g g]
    shape: np.ndarray  # [n s g g]
    objects: np.ndarray  # [n o]
    semantic: np.ndarray  # [n m]
    preference: dict[str, np.ndarray]  # area -> [n], 1 where the picture's kind is of a preferred group


def picture_features(images: np.ndarray, class_ids: np.ndarray) -> Features:
    """Features of pictures uint8 [n h w 3] that show classes [n].

    They are fixed properties of the simulated species: no draw here depends on a subject.
    """
    energy, surface = gabor_energy(images), surfaces(images)
    shape = shapes(energy)
    maps = np.concatenate([np.sqrt(energy), surface], axis=1)
    objects = object_features(maps, num_features=NUM_OBJECT_FEATURES, rng=generator((0, 0, 0), "object areas"))
    groups = np.array([kind.group for kind in KINDS.values()])[class_ids]
    preference = {area: np.isin(groups, chosen).astype(np.float32) for area, chosen in PREFERRED_GROUPS.items()}
    return Features(energy, surface, shape, objects, _semantic_space()[class_ids], preference)


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


def area_responses(features: Features, area: str, num_voxels: int, rng: np.random.Generator) -> np.ndarray:
    """Noiseless responses of one subject's voxels of an area: float32 [n v], unscaled."""
    if area in OBJECT_AREAS:
        return _object_area(features, area, num_voxels, rng)
    fields = _receptive_fields(area, num_voxels, rng)  # [v g g]
    patterns = features.shape if area == "V4" else features.energy
    if area == "V4":
        weights = np.exp(smooth_rows(rng, num_voxels, patterns.shape[1]))
    else:
        weights = _gabor_tuning(num_voxels, rng)
    driven = np.sqrt(_pooled(np.square(patterns) if area == "V4" else patterns, fields, weights))
    coloured = _pooled(features.surface, fields, smooth_rows(rng, num_voxels, 3))
    share = COLOUR_SHARE[area]
    return np.sqrt(1 - share) * standardise(driven) + np.sqrt(share) * standardise(coloured)


def smooth_rows(rng: np.random.Generator, num_voxels: int, width: int, length: float = TUNING_LENGTH) -> np.ndarray:
    """Standard normal [v width] whose rows stay alike over `length` voxels of cortex (first-order autoregression)."""
    return correlate(rng.standard_normal((width, num_voxels), dtype=np.float32), length).T


def correlate(white: np.ndarray, length: float) -> np.ndarray:
    """Unit-variance noise [n v] -> the same with correlation exp(-d / length) between voxels d apart."""
    keep = np.float32(np.exp(-1 / length))
    out = white.copy()
    for voxel in range(1, white.shape[1]):
        out[:, voxel] = keep * out[:, voxel - 1] + np.sqrt(1 - keep**2) * white[:, voxel]
    return out


def standardise(responses: np.ndarray) -> np.ndarray:
    """Each voxel of [n v] to mean 0 and variance 1 over the rows."""
    return (responses - responses.mean(axis=0)) / (responses.std(axis=0) + 1e-6)


def _object_area(features: Features, area: str, num_voxels: int, rng: np.random.Generator) -> np.ndarray:
    category = features.semantic @ smooth_rows(rng, num_voxels, features.semantic.shape[1]).T
    gain = 1 + np.abs(smooth_rows(rng, num_voxels, 1)).T  # [1 v]
    category = standardise(category) + 1.5 * gain * features.preference[area][:, None]
    seen = features.objects @ smooth_rows(rng, num_voxels, features.objects.shape[1]).T
    share = CATEGORY_SHARE[area]
    return np.sqrt(share) * standardise(category) + np.sqrt(1 - share) * standardise(seen)


def _receptive_fields(area: str, num_voxels: int, rng: np.random.Generator) -> np.ndarray:
    """Gaussian receptive fields, each summing to 1: [v g g].

    Cortical order: hemisphere, then rows of growing eccentricity (the centre magnified) walked to and fro in angle.
    """
    half = (num_voxels + 1) // 2
    place = np.arange(num_voxels) % half
    per_row = max(1, round(np.sqrt(half)))
    row, step = np.divmod(place, per_row)
    along = np.where(row % 2 == 0, step, per_row - 1 - step) / max(1, per_row - 1) - 0.5
    outward = (row + 0.5) / (half / per_row) + rng.normal(0, 0.04, num_voxels)
    eccentricity = 0.08 * (np.exp(2.4 * np.clip(outward, 0, 1)) - 1)  # up to .8 of half a picture
    angle = 0.9 * np.pi * along + rng.normal(0, 0.12, num_voxels)
    side = np.where(np.arange(num_voxels) < half, 1, -1)  # the left hemisphere sees the right field
    x, y = side * eccentricity * np.cos(angle), eccentricity * np.sin(angle)
    first, slope = RECEPTIVE_FIELD[area]
    radius = (first + slope * eccentricity) * np.exp(rng.normal(0, 0.15, num_voxels))
    axis = (np.arange(GRID) + 0.5) / GRID * 2 - 1
    distance = (axis[None, None, :] - x[:, None, None]) ** 2 + (axis[None, :, None] - y[:, None, None]) ** 2
    fields = np.exp(-distance / (2 * np.maximum(radius, 1 / GRID)[:, None, None] ** 2))
    return (fields / fields.sum(axis=(1, 2), keepdims=True)).astype(np.float32)


def _gabor_tuning(num_voxels: int, rng: np.random.Generator) -> np.ndarray:
    """Non-negative weights over frequency and orientation: broad, as a voxel holds many columns: [v f]."""
    orientation = np.exp(0.8 * smooth_rows(rng, num_voxels, NUM_ENERGIES // len(FREQUENCIES)))
    frequency = np.exp(0.8 * smooth_rows(rng, num_voxels, len(FREQUENCIES))) * np.array(FREQUENCIES)
    return (frequency[:, :, None] * orientation[:, None, :]).reshape(num_voxels, -1).astype(np.float32)


def _pooled(maps: np.ndarray, fields: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sum over the field and the features: maps [n f g g], fields [v g g], weights [v f] -> [n v]."""
    flat = fields.reshape(len(fields), -1).T  # [g*g v]
    return sum(maps[:, f].reshape(len(maps), -1) @ (flat * weights[:, f]) for f in range(maps.shape[1]))


@cache
def _semantic_space() -> np.ndarray:
    """A vector per kind, half shared by the kinds of its group: [classes m]."""
    rng = generator((0, 0, 0), "semantic space")
    groups = [kind.group for kind in KINDS.values()]
    shared: Mapping[str, np.ndarray] = {g: rng.standard_normal(NUM_SEMANTIC) for g in sorted(set(groups))}
    own = rng.standard_normal((len(groups), NUM_SEMANTIC))
    return ((own + np.array([shared[g] for g in groups])) / np.sqrt(2)).astype(np.float32)


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

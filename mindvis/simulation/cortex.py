"""A simulated visual cortex: voxels with known tuning, and their noiseless responses to pictures.

Traits taken from the literature: retinotopy with receptive fields that grow with eccentricity and from V1 to V4
(Dumoulin & Wandell 2008), contrast-energy tuning with compression (Kay et al. 2008, 2013), colour and curvature in V4,
object categories in LOC, FFA and PPA (Grill-Spector & Weiner 2014). Neighbouring voxels are tuned alike.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

from mindvis.common.draws import generator
from mindvis.simulation.features import FREQUENCIES, GRID, NUM_ENERGIES, gabor_energy, object_features, shapes, surfaces
from mindvis.simulation.objects import KINDS

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


def area_responses(features: Features, area: str, num_voxels: int, rng: np.random.Generator) -> np.ndarray:
    """Noiseless responses of one subject's voxels of an area: float32 [n v], unscaled."""
    if area in OBJECT_AREAS:
        return _object_area(features, area, num_voxels, rng)
    fields = _receptive_fields(area, num_voxels, rng)  # [v g g]
    patterns = features.shape if area == "V4" else features.energy
    weights = _shape_tuning(num_voxels, patterns.shape[1], rng) if area == "V4" else _gabor_tuning(num_voxels, rng)
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


def _shape_tuning(num_voxels: int, num_shapes: int, rng: np.random.Generator) -> np.ndarray:
    return np.exp(smooth_rows(rng, num_voxels, num_shapes))


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

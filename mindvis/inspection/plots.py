"""Pictures of what was found inside: bars over regions, the cortical flat map."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import CenteredNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from mindvis.common.plots import INK, PAPER_DPI, interval_bars
from mindvis.inspection.attention import RegionAttention
from mindvis.inspection.occlusion import Drop
from mindvis.inspection.surface import FlatMap

BACKGROUND = ListedColormap(["#eceff2", "#c9d0d7"])  # cortex, borders of areas
MARGIN = 35.0  # mm of cortex around the coloured part


def attention_bars(table: Sequence[RegionAttention], label: str) -> Figure:
    """A bar a region above or below 1, the attention of the average voxel."""
    names = [f"{row.roi}\n({row.num_voxels})" for row in table]
    values, spans = [row.attention for row in table], [(row.low, row.high) for row in table]
    return interval_bars(names, values, spans, label=label, base=1.0)


def drop_bars(drops: Sequence[Drop], label: str) -> Figure:
    """A bar a region: what the score loses without it."""
    names = [f"{drop.roi}\n({drop.num_voxels})" for drop in drops]
    spans = [(drop.low, drop.high) for drop in drops]
    return interval_bars(names, [drop.drop for drop in drops], spans, label=label)


def flat_map_figure(flat: FlatMap, values: np.ndarray, *, centre: float, label: str) -> Figure:
    """Values of vertices [m] on the flattened cortex around them, left hemisphere first; NaN is left grey."""
    figure = Figure(figsize=(5.2, 4.4), layout="constrained", dpi=PAPER_DPI)
    axis = figure.subplots()
    mesh = {"triangles": flat.triangles, "rasterized": True}
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
        name = axis.text(*middle, flat.names[int(label)], ha="center", va="center", fontsize=7, color=INK)
        name.set_path_effects([withStroke(linewidth=1.5, foreground="white")])


def _show_part(axis: Axes, points: np.ndarray) -> None:
    """Leave what lies around the points, and say which hemisphere is where."""
    (left, bottom), (right, top) = points.min(axis=0) - MARGIN, points.max(axis=0) + MARGIN
    axis.set(xlim=(left, right), ylim=(bottom, top), aspect="equal")
    axis.axis("off")
    for x, side in ((0.02, "left"), (0.98, "right")):
        axis.text(x, 0.02, side, ha=side, fontsize=9, color=INK, transform=axis.transAxes)

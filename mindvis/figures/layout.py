"""Blocks of pictures on a page for print: side by side, a heading over each, a note after each row."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mindvis.common.plots import INK, PAPER_DPI, image_grid

# all in inches
MAX_WIDTH, MAX_CELL = 10.0, 0.72  # of the page, of a picture
GAP, MARGIN, HEAD, NOTE = 0.12, 0.08, 0.36, 1.4  # between blocks, around all, of the headings, of the notes
BETWEEN = 0.04  # between pictures, of a picture's side


def draw_blocks(
    blocks: Sequence[np.ndarray], heads: Sequence[str], *, notes: Sequence[str] = (), notes_head: str = ""
) -> Figure:
    """A page of blocks, each uint8 [r c h w 3], under its heading; a note of one or two lines after each row."""
    grids = [image_grid(block, gap=round(BETWEEN * block.shape[3])) for block in blocks]
    scale = _inches_a_pixel(blocks, grids, bool(notes))
    sizes = [(grid.shape[0] * scale, grid.shape[1] * scale) for grid in grids]
    height = HEAD + sizes[0][0] + MARGIN
    width = sum(w for _, w in sizes) + _fixed_width(len(blocks), bool(notes))
    axis = _page(width, height)
    left = MARGIN
    for grid, head, (grid_height, grid_width) in zip(grids, heads, sizes, strict=True):
        extent = (left, left + grid_width, HEAD + grid_height, HEAD)
        axis.imshow(grid, extent=extent, interpolation="none", aspect="auto")
        _text(axis, left + grid_width / 2, HEAD / 2, head, ha="center")
        left += grid_width + GAP
    for row, note in enumerate(notes):
        _text(axis, left, HEAD + (row + 0.5) * sizes[0][0] / len(notes), note)
    _text(axis, left, HEAD / 2, notes_head)
    axis.set(xlim=(0, width), ylim=(height, 0))  # imshow has moved them
    return axis.figure


def _inches_a_pixel(blocks: Sequence[np.ndarray], grids: Sequence[np.ndarray], has_notes: bool) -> float:
    """Size of a pixel at which a picture is no larger than `MAX_CELL` and the page no wider than `MAX_WIDTH`."""
    left_over = MAX_WIDTH - _fixed_width(len(blocks), has_notes)
    return min(MAX_CELL / blocks[0].shape[3], left_over / sum(grid.shape[1] for grid in grids))


def _fixed_width(num_blocks: int, has_notes: bool) -> float:
    return 2 * MARGIN + GAP * (num_blocks - 1) + (NOTE if has_notes else 0.0)


def _page(width: float, height: float) -> Axes:
    """Axes over a whole page, in inches from its upper left corner."""
    axis = Figure(figsize=(width, height), dpi=PAPER_DPI).add_axes((0, 0, 1, 1))
    axis.axis("off")
    return axis


def _text(axis: Axes, x: float, y: float, text: str, *, ha: str = "left") -> None:
    axis.text(
        x,
        y,
        text,
        ha=ha,
        va="center_baseline" if "\n" not in text else "center",
        fontsize=8,
        color=INK,
        linespacing=1.3,
    )

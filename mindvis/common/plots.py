"""Pictures of results: image grids, voxel reconstructions, bars. Arrays or matplotlib figures out, no global state."""

import re
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure
from PIL import Image

from mindvis.common.files import write_atomic

INK, ACCENT, MUTED, PALE = "#1f2933", "#2a6f97", "#c3ccd5", "#9cc3d9"
PAPER_DPI = 200  # pixels an inch of figures for print


def image_grid(images: np.ndarray, *, gap: int = 4, first_gap: int | None = None) -> np.ndarray:
    """One picture of rows and columns on white: uint8 [r c h w 3] -> [H W 3]; `first_gap` follows the first column."""
    rows, columns, height, width, _ = images.shape
    first_gap = gap if first_gap is None else first_gap
    left = gap + np.arange(columns) * (width + gap) + (np.arange(columns) > 0) * (first_gap - gap)
    grid = np.full((gap + rows * (height + gap), int(left[-1]) + width + gap, 3), 255, np.uint8)
    for r in range(rows):
        top = gap + r * (height + gap)
        for c in range(columns):
            grid[top : top + height, left[c] : left[c] + width] = images[r, c]
    return grid


def reconstruction_grid(stimuli: np.ndarray, decoded: np.ndarray) -> np.ndarray:
    """A row a stimulus, the stimulus first and set apart: uint8 [n h w 3], [n k h w 3] -> [H W 3]."""
    return image_grid(np.concatenate([stimuli[:, None], decoded], axis=1), first_gap=16)


def masked_reconstruction_plot(
    fmri: np.ndarray, mask: np.ndarray, reconstruction: np.ndarray, *, titles: Sequence[str] | None = None
) -> Figure:
    """Stage A at work, a row a sample: the vector, what the encoder saw, the reconstruction over the vector.

    fmri [n v]; mask [n l], 1 = hidden; reconstruction [n v] or [n l p], of voxels in the same order.
    """
    fmri = np.asarray(fmri).reshape(len(fmri), -1)
    reconstruction = np.asarray(reconstruction).reshape(len(fmri), -1)
    hidden = np.repeat(np.asarray(mask) > 0, fmri.shape[1] // mask.shape[1], axis=1)
    figure = Figure(figsize=(14, 2.2 * len(fmri)), layout="constrained")
    axes = figure.subplots(len(fmri), 3, squeeze=False, sharey="row", sharex=True)
    for i, (fmri_axis, masked_axis, reconstruction_axis) in enumerate(axes):
        fmri_axis.plot(fmri[i], color=INK, lw=0.5)
        masked_axis.plot(np.where(hidden[i], np.nan, fmri[i]), color=INK, lw=0.5)
        reconstruction_axis.plot(fmri[i], color=MUTED, lw=0.5)
        reconstruction_axis.plot(reconstruction[i], color=ACCENT, lw=0.5)
        correlation = _correlation(fmri[i][hidden[i]], reconstruction[i][hidden[i]])
        fmri_axis.set_ylabel(titles[i] if titles else f"sample {i}")
        reconstruction_axis.set_title(f"reconstruction, r = {correlation:.2f} on hidden voxels", fontsize=9)
        fmri_axis.set_title("fMRI", fontsize=9)
        masked_axis.set_title(f"visible ({1 - hidden[i].mean():.0%})", fontsize=9)
    return figure


def per_class_bars(names: Sequence[str], values: Sequence[float], *, chance: float, label: str) -> Figure:
    """A bar a class, best first, with the level of chance as a dashed line."""
    order = np.argsort(-np.asarray(values), kind="stable")
    figure = Figure(figsize=(7, 0.9 + 0.2 * len(order)), layout="constrained")
    axis = figure.subplots()
    axis.barh([names[i] for i in order], [values[i] for i in order], color=ACCENT, height=0.72)
    axis.axvline(chance, color=INK, ls="--", lw=0.8, label=f"chance {chance:.3g}")
    axis.set(xlim=(0, 1), xlabel=label, ylim=(len(order) - 0.4, -0.6))
    axis.legend(frameon=False, fontsize=8, loc="lower right")
    axis.tick_params(labelsize=8, length=0)
    axis.spines[["top", "right", "left"]].set_visible(False)
    return figure


def interval_bars(
    names: Sequence[str],
    values: Sequence[float],
    spans: Sequence[tuple[float, float] | None],
    *,
    label: str,
    base: float = 0.0,
) -> Figure:
    """A bar a name from `base` to its value, in the order given, with its interval (low, high) where there is one."""
    figure = Figure(figsize=(max(3.4, 1.4 + 0.62 * len(names)), 3.2), layout="constrained", dpi=PAPER_DPI)
    axis = figure.subplots()
    axis.bar(range(len(names)), np.asarray(values) - base, bottom=base, color=PALE, width=0.66)
    for place, span in enumerate(spans):
        if span is not None:
            axis.plot([place, place], span, color=INK, lw=1.2, solid_capstyle="butt")
    axis.axhline(base, color=INK, lw=0.8)
    middle, half = (len(names) - 1) / 2, max(len(names), 3) / 2  # few bars stay slim
    axis.set_xlim(middle - half, middle + half)
    axis.set_xticks(range(len(names)), names)
    axis.set_ylabel(label, fontsize=9)
    axis.tick_params(labelsize=8, bottom=False)
    axis.spines[["top", "right", "bottom"]].set_visible(False)
    return figure


def score_label(name: str) -> str:
    """A score's name as a reader says it: "50_way_top_1/vit_h_14" -> "50-way top-1 (vit_h_14)"."""
    name, _, by = name.partition("/")
    words = re.sub(r"(\d+)_way_top_(\d+)", r"\1-way top-\2", name).replace("_", " ")
    return f"{words} ({by})" if by else words


def png_bytes(picture: np.ndarray | Figure) -> bytes:
    """A PNG file's content from uint8 [h w 3] or a matplotlib figure."""
    content = BytesIO()
    if isinstance(picture, Figure):
        FigureCanvasAgg(picture).print_png(content)
    else:
        Image.fromarray(picture).save(content, format="png")
    return content.getvalue()


def as_pixels(picture: np.ndarray | Figure) -> np.ndarray:
    """uint8 [h w 3] of a matplotlib figure, or of such an array."""
    return np.asarray(Image.open(BytesIO(png_bytes(picture))).convert("RGB"))


def save_png_and_pdf(figure: Figure, path: str | Path) -> list[Path]:
    """Write a figure as `path`.png and `path`.pdf, each whole or not at all; the same figure gives the same bytes."""
    png, pdf = Path(f"{path}.png"), Path(f"{path}.pdf")
    save_png(figure, png)
    with matplotlib.rc_context({"pdf.fonttype": 42}):  # TrueType: text stays text, publishers refuse the default Type 3
        write_atomic(pdf, lambda file: FigureCanvasPdf(figure).print_pdf(file, metadata={"CreationDate": None}))
    return [png, pdf]


def save_png(picture: np.ndarray | Figure, path: str | Path) -> Path:
    """Write a PNG whole or not at all."""
    write_atomic(path, lambda file: file.write(png_bytes(picture)))
    return Path(path)


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson correlation, NaN where either is constant or there are fewer than two values."""
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1])

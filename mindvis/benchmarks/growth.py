"""How time and memory grow with what a user can choose: batch size, voxels, stimuli, subjects; as one plot."""

from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from mindvis.benchmarks.measure import measure_variants
from mindvis.benchmarks.works import Filled, Variant, complete
from mindvis.common.files import write_json
from mindvis.common.plots import ACCENT, INK, MUTED, PAPER_DPI, save_png
from mindvis.config.schemas import ModelConfig
from mindvis.config.tools import BenchmarkConfig

SMALL = ModelConfig(embed_dim=256, depth=6, num_heads=8, decoder_embed_dim=128, decoder_depth=2, decoder_num_heads=8)


@dataclass(frozen=True)
class Curve:
    """One panel: the setting that is varied, over which sizes, and of which work."""

    label: str
    setting: str
    sizes: tuple[int, ...]
    work: str
    title: str


@dataclass(frozen=True)
class Point:
    """Seconds of a call and peak memory of its process, at one size."""

    size: int
    seconds: float
    peak_bytes: int | None


CURVES = (
    Curve("batch size", "stage_a_batch", (4, 8, 16, 32, 64), "stage_a", "Stage A step"),
    Curve("voxels", "num_voxels", (1024, 2048, 4096, 8192), "stage_a", "Stage A step, batch 8"),
    Curve("stimuli", "num_pictures", (2, 4, 8, 16), "pictures", "decoding, UniPC 20"),
    Curve("subjects", "num_subjects", (50, 100, 200, 400, 800), "first_batch", "first batch, cache present"),
)


def benchmark_growth(config: BenchmarkConfig) -> list[str]:
    """One line a point; growth.png and growth.json in `config.output`. Small networks: it takes a few minutes."""
    small = replace(complete(config), model=SMALL, ldm="demo", num_voxels=2048, sampling_batch=16)
    points = {curve.label: list(_measure(small, curve)) for curve in CURVES}
    if config.output:
        folder = Path(config.output)
        save_png(growth_plot(points), folder / "growth.png")
        write_json(folder / "growth.json", {name: [vars(point) for point in curve] for name, curve in points.items()})
    return [
        f"{name} {point.size}: {point.seconds:.3g} s, {(point.peak_bytes or 0) / 1e9:.2f} GB"
        for name, curve in points.items()
        for point in curve
    ]


def growth_plot(points: dict[str, list[Point]]) -> Figure:
    """Two rows of panels over doubling sizes: seconds above (both axes logarithmic), gigabytes below."""
    figure = Figure(figsize=(10.0, 4.6), layout="constrained", dpi=PAPER_DPI)
    axes = figure.subplots(2, len(CURVES), sharex="col")
    for column, curve in enumerate(CURVES):
        found = points[curve.label]
        sizes = [point.size for point in found]
        above, below = axes[0, column], axes[1, column]
        above.plot(sizes, [point.seconds for point in found], "o-", color=ACCENT)
        first = found[0]
        above.plot(sizes, [first.seconds * size / first.size for size in sizes], "--", color=MUTED, zorder=0)
        above.set_title(curve.title, fontsize=10, color=INK)
        above.set_yscale("log")
        above.yaxis.set_major_formatter(_as_written)
        above.yaxis.set_minor_formatter(NullFormatter())
        peaks = [(point.peak_bytes or 0) / 1e9 for point in found]
        below.plot(sizes, peaks, "o-", color=INK)
        below.set_ylim(0, 1.15 * max(peaks) or 1)
        below.set_xlabel(curve.label)
        below.set_xscale("log", base=2)
        below.set_xticks(sizes)  # each size with a tick of its own
        below.xaxis.set_minor_locator(NullLocator())
        below.xaxis.set_major_formatter(_as_written)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylabel("seconds a call")
    axes[1, 0].set_ylabel("peak memory, GB")
    axes[0, 0].legend(["measured", "in proportion"], frameon=False, fontsize=8)
    return figure


def _measure(config: Filled, curve: Curve) -> Iterator[Point]:
    for size in curve.sizes:
        variant, varied = Variant(curve.work), copy(config)
        setattr(varied, curve.setting, size)
        found = measure_variants(varied, [variant])[variant]
        yield Point(size, found.timing.median, found.usage.peak_bytes)


@FuncFormatter
def _as_written(value: float, _: int) -> str:
    """A tick as 0.1, not as a power."""
    return f"{value:g}"

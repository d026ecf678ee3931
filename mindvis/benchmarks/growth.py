"""How time and memory grow with what a user can choose: batch size, voxels, stimuli, subjects; as one plot."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from mindvis.benchmarks.measure import measure_variants
from mindvis.benchmarks.works import Filled, Variant, complete
from mindvis.common.files import write_atomic, write_json
from mindvis.common.plots import ACCENT, INK, MUTED, PAPER_DPI
from mindvis.config.schemas import ModelConfig
from mindvis.config.tools import BenchmarkConfig

SMALL = ModelConfig(embed_dim=256, depth=6, num_heads=8, decoder_embed_dim=128, decoder_depth=2, decoder_num_heads=8)
BATCH_SIZES = (4, 8, 16, 32, 64)
VOXELS = (1024, 2048, 4096, 8192)
STIMULI = (2, 4, 8, 16)
SUBJECTS = (50, 100, 200, 400, 800)

Change = Callable[[Filled, int], Filled]


@dataclass(frozen=True)
class Curve:
    """One panel: what is varied, over which sizes, of which work."""

    label: str
    work: str
    title: str
    sizes: tuple[int, ...]
    change: Change


@dataclass(frozen=True)
class Point:
    """Seconds of a call and peak memory of its process, at one size."""

    size: int
    seconds: float
    peak_bytes: int | None


CURVES = (
    Curve("batch size", "stage_a", "Stage A step", BATCH_SIZES, lambda c, n: replace(c, stage_a_batch=n)),
    Curve("voxels", "stage_a", "Stage A step, batch 8", VOXELS, lambda c, n: replace(c, num_voxels=n)),
    Curve("stimuli", "pictures", "decoding, UniPC 20", STIMULI, lambda c, n: replace(c, num_pictures=n)),
    Curve("subjects", "first_batch", "first batch, cache present", SUBJECTS, lambda c, n: replace(c, num_subjects=n)),
)


def benchmark_growth(config: BenchmarkConfig) -> list[str]:
    """One line a point; growth.png and growth.json in `config.output`. Small networks: it takes a few minutes."""
    small = replace(complete(config), model=SMALL, ldm="demo", num_voxels=2048, sampling_batch=16)
    points = {curve.label: list(_measure(small, curve)) for curve in CURVES}
    if config.output:
        folder = Path(config.output)
        folder.mkdir(parents=True, exist_ok=True)
        figure = growth_plot(points)
        write_atomic(folder / "growth.png", lambda file: figure.savefig(file, format="png", dpi=PAPER_DPI))
        write_json(folder / "growth.json", {name: [vars(point) for point in curve] for name, curve in points.items()})
    return [
        f"{name} {point.size}: {point.seconds:.3g} s, {(point.peak_bytes or 0) / 1e9:.2f} GB"
        for name, curve in points.items()
        for point in curve
    ]


def growth_plot(points: dict[str, list[Point]]) -> Figure:
    """Two rows of panels over doubling sizes: seconds above (both axes logarithmic), gigabytes below."""
    figure = Figure(figsize=(10.0, 4.6), layout="constrained")
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
        _doubling(below, sizes)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylabel("seconds a call")
    axes[1, 0].set_ylabel("peak memory, GB")
    axes[0, 0].legend(["measured", "in proportion"], frameon=False, fontsize=8)
    return figure


def _measure(config: Filled, curve: Curve) -> Iterator[Point]:
    for size in curve.sizes:
        variant = Variant(curve.work)
        found = measure_variants(curve.change(config, size), [variant])[variant]
        yield Point(size, found.timing.median, found.usage.peak_bytes)


def _doubling(axis: Axes, sizes: list[int]) -> None:
    """Logarithmic sizes, each with its own tick."""
    axis.set_xscale("log", base=2)
    axis.set_xticks(sizes)
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(_as_written)


@FuncFormatter
def _as_written(value: float, _: int) -> str:
    """A tick as 0.1, not as a power."""
    return f"{value:g}"

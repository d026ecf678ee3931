"""The benchmark as rows of a table: a work in one precision beside the plain version of it."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from mindvis.benchmarks.measure import Measured, measure_variants
from mindvis.benchmarks.works import COMPILED, ON_THE_CPU, PARTS, WITHOUT_PLAIN, Variant, complete
from mindvis.config.tools import BenchmarkConfig

COLUMNS = ("work", "precision", "s (fastest to slowest)", "items/s", "GB", "GFLOP/s (of matmul)")
COLUMNS += ("plain: s", "plain: GB", "times faster", "memory ratio")


@dataclass(frozen=True)
class Row:
    """One line of the table: a work in one precision, and the plain version of it (None: there is none)."""

    work: str
    precision: str
    items: float
    unit: str
    ours: Measured
    plain: Measured | None = None

    @property
    def ratio(self) -> float | None:
        """How many times faster than the plain version."""
        return None if self.plain is None else self.plain.timing.median / self.ours.timing.median

    @property
    def memory_ratio(self) -> float | None:
        """Peak memory over that of the plain version."""
        peaks = [None if part is None else part.usage.peak_bytes for part in (self.ours, self.plain)]
        return None if None in peaks else peaks[0] / peaks[1]

    def as_json(self) -> dict[str, Any]:
        """Everything measured and what follows from it."""
        measured = asdict(self)
        for part in (measured["ours"], measured["plain"] or {}):
            part.pop("work", None)
        derived = {"ratio": self.ratio, "memory_ratio": self.memory_ratio}
        derived["items_per_second"] = self.items / self.ours.timing.median
        rates = {"flops_per_second": self.ours.flops_per_second, "share_of_matmul": self.ours.share_of_matmul}
        return measured | derived | rates


def benchmark(config: BenchmarkConfig) -> Iterator[Row]:
    """Rows of the parts in `config.parts`, as they are measured. Raises InputError for settings that cannot be."""
    config = complete(config)
    for part in config.parts:
        without_networks = part in ON_THE_CPU
        sizes = replace(config, device="cpu") if without_networks else config
        precisions = config.precisions[:1] if without_networks else config.precisions
        for work in PARTS[part]:
            if work != "pictures" or config.num_pictures:
                yield from _compare(sizes, work, precisions)


def heading() -> list[str]:
    """The first two lines of the markdown table."""
    return [line(COLUMNS), line(["---"] * len(COLUMNS))]


def line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def row_line(row: Row) -> str:
    """One row of the table."""
    rate = f"{row.items / row.ours.timing.median:.3g} {row.unit}"
    beside = ["", ""] if row.plain is None else [_seconds(row.plain), _gigabytes(row.plain)]
    ratios = ["" if ratio is None else f"{ratio:.2f}" for ratio in (row.ratio, row.memory_ratio)]
    return line(
        [row.work, row.precision, _seconds(row.ours), rate, _gigabytes(row.ours), _flops(row.ours), *beside, *ratios]
    )


def _compare(config: BenchmarkConfig, work: str, precisions: list[str]) -> list[Row]:
    compiled = (False, True) if config.device == "cuda" and work in COMPILED else (False,)
    ours = [Variant(work, precision, compiled=way) for precision in precisions for way in compiled]
    plain = [] if work in WITHOUT_PLAIN or not config.plain else [Variant(work, plain=True)]
    measured = measure_variants(config, [*ours, *plain])
    beside = measured[plain[0]] if plain else None
    name, items, unit = measured[ours[0]].work
    return [Row(name, _way(variant), items, unit, measured[variant], beside) for variant in ours]


def _way(variant: Variant) -> str:
    return f"{variant.precision}, compiled" if variant.compiled else variant.precision


def _seconds(part: Measured) -> str:
    timing = part.timing
    return f"{timing.median:.3g} ({timing.fastest:.3g} to {timing.slowest:.3g})"


def _gigabytes(part: Measured) -> str:
    return "" if part.usage.peak_bytes is None else f"{part.usage.peak_bytes / 1e9:.2f}"


def _flops(part: Measured) -> str:
    if not part.usage.flops:
        return ""
    return f"{part.flops_per_second / 1e9:.3g} ({part.share_of_matmul:.0%})"

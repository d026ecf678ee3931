"""The benchmark as a table."""

from collections.abc import Sequence

from mindvis.benchmarks.run import Measured, Row

COLUMNS = ("work", "precision", "s (fastest to slowest)", "items/s", "GB", "GFLOP/s (of matmul)")
COLUMNS += ("plain: s", "plain: GB", "times faster", "memory ratio")


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


def _seconds(part: Measured) -> str:
    timing = part.timing
    return f"{timing.median:.3g} ({timing.fastest:.3g} to {timing.slowest:.3g})"


def _gigabytes(part: Measured) -> str:
    return "" if part.usage.peak_bytes is None else f"{part.usage.peak_bytes / 1e9:.2f}"


def _flops(part: Measured) -> str:
    if not part.usage.flops:
        return ""
    return f"{part.flops_per_second / 1e9:.3g} ({part.share_of_matmul:.0%})"

"""The benchmark as rows of a table: a work in one precision beside the plain version of it."""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from mindvis.benchmarks.measure import WHOLE_PICTURES, Measured, measure_variants
from mindvis.benchmarks.works import ON_THE_CPU, PARTS, WITHOUT_PLAIN, Filled, Limit, Variant, batches

log = logging.getLogger(__name__)

FIT_SECONDS = 60.0  # of a limit, which are kept for the parts that train through `fit`
COMPILE_SECONDS = 60.0  # what the first compiled work is expected to take
COLUMNS: tuple[str, ...] = ("work", "precision", "s (fastest to slowest)", "items/s", "GB", "GFLOP/s (of matmul)")
COLUMNS += ("plain: s", "plain: GB", "times faster", "memory ratio")


@dataclass(frozen=True)
class Row:
    """One line of the table: a work in one precision, and the plain version of it (None: there is none)."""

    variant: Variant
    ours: Measured
    plain: Measured | None = None

    @property
    def precision(self) -> str:
        """The precision, and whether it is compiled, in words."""
        return f"{self.variant.precision}, compiled" if self.variant.compiled else self.variant.precision

    @property
    def ratio(self) -> float | None:
        """How many times faster than the plain version."""
        return None if self.plain is None else self.plain.timing.median / self.ours.timing.median

    @property
    def memory_ratio(self) -> float | None:
        """Peak memory over that of the plain version."""
        ours, plain = self.ours.usage.peak_bytes, None if self.plain is None else self.plain.usage.peak_bytes
        return None if ours is None or plain is None else ours / plain

    def as_json(self) -> dict[str, Any]:
        """Everything measured and what follows from it."""
        measured = asdict(self)
        for part in (measured["ours"], measured["plain"] or {}):
            part.pop("work", None)
        work, items, unit = self.ours.work
        return measured | {
            "work": work,
            "precision": self.precision,
            "items": items,
            "unit": unit,
            "ratio": self.ratio,
            "memory_ratio": self.memory_ratio,
            "items_per_second": items / self.ours.timing.median,
            "flops_per_second": self.ours.flops_per_second,
            "share_of_matmul": self.ours.share_of_matmul,
        }


def benchmark(config: Filled, limit: Limit | None = None) -> Iterator[Row]:
    """Rows of the parts in `config.parts`, as they are measured; eager ones first, and on a GPU then compiled ones.

    What will probably not end within the limit is left out with a line in the log. Raises
    InputError for settings that cannot be.
    """
    limit = limit or Limit(config.max_seconds)
    kept = FIT_SECONDS * len([part for part in config.parts if part.startswith("fit")])
    eager: dict[Variant, Row] = {}
    longest = {False: 0.0, True: COMPILE_SECONDS}  # seconds a work has taken, by whether it was compiled
    for sizes, ours, plain in comparisons(config):
        if limit.left < kept + longest[ours[0].compiled]:
            log.warning("left out, as max_seconds=%s are nearly over: %s", config.max_seconds, ours)
            continue
        begun = time.monotonic()
        measured = measure_variants(sizes, [*ours, *plain])
        longest[ours[0].compiled] = max(longest[ours[0].compiled], time.monotonic() - begun)
        for variant in ours:
            row = Row(variant, measured[variant], measured[plain[0]] if plain else None)
            if not variant.compiled:
                eager[variant] = row
            yield _with_operations_of(eager.get(replace(variant, compiled=False)), row)


def comparisons(config: Filled) -> list[tuple[Filled, list[Variant], list[Variant]]]:
    """What is timed by turns, in order: settings, variants of one work, and its plain version where there is one."""
    found: list[tuple[Filled, list[Variant], list[Variant]]] = []
    for part in (part for part in config.parts if part in PARTS):
        alone = part in ON_THE_CPU
        sizes = replace(config, device="cpu") if alone else config
        for work in PARTS[part]:
            if work in WHOLE_PICTURES and not config.num_pictures:
                continue
            if work == "pictures_plms" and config.device == "cpu":
                continue  # there it is the plain version of the other pictures
            for batch in batches(config, work) or (None,):
                ours = [Variant(work, way, batch=batch) for way in config.precisions[: 1 if alone else None]]
                plain = [Variant(work, plain=True, batch=batch)] if config.plain and work not in WITHOUT_PLAIN else []
                found.append((sizes, ours, plain))
    networks = [(sizes, ours) for sizes, ours, _ in found if sizes.device == "cuda"]
    return found + [(sizes, [replace(each, compiled=True) for each in ours], []) for sizes, ours in networks]


def _with_operations_of(eager: Row | None, row: Row) -> Row:
    """A compiled row with the operations, and the plain version, of the eager one."""
    if eager is None or not row.variant.compiled:
        return row
    usage = replace(row.ours.usage, flops=eager.ours.usage.flops)
    return replace(row, ours=replace(row.ours, usage=usage), plain=eager.plain)


def heading() -> list[str]:
    """The first two lines of the markdown table."""
    return [line(COLUMNS), line(["---"] * len(COLUMNS))]


def line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def row_line(row: Row) -> str:
    """One row of the table."""
    ours = row.ours
    work, items, unit = ours.work
    rate = f"{items / ours.timing.median:.3g} {unit}"
    flops = f"{ours.flops_per_second / 1e9:.3g} ({ours.share_of_matmul:.0%})" if ours.usage.flops else ""
    beside = ["", ""] if row.plain is None else [_seconds(row.plain), _gigabytes(row.plain)]
    ratios = ["" if ratio is None else f"{ratio:.2f}" for ratio in (row.ratio, row.memory_ratio)]
    return line([work, row.precision, _seconds(ours), rate, _gigabytes(ours), flops, *beside, *ratios])


def _seconds(part: Measured) -> str:
    timing = part.timing
    return f"{timing.median:.3g} ({timing.fastest:.3g} to {timing.slowest:.3g})"


def _gigabytes(part: Measured) -> str:
    return "" if part.usage.peak_bytes is None else f"{part.usage.peak_bytes / 1e9:.2f}"

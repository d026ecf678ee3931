"""All variants of the works of a part, timed by turns: a drift of the machine meets them alike."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from mindvis.benchmarks.machine import matmul_rate
from mindvis.benchmarks.timing import Timing
from mindvis.benchmarks.work import Usage, Variant
from mindvis.benchmarks.worker import Worker
from mindvis.common.errors import InputError
from mindvis.config.tools import BenchmarkConfig

PARTS = {
    "stage_a": ["stage_a"],
    "stage_b": ["stage_b"],
    "sampling": ["unet_evaluation", "pictures"],
    "evaluation": ["pairwise_ssim", "n_way"],
    "data": ["first_batch"],
}
WITHOUT_PLAIN = ("n_way",)
IN_ONE_PRECISION = ("evaluation", "data")


@dataclass(frozen=True)
class Measured:
    """Time and use of one variant; `matmul_rate` is the machine's, in the same precision and the same minutes."""

    timing: Timing
    usage: Usage
    matmul_rate: float

    @property
    def flops_per_second(self) -> float:
        return self.usage.flops / self.timing.median

    @property
    def share_of_matmul(self) -> float:
        return self.flops_per_second / self.matmul_rate


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
        derived = {"ratio": self.ratio, "memory_ratio": self.memory_ratio}
        derived["items_per_second"] = self.items / self.ours.timing.median
        rates = {"flops_per_second": self.ours.flops_per_second, "share_of_matmul": self.ours.share_of_matmul}
        return asdict(self) | derived | rates


def benchmark(config: BenchmarkConfig) -> Iterator[Row]:
    """Rows of the parts in `config.parts`, as they are measured. Raises InputError for settings that cannot be."""
    for part in config.parts:
        precisions = config.precisions[:1] if part in IN_ONE_PRECISION else config.precisions
        for work in PARTS[part]:
            if work != "pictures" or config.num_pictures:
                yield from _compare(config, work, precisions)


def check(config: BenchmarkConfig, others: tuple[str, ...]) -> None:
    """Raises InputError for unknown parts and precisions, and for fewer than one repetition."""
    choices = {"parts": (*PARTS, *others), "precisions": ("32-true", "bf16-mixed")}
    for name, allowed in choices.items():
        unknown = [value for value in getattr(config, name) if value not in allowed]
        if unknown or not getattr(config, name):
            raise InputError(f"setting {name} is {getattr(config, name)}; needed: one or more of {', '.join(allowed)}")
    if config.repetitions < 1:
        raise InputError(f"setting repetitions is {config.repetitions}; needed: at least 1")


def _compare(config: BenchmarkConfig, work: str, precisions: list[str]) -> list[Row]:
    variants = [Variant(work, precision) for precision in precisions]
    if work not in WITHOUT_PLAIN:
        variants.append(Variant(work, plain=True))
    label, measured = measure_variants(config, variants)
    facts = {"work": label.name, "items": label.items, "unit": label.unit}
    plain = measured.get(Variant(work, plain=True))
    return [Row(precision=v.precision, ours=measured[v], plain=plain, **facts) for v in variants if not v.plain]


def measure_variants(config: BenchmarkConfig, variants: list[Variant]) -> tuple[Worker, dict[Variant, Measured]]:
    """Time variants of a work by turns; the first one's (ended) worker tells name, items and unit."""
    with _workers(config, variants) as workers:
        return workers[variants[0]], _by_turns(config, workers)


def _by_turns(config: BenchmarkConfig, workers: dict[Variant, Worker]) -> dict[Variant, Measured]:
    seconds: dict[Variant, list[float]] = {variant: [] for variant in workers}
    rates: dict[str, list[float]] = {variant.precision: [] for variant in workers}
    for _ in range(config.repetitions):
        for precision, found in rates.items():
            found.append(matmul_rate(precision, config.device))
        for variant, worker in workers.items():
            seconds[variant].append(worker.seconds())
    usages = {variant: worker.close() for variant, worker in workers.items()}
    return {v: Measured(Timing.of(seconds[v]), usages[v], Timing.of(rates[v.precision]).median) for v in workers}


@contextmanager
def _workers(config: BenchmarkConfig, variants: list[Variant]) -> Iterator[dict[Variant, Worker]]:
    workers: dict[Variant, Worker] = {}
    try:
        for variant in variants:
            workers[variant] = Worker(config, variant)
        yield workers
    finally:
        for worker in workers.values():
            worker.kill()

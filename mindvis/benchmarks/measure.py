"""Time, peak memory and operations of works: each variant in a process of its own, timed by turns.

Its peak memory is its own, and a drift of the machine meets all variants alike.
"""

import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from mindvis.benchmarks.networks import pictures, pictures_plms, stage_a, stage_b, unet_evaluation
from mindvis.benchmarks.works import Filled, Variant, audit, first_batch, n_way, pairwise_ssim
from mindvis.common.devices import use_threads
from mindvis.training import on_cpu

WORKS = {
    work.__name__: work
    for work in (stage_a, stage_b, unet_evaluation, pictures, pictures_plms, pairwise_ssim, n_way, audit, first_batch)
}
WHOLE_PICTURES = ("pictures", "pictures_plms")
ONE_CALL = ("audit",)  # minutes: neither warmed up nor counted, each of which takes a call of its own
FOLLOWS_ITSELF = ("stage_a", "stage_b", "unet_evaluation")  # a step comes after a step, not after a rest of its process
WARM_UPS = {"cpu": 1, "cuda": 10}  # calls before the first timed one: optimiser state, the choice of kernels
SIDES = {"cpu": 2048, "cuda": 8192}  # of the square matrices whose product shows what the machine can do
DTYPES = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16}


@dataclass(frozen=True)
class Timing:
    """Seconds of one call: the median over repetitions, the fastest and the slowest."""

    median: float
    fastest: float
    slowest: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Timing":
        return cls(float(statistics.median(seconds)), min(seconds), max(seconds))


@dataclass(frozen=True)
class Usage:
    """What a work takes besides time: peak bytes of its process (None: not known) and operations of a call.

    Operations of compiled works cannot be counted (0); the eager ones are taken in their place.
    """

    peak_bytes: int | None
    flops: float


@dataclass(frozen=True)
class Measured:
    """A work, its time and use in one variant; `matmul_rate` is the machine's, in its precision and in these minutes.

    `work` is what describes it: name, items of a call and their unit.
    """

    work: tuple[str, float, str]
    timing: Timing
    usage: Usage
    matmul_rate: float

    @property
    def flops_per_second(self) -> float:
        return self.usage.flops / self.timing.median

    @property
    def share_of_matmul(self) -> float:
        return self.flops_per_second / self.matmul_rate


class Worker:
    """A process that has made a work ready, and times one call whenever asked to."""

    made: Any = None  # the Work, in that process

    def __init__(self, config: Filled, variant: Variant):
        self._process = ProcessPoolExecutor(1, mp_context=_context())
        self._arguments = (config, variant)
        self.work = self._run(_prepare)

    def seconds(self) -> float:
        """Time of one call."""
        return self._run(_time)

    def usage(self) -> Usage:
        """What the work has taken."""
        return self._run(_use)

    def close(self) -> None:
        """Clear away what the work left, and end the process."""
        self._run(_clear_away)
        self._process.shutdown()

    def _run(self, task: Callable) -> Any:
        return self._process.submit(task, *self._arguments).result()


def measure_variants(config: Filled, variants: Sequence[Variant]) -> dict[Variant, Measured]:
    """Time variants of a work by turns; whole pictures, which are long, three times at most."""
    repetitions = min(config.repetitions, 3) if variants[0].work in WHOLE_PICTURES else config.repetitions
    seconds: dict[Variant, list[float]] = {variant: [] for variant in variants}
    rates: dict[str, list[float]] = {variant.precision: [] for variant in variants}
    workers: dict[Variant, Worker] = {}
    with ExitStack() as stack:
        for variant in variants:
            workers[variant] = Worker(config, variant)
            stack.callback(workers[variant].close)
        for _ in range(repetitions):
            for precision, found in rates.items():
                found.append(matmul_rate(precision, config.device))
            for variant, worker in workers.items():
                seconds[variant].append(worker.seconds())
        medians = {precision: statistics.median(found) for precision, found in rates.items()}
        return {
            variant: Measured(worker.work, Timing.of(seconds[variant]), worker.usage(), medians[variant.precision])
            for variant, worker in workers.items()
        }


def timed(call: Callable[[], object], device: str) -> float:
    """Seconds of a call: on a CPU by the clock, on a GPU between two events around its work."""
    if device == "cpu":
        begun = time.perf_counter()
        call()
        return time.perf_counter() - begun
    torch.cuda.synchronize()
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    call()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1000


def matmul_rate(precision: str, device: str, calls: int = 3) -> float:
    """Operations a second of square matrix products, two for each multiplication and addition: the best call.

    In float32 on a CPU the better of torch's own product and oneDNN's.
    """
    side = SIDES[device]
    one = torch.randn(side, side, device=device).to(DTYPES[precision])
    ways = [lambda: one @ one]
    if device == "cpu" and precision == "32-true" and on_cpu.has_onednn():
        ways.append(lambda: on_cpu.product(one, one))
    seconds = min(timed(way, device) for way in ways for _ in range(calls + 1))
    return 2 * side**3 / seconds


def peak_bytes(device: str) -> int | None:
    """Most memory this process has held: of the GPU, or resident (Linux; None where the system does not say)."""
    if device != "cpu":
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    # not ru_maxrss: a new process takes that over from the one that started it
    lines = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
    return int(lines[0].split()[1]) * 1024 if lines else None


def count_flops(call: Callable[[], object]) -> float:
    """Operations of the products and convolutions of a call; attention counts as its products."""

    def product(x: Sequence[int], weight: Sequence[int], *_: object, **__: object) -> int:
        return 2 * x[0] * weight[0] * weight[1]

    of_onednn = {} if on_cpu.ONEDNN is None else {on_cpu.ONEDNN: product}
    counter = FlopCounterMode(display=False, custom_mapping=of_onednn)
    with patch.object(F, "scaled_dot_product_attention", _products_and_softmax), counter:
        call()
    return float(counter.get_total_flops())


def _context() -> BaseContext:
    """Processes forked from one that has only imported everything; without fork servers, new ones."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _prepare(config: Filled, variant: Variant) -> tuple[str, float, str]:
    use_threads(config.num_threads)
    Worker.made = work = WORKS[variant.work](config, variant)
    warm_ups = 1 if variant.work in WHOLE_PICTURES else WARM_UPS[config.device]
    for _ in range(0 if variant.work in ONE_CALL else warm_ups):
        work.call()
    return work.name, work.items, work.unit


def _time(config: Filled, variant: Variant) -> float:
    work = Worker.made
    if variant.work in FOLLOWS_ITSELF:
        work.call()  # others have had their turn: memory that was left alone is slow at first
    return work.scale * timed(work.call, config.device)


def _use(config: Filled, variant: Variant) -> Usage:
    peak = peak_bytes(config.device)  # before counting, which keeps tensors of its own
    flops = 0.0 if variant.compiled or variant.work in ONE_CALL else count_flops(Worker.made.call)
    return Usage(peak, Worker.made.scale * flops)


def _clear_away(config: Filled, variant: Variant) -> None:
    if Worker.made is not None:
        Worker.made.close()


def _products_and_softmax(query: Tensor, key: Tensor, value: Tensor, **_: object) -> Tensor:
    """[b heads n c], [b heads m c] twice -> [b heads n c]; the networks here use neither mask, dropout nor scale."""
    weights = (query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5).softmax(dim=-1)
    return weights @ value

"""What the machine offers and what a process has taken: rate of matrix products, peak memory, operations."""

import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from mindvis.benchmarks.plain import plain_layers
from mindvis.sc_mbm.products import has_onednn, product

SIDE = 2048  # of the square matrices: large enough to keep the cores busy, small enough for a fraction of a second
DTYPES = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16}


def matmul_rate(precision: str, device: str, calls: int = 3) -> float:
    """Operations a second of square matrix products, two for each multiplication and addition: the best call.

    On a CPU the better of torch's own product and oneDNN's.
    """
    one = torch.randn(SIDE, SIDE, device=device).to(DTYPES[precision])
    ways = [lambda: one @ one]
    if device == "cpu" and has_onednn(one.dtype):
        ways.append(lambda: product(one, one))
    seconds = min(timed(way, device) for way in ways for _ in range(calls + 1))
    return 2 * SIDE**3 / seconds


def timed(call: Callable[[], object], device: str) -> float:
    """Seconds of a call, until the device has done its work."""
    begun = time.perf_counter()
    call()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - begun


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
    with plain_layers(), FlopCounterMode(display=False) as counter:
        call()
    return float(counter.get_total_flops())

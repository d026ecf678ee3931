"""Compilation of the networks of a module, and the largest batch that fits in memory."""

import copy
import gc
import logging
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

log = logging.getLogger(__name__)


def compile_networks(module: nn.Module, *, cuda_graphs: bool = False, backend: Any = "inductor") -> None:
    """torch.compile, in place, of the outermost modules below `module` that have a forward pass.

    Each is compiled whole and once for every shape of a batch: of a training these are two, the last one being shorter.
    `cuda_graphs` starts all kernels of a network at once, which one process on a GPU that accumulates nothing can use.
    """
    options: dict[str, Any] = {"mode": "reduce-overhead"} if cuda_graphs else {}
    for network in _outermost(module):
        network.compile(fullgraph=True, dynamic=False, backend=backend, **options)


def _outermost(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        if type(child).forward is nn.Module.forward:
            yield from _outermost(child)
        else:
            yield child


def largest_batch_size(module: nn.Module, attempt: Callable[[nn.Module, int], None], *, start: int, most: int) -> int:
    """Double the batch size from `start` up to `most`, as long as `attempt(copy of module, size)` has the memory.

    `attempt` takes two optimiser steps, because the second has gradients and optimiser state in memory together.
    """
    size, fits = start, start
    while True:
        try:
            attempt(copy.deepcopy(module), size)
        except RuntimeError as error:  # torch.OutOfMemoryError is one; the CPU allocator has no class of its own
            if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
                raise
            log.warning("batch size %d does not fit in memory; using %d", size, fits)
            return fits
        finally:
            gc.collect()
            torch.cuda.empty_cache()
        fits = size
        if size >= most:
            return fits
        size = min(2 * size, most)

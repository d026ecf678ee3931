"""Less memory or more speed from the same network, and the largest batch that fits."""

import contextlib
import copy
import ctypes
import functools
import gc
import logging
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

log = logging.getLogger(__name__)

# parameters of glibc's mallopt: blocks with pages of their own, and free bytes from which the rest is handed back
M_MMAP_MAX, M_TRIM_THRESHOLD = -4, -1


def recompute(blocks: Iterable[nn.Module]) -> None:
    """Let each block keep its inputs only, and compute its inside again in the backward pass (to the same bits)."""
    for block in blocks:
        block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)


def keep_freed_memory() -> None:
    """Let this process keep what it frees for what it needs next, where glibc would fetch large blocks anew each time.

    For scripts that compute the same step over and over on a CPU: page by page, fetching took a tenth of the time of a
    step. Where there is a GPU, or another C library, nothing happens.
    """
    if torch.cuda.is_available():
        return
    with contextlib.suppress(AttributeError, TypeError, OSError):  # another C library
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_MAX, 0)
        library.mallopt(M_TRIM_THRESHOLD, -1)


def give_back(_: object = None) -> None:
    """Hand memory that has been freed back to the system: glibc keeps blocks of up to 32 MB. Elsewhere nothing."""
    with contextlib.suppress(AttributeError, TypeError, OSError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def compile_networks(module: nn.Module) -> None:
    """torch.compile, in place, of the outermost modules below `module` that have a forward pass."""
    for network in _outermost(module):
        network.compile()


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

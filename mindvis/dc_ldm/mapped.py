"""Weights that no step reads, in a mapped file: those behind bfloat16 casts, and the decoder while training (CPU).

In mixed precision the float32 values of frozen weights are read for checkpoints and for nothing else, yet they are the
largest part of the memory. In a mapped file the system takes them from the disk when somebody asks.
"""

import logging
import tempfile
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from mindvis.dc_ldm.frozen import FrozenLayer

log = logging.getLogger(__name__)


def map_frozen(module: nn.Module) -> None:
    """Cast the frozen weights of the `FrozenLayer`s below `module`, and move what they were cast from to a file.

    The file lies in the folder for temporary files and vanishes with the process. Without room for it the weights stay
    where they are, and a warning says so.
    """
    forwards = [m.forward for m in module.modules() if isinstance(m.forward, FrozenLayer)]
    forwards = [forward for forward in forwards if not forward.layer.weight.requires_grad]
    with torch.autocast("cpu", torch.bfloat16):
        for forward in forwards:
            forward.weights("cpu")
    weights = {id(forward.layer.weight): forward.layer.weight for forward in forwards}  # each once
    _move(weights.values())
    for forward in forwards:
        forward.follow()


def map_unused(module: nn.Module) -> None:
    """Move the weights of a module that is hardly ever run to a file, as `map_frozen` does (float32, any layout)."""
    _move(module.parameters())


def move_to_file(tensors: Sequence[Tensor]) -> None:
    """Let dense float32 tensors of any layout have their values in one temporary file, mapped and writable.

    Raises OSError, with the tensors as they were, where the file finds no room.
    """
    if not tensors:
        return
    with tempfile.TemporaryFile() as file:
        for tensor in tensors:
            tensor.detach().as_strided((tensor.numel(),), (1,)).numpy().tofile(file)  # in the order of memory
        file.flush()
        values = torch.from_numpy(np.memmap(file, np.float32, "r+"))  # holds the file until the last tensor is gone
    for tensor, part in zip(tensors, values.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.data = part.as_strided(tensor.shape, tensor.stride())


def _move(weights: Iterable[Tensor]) -> None:
    try:
        move_to_file([weight for weight in weights if _is_in_memory(weight)])
    except OSError as error:
        log.warning("no room for frozen weights in %s (%s): they stay in memory", tempfile.gettempdir(), error)


def _is_in_memory(tensor: Tensor) -> bool:
    """Whether torch holds the values itself, as it does not those of a mapped file."""
    return tensor.dtype == torch.float32 and tensor.untyped_storage().resizable()

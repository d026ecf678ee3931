"""Types and layout of the weights: frozen ones in bfloat16, channels last.

Under autocast a float32 weight is cast whenever its layer runs. Those that no step changes are cast once.
"""

import copy
from typing import Any

import torch
from torch import nn

from mindvis.dc_ldm.model import LatentDiffusion

WIDE = 128  # channels from which channels last pays; group norms of narrow maps are slow with it


def channels_last(ldm: LatentDiffusion) -> None:
    """Keep the channels of a wide model last in memory, in place, which spares its convolutions a copy."""
    if ldm.unet.model_channels >= WIDE:
        ldm.unet.to(memory_format=torch.channels_last)
        ldm.autoencoder.to(memory_format=torch.channels_last)


def cast_frozen(module: nn.Module, dtype: torch.dtype = torch.bfloat16) -> None:
    """Cast the frozen linear layers and convolutions below `module` in place, for training under autocast.

    Its results stay the same to the bit, as autocast computes these layers in that type. Norms stay float32.
    """
    products = [m for m in module.modules() if isinstance(m, nn.Linear | nn.Conv1d | nn.Conv2d)]
    for parameter in (p for layer in products for p in layer.parameters()):
        if not parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)


def with_dtype(ldm: LatentDiffusion, dtype: torch.dtype) -> LatentDiffusion:
    """The model with UNet and autoencoder in one type, for decoding: itself where they are, else a copy.

    Conditioner and codebook stay float32: a context is made once, and codes are too near to each other for bfloat16.
    """
    modules = [m for part in (ldm.unet, ldm.autoencoder) for m in part.modules() if not isinstance(m, nn.Embedding)]
    parameters = [p for module in modules for p in module.parameters(recurse=False) if p.dtype != dtype]
    if not parameters:
        return ldm
    # what deepcopy finds here it takes instead of making a copy: no weight is there three times
    known: dict[int, Any] = {id(p): nn.Parameter(p.detach().to(dtype), requires_grad=False) for p in parameters}
    known |= {id(part): part for part in (ldm.conditioner, ldm.schedule)}
    return copy.deepcopy(ldm, known)

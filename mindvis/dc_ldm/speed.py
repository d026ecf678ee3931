"""Layout and casts of weights by which the same results take less time.

Autocast casts a weight whenever a layer runs, and remembers the result only for weights that get a gradient, until the
context ends. The frozen weights of the UNet and of the autoencoder are most of the model, and never change.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mindvis.dc_ldm.model import LatentDiffusion

KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d)
WIDE = 128  # channels from which the layout pays; group norms of narrow feature maps are slow in it on the CPU


def channels_last(ldm: LatentDiffusion) -> None:
    """Keep the channels of a wide model last in memory, which spares its convolutions a copy."""
    if ldm.unet.model_channels >= WIDE:
        ldm.unet.to(memory_format=torch.channels_last)
        ldm.autoencoder.to(memory_format=torch.channels_last)


def keep_casts(module: nn.Module) -> None:
    """Let the linear layers and convolutions below `module` keep the casts of frozen weights; results stay the same.

    The copies are no part of the state; they take half the memory of the float32 weights, from the first call on.
    """
    for layer in module.modules():
        if isinstance(layer, KINDS) and not isinstance(layer.forward, KeptCast):
            layer.forward = KeptCast(layer)


class KeptCast:
    """Forward pass of a layer that casts its frozen weight and bias once, and again when they have changed."""

    def __init__(self, layer: nn.Linear | nn.Conv1d | nn.Conv2d):
        self.layer = layer
        self.source: tuple | None = None
        self.kept: tuple[Tensor, Tensor | None] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        layer, device = self.layer, x.device.type
        tuned = layer.weight.requires_grad and torch.is_grad_enabled()
        if tuned or not torch.is_autocast_enabled(device):
            return type(layer).forward(layer, x)
        weight, bias = self._cast(torch.get_autocast_dtype(device))
        return F.linear(x, weight, bias) if isinstance(layer, nn.Linear) else layer._conv_forward(x, weight, bias)

    @torch.no_grad()
    def _cast(self, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
        parameters = [p for p in (self.layer.weight, self.layer.bias) if p is not None]
        source = (dtype, *((p.data_ptr(), p._version) for p in parameters))
        if source != self.source:
            cast = [p.to(dtype) for p in parameters]
            self.source, self.kept = source, (cast[0], cast[1] if len(cast) > 1 else None)
        return self.kept

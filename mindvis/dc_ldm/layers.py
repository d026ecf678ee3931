"""Small layers that the UNet and the autoencoder share."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

GROUPS = 32  # of every GroupNorm


class Upsample(nn.Module):
    """Twice the height and width: nearest pixel, then a convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[b c h w] -> [b c 2h 2w]."""
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


def memory_format_of(x: Tensor) -> torch.memory_format:
    """Whether a feature map [b c h w] has its channels last in memory."""
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


def zero_init(module: nn.Module) -> nn.Module:
    """The module with all its weights 0: the last layer of a residual branch, which so starts as the identity."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module

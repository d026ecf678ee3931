"""Layers of the UNet, and small ones that the autoencoder shares.

Source: Dhariwal & Nichol 2021 (arXiv 2105.05233), appendix A. Attribute names are those of the published weights.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

GROUPS = 32  # of every GroupNorm
MAX_PERIOD = 10_000

Size = tuple[int, int]  # height and width of a feature map


def time_embedding(t: Tensor, dim: int) -> Tensor:
    """Sinusoidal embedding of the diffusion step, cosines first: [b] -> float32 [b dim]."""
    half = dim // 2
    frequencies = torch.exp(-math.log(MAX_PERIOD) / half * torch.arange(half, dtype=torch.float32, device=t.device))
    angles = t[:, None].float() * frequencies  # [b dim/2]
    return F.pad(torch.cat([angles.cos(), angles.sin()], dim=-1), (0, dim % 2))


class ResidualBlock(nn.Module):
    """Two convolutions with the time embedding added between them, around a skip connection."""

    def __init__(self, in_channels: int, out_channels: int, *, embedding_dim: int, dropout: float = 0.0):
        super().__init__()
        self.in_layers = nn.Sequential(
            nn.GroupNorm(GROUPS, in_channels), nn.SiLU(), nn.Conv2d(in_channels, out_channels, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding_dim, out_channels))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(GROUPS, out_channels),
            nn.SiLU(),
            nn.Dropout(dropout),
            zero_init(nn.Conv2d(out_channels, out_channels, 3, padding=1)),
        )
        same = in_channels == out_channels
        self.skip_connection = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """[b c h w], [b e] -> [b out_channels h w]."""
        hidden = self.in_layers(x) + self.emb_layers(embedding)[:, :, None, None]
        return self.skip_connection(x) + self.out_layers(hidden)


class Downsample(nn.Module):
    """Half the height and width, by a strided convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[b c h w] -> [b c h/2 w/2]."""
        return self.op(x)


class Upsample(nn.Module):
    """Twice the height and width: nearest pixel, then a convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, size: Size | None = None) -> Tensor:
        """[b c h w] -> [b c 2h 2w], or [b c *size] where an odd side was rounded up on the way down."""
        larger = F.interpolate(x, scale_factor=2, mode="nearest")
        # before the convolution, whose border is then that of the picture
        return self.conv(larger if size is None else larger[..., : size[0], : size[1]])


def memory_format_of(x: Tensor) -> torch.memory_format:
    """Whether a feature map [b c h w] has its channels last in memory."""
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


def zero_init(module: nn.Module) -> nn.Module:
    """The module with all its weights 0: the last layer of a residual branch, which so starts as the identity."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module

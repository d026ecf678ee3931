"""Parts of the UNet: residual blocks with a time embedding, changes of resolution, and the blocks made of them.

Source: Dhariwal & Nichol 2021 (arXiv 2105.05233), appendix A. Attribute names are those of the published weights.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mindvis.dc_ldm.attention import KeyValue, SpatialTransformer
from mindvis.dc_ldm.layers import GROUPS, zero_init

MAX_PERIOD = 10_000


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


class UNetBlock(nn.Sequential):
    """Layers run one after another, each handed what it takes besides the feature map."""

    def keys_values(self, context: Tensor) -> list[list[KeyValue]]:
        """Keys and values of a context [b m context_dim] for every spatial transformer, in order."""
        return [layer.keys_values(context) for layer in self if isinstance(layer, SpatialTransformer)]

    def forward(self, x: Tensor, embedding: Tensor, keys_values: list[list[KeyValue]]) -> Tensor:
        """[b c h w], time embedding [b e], the block's keys and values -> [b c' h' w']."""
        prepared = iter(keys_values)
        for layer in self:
            if isinstance(layer, ResidualBlock):
                x = layer(x, embedding)
            elif isinstance(layer, SpatialTransformer):
                x = layer(x, next(prepared))
            else:
                x = layer(x)
        return x

"""Encoder and decoder of the autoencoders: residual convolutions, attention at the lowest resolution.

Source: Esser et al. 2021 (arXiv 2012.09841). Attribute names are those of the published weights.
"""

from collections.abc import Sequence

from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from mindvis.dc_ldm.attention import attend
from mindvis.dc_ldm.layers import GROUPS, Upsample, memory_format_of


class CoderBlock(nn.Module):
    """Two convolutions around a skip connection."""

    def __init__(self, in_channels: int, out_channels: int, dropout: float = 0.0):
        super().__init__()
        self.norm1 = _norm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = _norm(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.nin_shortcut = None if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[b c h w] -> [b out_channels h w]."""
        hidden = self.conv1(F.silu(self.norm1(x)))
        hidden = self.conv2(self.dropout(F.silu(self.norm2(hidden))))
        return hidden + (x if self.nin_shortcut is None else self.nin_shortcut(x))


class AttentionBlock(nn.Module):
    """Single-head self-attention over the pixels, added to its input."""

    def __init__(self, channels: int):
        super().__init__()
        self.fused_attn = True  # as in timm
        self.norm = _norm(channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[b c h w] -> [b c h w]."""
        normed = self.norm(x)
        query, key, value = (rearrange(f(normed), "b c h w -> b 1 (h w) c") for f in (self.q, self.k, self.v))
        attended = rearrange(attend(query, key, value, fused=self.fused_attn), "b 1 (h w) c -> b c h w", h=x.shape[2])
        return x + self.proj_out(attended.contiguous(memory_format=memory_format_of(x)))


class CornerDownsample(nn.Module):
    """Half the height and width, by a strided convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """[b c h w] -> [b c h/2 w/2]."""
        # one row below and one column to the right only: the published weights were trained so
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Level(nn.Module):
    """Residual blocks at one resolution, each with attention or none, and the change of resolution after them."""

    def __init__(self, widths: Sequence[int], *, attend: bool, dropout: float = 0.0):
        super().__init__()
        pairs = list(zip(widths[:-1], widths[1:], strict=True))
        self.block = nn.ModuleList(CoderBlock(before, after, dropout) for before, after in pairs)
        self.attn = nn.ModuleList(AttentionBlock(after) for _, after in pairs if attend)
        self.downsample: nn.Module | None = None
        self.upsample: nn.Module | None = None

    def forward(self, x: Tensor) -> Tensor:
        """[b c h w] -> [b c' h' w']."""
        for index, block in enumerate(self.block):
            x = block(x)
            if self.attn:
                x = self.attn[index](x)
        for resample in (self.downsample, self.upsample):
            x = x if resample is None else resample(x)
        return x


class Middle(nn.Module):
    """Residual block, attention, residual block at the lowest resolution."""

    def __init__(self, channels: int, dropout: float = 0.0):
        super().__init__()
        self.block_1 = CoderBlock(channels, channels, dropout)
        self.attn_1 = AttentionBlock(channels)
        self.block_2 = CoderBlock(channels, channels, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[b c h w] -> [b c h w]."""
        return self.block_2(self.attn_1(self.block_1(x)))


class Encoder(nn.Module):
    """Image [b in_channels h w] -> [b z h/f w/f], f = 2 ** (levels - 1); z is z_channels, or twice that."""

    def __init__(
        self,
        *,
        in_channels: int,
        ch: int,
        ch_mult: Sequence[float],
        num_res_blocks: int,
        z_channels: int,
        resolution: int,
        attn_resolutions: Sequence[int] = (),
        dropout: float = 0.0,
        double_z: bool = False,
    ) -> None:
        super().__init__()
        self.resolution = resolution
        self.conv_in = nn.Conv2d(in_channels, ch, 3, padding=1)
        self.down = nn.ModuleList()
        width = ch
        for index, factor in enumerate(ch_mult):
            widths = [width] + num_res_blocks * [round(factor * ch)]
            level = Level(widths, attend=resolution // 2**index in attn_resolutions, dropout=dropout)
            width = widths[-1]
            level.downsample = CornerDownsample(width) if index + 1 < len(ch_mult) else None
            self.down.append(level)
        self.mid = Middle(width, dropout)
        self.norm_out = _norm(width)
        self.conv_out = nn.Conv2d(width, 2 * z_channels if double_z else z_channels, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """[b in_channels h w] -> [b z h/f w/f]."""
        hidden = self.conv_in(image)
        for level in self.down:
            hidden = level(hidden)
        return self.conv_out(F.silu(self.norm_out(self.mid(hidden))))


class Decoder(nn.Module):
    """[b z_channels h/f w/f] -> image [b out_ch h w]; `up` is indexed by level, the finest first."""

    def __init__(
        self,
        *,
        out_ch: int,
        ch: int,
        ch_mult: Sequence[float],
        num_res_blocks: int,
        z_channels: int,
        resolution: int,
        attn_resolutions: Sequence[int] = (),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        width = round(ch_mult[-1] * ch)
        self.conv_in = nn.Conv2d(z_channels, width, 3, padding=1)
        self.mid = Middle(width, dropout)
        levels = []
        for index, factor in reversed(list(enumerate(ch_mult))):
            widths = [width] + (num_res_blocks + 1) * [round(factor * ch)]
            level = Level(widths, attend=resolution // 2**index in attn_resolutions, dropout=dropout)
            width = widths[-1]
            level.upsample = Upsample(width) if index else None
            levels.append(level)
        self.up = nn.ModuleList(reversed(levels))
        self.norm_out = _norm(width)
        self.conv_out = nn.Conv2d(width, out_ch, 3, padding=1)

    def forward(self, latent: Tensor) -> Tensor:
        """[b z_channels h/f w/f] -> [b out_ch h w]."""
        hidden = self.mid(self.conv_in(latent))
        for level in reversed(self.up):
            hidden = level(hidden)
        return self.conv_out(F.silu(self.norm_out(hidden)))


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(GROUPS, channels, eps=1e-6)

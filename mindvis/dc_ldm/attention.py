"""Spatial transformer of the latent diffusion UNet: self-attention, cross-attention, gated feed-forward.

Source: Rombach et al. 2022 (arXiv 2112.10752), section 3.3 and appendix E.2.1. Attribute names are those of the
published weights. Keys and values of the cross-attention are an input of their own, because they depend on the context
alone and so need computing once per picture, not once per diffusion step.
"""

from typing import Any

from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from mindvis.dc_ldm.layers import GROUPS, memory_format_of, zero_init

KeyValue = tuple[Tensor, Tensor]


class CrossAttention(nn.Module):
    """Multi-head attention from x [b n c] to a context [b m context_dim]; without one, to x itself.

    `fused_attn` chooses torch's fused kernel, as it does in timm.
    """

    def __init__(self, dim: int, *, context_dim: int | None = None, num_heads: int = 1):
        super().__init__()
        self.num_heads = num_heads
        self.fused_attn = True
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_k = nn.Linear(context_dim or dim, dim, bias=False)
        self.to_v = nn.Linear(context_dim or dim, dim, bias=False)
        self.to_out = nn.Sequential(nn.Linear(dim, dim))

    def keys_values(self, context: Tensor) -> KeyValue:
        """Keys and values of a context [b m context_dim], each [b heads m c/heads]."""
        return self._split(self.to_k(context)), self._split(self.to_v(context))

    def forward(self, x: Tensor, key_value: KeyValue | None = None) -> Tensor:
        """[b n c] -> [b n c], attending to prepared keys and values, or to x."""
        key, value = key_value or self.keys_values(x)
        attended = attend(self._split(self.to_q(x)), key, value, fused=self.fused_attn)  # [b heads n c/heads]
        return self.to_out(rearrange(attended, "b g n c -> b n (g c)"))

    def _split(self, x: Tensor) -> Tensor:
        return rearrange(x, "b n (g c) -> b g n c", g=self.num_heads)


class GEGLU(nn.Module):
    """Linear layer gated by the GELU of a second one (Shazeer 2020, arXiv 2002.05202)."""

    def __init__(self, dim: int, hidden_dim: int):
        super().__init__()
        self.proj = nn.Linear(dim, 2 * hidden_dim)

    def forward(self, x: Tensor) -> Tensor:
        """[b n c] -> [b n hidden]."""
        hidden, gate = self.proj(x).chunk(2, dim=-1)
        return hidden * F.gelu(gate)


class FeedForward(nn.Module):
    """Gated feed-forward layer, four times as wide as its input."""

    def __init__(self, dim: int):
        super().__init__()
        # the identity keeps the published numbering: a dropout that is never on stood there
        self.net = nn.Sequential(GEGLU(dim, 4 * dim), nn.Identity(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """[b n c] -> [b n c]."""
        return self.net(x)


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention, feed-forward, each after a LayerNorm and added to its input."""

    def __init__(self, dim: int, *, context_dim: int, num_heads: int = 1):
        super().__init__()
        self.attn1 = CrossAttention(dim, num_heads=num_heads)
        self.ff = FeedForward(dim)
        self.attn2 = CrossAttention(dim, context_dim=context_dim, num_heads=num_heads)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.norm3 = nn.LayerNorm(dim)

    def forward(self, x: Tensor, key_value: KeyValue) -> Tensor:
        """[b n c] and the context's keys and values -> [b n c]."""
        x = x + self.attn1(self.norm1(x))
        x = x + self.attn2(self.norm2(x), key_value)
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nn.Module):
    """Transformer over the pixels of a feature map, added to it.

    The projections around it are convolutions of width 1, or with `linear` linear layers, as of Stable Diffusion 2:
    the same maps, whose weights have other shapes.
    """

    transformer_blocks: Any  # ModuleList of TransformerBlock, which its type does not say

    def __init__(self, channels: int, *, context_dim: int, num_heads: int = 1, depth: int = 1, linear: bool = False):
        super().__init__()
        self.linear = linear
        # 1e-6 here, 1e-5 in the residual blocks: so were the published weights trained
        self.norm = nn.GroupNorm(GROUPS, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, channels) if linear else nn.Conv2d(channels, channels, 1)
        self.transformer_blocks = nn.ModuleList(
            TransformerBlock(channels, context_dim=context_dim, num_heads=num_heads) for _ in range(depth)
        )
        self.proj_out = zero_init(nn.Linear(channels, channels) if linear else nn.Conv2d(channels, channels, 1))

    def keys_values(self, context: Tensor) -> list[KeyValue]:
        """Keys and values of a context [b m context_dim] for each transformer block."""
        return [block.attn2.keys_values(context) for block in self.transformer_blocks]

    def forward(self, x: Tensor, keys_values: list[KeyValue]) -> Tensor:
        """[b c h w] and the keys and values of `keys_values` -> [b c h w]."""
        tokens = self._tokens(self.norm(x))  # [b n c]
        for block, key_value in zip(self.transformer_blocks, keys_values, strict=True):
            tokens = block(tokens, key_value)
        if self.linear:
            return x + rearrange(self.proj_out(tokens), "b (h w) c -> b c h w", h=x.shape[2])
        hidden = rearrange(tokens, "b (h w) c -> b c h w", h=x.shape[2])
        return x + self.proj_out(hidden.contiguous(memory_format=memory_format_of(x)))

    def _tokens(self, normed: Tensor) -> Tensor:
        if self.linear:
            return self.proj_in(rearrange(normed, "b c h w -> b (h w) c"))
        return rearrange(self.proj_in(normed), "b c h w -> b (h w) c")


def attend(query: Tensor, key: Tensor, value: Tensor, *, fused: bool = True) -> Tensor:
    """Softmax attention of queries [b heads n c] to keys and values [b heads m c] -> [b heads n c]."""
    if fused and key.shape[-2] > 1:
        return F.scaled_dot_product_attention(query, key, value)
    # a softmax over one token has no gradient; fused kernels leave round-off there, which AdamW makes whole steps of
    weights = (query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5).softmax(dim=-1)
    return weights @ value

"""Denoising UNet with spatial transformers, conditioned by cross-attention and through the time embedding.

Source: Dhariwal & Nichol 2021 (arXiv 2105.05233) for the UNet, Rombach et al. 2022 (arXiv 2112.10752) for the
cross-attention, Chen et al. 2023 (arXiv 2211.06956), section 3.3, for the second condition. Attribute names are those
of the published weights, `time_embed_condtion` and its spelling included.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mindvis.dc_ldm.attention import KeyValue, SpatialTransformer
from mindvis.dc_ldm.layers import GROUPS, Downsample, ResidualBlock, Size, Upsample, time_embedding, zero_init

CONTEXT_TOKENS = 77

MakeBlock = Callable[[int, int], "UNetBlock"]  # (channels of its input, level) -> block
BlockKeysValues = list[list[KeyValue]]  # of a block: one list a spatial transformer, one pair a transformer block in it


@dataclass
class PreparedContext:
    """What the UNet needs of a context and that no diffusion step changes; made by `UNet.prepare_context`."""

    down: list[BlockKeysValues]
    middle: BlockKeysValues
    up: list[BlockKeysValues]
    time_condition: Tensor | None  # [b e], added to the time embedding
    time_embeddings: Tensor | None = None  # [num_timesteps e], in the place of those `UNet.embed_times` gives


class UNetBlock(nn.Sequential):
    """Layers run one after another, each handed what it takes besides the feature map."""

    def keys_values(self, context: Tensor) -> list[list[KeyValue]]:
        """Keys and values of a context [b m context_dim] for every spatial transformer, in order."""
        return [layer.keys_values(context) for layer in self if isinstance(layer, SpatialTransformer)]

    def forward(  # type: ignore[override]
        self, x: Tensor, embedding: Tensor, keys_values: list[list[KeyValue]], size: Size | None = None
    ) -> Tensor:
        """[b c h w], time embedding [b e], the block's keys and values -> [b c' h' w'].

        `size` (h', w') is needed where a side was odd on the way down.
        """
        prepared = iter(keys_values)
        for layer in self:
            if isinstance(layer, ResidualBlock):
                x = layer(x, embedding)
            elif isinstance(layer, SpatialTransformer):
                x = layer(x, next(prepared))
            else:
                x = layer(x, size) if isinstance(layer, Upsample) else layer(x)
        return x


class UNet(nn.Module):
    """Predicts the noise in a latent from the latent, the diffusion step and a context.

    `attention_resolutions` are downsampling factors (1, 2, 4 ...), not sizes. Either `num_heads` or `num_head_channels`
    sets the heads. `num_heads`, `num_res_blocks` and `transformer_depth` are one number or one a level; the middle has
    those of the last level. `use_linear_in_transformer` makes the projections of the spatial transformers linear
    layers. `use_checkpoint` may be switched at any time: it trades a second forward pass for memory.
    """

    time_embed: Any  # Sequential of Linear layers, which its type does not say
    input_blocks: Any  # ModuleList of UNetBlock
    output_blocks: Any

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        model_channels: int,
        attention_resolutions: Sequence[int],
        num_res_blocks: int | Sequence[int],
        channel_mult: Sequence[float],
        context_dim: int,
        num_heads: int | Sequence[int] = 1,
        num_head_channels: int | None = None,
        transformer_depth: int | Sequence[int] = 1,
        use_linear_in_transformer: bool = False,
        dropout: float = 0.0,
        use_time_condition: bool = True,
        global_pool: bool = False,
        context_tokens: int = CONTEXT_TOKENS,
    ) -> None:
        super().__init__()
        self.in_channels, self.model_channels, self.context_dim = in_channels, model_channels, context_dim
        self.use_checkpoint = False
        embedding_dim = 4 * model_channels
        widths = level_widths(model_channels, channel_mult)
        heads = heads_of(widths, num_heads, num_head_channels)
        depths = per_level(transformer_depth, len(widths))
        residual = partial(ResidualBlock, embedding_dim=embedding_dim, dropout=dropout)

        def transformer(level: int) -> SpatialTransformer:
            options: dict[str, Any] = {"context_dim": context_dim, "linear": use_linear_in_transformer}
            return SpatialTransformer(widths[level], num_heads=heads[level], depth=depths[level], **options)

        def block(width: int, level: int) -> UNetBlock:
            first = residual(width, widths[level])
            return UNetBlock(first, transformer(level)) if 2**level in attention_resolutions else UNetBlock(first)

        self.time_embed = nn.Sequential(
            nn.Linear(model_channels, embedding_dim), nn.SiLU(), nn.Linear(embedding_dim, embedding_dim)
        )
        self.time_embed_condtion = (
            time_condition(context_dim, embedding_dim, global_pool, context_tokens) if use_time_condition else None
        )
        counts = per_level(num_res_blocks, len(widths))
        first = UNetBlock(nn.Conv2d(in_channels, model_channels, 3, padding=1))
        self.input_blocks, skips = _down_path(first, model_channels, block, widths, counts)
        low, level = widths[-1], len(widths) - 1
        self.middle_block = UNetBlock(residual(low, low), transformer(level), residual(low, low))
        self.output_blocks = _up_path(skips, block, widths, counts)
        last = zero_init(nn.Conv2d(widths[0], out_channels, 3, padding=1))
        self.out = nn.Sequential(nn.GroupNorm(GROUPS, widths[0]), nn.SiLU(), last)

    def prepare_context(self, context: Tensor, time_embeddings: Tensor | None = None) -> PreparedContext:
        """Keys, values and time condition of a context [b m context_dim]: the part that is the same in every step.

        `time_embeddings` [num_timesteps e] replace those of the diffusion steps (see `averaged_embeddings`).
        """
        condition = None
        if self.time_embed_condtion is not None:
            condition = rearrange(self.time_embed_condtion(context), "b 1 e -> b e")
        return PreparedContext(
            down=[block.keys_values(context) for block in self.input_blocks],
            middle=self.middle_block.keys_values(context),
            up=[block.keys_values(context) for block in self.output_blocks],
            time_condition=condition,
            time_embeddings=time_embeddings,
        )

    def forward(self, x_t: Tensor, t: Tensor, context: Tensor | PreparedContext) -> Tensor:
        """Noise [b c h w] in the latent x_t [b c h w] at step t (long [b]), given a context [b m context_dim]."""
        prepared = context if isinstance(context, PreparedContext) else self.prepare_context(context)
        embedding = self._embed(t, prepared)  # [b e]
        x = x_t
        skips: list[Tensor] = []
        for block, keys_values in zip(self.input_blocks, prepared.down, strict=True):
            x = self._run(block, x, embedding, keys_values)
            skips.append(x)
        x = self._run(self.middle_block, x, embedding, prepared.middle)
        for block, keys_values in zip(self.output_blocks, prepared.up, strict=True):
            x = torch.cat([x, skips.pop()], dim=1)
            x = self._run(block, x, embedding, keys_values, _odd_size(skips))
        return self.out(x)

    def embed_times(self, t: Tensor) -> Tensor:
        """Embeddings [b e] of diffusion steps (long [b])."""
        return self.time_embed(time_embedding(t, self.model_channels).to(self.time_embed[0].weight.dtype))

    def _embed(self, t: Tensor, prepared: PreparedContext) -> Tensor:
        table = prepared.time_embeddings
        embedding = self.embed_times(t) if table is None else table[t].to(self.time_embed[0].weight.dtype)
        return embedding if prepared.time_condition is None else embedding + prepared.time_condition

    def _run(self, block: UNetBlock, *arguments: Any) -> Tensor:
        if self.use_checkpoint and torch.is_grad_enabled():
            return checkpoint(block, *arguments, use_reentrant=False)
        return block(*arguments)


def _odd_size(skips: list[Tensor]) -> Size | None:
    """Size of the feature map that is met next, where a side is odd; else None: numbers would be compiled in."""
    height, width = skips[-1].shape[-2:] if skips else (0, 0)
    return (height, width) if height % 2 or width % 2 else None


def per_level(value: Any, num_levels: int) -> list:
    """One value a level: a list as it is, a single value for all of them."""
    return list(value) if isinstance(value, list | tuple) else [value] * num_levels


def level_widths(model_channels: int, channel_mult: Sequence[float]) -> list[int]:
    """Channels of each level; a factor need not be whole, the width it leads to is."""
    return [round(factor * model_channels) for factor in channel_mult]


def heads_of(widths: list[int], num_heads: int | Sequence[int], num_head_channels: int | None) -> list[int]:
    """Attention heads of each level: as given, or the width over `num_head_channels`."""
    if num_head_channels:
        return [width // num_head_channels for width in widths]
    return per_level(num_heads, len(widths))


def _down_path(
    first: UNetBlock, width: int, block: MakeBlock, widths: list[int], counts: list[int]
) -> tuple[nn.ModuleList, list[int]]:
    """Blocks from the full resolution to the lowest, and the channels that each of them hands over to the way up."""
    blocks, skips = [first], [width]
    for level, count in enumerate(counts):
        for _ in range(count):
            blocks.append(block(width, level))
            width = widths[level]
            skips.append(width)
        if level < len(counts) - 1:
            blocks.append(UNetBlock(Downsample(width)))
            skips.append(width)
    return nn.ModuleList(blocks), skips


def _up_path(skips: list[int], block: MakeBlock, widths: list[int], counts: list[int]) -> nn.ModuleList:
    """Blocks from the lowest resolution to the full one; each takes what the one of the way down handed over."""
    blocks, width = [], widths[-1]
    for level in reversed(range(len(counts))):
        for _ in range(counts[level] + 1):
            blocks.append(block(width + skips.pop(), level))
            width = widths[level]
        if level > 0:
            blocks[-1].append(Upsample(width))
    return nn.ModuleList(blocks)


def time_condition(
    context_dim: int, embedding_dim: int, global_pool: bool, context_tokens: int = CONTEXT_TOKENS
) -> nn.Module:
    """Context [b context_tokens context_dim], or [b 1 context_dim] with global_pool -> [b 1 embedding_dim]."""
    if global_pool:
        return nn.Linear(context_dim, embedding_dim)
    return nn.Sequential(
        nn.Conv1d(context_tokens, max(1, context_tokens // 2), 1),
        nn.Conv1d(max(1, context_tokens // 2), 1, 1),
        nn.Linear(context_dim, embedding_dim),
    )

"""Denoising UNet with spatial transformers, conditioned by cross-attention and through the time embedding.

Source: Dhariwal & Nichol 2021 (arXiv 2105.05233) for the UNet, Rombach et al. 2022 (arXiv 2112.10752) for the
cross-attention, Chen et al. 2023 (arXiv 2211.06956), section 3.3, for the second condition. Attribute names are those
of the published weights, `time_embed_condtion` and its spelling included.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mindvis.dc_ldm.attention import KeyValue, SpatialTransformer
from mindvis.dc_ldm.blocks import Downsample, ResidualBlock, UNetBlock, time_embedding
from mindvis.dc_ldm.layers import GROUPS, Upsample, zero_init

CONTEXT_TOKENS = 77

BlockKeysValues = list[list[KeyValue]]  # of a block: one list a spatial transformer, one pair a transformer block in it


@dataclass
class PreparedContext:
    """What the UNet needs of a context and that no diffusion step changes; made by `UNet.prepare_context`."""

    down: list[BlockKeysValues]
    middle: BlockKeysValues
    up: list[BlockKeysValues]
    time_condition: Tensor | None  # [b e], added to the time embedding
    time_embeddings: Tensor | None = None  # [num_timesteps e], in the place of those `UNet.embed_times` gives


@dataclass(frozen=True)
class Layers:
    """What the residual blocks and the spatial transformers of a UNet have in common."""

    embedding_dim: int
    context_dim: int
    num_heads: int
    num_head_channels: int | None
    transformer_depth: int
    dropout: float

    def residual(self, in_channels: int, out_channels: int) -> ResidualBlock:
        return ResidualBlock(in_channels, out_channels, embedding_dim=self.embedding_dim, dropout=self.dropout)

    def transformer(self, channels: int) -> SpatialTransformer:
        num_heads = channels // self.num_head_channels if self.num_head_channels else self.num_heads
        return SpatialTransformer(
            channels, context_dim=self.context_dim, num_heads=num_heads, depth=self.transformer_depth
        )

    def block(self, in_channels: int, out_channels: int, *, attend: bool) -> UNetBlock:
        """A residual block, and a spatial transformer after it where the level attends."""
        residual = self.residual(in_channels, out_channels)
        return UNetBlock(residual, self.transformer(out_channels)) if attend else UNetBlock(residual)


class UNet(nn.Module):
    """Predicts the noise in a latent from the latent, the diffusion step and a context.

    `attention_resolutions` are downsampling factors (1, 2, 4 ...), not sizes. Either `num_heads` or `num_head_channels`
    sets the heads. `use_checkpoint` may be switched at any time: it trades a second forward pass for memory.
    """

    input_blocks: Any  # ModuleList of UNetBlock, which its type does not say
    output_blocks: Any

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        model_channels: int,
        attention_resolutions: Sequence[int],
        num_res_blocks: int,
        channel_mult: Sequence[int],
        context_dim: int,
        num_heads: int = 1,
        num_head_channels: int | None = None,
        transformer_depth: int = 1,
        dropout: float = 0.0,
        use_time_condition: bool = True,
        global_pool: bool = False,
    ) -> None:
        super().__init__()
        self.in_channels, self.model_channels, self.context_dim = in_channels, model_channels, context_dim
        self.use_checkpoint = False
        embedding_dim = 4 * model_channels
        layers = Layers(embedding_dim, context_dim, num_heads, num_head_channels, transformer_depth, dropout)
        widths = [factor * model_channels for factor in channel_mult]
        attends = [2**level in attention_resolutions for level in range(len(widths))]

        self.time_embed = nn.Sequential(
            nn.Linear(model_channels, embedding_dim), nn.SiLU(), nn.Linear(embedding_dim, embedding_dim)
        )
        self.time_embed_condtion = (
            _time_condition(context_dim, embedding_dim, global_pool) if use_time_condition else None
        )
        first = UNetBlock(nn.Conv2d(in_channels, model_channels, 3, padding=1))
        self.input_blocks, skips = _down_path(first, model_channels, widths, attends, num_res_blocks, layers)
        lowest = widths[-1]
        self.middle_block = UNetBlock(
            layers.residual(lowest, lowest), layers.transformer(lowest), layers.residual(lowest, lowest)
        )
        self.output_blocks = _up_path(skips, widths, attends, num_res_blocks, layers)
        self.out = nn.Sequential(
            nn.GroupNorm(GROUPS, model_channels),
            nn.SiLU(),
            zero_init(nn.Conv2d(model_channels, out_channels, 3, padding=1)),
        )

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
            x = self._run(block, x, embedding, keys_values)
        return self.out(x)

    def embed_times(self, t: Tensor) -> Tensor:
        """Embeddings [b e] of diffusion steps (long [b])."""
        return self.time_embed(time_embedding(t, self.model_channels).to(self._dtype))

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.time_embed.parameters()).dtype

    def _embed(self, t: Tensor, prepared: PreparedContext) -> Tensor:
        table = prepared.time_embeddings
        embedding = self.embed_times(t) if table is None else table[t].to(self._dtype)
        return embedding if prepared.time_condition is None else embedding + prepared.time_condition

    def _run(self, block: UNetBlock, x: Tensor, embedding: Tensor, keys_values: BlockKeysValues) -> Tensor:
        if self.use_checkpoint and torch.is_grad_enabled():
            return checkpoint(block, x, embedding, keys_values, use_reentrant=False)
        return block(x, embedding, keys_values)


def _down_path(
    first: UNetBlock, width: int, widths: list[int], attends: list[bool], num_res_blocks: int, layers: Layers
) -> tuple[nn.ModuleList, list[int]]:
    """Blocks from the full resolution to the lowest, and the channels that each of them hands over to the way up."""
    blocks, skips = [first], [width]
    for level, level_width in enumerate(widths):
        for _ in range(num_res_blocks):
            blocks.append(layers.block(width, level_width, attend=attends[level]))
            width = level_width
            skips.append(width)
        if level < len(widths) - 1:
            blocks.append(UNetBlock(Downsample(width)))
            skips.append(width)
    return nn.ModuleList(blocks), skips


def _up_path(
    skips: list[int], widths: list[int], attends: list[bool], num_res_blocks: int, layers: Layers
) -> nn.ModuleList:
    """Blocks from the lowest resolution to the full one; each takes what the one of the way down handed over."""
    blocks, waiting, width = [], list(skips), widths[-1]
    for level in reversed(range(len(widths))):
        for index in range(num_res_blocks + 1):
            block = layers.block(width + waiting.pop(), widths[level], attend=attends[level])
            width = widths[level]
            if level > 0 and index == num_res_blocks:
                block.append(Upsample(width))
            blocks.append(block)
    return nn.ModuleList(blocks)


def _time_condition(context_dim: int, embedding_dim: int, global_pool: bool) -> nn.Module:
    """Context [b 77 context_dim], or [b 1 context_dim] with global_pool -> [b 1 embedding_dim]."""
    if global_pool:
        return nn.Linear(context_dim, embedding_dim)
    return nn.Sequential(
        nn.Conv1d(CONTEXT_TOKENS, CONTEXT_TOKENS // 2, 1),
        nn.Conv1d(CONTEXT_TOKENS // 2, 1, 1),
        nn.Linear(context_dim, embedding_dim),
    )

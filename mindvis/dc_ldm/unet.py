"""Denoising UNet with spatial transformers, conditioned by cross-attention and through the time embedding.

Source: Dhariwal & Nichol 2021 (arXiv 2105.05233) for the UNet, Rombach et al. 2022 (arXiv 2112.10752) for the
cross-attention, Chen et al. 2023 (arXiv 2211.06956), section 3.3, for the second condition. Attribute names are those
of the published weights, `time_embed_condtion` and its spelling included.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mindvis.common.errors import InputError
from mindvis.dc_ldm.attention import KeyValue, SpatialTransformer
from mindvis.dc_ldm.blocks import Downsample, ResidualBlock, UNetBlock, time_embedding
from mindvis.dc_ldm.layers import GROUPS, Upsample, zero_init
from mindvis.dc_ldm.settings import read_options

CONTEXT_TOKENS = 77

REQUIRED = (
    "in_channels",
    "out_channels",
    "model_channels",
    "attention_resolutions",
    "num_res_blocks",
    "channel_mult",
    "context_dim",
)
USED = (*REQUIRED, "num_heads", "num_head_channels", "transformer_depth", "dropout", "use_checkpoint")
FIXED = {
    "use_spatial_transformer": True,
    "cond_scale": 1.0,
    "conv_resample": True,
    "dims": 2,
    "num_classes": None,
    "use_fp16": False,
    "num_heads_upsample": -1,
    "use_scale_shift_norm": False,
    "resblock_updown": False,
    "n_embed": None,
}
# sizes of images nobody asks for, an attention layout that spatial transformers do not have, and what arguments set
WITHOUT_EFFECT = ("image_size", "legacy", "use_new_attention_order", "use_time_cond", "global_pool")


@dataclass
class PreparedContext:
    """What the UNet needs of a context and that no diffusion step changes; made by `UNet.prepare_context`."""

    keys_values: list[list[KeyValue]]  # one list a block of `UNet.blocks`, one pair a transformer block in it
    time_condition: Tensor | None  # [b e], added to the time embedding
    time_embeddings: Tensor | None = None  # [num_timesteps e], in the place of those `UNet.embed_times` gives


class UNet(nn.Module):
    """Predicts the noise in a latent from the latent, the diffusion step and a context.

    `attention_resolutions` are downsampling factors (1, 2, 4 ...), not sizes. Either `num_heads` or `num_head_channels`
    sets the heads. `use_checkpoint` may be switched at any time: it trades a second forward pass for memory.
    """

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
        self._attention = {"context_dim": context_dim, "depth": transformer_depth}
        self._heads = (num_heads, num_head_channels)
        self._dropout = dropout
        self._attended = set(attention_resolutions)
        embedding_dim = 4 * model_channels
        self.time_embed = nn.Sequential(
            nn.Linear(model_channels, embedding_dim), nn.SiLU(), nn.Linear(embedding_dim, embedding_dim)
        )
        self.time_embed_condtion = None
        if use_time_condition:
            self.time_embed_condtion = _time_condition(context_dim, embedding_dim, global_pool)
        widths = self._build_down(in_channels, channel_mult, num_res_blocks)
        width = widths[-1]
        self.middle_block = UNetBlock(
            self._residual(width, width), self._transformer(width), self._residual(width, width)
        )
        self._build_up(widths, channel_mult, num_res_blocks)
        self.out = nn.Sequential(
            nn.GroupNorm(GROUPS, model_channels),
            nn.SiLU(),
            zero_init(nn.Conv2d(model_channels, out_channels, 3, padding=1)),
        )

    @property
    def blocks(self) -> list[UNetBlock]:
        """All blocks in the order in which they run."""
        return [*self.input_blocks, self.middle_block, *self.output_blocks]

    def prepare_context(self, context: Tensor, time_embeddings: Tensor | None = None) -> PreparedContext:
        """Keys, values and time condition of a context [b m context_dim]: the part that is the same in every step.

        `time_embeddings` [num_timesteps e] replace those of the diffusion steps (see `averaged_embeddings`).
        """
        condition = None
        if self.time_embed_condtion is not None:
            condition = self.time_embed_condtion(context)  # [b 1 e]
            condition = rearrange(condition, "b 1 e -> b e")
        keys_values = [block.keys_values(context) for block in self.blocks]
        return PreparedContext(keys_values, condition, time_embeddings)

    def forward(self, x_t: Tensor, t: Tensor, context: Tensor | PreparedContext) -> Tensor:
        """Noise [b c h w] in the latent x_t [b c h w] at step t (long [b]), given a context [b m context_dim]."""
        prepared = context if isinstance(context, PreparedContext) else self.prepare_context(context)
        embedding = self._embed(t, prepared, x_t.dtype)
        num_inputs = len(self.input_blocks)
        x = x_t
        skips: list[Tensor] = []
        for index, (block, keys_values) in enumerate(zip(self.blocks, prepared.keys_values, strict=True)):
            if index > num_inputs:
                x = torch.cat([x, skips.pop()], dim=1)
            x = self._run(block, x, embedding, keys_values)
            if index < num_inputs:
                skips.append(x)
        return self.out(x)

    def embed_times(self, t: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Embeddings [b e] of diffusion steps (long [b])."""
        return self.time_embed(time_embedding(t, self.model_channels).to(dtype))

    def _embed(self, t: Tensor, prepared: PreparedContext, dtype: torch.dtype) -> Tensor:
        table, condition = prepared.time_embeddings, prepared.time_condition
        embedding = self.embed_times(t, dtype) if table is None else table[t]
        return embedding if condition is None else embedding + condition

    def _run(self, block: UNetBlock, x: Tensor, embedding: Tensor, keys_values: list[KeyValue]) -> Tensor:
        if self.use_checkpoint and torch.is_grad_enabled():
            return checkpoint(block, x, embedding, keys_values, use_reentrant=False)
        return block(x, embedding, keys_values)

    def _build_down(self, in_channels: int, channel_mult: Sequence[int], num_res_blocks: int) -> list[int]:
        """Make the input blocks and return the channels of what each of them hands to its output block."""
        blocks, widths = [UNetBlock(nn.Conv2d(in_channels, self.model_channels, 3, padding=1))], [self.model_channels]
        for level, factor in enumerate(channel_mult):
            for _ in range(num_res_blocks):
                blocks.append(self._level_block(widths[-1], factor * self.model_channels, level))
                widths.append(factor * self.model_channels)
            if level + 1 < len(channel_mult):
                blocks.append(UNetBlock(Downsample(widths[-1])))
                widths.append(widths[-1])
        self.input_blocks = nn.ModuleList(blocks)
        return widths

    def _build_up(self, widths: list[int], channel_mult: Sequence[int], num_res_blocks: int) -> None:
        widths, width, blocks = list(widths), widths[-1], []
        for level, factor in reversed(list(enumerate(channel_mult))):
            for index in range(num_res_blocks + 1):
                block = self._level_block(width + widths.pop(), factor * self.model_channels, level)
                width = factor * self.model_channels
                if level and index == num_res_blocks:
                    block.append(Upsample(width))
                blocks.append(block)
        self.output_blocks = nn.ModuleList(blocks)

    def _level_block(self, in_channels: int, out_channels: int, level: int) -> UNetBlock:
        block = UNetBlock(self._residual(in_channels, out_channels))
        if 2**level in self._attended:
            block.append(self._transformer(out_channels))
        return block

    def _residual(self, in_channels: int, out_channels: int) -> ResidualBlock:
        embedding_dim = 4 * self.model_channels
        return ResidualBlock(in_channels, out_channels, embedding_dim=embedding_dim, dropout=self._dropout)

    def _transformer(self, channels: int) -> SpatialTransformer:
        num_heads, head_channels = self._heads
        return SpatialTransformer(
            channels, num_heads=channels // head_channels if head_channels else num_heads, **self._attention
        )


def build_unet(options: Mapping[str, Any], *, global_pool: bool = False, use_time_condition: bool = True) -> UNet:
    """UNet from `unet_config.params` of a published config; the arguments win over the options of the same meaning.

    Raises InputError for an option that would change the results and is not supported.
    """
    where = "model.params.unet_config.params"
    found = read_options(options, where, used=USED, required=REQUIRED, fixed=FIXED, without_effect=WITHOUT_EFFECT)
    use_checkpoint = bool(found.pop("use_checkpoint", False))
    if found.get("num_head_channels") in (-1, None):
        found.pop("num_head_channels", None)
    _check_widths(found, where)
    unet = UNet(**found, global_pool=global_pool, use_time_condition=use_time_condition)
    unet.use_checkpoint = use_checkpoint
    return unet


def _check_widths(options: Mapping[str, Any], where: str) -> None:
    """GroupNorm and heads must divide the channels of every level."""
    for factor in options["channel_mult"]:
        width = factor * options["model_channels"]
        heads = options.get("num_head_channels") or options.get("num_heads") or 1
        if width % GROUPS or width % heads:
            found = f"{width} channels at channel_mult {factor}"
            raise InputError(f"{where}.model_channels: {found}, needed a multiple of {GROUPS} and of {heads} (heads)")


def _time_condition(context_dim: int, embedding_dim: int, global_pool: bool) -> nn.Module:
    """Context [b 77 context_dim], or [b 1 context_dim] with global_pool -> [b 1 embedding_dim]."""
    if global_pool:
        return nn.Linear(context_dim, embedding_dim)
    return nn.Sequential(
        nn.Conv1d(CONTEXT_TOKENS, CONTEXT_TOKENS // 2, 1),
        nn.Conv1d(CONTEXT_TOKENS // 2, 1, 1),
        nn.Linear(context_dim, embedding_dim),
    )

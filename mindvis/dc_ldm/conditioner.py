"""What turns a condition into a context for the UNet: fMRI through the encoder of Stage A, or a class.

Source: Chen et al. 2023 (arXiv 2211.06956), section 3.3 and figure 2. Attribute names are the published ones.
"""

import torch
from torch import Tensor, nn

from mindvis.common.errors import InputError
from mindvis.dc_ldm.unet import CONTEXT_TOKENS
from mindvis.sc_mbm import FMRIEncoder


class FMRIConditioner(nn.Module):
    """fMRI [b 1 v] -> context [b m context_dim], m = `context_tokens` (published: 77) or 1 where the encoder pools.

    With `linear_context` a linear map of the fMRI is added to every token (not published; see `start_from_linear`).
    Raises InputError where `global_pool` is not what the encoder does, or for a number of tokens outside 1 to 77.
    """

    def __init__(
        self,
        encoder: FMRIEncoder,
        *,
        context_dim: int,
        global_pool: bool = False,
        context_tokens: int = CONTEXT_TOKENS,
        linear_context: bool = False,
    ):
        super().__init__()
        if not 1 <= context_tokens <= CONTEXT_TOKENS:
            raise InputError(f"context_tokens is {context_tokens}; needed: 1 to {CONTEXT_TOKENS}")
        if bool(encoder.global_pool) != bool(global_pool):
            raise InputError(f"global_pool: the encoder has {encoder.global_pool}, the diffusion model {global_pool}")
        self.encoder = encoder
        self.channel_mapper = None if global_pool else _mapper(encoder.num_patches, context_tokens)
        self.dim_mapper = nn.Linear(encoder.pos_embed.shape[-1], context_dim)
        self.linear = nn.Linear(encoder.num_voxels, context_dim) if linear_context else None

    def forward(self, fmri: Tensor) -> Tensor:
        """[b 1 v] -> [b m context_dim], or [b 1 context_dim] with global pooling."""
        tokens = self.encoder(fmri)  # [b l d]
        if self.channel_mapper is not None:
            tokens = self.channel_mapper(tokens)  # [b m d]
        context = self.dim_mapper(tokens)  # [b m c]
        return context if self.linear is None else context + self.linear(fmri)

    @torch.no_grad()
    def start_from_linear(self, weight: Tensor, bias: Tensor) -> None:
        """Begin as the linear map `weight` [c v], `bias` [c] in every token; what the encoder adds begins at 0."""
        assert self.linear is not None
        self.linear.weight.copy_(weight)
        self.linear.bias.copy_(bias)
        for parameter in self.dim_mapper.parameters():
            parameter.zero_()


class ClassEmbedder(nn.Module):
    """One learned vector a class: the condition of the label-to-image model that Stage B starts from."""

    def __init__(self, num_classes: int, embed_dim: int):
        super().__init__()
        self.embedding = nn.Embedding(num_classes, embed_dim)

    def forward(self, class_ids: Tensor) -> Tensor:
        """Long [b] -> context [b 1 embed_dim]."""
        return self.embedding(class_ids)[:, None]


def _mapper(num_patches: int, context_tokens: int) -> nn.Sequential:
    """Linear maps over the token axis, which a convolution of width 1 treats as channels: [b l d] -> [b m d]."""
    half = num_patches // 2
    return nn.Sequential(nn.Conv1d(num_patches, half, 1), nn.Conv1d(half, context_tokens, 1))

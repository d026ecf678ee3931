"""What turns a condition into a context for the UNet: fMRI through the encoder of Stage A, or a class.

Source: Chen et al. 2023 (arXiv 2211.06956), section 3.3 and figure 2. Attribute names are the published ones.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mindvis.common.errors import InputError
from mindvis.dc_ldm.unet import CONTEXT_TOKENS
from mindvis.sc_mbm import FMRIEncoder


class FMRIConditioner(nn.Module):
    """fMRI [b 1 v] -> context [b m context_dim], m = `context_tokens` (published: 77) or 1 where the encoder pools.

    `ridge`, not published: a module fMRI [b 1 v] -> [b 1 context_dim] that is added to every token (see `build_ldm`).
    Raises InputError where `global_pool` is not what the encoder does, or for a number of tokens outside 1 to 77.
    """

    def __init__(
        self,
        encoder: FMRIEncoder,
        *,
        context_dim: int,
        global_pool: bool = False,
        context_tokens: int = CONTEXT_TOKENS,
        ridge: nn.Module | None = None,
    ):
        super().__init__()
        if not 1 <= context_tokens <= CONTEXT_TOKENS:
            raise InputError(f"context_tokens is {context_tokens}; needed: 1 to {CONTEXT_TOKENS}")
        if bool(encoder.global_pool) != bool(global_pool):
            raise InputError(f"global_pool: the encoder has {encoder.global_pool}, the diffusion model {global_pool}")
        self.encoder = encoder
        # linear maps over the token axis, which a convolution of width 1 takes as channels: [b l d] -> [b m d]
        half = encoder.num_patches // 2
        maps = () if global_pool else (nn.Conv1d(encoder.num_patches, half, 1), nn.Conv1d(half, context_tokens, 1))
        self.channel_mapper = nn.Sequential(*maps) if maps else None
        self.dim_mapper = nn.Linear(encoder.pos_embed.shape[-1], context_dim)
        self.ridge = ridge

    def forward(self, fmri: Tensor) -> Tensor:
        """[b 1 v] -> [b m context_dim], or [b 1 context_dim] with global pooling."""
        tokens = self.encoder(fmri)  # [b l d]
        if self.channel_mapper is not None:
            tokens = self.channel_mapper(tokens)  # [b m d]
        context = self.dim_mapper(tokens)  # [b m c]
        return context if self.ridge is None else context + self.ridge(fmri)


class ClassMixture(nn.Module):
    """fMRI [b 1 v] -> the embedding [b 1 c] of the class that a linear classifier reads, or a mixture where in doubt.

    It is fitted before the training and stays as it is.
    """

    weight: Tensor  # [k v]
    bias: Tensor  # [k]
    embeddings: Tensor  # [k c]

    def __init__(self, num_voxels: int, num_classes: int, context_dim: int):
        super().__init__()
        self.register_buffer("weight", torch.zeros(num_classes, num_voxels))
        self.register_buffer("bias", torch.zeros(num_classes))
        self.register_buffer("embeddings", torch.zeros(num_classes, context_dim))

    def forward(self, fmri: Tensor) -> Tensor:
        scores = F.linear(fmri, self.weight, self.bias)  # [b 1 k]
        return scores.softmax(dim=-1) @ self.embeddings


def ridge_like(state: Mapping[str, Tensor]) -> nn.Module | None:
    """The module that these weights of `FMRIConditioner.ridge` belong to, with other weights; None for none."""
    if not state:
        return None
    size, num_voxels = state["weight"].shape
    if "embeddings" in state:
        return ClassMixture(num_voxels, *state["embeddings"].shape)
    return nn.Linear(num_voxels, size)


class ClassEmbedder(nn.Module):
    """One learned vector a class: the condition of the label-to-image model that Stage B starts from."""

    def __init__(self, num_classes: int, embed_dim: int):
        super().__init__()
        self.embedding = nn.Embedding(num_classes, embed_dim)

    def forward(self, class_ids: Tensor) -> Tensor:
        """Long [b] -> context [b 1 embed_dim]."""
        return self.embedding(class_ids)[:, None]

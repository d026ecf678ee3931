"""Parts of the networks of Stage A: patches to tokens, their fixed positions, transformer blocks, hidden patches.

Parameter names are those of the published weights.
"""

from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from mindvis.common.errors import InputError

BASE = 10000.0  # of the positions


class PatchEmbedding(nn.Module):
    """Every patch of voxels to one token: [b l p] -> [b l d]."""

    def __init__(self, patch_size: int, embed_dim: int):
        super().__init__()
        self.proj = nn.Conv1d(1, embed_dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, patches: Tensor) -> Tensor:
        # a convolution whose stride is its kernel is one product a patch, and takes the patches in any order
        return F.linear(patches, self.proj.weight[:, 0], self.proj.bias)


def sincos_positions(num_patches: int, dim: int) -> Tensor:
    """Positions of the class token (zeros) and of `num_patches` patches: [1 1+l d], sines first, then cosines.

    `dim` is even. Vaswani et al. 2017, section 3.5, in the arrangement of MAE (He et al. 2022).
    """
    # in double precision: the angles of distant patches would lose digits otherwise
    frequencies = BASE ** (-torch.arange(dim // 2, dtype=torch.float64) / (dim / 2))
    angles = torch.arange(num_patches, dtype=torch.float64)[:, None] * frequencies  # [l d/2]
    patches = torch.cat([angles.sin(), angles.cos()], dim=1)  # [l d]
    return F.pad(patches, (0, 0, 1, 0)).float()[None]  # [1 1+l d]


def resize_positions(positions: Tensor, num_patches: int) -> Tensor:
    """Positions for another number of patches by nearest interpolation, the class row kept: [1 1+l d] -> [1 1+l' d]."""
    class_row, patches = positions[:, :1], positions[:, 1:]
    if patches.shape[1] == num_patches:
        return positions
    resized = F.interpolate(rearrange(patches, "1 l d -> 1 d l"), size=num_patches, mode="nearest")
    return torch.cat([class_row, rearrange(resized, "1 d l -> 1 l d")], dim=1)


def transformer(dim: int, *, depth: int, num_heads: int, mlp_ratio: float) -> nn.ModuleList:
    """Pre-norm blocks with a bias on queries, keys and values."""
    if dim % 2 or dim % num_heads:
        raise InputError(f"embedding dimension is {dim}: an even multiple of num_heads = {num_heads} is needed")
    if depth < 1:
        raise InputError(f"depth is {depth}: at least one block is needed")
    blocks = (Block(dim, num_heads, mlp_ratio, qkv_bias=True, norm_layer=nn.LayerNorm) for _ in range(depth))
    return nn.ModuleList(blocks)


def initialise(model: nn.Module) -> None:
    """Xavier-uniform linear layers, N(0, .02) for the patch embedding and the tokens, biases 0."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv1d):
            nn.init.normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for token in (model.cls_token, model.mask_token):
        nn.init.normal_(cast(Tensor, token), std=0.02)


def unshuffle(shown: Tensor, visible: Tensor, mask_token: Tensor, num_patches: int) -> Tensor:
    """Class token and visible tokens at their places, the mask token at the others: [b 1+k d], [b k] -> [b 1+l d]."""
    places = F.pad(visible + 1, (1, 0))[..., None].expand_as(shown)  # row 0 is the class token
    hidden = mask_token.to(shown.dtype).expand(len(shown), 1 + num_patches, -1)
    return hidden.scatter(1, places, shown)

"""Parts of the networks of Stage A: the embedding of patches, transformer blocks, places of hidden patches, beginnings.

Parameter names are those of the published weights.
"""

import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from mindvis.common.errors import InputError


class PatchEmbedding(nn.Module):
    """Every patch of voxels to one token: [b l p] -> [b l d]."""

    def __init__(self, patch_size: int, embed_dim: int):
        super().__init__()
        self.proj = nn.Conv1d(1, embed_dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, patches: Tensor) -> Tensor:
        # a convolution whose stride is its kernel is one product a patch, and takes the patches in any order
        return F.linear(patches, self.proj.weight[:, 0], self.proj.bias)


def transformer(dim: int, *, depth: int, num_heads: int, mlp_ratio: float) -> nn.ModuleList:
    """Pre-norm blocks with a bias on queries, keys and values."""
    if dim % 2 or dim % num_heads:
        raise InputError(f"embedding dimension is {dim}: an even multiple of num_heads = {num_heads} is needed")
    if depth < 1:
        raise InputError(f"depth is {depth}: at least one block is needed")
    options = {"qkv_bias": True, "norm_layer": nn.LayerNorm}
    return nn.ModuleList(Block(dim, num_heads, mlp_ratio, **options) for _ in range(depth))


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
    nn.init.normal_(model.cls_token, std=0.02)
    nn.init.normal_(model.mask_token, std=0.02)


def unshuffle(shown: Tensor, visible: Tensor, mask_token: Tensor, num_patches: int) -> Tensor:
    """Class token and visible tokens at their places, the mask token at the others: [b 1+k d], [b k] -> [b 1+l d]."""
    places = F.pad(visible + 1, (1, 0))[..., None].expand_as(shown)  # row 0 is the class token
    hidden = mask_token.to(shown.dtype).expand(len(shown), 1 + num_patches, -1)
    return hidden.scatter(1, places, shown)

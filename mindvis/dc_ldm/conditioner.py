"""What turns a condition into a context for the UNet: fMRI through the encoder of Stage A, or a class.

Source: Chen et al. 2023 (arXiv 2211.06956), section 3.3 and figure 2. Attribute names are the published ones.
"""

from torch import Tensor, nn

from mindvis.common.errors import InputError
from mindvis.dc_ldm.unet import CONTEXT_TOKENS
from mindvis.sc_mbm import FMRIEncoder


class FMRIConditioner(nn.Module):
    """fMRI [b 1 v] -> context [b 77 context_dim], or [b 1 context_dim] where the encoder pools its tokens.

    Raises InputError where `global_pool` is not what the encoder does.
    """

    def __init__(self, encoder: FMRIEncoder, *, context_dim: int, global_pool: bool = False):
        super().__init__()
        if bool(encoder.global_pool) != bool(global_pool):
            raise InputError(f"global_pool: the encoder has {encoder.global_pool}, the diffusion model {global_pool}")
        self.encoder = encoder
        self.channel_mapper = None if global_pool else _mapper(encoder.num_patches)
        self.dim_mapper = nn.Linear(encoder.pos_embed.shape[-1], context_dim)

    def forward(self, fmri: Tensor) -> Tensor:
        """[b 1 v] -> [b 77 context_dim], or [b 1 context_dim] with global pooling."""
        tokens = self.encoder(fmri)  # [b l d]
        if self.channel_mapper is not None:
            tokens = self.channel_mapper(tokens)  # [b 77 d]
        return self.dim_mapper(tokens)


class ClassEmbedder(nn.Module):
    """One learned vector a class: the condition of the label-to-image model that Stage B starts from."""

    def __init__(self, num_classes: int, embed_dim: int):
        super().__init__()
        self.embedding = nn.Embedding(num_classes, embed_dim)

    def forward(self, class_ids: Tensor) -> Tensor:
        """Long [b] -> context [b 1 embed_dim]."""
        return self.embedding(class_ids)[:, None]


def _mapper(num_patches: int) -> nn.Sequential:
    """Linear maps over the token axis, which a convolution of width 1 treats as channels: [b l d] -> [b 77 d]."""
    half = num_patches // 2
    return nn.Sequential(nn.Conv1d(num_patches, half, 1), nn.Conv1d(half, CONTEXT_TOKENS, 1))

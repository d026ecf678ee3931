"""Codebook of the autoencoder: nearest codes, straight-through gradients, the two losses that train it.

Source: van den Oord et al. 2017 (arXiv 1711.00937), section 3.2.
"""

from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

# distances held at once while looking for the nearest codes: 16 MB in float32
MAX_DISTANCES = 2**22
COMMITMENT = 0.25  # weight of the commitment loss, as in van den Oord et al. 2017 (arXiv 1711.00937)


class Quantized(NamedTuple):
    """Result of `autoencoder.quantize(latent)`: latent [b c h w], code indices long [b h w], loss (scalar)."""

    latent: Tensor
    indices: Tensor
    loss: Tensor


class Quantizer(nn.Module):
    """Learned codes [n_embed embed_dim]; each vector of a latent is replaced by the code nearest to it."""

    def __init__(self, n_embed: int, embed_dim: int):
        super().__init__()
        self.embedding = nn.Embedding(n_embed, embed_dim)
        nn.init.uniform_(self.embedding.weight, -1.0 / n_embed, 1.0 / n_embed)

    def forward(self, latent: Tensor) -> Quantized:
        """Quantise a latent [b c h w], with gradients copied straight through; van den Oord et al. 2017, equation 3."""
        indices = self.nearest(latent)
        codes = self.look_up(indices)
        loss = F.mse_loss(codes, latent.detach()) + COMMITMENT * F.mse_loss(latent, codes.detach())
        return Quantized(latent + (codes - latent).detach(), indices, loss)

    def look_up(self, indices: Tensor) -> Tensor:
        """Codes of the indices: long [b h w] -> [b c h w]."""
        return rearrange(self.embedding(indices), "b h w c -> b c h w")

    @torch.no_grad()
    def nearest(self, latent: Tensor) -> Tensor:
        """Index (long [b h w]) of the code nearest to each vector of the latent [b c h w]."""
        vectors = rearrange(latent, "b c h w -> (b h w) c").float()
        with torch.autocast(latent.device.type, enabled=False):  # bf16 distances would confuse neighbouring codes
            indices = _nearest(vectors, self.embedding.weight.float())
        return indices.view(latent.shape[0], *latent.shape[2:])


def _nearest(vectors: Tensor, codes: Tensor) -> Tensor:
    """Index (long [m]) of the code [n c] nearest to each vector [m c]."""
    # |z - e|^2 without |z|^2, which is the same for all codes; in pieces, for m n distances are too many.
    # Channel by channel: a product of matrices could be computed in TF32, which confuses neighbouring codes.
    norms = codes.square().sum(dim=1)
    rows = max(1, MAX_DISTANCES // len(codes))
    pieces = [_distances(piece, codes, norms).argmin(dim=1) for piece in vectors.split(rows)]
    return torch.cat(pieces)


def _distances(vectors: Tensor, codes: Tensor, norms: Tensor) -> Tensor:
    """|e|^2 - 2 z e, [m n], of vectors z [m c] and codes e [n c] with squared norms [n]."""
    distances = norms.expand(len(vectors), -1)
    for of_vectors, of_codes in zip(vectors.T, codes.T, strict=True):
        distances = torch.addcmul(distances, of_vectors[:, None], of_codes, value=-2.0)
    return distances

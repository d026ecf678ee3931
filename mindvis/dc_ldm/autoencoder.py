"""Autoencoders between images and the latents the diffusion runs in: vector-quantised (VQ) or variational (KL).

Source: Esser et al. 2021 (arXiv 2012.09841) for the architecture, Rombach et al. 2022 (arXiv 2112.10752), appendix G,
for its use as a first stage: of VQ, the diffusion sees the latent before the codebook, decoding quantises first.
The codebook: van den Oord et al. 2017 (arXiv 1711.00937), section 3.2. Attribute names are the published ones.
"""

from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from mindvis.dc_ldm.coders import Decoder, Encoder

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
        vectors, codes = rearrange(latent, "b c h w -> (b h w) c").float(), self.embedding.weight.float()
        rows = max(1, MAX_DISTANCES // len(codes))  # in pieces: the distances of all would not fit into memory
        with torch.autocast(latent.device.type, enabled=False):  # bf16 distances would confuse neighbouring codes
            indices = torch.cat([_distances(piece, codes).argmin(dim=1) for piece in vectors.split(rows)])
        return indices.view(latent.shape[0], *latent.shape[2:])


class Autoencoder(nn.Module):
    """Images <-> latents; `scale_factor` brings the latents the diffusion sees to about unit variance."""

    post_quant_conv: nn.Conv2d

    def __init__(self, encoder: Encoder, decoder: Decoder, embed_dim: int, scale_factor: float):
        super().__init__()
        size = encoder.resolution // 2 ** (len(encoder.down) - 1)
        self.latent_shape = (embed_dim, size, size)
        self.scale_factor = scale_factor
        self.encoder = encoder
        self.decoder = decoder

    def encode(self, image: Tensor) -> Tensor:
        """Latent [b embed_dim h/f w/f] of images [b 3 h w] in [-1, 1]."""
        raise NotImplementedError

    def decode(self, latent: Tensor, quantize: bool = True) -> Tensor:
        """Images [b 3 h w], about [-1, 1], of latents [b embed_dim h/f w/f]; `quantize` where there is a codebook."""
        raise NotImplementedError

    def _decode(self, latent: Tensor) -> Tensor:
        # the codebook is float32 whatever the type of the decoder
        return self.decoder(self.post_quant_conv(latent.to(self.post_quant_conv.weight.dtype)))


class VQAutoencoder(Autoencoder):
    """Latents that a codebook quantises on their way back; `encode` stops before it."""

    def __init__(
        self,
        *,
        encoder: Encoder,
        decoder: Decoder,
        z_channels: int,
        embed_dim: int,
        n_embed: int,
        scale_factor: float = 1.0,
    ) -> None:
        super().__init__(encoder, decoder, embed_dim, scale_factor)
        self.quantize = Quantizer(n_embed, embed_dim)
        self.quant_conv = nn.Conv2d(z_channels, embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(embed_dim, z_channels, 1)

    def encode(self, image: Tensor) -> Tensor:
        """[b 3 h w] -> [b embed_dim h/f w/f], before the codebook."""
        return self.scale_factor * self.quant_conv(self.encoder(image))

    def decode(self, latent: Tensor, quantize: bool = True) -> Tensor:
        """[b embed_dim h/f w/f] -> [b 3 h w]."""
        latent = latent / self.scale_factor
        if quantize:
            latent = self.quantize.look_up(self.quantize.nearest(latent))
        return self._decode(latent)


class KLAutoencoder(Autoencoder):
    """Latents that are the mean of a Gaussian posterior; there is no codebook, so `quantize` changes nothing.

    The published code draws from the posterior. The mean is taken here, so that an image has one latent, which can be
    kept; the deviation is small, the KL term being weighted with about 1e-6 (Rombach et al. 2022, section 3.1).
    """

    def __init__(
        self, *, encoder: Encoder, decoder: Decoder, z_channels: int, embed_dim: int, scale_factor: float = 1.0
    ) -> None:
        super().__init__(encoder, decoder, embed_dim, scale_factor)
        self.quant_conv = nn.Conv2d(2 * z_channels, 2 * embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(embed_dim, z_channels, 1)

    def encode(self, image: Tensor) -> Tensor:
        """[b 3 h w] -> [b embed_dim h/f w/f], without a draw."""
        mean, _ = self.quant_conv(self.encoder(image)).chunk(2, dim=1)  # the other half is the log variance
        return self.scale_factor * mean

    def decode(self, latent: Tensor, quantize: bool = True) -> Tensor:
        """[b embed_dim h/f w/f] -> [b 3 h w]."""
        return self._decode(latent / self.scale_factor)


def _distances(vectors: Tensor, codes: Tensor) -> Tensor:
    """|e|^2 - 2 z e, [m n], of vectors z [m c] and codes e [n c]: their squared distances without |z|^2.

    Channel by channel: a product of matrices could be computed in TF32, which confuses neighbouring codes.
    """
    distances = codes.square().sum(dim=1).expand(len(vectors), -1)
    for of_vectors, of_codes in zip(vectors.T, codes.T, strict=True):
        distances = torch.addcmul(distances, of_vectors[:, None], of_codes, value=-2.0)
    return distances

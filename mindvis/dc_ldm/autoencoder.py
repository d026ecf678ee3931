"""Autoencoders between images and the latents the diffusion runs in: vector-quantised (VQ) or variational (KL).

Source: Esser et al. 2021 (arXiv 2012.09841) for the architecture, Rombach et al. 2022 (arXiv 2112.10752), appendix G,
for its use as a first stage: of VQ, the diffusion sees the latent before the codebook, decoding quantises first.
Attribute names are those of the published weights.
"""

from torch import Tensor, nn

from mindvis.dc_ldm.coders import Decoder, Encoder
from mindvis.dc_ldm.quantizer import Quantizer


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

"""Vector-quantised autoencoder between images and the latents the diffusion runs in.

Source: Esser et al. 2021 (arXiv 2012.09841) for the architecture, Rombach et al. 2022 (arXiv 2112.10752), appendix G,
for its use as a first stage: the diffusion sees the latent before the codebook, decoding quantises first. Attribute
names are those of the published weights.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from mindvis.dc_ldm.coders import Decoder, Encoder
from mindvis.dc_ldm.quantizer import Quantizer
from mindvis.dc_ldm.settings import read_options, section

WHERE = "model.params.first_stage_config.params"
SHAPE = ("z_channels", "resolution", "in_channels", "out_ch", "ch", "ch_mult", "num_res_blocks")
SHAPE_OPTIONS = (*SHAPE, "attn_resolutions", "dropout")
SHAPE_FIXED = {
    "double_z": False,
    "resamp_with_conv": True,
    "give_pre_end": False,
    "tanh_out": False,
    "use_linear_attn": False,
    "attn_type": "vanilla",
    "use_timestep": False,
}
FIXED = {"remap": None}
# how the published autoencoder was trained and where its own file lay
WITHOUT_EFFECT = (
    "ddconfig",
    "lossconfig",
    "ckpt_path",
    "ignore_keys",
    "image_key",
    "colorize_nlabels",
    "monitor",
    "batch_resize_range",
    "scheduler_config",
    "lr_g_factor",
    "sane_index_shape",
    "use_ema",
)


class VQAutoencoder(nn.Module):
    """Images [b 3 h w] in [-1, 1] <-> latents [b embed_dim h/f w/f]."""

    def __init__(self, *, encoder: Encoder, decoder: Decoder, z_channels: int, embed_dim: int, n_embed: int):
        super().__init__()
        size = encoder.resolution // 2 ** (len(encoder.down) - 1)
        self.latent_shape = (embed_dim, size, size)
        self.encoder = encoder
        self.decoder = decoder
        self.quantize = Quantizer(n_embed, embed_dim)
        self.quant_conv = nn.Conv2d(z_channels, embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(embed_dim, z_channels, 1)

    def encode(self, image: Tensor) -> Tensor:
        """Latent [b embed_dim h/f w/f] of images [b 3 h w] in [-1, 1], before the codebook."""
        return self.quant_conv(self.encoder(image))

    def decode(self, latent: Tensor, quantize: bool = True) -> Tensor:
        """Images [b 3 h w], about [-1, 1], of latents [b embed_dim h/f w/f]."""
        if quantize:
            latent = self.quantize.look_up(self.quantize.nearest(latent))
        return self.decoder(self.post_quant_conv(latent))


def build_autoencoder(options: Mapping[str, Any]) -> VQAutoencoder:
    """Autoencoder from `first_stage_config.params` of a published config.

    Raises InputError for an option that would change the results and is not supported.
    """
    sizes = ("embed_dim", "n_embed")
    found = read_options(options, WHERE, used=sizes, required=sizes, fixed=FIXED, without_effect=WITHOUT_EFFECT)
    where = f"{WHERE}.ddconfig"
    shape = read_options(
        section(options, "ddconfig", f"{WHERE}."),
        where,
        used=SHAPE_OPTIONS,
        required=SHAPE,
        fixed=SHAPE_FIXED,
    )
    in_channels, out_ch = shape.pop("in_channels"), shape.pop("out_ch")
    return VQAutoencoder(
        encoder=Encoder(in_channels=in_channels, **shape),
        decoder=Decoder(out_ch=out_ch, **shape),
        z_channels=shape["z_channels"],
        **found,
    )

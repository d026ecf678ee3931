"""KL autoencoder: agreement with a plain version, names, scale of the latents, options."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mindvis.common.errors import InputError
from mindvis.data.images import to_float
from mindvis.dc_ldm import KLAutoencoder, VQAutoencoder, build_autoencoder
from mindvis.dc_ldm.latents import kept_latents

SHAPE = {
    "double_z": True,
    "z_channels": 4,
    "resolution": 16,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 32,
    "ch_mult": [1, 2, 2],
    "num_res_blocks": 1,
    "attn_resolutions": [8],
}
SCALE = 0.18215


def options(**changes) -> dict:
    return {"embed_dim": 2, "lossconfig": {"target": "torch.nn.Identity"}, "ddconfig": SHAPE, **changes}


def drawn(scale_factor: float = SCALE, **changes) -> KLAutoencoder:
    """An autoencoder with weights that leave no layer at 0 or 1."""
    torch.manual_seed(0)
    autoencoder = build_autoencoder(options(**changes), scale_factor).eval()
    for p in autoencoder.parameters():
        torch.nn.init.normal_(p, mean=0.05, std=0.1)
    return autoencoder


class Plain:
    """The same networks as formulas over a state dict, without modules."""

    def __init__(self, state: dict[str, Tensor]):
        self.state = state

    def conv(self, x: Tensor, name: str, **how) -> Tensor:
        return F.conv2d(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"], **how)

    def norm(self, x: Tensor, name: str) -> Tensor:
        groups = x.reshape(len(x), 32, -1)
        normed = (groups - groups.mean(-1, keepdim=True)) / (groups.var(-1, correction=0, keepdim=True) + 1e-6).sqrt()
        weight, bias = (self.state[f"{name}.{part}"][:, None, None] for part in ("weight", "bias"))
        return normed.reshape(x.shape) * weight + bias

    def swish(self, x: Tensor, name: str) -> Tensor:
        x = self.norm(x, name)
        return x / (1 + (-x).exp())

    def residual(self, x: Tensor, name: str) -> Tensor:
        hidden = self.conv(self.swish(x, f"{name}.norm1"), f"{name}.conv1", padding=1)
        hidden = self.conv(self.swish(hidden, f"{name}.norm2"), f"{name}.conv2", padding=1)
        skip = f"{name}.nin_shortcut"
        return hidden + (self.conv(x, skip) if f"{skip}.weight" in self.state else x)

    def attention(self, x: Tensor, name: str) -> Tensor:
        normed = self.norm(x, f"{name}.norm")
        q, k, v = (self.conv(normed, f"{name}.{part}").flatten(2) for part in "qkv")  # [b c n]
        weights = (torch.einsum("bcn,bcm->bnm", q, k) / math.sqrt(x.shape[1])).softmax(-1)
        return x + self.conv(torch.einsum("bnm,bcm->bcn", weights, v).reshape(x.shape), f"{name}.proj_out")

    def level(self, x: Tensor, name: str, num_blocks: int) -> Tensor:
        for index in range(num_blocks):
            x = self.residual(x, f"{name}.block.{index}")
            if x.shape[2] == 8:
                x = self.attention(x, f"{name}.attn.{index}")
        return x

    def middle(self, x: Tensor, name: str) -> Tensor:
        return self.residual(self.attention(self.residual(x, f"{name}.block_1"), f"{name}.attn_1"), f"{name}.block_2")

    def encode(self, image: Tensor) -> Tensor:
        x = self.conv(image, "encoder.conv_in", padding=1)
        for index in range(3):
            x = self.level(x, f"encoder.down.{index}", 1)
            if index < 2:
                x = self.conv(F.pad(x, (0, 1, 0, 1)), f"encoder.down.{index}.downsample.conv", stride=2)
        x = self.swish(self.middle(x, "encoder.mid"), "encoder.norm_out")
        return self.conv(self.conv(x, "encoder.conv_out", padding=1), "quant_conv")[:, :2]

    def decode(self, latent: Tensor) -> Tensor:
        x = self.middle(
            self.conv(self.conv(latent, "post_quant_conv"), "decoder.conv_in", padding=1),
            "decoder.mid",
        )
        for index in (2, 1, 0):
            x = self.level(x, f"decoder.up.{index}", 2)
            if index:
                x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
                x = self.conv(x, f"decoder.up.{index}.upsample.conv", padding=1)
        return self.conv(self.swish(x, "decoder.norm_out"), "decoder.conv_out", padding=1)


@torch.no_grad()
def test_agrees_with_a_plain_version():
    """Mean of the posterior times the scale, and the image of a latent divided by it, within 1e-5."""
    autoencoder = drawn()
    plain = Plain(autoencoder.state_dict())
    image, latent = torch.randn(2, 3, 16, 16), torch.randn(2, 2, 4, 4)
    torch.testing.assert_close(autoencoder.encode(image), SCALE * plain.encode(image), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(autoencoder.decode(latent), plain.decode(latent / SCALE), atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["kl", "vq"])
def test_scale_is_applied_and_undone(kind):
    """Latents are `scale_factor` times those of scale 1, and give the same image: of both kinds of autoencoder."""
    changes = {} if kind == "kl" else {"n_embed": 16, "ddconfig": {**SHAPE, "double_z": False}}
    plain, scaled = drawn(1.0, **changes), drawn(0.25, **changes)
    image = torch.randn(1, 3, 16, 16)
    latent = plain.encode(image)
    assert latent.shape[1:] == plain.latent_shape == (2, 4, 4)
    assert torch.equal(scaled.encode(image), 0.25 * latent)
    assert plain.decode(latent).shape == image.shape
    torch.testing.assert_close(scaled.decode(0.25 * latent), plain.decode(latent))


@torch.no_grad()
def test_nothing_is_drawn_and_nothing_quantised():
    """An image has one latent; the `quantize` of samplers and callbacks makes no difference."""
    autoencoder = drawn()
    image = torch.randn(1, 3, 16, 16)
    latent = autoencoder.encode(image)
    assert torch.equal(autoencoder.encode(image), latent)
    assert torch.equal(autoencoder.decode(latent, quantize=True), autoencoder.decode(latent, quantize=False))


def test_kept_latents_know_the_scale(tmp_path, rng):
    """Latents kept in a folder are those of `encode`, and are not taken for an autoencoder of another scale."""
    images = rng.integers(0, 256, (3, 16, 16, 3), dtype="uint8")
    for scale in (1.0, SCALE):
        autoencoder = drawn(scale)
        kept = torch.from_numpy(kept_latents(autoencoder, images, tmp_path).copy())
        with torch.no_grad():
            torch.testing.assert_close(kept, autoencoder.encode(to_float(images)))
    assert len(list(tmp_path.iterdir())) == 2


def test_weights_are_those_of_vq_without_a_codebook():
    """Same names, no codebook; what leaves the encoder has twice the channels, mean and log variance."""
    vq = build_autoencoder(options(n_embed=16, ddconfig={**SHAPE, "double_z": False}))
    kl = build_autoencoder(options())
    assert isinstance(vq, VQAutoencoder) and isinstance(kl, KLAutoencoder)
    before, after = vq.state_dict(), kl.state_dict()
    assert list(after) == [name for name in before if name != "quantize.embedding.weight"]
    changed = {name: tuple(after[name].shape) for name in after if after[name].shape != before[name].shape}
    assert changed == {
        "encoder.conv_out.weight": (8, 64, 3, 3),
        "encoder.conv_out.bias": (8,),
        "quant_conv.weight": (4, 8, 1, 1),
        "quant_conv.bias": (4,),
    }


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"n_embed": 16}, "double_z"),
        ({"ddconfig": {**SHAPE, "double_z": False}}, "n_embed"),
        ({"ddconfig": {**SHAPE, "tanh_out": True}}, "tanh_out"),
        ({"embed_dims": 2}, "embed_dims"),
    ],
)
def test_options_of_neither_kind_are_refused(changes, name):
    """A codebook with a doubled z, no codebook without, and what neither kind knows: one line names the option."""
    with pytest.raises(InputError, match=name) as caught:
        build_autoencoder(options(**changes))
    assert "\n" not in str(caught.value)

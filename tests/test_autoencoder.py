"""Autoencoder: agreement with the published one, nearest codes, what its training needs, options."""

import copy

import ldm_cases
import pytest
import torch

from mindvis.common.errors import InputError
from mindvis.dc_ldm import build_autoencoder
from mindvis.dc_ldm.autoencoder import MAX_DISTANCES, Quantizer


@pytest.fixture(params=ldm_cases.CASES)
def case(request, golden):
    return golden(request.param)


def options(golden, **shape) -> dict:
    found = copy.deepcopy(golden("dc_ldm").meta["ldm"]["model"]["params"]["first_stage_config"]["params"])
    found["ddconfig"].update(shape)
    return found


@torch.no_grad()
def test_latents_and_images_agree_with_the_published_autoencoder(case):
    """Latent before the codebook, image with and without quantisation, within 2e-5."""
    autoencoder = ldm_cases.build(case).autoencoder
    found = {
        "latent": autoencoder.encode(ldm_cases.image(case)),
        "decoded": autoencoder.decode(case.tensor("in/z")),
        "decoded_not_quantized": autoencoder.decode(case.tensor("in/z"), quantize=False),
    }
    for name, value in found.items():
        torch.testing.assert_close(value, case.tensor(f"out/{name}"), atol=2e-5, rtol=0)


def test_weights_have_the_published_names_in_their_order(case):
    """The state dict is the published one but for its prefix."""
    prefix = "first_stage_model."
    names = [name.removeprefix(prefix) for name in case.tensors("state") if name.startswith(prefix)]
    assert list(ldm_cases.build(case).autoencoder.state_dict()) == names


def test_nearest_codes_are_those_of_all_distances():
    """The search in pieces finds what comparing every pair finds."""
    torch.manual_seed(0)
    quantizer = Quantizer(8192, 3)
    torch.nn.init.normal_(quantizer.embedding.weight)
    latent = torch.randn(2, 3, 18, 20)
    assert latent[:, 0].numel() * 8192 > MAX_DISTANCES
    vectors = latent.permute(0, 2, 3, 1).reshape(-1, 3)
    expected = torch.cdist(vectors.double(), quantizer.embedding.weight.double()).argmin(dim=1)
    assert torch.equal(quantizer.nearest(latent).flatten(), expected)


def test_quantising_copies_gradients_and_pulls_codes():
    """Straight-through to the latent; the loss reaches the codes that were chosen and no others."""
    torch.manual_seed(0)
    quantizer = Quantizer(5, 3)
    torch.nn.init.normal_(quantizer.embedding.weight)
    latent = torch.randn(1, 3, 1, 2, requires_grad=True)
    quantized, indices, loss = quantizer(latent)
    torch.testing.assert_close(quantized, quantizer.look_up(indices))
    (straight,) = torch.autograd.grad(quantized.sum(), latent, retain_graph=True)
    assert torch.equal(straight, torch.ones_like(latent))
    loss.backward()
    touched = quantizer.embedding.weight.grad.abs().sum(dim=1).nonzero().flatten()
    assert set(touched.tolist()) == set(indices.flatten().tolist())


def test_overfits_one_image(golden):
    """Reconstruction and codebook loss of one image fall when trained."""
    torch.manual_seed(0)
    autoencoder = build_autoencoder(options(golden))
    optimiser = torch.optim.Adam(autoencoder.parameters(), lr=2e-3)
    image, losses = 0.5 * torch.randn(1, 3, 1, 1).expand(1, 3, 16, 16), []
    for _ in range(12):
        quantized, _, codebook_loss = autoencoder.quantize(autoencoder.encode(image))
        loss = (autoencoder.decode(quantized, quantize=False) - image).square().mean() + codebook_loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_attention_at_a_resolution_is_built_where_asked(golden):
    """attn_resolutions are sizes of the feature map: 8 is the second level of a 16-pixel image."""
    names = build_autoencoder(options(golden, attn_resolutions=[8])).state_dict()
    assert "encoder.down.1.attn.0.q.weight" in names
    assert "decoder.up.1.attn.1.q.weight" in names
    assert not any(name.startswith(("encoder.down.0.attn", "decoder.up.0.attn")) for name in names)


def test_dropout_is_honoured(golden):
    """The option reaches encoder and decoder."""
    autoencoder = build_autoencoder(options(golden, dropout=0.1))
    assert {m.p for m in autoencoder.modules() if isinstance(m, torch.nn.Dropout)} == {0.1}


@pytest.mark.parametrize(("name", "value"), [("double_z", True), ("resamp_with_conv", False), ("tanh_out", True)])
def test_options_that_would_change_results_are_refused(golden, name, value):
    """The error names the option."""
    with pytest.raises(InputError, match=name):
        build_autoencoder(options(golden, **{name: value}))

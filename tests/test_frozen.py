"""Forms of frozen weights that take less time and memory: same results, less kept, values in a file."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mindvis.dc_ldm import build_ldm
from mindvis.dc_ldm.frozen import FoldedUpsample, FrozenLayer, recomputed
from mindvis.dc_ldm.layers import Upsample
from mindvis.dc_ldm.mapped import map_frozen, move_to_file
from mindvis.dc_ldm.module import LDMModule
from mindvis.dc_ldm.speed import keep_casts
from mindvis.sc_mbm import FMRIEncoder

UNET = {"in_channels": 3, "out_channels": 3, "model_channels": 128, "num_res_blocks": 1, "channel_mult": [1, 2]}
UNET |= {"attention_resolutions": [2], "num_heads": 2, "context_dim": 16}
SHAPE = {"double_z": False, "z_channels": 3, "resolution": 128, "in_channels": 3, "out_ch": 3, "ch": 32}
SHAPE |= {"ch_mult": [1, 1, 1], "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0}
FIRST_STAGE = {"embed_dim": 3, "n_embed": 8, "ddconfig": SHAPE}


def build():
    """A model as wide as those that `speed` attends to, with no branch that starts at 0."""
    torch.manual_seed(0)
    encoder = FMRIEncoder(num_voxels=16 * 80, embed_dim=16, depth=1, num_heads=2)
    params = {"unet_config": {"params": UNET}, "first_stage_config": {"params": FIRST_STAGE}}
    ldm = build_ldm({"model": {"params": params}}, encoder)
    for parameter in ldm.unet.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    return ldm


@pytest.fixture
def module():
    return LDMModule(build())


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    latent = torch.randn(2, 3, 32, 32, generator=generator)
    fmri = torch.randn(2, 1, 16 * 80, generator=generator)
    return {"latent": latent, "fmri": fmri, "key": torch.tensor([[0, 0, 0], [0, 0, 1]])}


def gradients(module, batch) -> dict[str, torch.Tensor]:
    module.zero_grad()
    module.loss(batch).backward()
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def kept_bytes(module, batch) -> int:
    """Bytes that the forward pass keeps for the backward pass, weights left out."""
    weights = {p.untyped_storage().data_ptr() for p in module.parameters()}
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = module.loss(batch)
    del loss
    return sum(size for place, size in kept.items() if place not in weights)


def test_gradients_stay_the_same(module, batch):
    """Every tuned weight has the gradient it had, and nothing else has one."""
    wanted = gradients(module, batch)
    module.make_ready(mixed=False)
    found = gradients(module, batch)
    assert found.keys() == wanted.keys() and found
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-3, atol=1e-5 * wanted[name].abs().max().item())


def test_less_is_kept_for_the_backward_pass(module, batch):
    """Inputs of frozen convolutions, normed maps and gates are not kept."""
    before = kept_bytes(module, batch)
    module.make_ready(mixed=False)
    assert kept_bytes(module, batch) < 0.75 * before


def test_decoded_images_stay_the_same(module):
    """The autoencoder's upsampling is folded too."""
    autoencoder, latent = module.ldm.autoencoder, torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        wanted = autoencoder.decode(latent, quantize=False)
        module.make_ready(mixed=False)
        found = autoencoder.decode(latent, quantize=False)
    assert isinstance(autoencoder.decoder.up[1].upsample.forward, FoldedUpsample)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(16, 16), (16, 18), (2, 2)])
def test_folded_upsampling_is_doubling_and_convolution(size):
    """At the borders too, in the backward pass, and where the map is too small for it."""
    upsample = Upsample(4).requires_grad_(False)
    x = torch.randn(2, 4, *size, generator=torch.Generator().manual_seed(3), requires_grad=True)
    wanted = F.conv2d(x.repeat_interleave(2, 2).repeat_interleave(2, 3), upsample.conv.weight, upsample.conv.bias, 1, 1)
    (wanted_gradient,) = torch.autograd.grad(wanted.square().sum(), x)
    folded = FoldedUpsample(upsample)
    found = folded(x)
    (gradient,) = torch.autograd.grad(found.square().sum(), x)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient, wanted_gradient, rtol=1e-4, atol=1e-5)


def test_folded_weights_follow_their_kernel():
    """Loaded weights are folded anew; tuned ones are not folded."""
    upsample = Upsample(2).requires_grad_(False)
    upsample.forward = FoldedUpsample(upsample)
    x = torch.ones(1, 2, 16, 16)
    upsample(x)
    upsample.load_state_dict({"conv.weight": torch.zeros(2, 2, 3, 3), "conv.bias": torch.ones(2)})
    assert torch.equal(upsample(x), torch.ones(1, 2, 32, 32))
    upsample.requires_grad_(True)
    upsample(x).sum().backward()
    assert upsample.conv.weight.grad.any()


@pytest.mark.parametrize("layer", [torch.nn.Conv2d(3, 4, 3, stride=2, padding=1), torch.nn.Conv1d(3, 4, 1)])
def test_frozen_convolutions_pass_their_gradient_on(layer):
    """Of any stride and number of dimensions, as autograd's own convolution does."""
    layer.requires_grad_(False)
    x = torch.randn(2, 3, *(8,) * (layer.weight.ndim - 2), requires_grad=True)
    results = []
    for forward in (layer.forward, FrozenLayer(layer)):
        y = forward(x)
        results.append((y.detach(), torch.autograd.grad(y.square().sum(), x)[0]))
    torch.testing.assert_close(results[1], results[0])


def test_recomputed_functions_keep_their_input_alone():
    """Value and gradient of the function."""
    x = torch.tensor([0.5, -1.0], requires_grad=True)
    y = recomputed(lambda z: z.exp().sin(), x)
    y.sum().backward()
    torch.testing.assert_close(y, x.exp().sin())
    torch.testing.assert_close(x.grad, x.exp().cos() * x.exp())


def test_values_in_a_file_keep_value_and_layout():
    """Tensors of any dense layout, which can still be written to."""
    one, other = torch.randn(3, 4), torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    before = one.clone(), other.clone()
    move_to_file([one, other])
    assert torch.equal(one, before[0]) and torch.equal(other, before[1])
    assert other.is_contiguous(memory_format=torch.channels_last)
    one.zero_()
    assert not one.any() and torch.equal(other, before[1])


def test_mapped_weights_train_as_weights_in_memory(batch):
    """In bfloat16 the same gradients to the bit, and a state with the float32 values."""
    results = []
    for mapped in (False, True):
        module = LDMModule(build())
        wanted = {name: value.clone() for name, value in module.state_dict().items()}
        module.make_ready(mixed=True, mapped=mapped)
        with torch.autocast("cpu", torch.bfloat16):
            results.append(gradients(module, batch))
        assert all(torch.equal(value, wanted[name]) for name, value in module.state_dict().items())
    weight = module.ldm.unet.input_blocks[1][0].out_layers[3].weight
    assert not weight.untyped_storage().resizable()  # the values are those of the file
    assert results[0].keys() == results[1].keys()
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


def test_the_decoder_lies_in_the_file_while_training(module):
    """In float32 too; previews decode as before."""
    latent = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        wanted = module.ldm.autoencoder.decode(latent, quantize=False)
        module.make_ready(mixed=False, mapped=True)
        found = module.ldm.autoencoder.decode(latent, quantize=False)
    assert not module.ldm.autoencoder.decoder.conv_in.weight.untyped_storage().resizable()
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_mapped_weights_take_a_new_state(module):
    """A checkpoint loaded into the file is cast anew."""
    module.make_ready(mixed=True, mapped=True)
    layer = module.ldm.unet.input_blocks[0][0]
    state = {name: torch.zeros_like(value) for name, value in module.state_dict().items()}
    module.load_state_dict(state)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert not layer(torch.ones(1, 3, 8, 8)).any()


def test_without_room_the_weights_stay_in_memory(module, monkeypatch, caplog):
    """A warning names the folder, and training goes on."""

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mindvis.dc_ldm.mapped.tempfile.TemporaryFile", full)
    keep_casts(module)
    map_frozen(module)
    assert "No space left on device" in caplog.text
    assert module.ldm.unet.input_blocks[0][0].weight.untyped_storage().resizable()
    assert np.isfinite(module.ldm.unet.input_blocks[0][0].weight.numpy()).all()

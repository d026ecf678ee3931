"""Kernels attached for a CPU give what torch's own layers give, and leave a network's state as it was."""

import copy

import pytest
import torch
from timm.models.vision_transformer import Attention
from torch import nn

from mindvis.dc_ldm.attention import CrossAttention
from mindvis.training import on_cpu
from mindvis.training.on_cpu import OneDNNLinear, attach, has_onednn

needs_onednn = pytest.mark.skipif(not has_onednn(), reason="torch offers no oneDNN product on this processor")


@pytest.fixture
def draw():
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(*shape, generator=generator)


@pytest.fixture
def wide() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(512, 640)


def attached(layer: nn.Linear) -> nn.Linear:
    """A copy of the layer with the kernels for float32."""
    network = nn.Sequential(copy.deepcopy(layer))
    attach(network, mixed=False)
    return network[0]


def gradients(y, tensors, gradient):
    return torch.autograd.grad(y, tensors, gradient)


@needs_onednn
@pytest.mark.parametrize("bias", [True, False])
def test_wide_layer_and_its_gradients(draw, wide, bias):
    """Values and gradients of input, weight and bias are those of the layer, for inputs that are not contiguous too."""
    if not bias:
        wide.bias = None
    ours = attached(wide)
    x = draw(7, 3, 512).transpose(0, 1).requires_grad_()
    found, wanted, gradient = ours(x), wide(x), draw(3, 7, 640)
    assert type(ours) is OneDNNLinear and found.grad_fn.name().startswith("_Product")
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    found = gradients(found, [x, *ours.parameters()], gradient)
    for one, other in zip(found, gradients(wanted, [x, *wide.parameters()], gradient), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-4)


@needs_onednn
def test_frozen_weights_get_no_gradient(draw, wide):
    """The gradient goes through to the input alone."""
    layer = attached(wide.requires_grad_(False))
    x = draw(2, 512).requires_grad_()
    layer(x).sum().backward()
    torch.testing.assert_close(x.grad, layer.weight.sum(0).expand(2, -1), rtol=1e-4, atol=1e-4)
    assert layer.weight.grad is None


@needs_onednn
def test_no_rows(wide):
    """An empty batch gives an empty result, and no gradient."""
    layer = attached(wide)
    found = layer(torch.zeros(0, 3, 512))
    found.sum().backward()
    assert found.shape == (0, 3, 640) and not layer.weight.grad.any()


@needs_onednn
def test_names_and_values_of_the_state_stay(wide):
    """A state goes from an attached layer to another and back."""
    ours = attached(wide)
    assert list(ours.state_dict()) == list(wide.state_dict())
    wide.load_state_dict(ours.state_dict())
    assert torch.equal(copy.deepcopy(ours).weight, wide.weight)


def test_narrow_layers_stay(draw):
    """They are torch's own."""
    assert type(attached(nn.Linear(64, 512))) is nn.Linear


def test_other_types_are_computed_as_before(draw, wide):
    """In bfloat16, by type or by autocast, an attached layer is torch's own to the bit."""
    ours, x = attached(wide), draw(2, 512)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ours(x), wide(x))
    assert torch.equal(ours.bfloat16()(x.bfloat16()), wide.bfloat16()(x.bfloat16()))


def test_builds_without_onednn(wide, monkeypatch):
    """Layers stay torch's own where a build has no such product."""
    monkeypatch.setattr(on_cpu, "ONEDNN", None)
    assert type(attached(wide)) is nn.Linear


@pytest.mark.parametrize("layer", [Attention(32, num_heads=2), CrossAttention(32, num_heads=2)])
def test_attention_in_mixed_precision(draw, layer):
    """Two products and a softmax in place of the fused kernel; in float32 they agree."""
    x = draw(2, 9, 32)
    wanted = layer(x)
    attach(layer, mixed=False)
    assert layer.fused_attn
    attach(layer, mixed=True)
    assert not layer.fused_attn
    torch.testing.assert_close(layer(x), wanted, rtol=1e-5, atol=1e-6)

"""Products and attention of wide models on a CPU give what torch's own layers give."""

import pytest
import torch
from torch import nn

from mindvis.sc_mbm import attention, products
from mindvis.sc_mbm.attention import grouped_pays, self_attention
from mindvis.sc_mbm.products import affine, has_onednn, linear

needs_onednn = pytest.mark.skipif(
    not has_onednn(torch.float32), reason="torch offers no oneDNN product on this processor"
)


@pytest.fixture
def draw():
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(*shape, generator=generator)


@pytest.fixture
def wide(draw) -> nn.Linear:
    return nn.Linear(512, 640)


def gradients(y, tensors, gradient):
    return torch.autograd.grad(y, tensors, gradient)


def reference(qkv):
    """Softmax attention written out, in float64: [b n 3 heads c] -> [b n heads c]."""
    query, key, value = qkv.double().unbind(2)
    scores = torch.einsum("bngc,bmgc->bgnm", query, key) / qkv.shape[-1] ** 0.5
    return torch.einsum("bgnm,bmgc->bngc", scores.softmax(-1), value)


@needs_onednn
@pytest.mark.parametrize("bias", [True, False])
def test_wide_layer_and_its_gradients(draw, wide, bias):
    """Values and gradients of input, weight and bias are those of the layer, for inputs that are not contiguous too."""
    if not bias:
        wide.bias = None
    x = draw(7, 3, 512).transpose(0, 1).requires_grad_()
    tensors = [x, *wide.parameters()]
    found, wanted, gradient = linear(x, wide), wide(x), draw(3, 7, 640)
    assert found.grad_fn.name().startswith("_Linear")
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(gradients(found, tensors, gradient), gradients(wanted, tensors, gradient), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)


@needs_onednn
def test_frozen_weights_get_no_gradient(draw, wide):
    """The gradient goes through to the input alone."""
    wide.requires_grad_(False)
    x = draw(2, 512).requires_grad_()
    linear(x, wide).sum().backward()
    torch.testing.assert_close(x.grad, wide.weight.sum(0).expand(2, -1), rtol=1e-4, atol=1e-4)
    assert wide.weight.grad is None


def test_other_layers_stay_as_they_are(draw):
    """Narrow layers, and tuned ones in bfloat16 by type or by autocast, are torch's own to the bit."""
    for layer, dtype in ((nn.Linear(64, 512), torch.float32), (nn.Linear(512, 512), torch.bfloat16)):
        x = draw(2, layer.in_features).to(dtype)
        layer.to(dtype)
        assert torch.equal(linear(x, layer), layer(x))
    x, layer = draw(2, 512), nn.Linear(512, 512)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(linear(x, layer), layer(x))


@pytest.mark.skipif(not has_onednn(torch.bfloat16), reason="no oneDNN product in bfloat16 on this processor")
def test_frozen_layer_in_bfloat16(draw, wide):
    """The bias within the product: values and the gradient of a float32 input, within the precision of bfloat16."""
    x = draw(2, 5, 512).requires_grad_()
    weight, bias = (tensor.detach().bfloat16() for tensor in (wide.weight, wide.bias))
    found, wanted = affine(x, weight, bias), wide(x)
    assert found.dtype == torch.bfloat16 and found.grad_fn.name().startswith("_Linear")
    torch.testing.assert_close(found.float(), wanted, rtol=0.02, atol=0.02)
    (ours,), (theirs,) = gradients(found.sum(), x, None), gradients(wanted.sum(), x, None)
    torch.testing.assert_close(ours, theirs, rtol=0.02, atol=0.02)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)])
@pytest.mark.parametrize("cached", [1, 10**9])  # one sample at a time, all at once
def test_grouped_attention_and_its_gradient(draw, monkeypatch, dtype, tolerance, cached):
    """As written out in float64, whatever the groups; queries, keys and values are left as they were."""
    monkeypatch.setattr(attention, "CACHED", cached)
    qkv = draw(3, 9, 3, 4, 128).to(dtype).requires_grad_()
    before, gradient = qkv.detach().clone(), draw(3, 9, 4, 128).to(dtype)
    assert grouped_pays(qkv)
    found, wanted = self_attention(qkv), reference(qkv)
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=tolerance)
    (ours,), (theirs,) = gradients(found, qkv, gradient), gradients(wanted, qkv, gradient.double())
    torch.testing.assert_close(ours, theirs, rtol=0, atol=3 * tolerance)
    assert torch.equal(qkv, before)


@pytest.mark.parametrize(("tokens", "width"), [(9, 16), (100, 512), (100, 16)])
def test_attention_by_the_other_ways(draw, monkeypatch, tokens, width):
    """Narrow models, and long sequences in float32, give the same without groups."""
    qkv = draw(2, tokens, 3, 4, width // 4)
    assert not grouped_pays(qkv)
    torch.testing.assert_close(self_attention(qkv).double(), reference(qkv), rtol=0, atol=1e-5)
    monkeypatch.setattr(attention, "fused_pays", lambda *_: False)
    monkeypatch.setattr(attention, "grouped_pays", lambda *_: False)
    torch.testing.assert_close(self_attention(qkv).double(), reference(qkv), rtol=0, atol=1e-5)


def test_one_token_of_one_sample(draw):
    """Attention to itself alone is the value; the input is not scaled in place."""
    qkv = draw(1, 1, 3, 4, 128)
    before = qkv.clone()
    torch.testing.assert_close(self_attention(qkv), qkv[:, :, 2])
    assert torch.equal(qkv, before)


def test_products_without_onednn(draw, wide, monkeypatch):
    """Builds of torch without it take the layer."""
    monkeypatch.setattr(products, "ONEDNN", None)
    x = draw(2, 512)
    assert torch.equal(linear(x, wide), wide(x))


def test_no_rows(wide):
    """An empty batch gives an empty result, and no gradient."""
    found = linear(torch.zeros(0, 3, 512), wide)
    found.sum().backward()
    assert found.shape == (0, 3, 640) and not wide.weight.grad.any()

"""Spatial transformers: the fused attention is the one that is written out, and each norm has its eps."""

import math

import torch

from mindvis.dc_ldm.attention import GEGLU, CrossAttention, SpatialTransformer


def attention_by_loops(module: CrossAttention, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
    """One head and one query at a time."""
    query, key, value = module.to_q(x), module.to_k(context), module.to_v(context)
    width = x.shape[-1] // module.num_heads
    out = torch.zeros_like(x)
    for head in range(module.num_heads):
        part = slice(head * width, (head + 1) * width)
        for b in range(len(x)):
            for n in range(x.shape[1]):
                weights = (key[b, :, part] @ query[b, n, part] / math.sqrt(width)).softmax(dim=0)
                out[b, n, part] = weights @ value[b, :, part]
    return module.to_out(out)


def test_cross_attention_is_softmax_attention_per_head():
    """Two heads over a context of another width agree with the written-out loops."""
    torch.manual_seed(0)
    module = CrossAttention(8, context_dim=6, num_heads=2)
    x, context = torch.randn(2, 5, 8), torch.randn(2, 3, 6)
    out = module(x, module.keys_values(context))
    torch.testing.assert_close(out, attention_by_loops(module, x, context), atol=1e-6, rtol=0)


def test_without_context_attention_is_to_itself():
    """No context: keys and values come from x."""
    torch.manual_seed(0)
    module = CrossAttention(8, num_heads=2)
    x = torch.randn(2, 5, 8)
    torch.testing.assert_close(module(x), attention_by_loops(module, x, x), atol=1e-6, rtol=0)


def test_geglu_gates_the_first_half_by_the_second():
    """The second half of the projection goes through the GELU."""
    layer = GEGLU(1, 1)
    layer.load_state_dict({"proj.weight": torch.tensor([[2.0], [1.0]]), "proj.bias": torch.zeros(2)})
    expected = 6.0 * 3.0 * 0.5 * (1 + math.erf(3.0 / math.sqrt(2)))
    assert abs(layer(torch.tensor([[3.0]])).item() - expected) < 1e-5


def test_group_norm_before_a_transformer_uses_1e_6():
    """Small activations tell 1e-6 from the 1e-5 of residual blocks."""
    torch.manual_seed(0)
    module = SpatialTransformer(32, context_dim=4)
    x = 1e-3 * torch.randn(1, 32, 4, 4)
    variance = x.var(dim=(2, 3), unbiased=False, keepdim=True)  # one channel a group
    expected = (x - x.mean(dim=(2, 3), keepdim=True)) / (variance + 1e-6).sqrt()
    torch.testing.assert_close(module.norm(x), expected, atol=1e-5, rtol=0)


def test_a_new_spatial_transformer_is_the_identity():
    """Its last layer starts at 0."""
    module = SpatialTransformer(32, context_dim=4, num_heads=2)
    x = torch.randn(2, 32, 4, 4)
    assert torch.equal(module(x, module.keys_values(torch.randn(2, 3, 4))), x)


def test_one_token_gives_queries_and_keys_no_gradient():
    """A softmax over one token is 1 whatever the query: the gradient is 0, not round-off, and not absent."""
    torch.manual_seed(0)
    module = CrossAttention(8, context_dim=6, num_heads=2)
    x, context = torch.randn(2, 5, 8), torch.randn(2, 1, 6)
    out = module(x, module.keys_values(context))
    torch.testing.assert_close(out, module.to_out(module.to_v(context)).expand(-1, 5, -1), atol=1e-6, rtol=0)
    out.square().sum().backward()
    assert module.to_q.weight.grad.count_nonzero() == module.to_k.weight.grad.count_nonzero() == 0
    assert module.to_v.weight.grad.count_nonzero() > 0

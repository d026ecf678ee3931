"""Self-attention of Stage A: by the fused kernel of the device, or as two products and a softmax between them."""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from mindvis.sc_mbm.products import WIDE, compute_dtype

LARGE_PRODUCT = 4096**2  # queries x keys whose weights are better not held in memory
SMALL_PRODUCT = 8192  # queries x keys up to which a CPU is faster without its fused kernel
CACHED = 2**21  # attention weights that the caches of a CPU hold


def fused_pays(x: Tensor, num_queries: int, num_keys: int) -> bool:
    """Whether the fused kernel is the faster one for the device of `x` and the type attention is computed in.

    In bfloat16 on the CPU it is not: its backward pass takes two to four times as long.
    """
    if x.device.type != "cpu":
        return True
    return compute_dtype(x) == torch.float32 or num_queries * num_keys > LARGE_PRODUCT


def self_attention(qkv: Tensor) -> Tensor:
    """Softmax attention: queries, keys and values of every head [b n 3 heads c] -> [b n heads c]."""
    if grouped_pays(qkv):
        return _GroupedAttention.apply(qkv)
    query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # [b heads n c] each
    if fused_pays(qkv, qkv.shape[1], qkv.shape[1]):
        return F.scaled_dot_product_attention(query, key, value).transpose(1, 2)
    weights = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)  # [b heads n n]
    return (weights.softmax(dim=-1) @ value).transpose(1, 2)


def grouped_pays(qkv: Tensor) -> bool:
    """Whether attention group by group is the fastest: for wide models on a CPU, where the fused kernel is not."""
    num_tokens, _, num_heads, head_dim = qkv.shape[1:]
    if qkv.device.type != "cpu" or num_heads * head_dim < WIDE or torch.compiler.is_compiling():
        return False
    return num_tokens**2 <= SMALL_PRODUCT or not fused_pays(qkv, num_tokens, num_tokens)


class _GroupedAttention(torch.autograd.Function):
    """Products and softmax over as many samples at a time as the caches hold, without copies between them."""

    @staticmethod
    def forward(ctx, qkv: Tensor) -> Tensor:
        b, n, _, heads, c = qkv.shape
        packed = qkv.new_empty(3, b, heads, n, c, dtype=compute_dtype(qkv)).copy_(qkv.permute(2, 0, 3, 1, 4))
        query, key, value = packed.view(3, b * heads, n, c)
        query *= c**-0.5
        weights, attended = query.new_empty(b * heads, n, n), torch.empty_like(query)
        for part in _groups(b, heads, n):
            torch.softmax(query[part] @ key[part].transpose(1, 2), dim=-1, out=weights[part])
            torch.bmm(weights[part], value[part], out=attended[part])
        ctx.save_for_backward(packed, weights)
        ctx.dtype = qkv.dtype
        return attended.view(b, heads, n, c).transpose(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> Tensor:
        packed, weights = ctx.saved_tensors
        _, b, heads, n, c = packed.shape
        query, key, value = packed.view(3, b * heads, n, c)
        gradient = gradient.transpose(1, 2).reshape(b * heads, n, c)
        of_packed = torch.empty_like(packed)
        of_query, of_key, of_value = of_packed.view(3, b * heads, n, c)
        for part in _groups(b, heads, n):
            torch.bmm(weights[part].transpose(1, 2), gradient[part], out=of_value[part])
            of_weights = gradient[part] @ value[part].transpose(1, 2)
            of_scores = torch.ops.aten._softmax_backward_data(of_weights, weights[part], -1, weights.dtype)
            torch.bmm(of_scores, key[part], out=of_query[part])
            torch.bmm(of_scores.transpose(1, 2), query[part], out=of_key[part])
        of_query *= c**-0.5
        return of_packed.permute(1, 3, 0, 2, 4).to(ctx.dtype).contiguous()


def _groups(num_samples: int, num_heads: int, num_tokens: int) -> list[slice]:
    """Rows of [b*heads ...] whose attention weights the caches hold together, at least those of one sample."""
    samples = max(1, CACHED // (num_heads * num_tokens**2))
    starts = range(0, num_samples, samples)
    return [slice(start * num_heads, (start + samples) * num_heads) for start in starts]

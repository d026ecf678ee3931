"""Kernels by which a network runs faster on a CPU, attached from outside: no model knows them, states stay as they are.

On x86 torch hands float32 products to MKL and convolutions to oneDNN, whose products are the faster ones on AMD
processors. In bfloat16 its fused attention computes in float32 after all, and takes three times as long as two products
with a softmax between them.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

WIDE = 384  # features in and out from which the choice of the kernel counts
# torch has no public name for it; where a build lacks it, layers stay torch's own
ONEDNN: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None


def attach(network: nn.Module, *, mixed: bool) -> None:
    """Give a network that runs on a CPU, not compiled, the faster kernels for float32 or for `mixed` precision.

    Parameters and their names stay. On a GPU, or once compiled, the layers compute as torch's own.
    """
    if mixed:
        split_attention(network)
    elif has_onednn():
        for module in network.modules():
            if type(module) is nn.Linear and min(module.weight.shape) >= WIDE:
                module.__class__ = OneDNNLinear


def split_attention(network: nn.Module) -> None:
    """Let every attention below `network`, ours or timm's, be two products with a softmax between them."""
    for module in network.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False  # type: ignore[assignment]


def has_onednn() -> bool:
    """Whether this build of torch offers the product of oneDNN, and the processor is one on which it pays."""
    return ONEDNN is not None and torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [n in], weight [out in] and bias [out] -> [n out], by oneDNN."""
    return ONEDNN(x, weight, bias, "none", [], "")


class OneDNNLinear(nn.Linear):
    """Linear layer [... in] -> [... out] whose float32 products on a CPU are oneDNN's."""

    def forward(self, x: Tensor) -> Tensor:
        as_it_is = x.dtype == self.weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        if x.device.type != "cpu" or not as_it_is or torch.compiler.is_compiling():
            return super().forward(x)
        return _Product.apply(x, self.weight, self.bias)


class _Product(torch.autograd.Function):
    """oneDNN's product as a step of autograd, which it is not by itself: x [... in], weight [out in], bias [out]."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])  # [n in]
        ctx.save_for_backward(rows if ctx.needs_input_grad[1] else None, weight)
        ctx.shape = x.shape
        return product(rows, weight, bias).view(*x.shape[:-1], len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight = ctx.saved_tensors
        gradient = gradient.reshape(-1, gradient.shape[-1])  # [n out]
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            product(gradient, weight.t()).view(ctx.shape) if of_x else None,
            gradient.t() @ rows if of_weight else None,  # a sum over rows, which torch's own does as fast
            gradient.sum(0) if of_bias else None,
        )

"""Products of wide linear layers on a CPU, by the kernel that is the fastest there.

torch hands float32 products on x86 to MKL and convolutions to oneDNN, whose products are the faster ones too: by a
quarter at the sizes of Stage A on AMD processors. In bfloat16 all come from oneDNN, but a bias costs passes of its own
over the result, which are spared where it is added within the product.
"""

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

WIDE = 384  # features in and out from which the choice of the kernel counts
# torch has no public name for it; where a build lacks it, layers stay torch's own
ONEDNN = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None


def linear(x: Tensor, layer: nn.Linear) -> Tensor:
    """What `layer` gives, to round-off: [... in] -> [... out]. In float32 by oneDNN, where that pays."""
    if compute_dtype(x) == layer.weight.dtype == torch.float32 and onednn_pays(layer.weight):
        return _Linear.apply(x, layer.weight, layer.bias)
    return layer(x)


def affine(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A linear layer in the type of its weight [out in]: x [... in] and bias [out] -> [... out]."""
    if bias is not None and onednn_pays(weight):
        return _Linear.apply(x.to(weight.dtype), weight, bias)
    return F.linear(x, weight, bias)


def onednn_pays(weight: Tensor) -> bool:
    """Whether a product with `weight` is to be taken from oneDNN: on x86 and for wide layers."""
    if weight.device.type != "cpu" or min(weight.shape) < WIDE or torch.compiler.is_compiling():
        return False
    return has_onednn(weight.dtype)


def has_onednn(dtype: torch.dtype) -> bool:
    """Whether this build of torch offers the product of oneDNN, and an x86 processor has it in a type."""
    if ONEDNN is None or torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def compute_dtype(x: Tensor) -> torch.dtype:
    """Type in which autocast, or x itself, has products computed."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [n in], weight [out in] and bias [out] -> [n out], by oneDNN."""
    return ONEDNN(x, weight, bias, "none", [], "")


class _Linear(torch.autograd.Function):
    """Linear layer whose tensors have one type: x [... in], weight [out in], bias [out] -> [... out]."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])  # [n in]
        # a frozen weight needs no input backwards
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

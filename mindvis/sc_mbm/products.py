"""Products of wide linear layers in float32 on a CPU, by the kernel that is the fastest there.

torch hands float32 products on x86 to MKL and convolutions to oneDNN, whose products are the faster ones too: by a
quarter at the sizes of Stage A on AMD processors. In bfloat16 all come from oneDNN as it is.
"""

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

WIDE = 384  # features in and out from which the choice of the kernel counts
ONEDNN = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None


def linear(x: Tensor, layer: nn.Linear) -> Tensor:
    """What `layer` gives, to round-off: [... in] -> [... out]."""
    if not onednn_pays(x, layer):
        return layer(x)
    return _Linear.apply(x, layer.weight, layer.bias)


def onednn_pays(x: Tensor, layer: nn.Linear) -> bool:
    """Whether `linear` takes the kernel of oneDNN: in float32, on x86 and for wide layers."""
    if x.device.type != "cpu" or min(layer.in_features, layer.out_features) < WIDE or torch.compiler.is_compiling():
        return False
    return has_onednn() and compute_dtype(x) == layer.weight.dtype == torch.float32


def has_onednn() -> bool:
    """Whether this build of torch offers the product of oneDNN, and the processor is an x86 one."""
    return ONEDNN is not None and torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")


def compute_dtype(x: Tensor) -> torch.dtype:
    """Type in which autocast, or x itself, has products computed."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [n in], weight [out in] and bias [out] -> [n out], by oneDNN."""
    return ONEDNN(x, weight, bias, "none", [], "")


class _Linear(torch.autograd.Function):
    """Linear layer in float32: x [... in], weight [out in], bias [out] -> [... out]."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])  # [n in]
        # a frozen weight needs no input backwards
        ctx.save_for_backward(rows if ctx.needs_input_grad[1] else None, weight)
        ctx.shape = x.shape
        return product(rows, weight, bias).view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight = ctx.saved_tensors
        gradient = gradient.reshape(-1, gradient.shape[-1])  # [n out]
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            product(gradient, weight.t()).view(ctx.shape) if of_x else None,
            gradient.t() @ rows if of_weight else None,  # a sum over rows, which MKL does as fast
            gradient.sum(0) if of_bias else None,
        )

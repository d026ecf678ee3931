"""Forward passes for layers with frozen weights: what the weights alone decide is done once, and inputs are not kept.

Each object takes the place of a layer's `forward`. It gives the results of the layer, which it leaves to itself while
its weights are tuned, and adds nothing to its state.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mindvis.dc_ldm.attention import GEGLU
from mindvis.dc_ldm.layers import Upsample
from mindvis.sc_mbm.products import affine, linear

Layer = nn.Linear | nn.Conv1d | nn.Conv2d
SMALL_MAP = 256  # pixels below which the folded kernel of an upsampling, twice as large, is not faster
DOUBLING = ((2, 2), (1, 1), (1, 1), True, (0, 0), 1)  # transposed convolution of 4 x 4 to twice height and width


class FrozenLayer:
    """Linear layer or convolution whose frozen weight and bias are cast once, and whose input is not kept."""

    def __init__(self, layer: Layer):
        self.layer = layer
        self.source: tuple | None = None
        self.kept: tuple[Tensor, Tensor | None] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        if is_tuned(self.layer):
            return type(self.layer).forward(self.layer, x)
        weight, bias = self.weights(x.device.type)
        if isinstance(self.layer, nn.Linear):
            return affine(x, weight, bias)
        layer = self.layer
        options = (layer.stride, layer.padding, layer.dilation, False, (0,) * len(layer.stride), layer.groups)
        return convolve(x, weight, bias, options)

    @torch.no_grad()
    def weights(self, device: str) -> tuple[Tensor, Tensor | None]:
        """Weight and bias as the layer uses them on a device: in the type of autocast where that is on."""
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.layer.weight.dtype
        source = (dtype, self._places())
        if source != self.source:
            made = [tensor.to(dtype) for tensor in self.make(*self._parameters())]
            self.source, self.kept = source, (made[0], made[1] if len(made) > 1 else None)
        return self.kept

    def follow(self) -> None:
        """Take it that the weights have been moved and have the values they had."""
        if self.source is not None:
            self.source = (self.source[0], self._places())

    def make(self, *parameters: Tensor) -> tuple[Tensor, ...]:
        """What to cast and keep in the place of weight and bias."""
        return parameters

    def _parameters(self) -> list[Tensor]:
        return [p for p in (self.layer.weight, self.layer.bias) if p is not None]

    def _places(self) -> list[tuple[int, int]]:
        """What changes when another weight, or another value of it, is to be used."""
        return [(p.data_ptr(), p._version) for p in self._parameters()]


class FoldedUpsample(FrozenLayer):
    """Doubling of the pixels and the 3 x 3 convolution after it as one transposed convolution of 4 x 4.

    Of the nine weights those that meet the same pixel are added once for all: four products a pixel in the place of
    nine.
    """

    def __init__(self, upsample: Upsample):
        super().__init__(upsample.conv)
        self.upsample = upsample

    def __call__(self, x: Tensor) -> Tensor:
        """[b c h w] -> [b c 2h 2w]."""
        if is_tuned(self.layer) or x.shape[-2] * x.shape[-1] < SMALL_MAP:
            return Upsample.forward(self.upsample, x)
        return convolve(x, *self.weights(x.device.type), DOUBLING)

    def make(self, *parameters: Tensor) -> tuple[Tensor, ...]:
        weight, *bias = parameters  # [o i 3 3]
        flipped = weight.flip(2, 3).transpose(0, 1)  # a transposed convolution runs its kernel the other way
        folded = flipped.new_zeros(*flipped.shape[:2], 4, 4)
        for row in (0, 1):
            for column in (0, 1):
                folded[:, :, row : row + 3, column : column + 3] += flipped
        return folded.contiguous(memory_format=torch.channels_last), *bias


class RecomputedActivation:
    """Branch of a residual block whose norm and SiLU, cheap beside the convolution, are computed again backwards."""

    def __init__(self, branch: nn.Sequential):
        self.branch = branch

    def __call__(self, x: Tensor) -> Tensor:
        norm, activation, *rest = self.branch
        x = recomputed(lambda y: activation(norm(y)), x)
        for layer in rest:
            x = layer(x)
        return x


class RecomputedGate:
    """Gated linear unit that keeps its projection alone."""

    def __init__(self, unit: GEGLU):
        self.unit = unit

    def __call__(self, x: Tensor) -> Tensor:
        return recomputed(self.unit.gate, linear(x, self.unit.proj))


def is_tuned(layer: Layer) -> bool:
    """Whether a backward pass will ask for the gradient of a layer's weight."""
    return layer.weight.requires_grad and torch.is_grad_enabled()


def recomputed(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """function(x), of which the backward pass keeps x alone."""
    if not (torch.is_grad_enabled() and x.requires_grad):
        return function(x)
    return checkpoint(function, x, use_reentrant=False, preserve_rng_state=False)


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, options: tuple) -> Tensor:
    """Convolution by a frozen weight; `options` as torch.convolution takes them, from the stride on."""
    x = x.to(weight.dtype)
    if not (torch.is_grad_enabled() and x.requires_grad):
        return torch.convolution(x, weight, bias, *options)
    return _Convolution.apply(x, weight, bias, options)


class _Convolution(torch.autograd.Function):
    """Convolution by a weight without gradient; autograd's own keeps the input, which nothing then asks for."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None, options: tuple) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.options, ctx.empty_like = options, (x.shape, x.stride(), x.dtype, x.device)
        return torch.convolution(x, weight, bias, *options)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (weight,) = ctx.saved_tensors
        shape, stride, dtype, device = ctx.empty_like
        unread = torch.empty_strided(shape, stride, dtype=dtype, device=device)  # shape and layout are looked at alone
        wanted = (True, False, False)
        found = torch.ops.aten.convolution_backward(gradient, unread, weight, None, *ctx.options, wanted)
        return found[0], None, None, None

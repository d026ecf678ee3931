"""Layout, casts and forms of weights by which the same results take less time and memory.

Autocast casts a weight whenever a layer runs, and remembers the result only for weights that get a gradient, until the
context ends. The frozen weights of the UNet and of the autoencoder are most of the model, and never change.
"""

import torch
from torch import nn

from mindvis.dc_ldm.attention import GEGLU
from mindvis.dc_ldm.blocks import ResidualBlock
from mindvis.dc_ldm.frozen import FoldedUpsample, FrozenLayer, RecomputedActivation, RecomputedGate
from mindvis.dc_ldm.layers import Upsample
from mindvis.dc_ldm.mapped import map_frozen
from mindvis.dc_ldm.model import LatentDiffusion

KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d)
WIDE = 128  # channels from which layout and memory count; group norms of narrow maps with channels last are slow


def make_fast(ldm: LatentDiffusion, *, mixed: bool, mapped: bool) -> None:
    """All of it: layout, forms of frozen weights and, in `mixed` precision, their kept casts.

    With `mapped` (CPU) what a wide model's weights were cast from lies in a file. Without `ldm.frozen_forms` it is the
    layout alone.
    """
    channels_last(ldm)
    if not ldm.frozen_forms:
        return
    use_frozen(ldm)
    if mixed:
        keep_casts(ldm)
    if mixed and mapped and is_wide(ldm):
        map_frozen(ldm)


def is_wide(ldm: LatentDiffusion) -> bool:
    """Whether the UNet is as wide as published ones, rather than a small one as the demo's."""
    return ldm.unet.model_channels >= WIDE


def channels_last(ldm: LatentDiffusion) -> None:
    """Keep the channels of a wide model last in memory, which spares its convolutions a copy."""
    if is_wide(ldm):
        ldm.unet.to(memory_format=torch.channels_last)
        ldm.autoencoder.to(memory_format=torch.channels_last)


def keep_casts(module: nn.Module) -> None:
    """Let the linear layers and convolutions below `module` keep the casts of frozen weights; results stay the same.

    The copies are no part of the state; they take half the memory of the float32 weights, from the first call on.
    """
    for layer in module.modules():
        if isinstance(layer, KINDS):
            _replace(layer, FrozenLayer)


def use_frozen(ldm: LatentDiffusion) -> None:
    """Let the frozen convolutions of a wide model keep less for the backward pass, and its upsampling compute less."""
    for layer in ldm.modules() if is_wide(ldm) else ():
        if isinstance(layer, Upsample):
            _replace(layer, FoldedUpsample)
        elif isinstance(layer, nn.Conv2d):
            _replace(layer, FrozenLayer)
        elif isinstance(layer, GEGLU):
            _replace(layer, RecomputedGate)
        elif isinstance(layer, ResidualBlock):
            _replace(layer.in_layers, RecomputedActivation)
            _replace(layer.out_layers, RecomputedActivation)


def _replace(layer: nn.Module, forward: type) -> None:
    if not isinstance(layer.forward, forward):
        layer.forward = forward(layer)

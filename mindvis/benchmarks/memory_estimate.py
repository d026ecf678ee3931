"""Memory of a training step at the published sizes: traced without computing anything, or measured on a CPU."""

import multiprocessing
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode  # torch's only shape-and-dtype tracer that picks the real kernels
from torch.nn import functional as F

from mindvis.checkpoints import find_ldm, read_label2img_config
from mindvis.dc_ldm import build_ldm
from mindvis.dc_ldm.precision import cast_frozen
from mindvis.sc_mbm import FMRIEncoder, MaskedBrainModel

GB = 1e9
NUM_VOXELS = 4656
# class-conditional ImageNet LDM-4, what the published config.yaml says
UNET: dict[str, Any] = {
    "image_size": 64,
    "in_channels": 3,
    "out_channels": 3,
    "model_channels": 192,
    "num_res_blocks": 2,
    "attention_resolutions": [8, 4, 2],
    "channel_mult": [1, 2, 3, 5],
    "num_heads": 1,
    "context_dim": 512,
    "use_spatial_transformer": True,
    "transformer_depth": 1,
}
SHAPE: dict[str, Any] = {
    "double_z": False,
    "z_channels": 3,
    "resolution": 256,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 128,
    "ch_mult": [1, 2, 4],
    "num_res_blocks": 2,
    "attn_resolutions": [],
    "dropout": 0.0,
}
LABEL2IMG = {
    "linear_start": 0.0015,
    "linear_end": 0.0195,
    "timesteps": 1000,
    "unet_config": {"params": UNET},
    "first_stage_config": {"params": {"embed_dim": 3, "n_embed": 8192, "ddconfig": SHAPE}},
}


class StageA(nn.Module):
    """The published masked brain model and the loss of a random batch."""

    def __init__(self):
        super().__init__()
        self.network = MaskedBrainModel(num_voxels=NUM_VOXELS)

    def forward(self, batch_size: int) -> Tensor:
        noise = torch.rand(batch_size, self.network.num_patches)
        return self.network(torch.randn(batch_size, 1, NUM_VOXELS), 0.75, noise).loss

    def enable_activation_checkpointing(self) -> None:
        self.network.use_checkpoint = True


class StageB(nn.Module):
    """A diffusion model, by default the published one, with what is tuned, and the loss of a batch of latents."""

    def __init__(self, ldm_config: dict | None = None):
        super().__init__()
        self.ldm = build_ldm(ldm_config or {"model": {"params": LABEL2IMG}}, FMRIEncoder(num_voxels=NUM_VOXELS))

    def forward(self, batch_size: int) -> Tensor:
        latent, eps = torch.randn(2, batch_size, *self.ldm.latent_shape)
        context = self.ldm.conditioner(torch.randn(batch_size, 1, NUM_VOXELS))
        return self.ldm.loss(latent, context, torch.randint(1000, (batch_size,)), eps)

    def enable_activation_checkpointing(self) -> None:
        self.ldm.conditioner.encoder.use_checkpoint = True
        self.ldm.unet.use_checkpoint = True


def stage_model(stage: str, ldm_config: dict | None = None) -> StageA | StageB:
    """The network of stage `A` or `B` with its loss; `ldm_config` None is the published one."""
    return StageA() if stage == "A" else StageB(ldm_config)


def config_of(ldm: str | None) -> dict | None:
    """The config of the model that `ldm` names, as for finetune_ldm; None where it names none."""
    return read_label2img_config(find_ldm(ldm)) if ldm else None


@dataclass(frozen=True)
class Estimate:
    """Bytes of a training step: weights, gradients and AdamW moments of what is tuned, activations kept."""

    num_parameters: int
    num_tuned: int
    weights: int
    gradients: int
    moments: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.moments + self.activations


def estimate(
    stage: str,
    batch_size: int,
    *,
    precision: str = "32-true",
    checkpointing: bool = False,
    ldm: str | None = None,
) -> Estimate:
    """Memory of one step of a stage (`A` or `B`) with the published or another `ldm`, on one GPU; none is needed.

    Gradients, moments and the weights of what is tuned are float32 in every precision; frozen weights of products are
    bfloat16 in bf16-mixed. What a kernel needs while it runs, and with checkpointing the inside of one block, come on
    top.
    """
    ldm_config = config_of(ldm)
    with FakeTensorMode(), torch.device("cuda"):
        model = stage_model(stage, ldm_config)
        _bring_over(model)
        if checkpointing:
            model.enable_activation_checkpointing()
        if precision == "bf16-mixed":
            cast_frozen(model)
        activations = _kept_bytes(model, batch_size, precision)
        parameters = list(model.parameters())
    num_tuned = sum(p.numel() for p in parameters if p.requires_grad)
    return Estimate(
        num_parameters=sum(p.numel() for p in parameters),
        num_tuned=num_tuned,
        weights=sum(p.nbytes for p in parameters),
        gradients=4 * num_tuned,
        moments=8 * num_tuned,
        activations=activations,
    )


def _kept_bytes(model: nn.Module, batch_size: int, precision: str) -> int:
    """Bytes of the storages that the forward pass keeps for the backward pass, weights left out, each once."""
    weights = {p.untyped_storage()._cdata for p in model.parameters()}
    kept: dict[int, tuple[int, Any]] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = (storage.nbytes(), storage)
        return tensor

    fused = patch.object(F, "scaled_dot_product_attention", lambda q, k, v, *_, **__: FusedAttention.apply(q, k, v))
    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with hooks, fused, _autocast(enabled=precision == "bf16-mixed"):
        loss = model(batch_size)
    del loss
    return sum(size for key, (size, _) in kept.items() if key not in weights)


def _bring_over(model: nn.Module) -> None:
    """To the GPU what was computed on the CPU: positions, the noise schedule. `Module.to` takes no traced tensors."""
    for module in model.modules():
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, buffer.to("cuda"))
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.device.type == "cpu":
                setattr(module, name, nn.Parameter(parameter.detach().to("cuda"), parameter.requires_grad))


class FusedAttention(torch.autograd.Function):
    """What fused kernels keep of attention: queries, keys, values, result, a logarithm a query. It computes nothing.

    A tracer without a GPU would take the products and the softmax, whose weights no GPU keeps.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        result = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, result, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        raise NotImplementedError


@contextmanager
def _autocast(*, enabled: bool) -> Iterator[None]:
    """Autocast of a GPU on a machine without one, where `torch.autocast` turns itself off."""
    before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", enabled)
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    torch.autocast_increment_nesting()
    try:
        yield
    finally:
        if torch.autocast_decrement_nesting() == 0:
            torch.clear_autocast_cache()
        torch.set_autocast_enabled("cuda", before[0])
        torch.set_autocast_dtype("cuda", before[1])


def measure(stage: str, batch_size: int, *, checkpointing: bool = False, ldm: str | None = None) -> int:
    """Peak resident bytes of two float32 optimiser steps on the CPU above what torch itself takes."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_peak_of_two_steps, (stage, batch_size, checkpointing, ldm))


def _peak_of_two_steps(stage: str, batch_size: int, checkpointing: bool, ldm: str | None) -> int:
    before = _peak_bytes()
    model = stage_model(stage, config_of(ldm))
    if checkpointing:
        model.enable_activation_checkpointing()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-6, fused=True)
    for _ in range(2):
        optimizer.zero_grad()
        model(batch_size).backward()
        optimizer.step()
    return _peak_bytes() - before


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

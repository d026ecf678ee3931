"""Training steps of both stages as works: forward, backward, clipping and optimiser, without a trainer around them."""

from collections.abc import Callable

import torch
from torch import Tensor

from mindvis.benchmarks import plain
from mindvis.benchmarks.models import build_diffusion, seeded_rows
from mindvis.benchmarks.work import Variant, Work
from mindvis.config.tools import BenchmarkConfig
from mindvis.dc_ldm.module import LDMModule
from mindvis.sc_mbm import MaskedBrainModel, MBMModule
from mindvis.training.optim import adamw, decay_groups

CLIP = {"stage_a": 0.8, "stage_b": 0.5}


def stage_a(config: BenchmarkConfig, variant: Variant) -> Work:
    """One optimiser step of Stage A, with the correlation that a training step logs."""
    torch.manual_seed(config.seed)
    build = plain.CopyingModel if variant.plain else MaskedBrainModel
    network = build(num_voxels=config.num_voxels, **vars(config.model))
    module = MBMModule(network).to(config.device)
    batch = seeded_rows(config, config.stage_a_batch)
    optimizer = _optimizer(decay_groups(network, module.weight_decay), variant, lr=module.lr, betas=module.betas)

    def loss() -> Tensor:
        out = module(batch)
        if variant.plain:
            plain.correlation(batch["fmri"][:, 0], network.unpatchify(out.reconstruction))
        else:
            module.correlation(batch["fmri"], out)
        return out.loss

    def step() -> None:
        _optimise(loss, optimizer, CLIP["stage_a"], config.device, variant.precision)

    name = f"Stage A step, {config.num_voxels} voxels, batch {config.stage_a_batch}"
    return Work(name, step, config.stage_a_batch, "rows")


def stage_b(config: BenchmarkConfig, variant: Variant) -> Work:
    """Two optimiser steps of Stage B, with cropped images and with whole ones: the mean of the default augmentation.

    The plain version encodes both; ours takes the kept latents of the whole ones, and with `crops_per_image` those of
    the cropped ones too.
    """
    ldm = build_diffusion(config)
    module = LDMModule(ldm).to(config.device)
    if variant.plain:
        plain.with_all_gradients(ldm)
    else:
        module.make_ready(mixed=variant.precision != "32-true", mapped=config.device == "cpu")
    tuned = list(ldm.trainable_parameters().values())
    groups = [{"params": tuned, "weight_decay": module.weight_decay}]
    optimizer = _optimizer(groups, variant, lr=module.lr, betas=(0.9, 0.999))
    batches = _pair_batches(config, ldm.latent_shape, plain_way=variant.plain)

    def steps() -> None:
        for batch in batches:
            _optimise(
                lambda batch=batch: module.loss(batch), optimizer, CLIP["stage_b"], config.device, variant.precision
            )
            ldm.zero_grad()

    name = f"Stage B step, {config.num_voxels} voxels, latents of {ldm.latent_shape[-1]}, batch {config.stage_b_batch}"
    return Work(name, steps, config.stage_b_batch, "pairs", scale=1 / len(batches))


def _pair_batches(config: BenchmarkConfig, latent_shape: tuple, *, plain_way: bool) -> list[dict[str, Tensor]]:
    """A batch whose images are all cropped and one whose images are whole."""
    size = 4 * latent_shape[-1]
    batches = []
    for cropped in (True, False):
        batch = seeded_rows(config, config.stage_b_batch)
        batch["image"] = torch.rand(config.stage_b_batch, 3, size, size, device=config.device) * 2 - 1
        if not plain_way:
            batch["latent"] = torch.randn(config.stage_b_batch, *latent_shape, device=config.device)
            encoded = cropped and not config.crops_per_image
            batch["cropped"] = torch.full((config.stage_b_batch,), encoded, device=config.device)
        batches.append(batch)
    return batches


def _optimizer(groups: list[dict], variant: Variant, **options: object) -> torch.optim.Optimizer:
    return plain.adamw(groups, **options) if variant.plain else adamw(groups, **options)


def _optimise(
    loss_of: Callable[[], Tensor], optimizer: torch.optim.Optimizer, clip: float, device: str, precision: str
) -> None:
    with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16-mixed"):
        loss = loss_of()
    loss.backward()
    tuned = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    torch.nn.utils.clip_grad_norm_(tuned, clip)
    optimizer.step()
    optimizer.zero_grad()

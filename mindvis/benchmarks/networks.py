"""Training steps and sampling as works, with networks of any size, random weights and random inputs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from mindvis.benchmarks import plain
from mindvis.benchmarks.memory_estimate import LABEL2IMG
from mindvis.benchmarks.works import Filled, Variant, Work, batches
from mindvis.checkpoints import DEMO_LDM, ENCODER_SETTINGS
from mindvis.common.errors import InputError
from mindvis.config.loading import read_yaml
from mindvis.dc_ldm import LatentDiffusion, LDMModule, build_ldm
from mindvis.dc_ldm.precision import cast_frozen, channels_last
from mindvis.decoding import decode as decoding
from mindvis.sc_mbm import FMRIEncoder, MaskedBrainModel, MBMModule
from mindvis.training import on_cpu
from mindvis.training.engine import compile_networks
from mindvis.training.optim import adamw, decay_groups

CLIP = {"stage_a": 0.8, "stage_b": 0.5}
PLAIN_STEPS = 250


def stage_a(config: Filled, variant: Variant) -> Work:
    """One optimiser step of Stage A, with the correlation that a training step logs."""
    torch.manual_seed(config.seed)
    build = plain.CopyingModel if variant.plain else MaskedBrainModel
    network = build(num_voxels=config.num_voxels, **vars(config.model))
    module = MBMModule(network).to(config.device)
    _make_ready(module, config, variant)
    batch_size = batch_of(config, variant)
    batch = seeded_rows(config, batch_size)
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

    return Work(f"Stage A step, {config.num_voxels} voxels, batch {batch_size}", step, batch_size, "rows")


def stage_b(config: Filled, variant: Variant) -> Work:
    """Two optimiser steps of Stage B, with cropped images and with whole ones: the mean of the default augmentation.

    The plain version encodes both, without gradients; ours takes the kept latents of the whole ones, and with
    `crops_per_image` those of the cropped ones too.
    """
    ldm = build_diffusion(config)
    module = LDMModule(ldm).to(config.device)
    if variant.plain:
        plain.with_all_gradients(ldm)
    else:
        channels_last(ldm)
        if variant.precision == "bf16-mixed":
            cast_frozen(ldm)
    _make_ready(module, config, variant)
    groups = [{"params": list(ldm.trainable_parameters().values()), "weight_decay": module.weight_decay}]
    optimizer = _optimizer(groups, variant, lr=module.lr, betas=(0.9, 0.999))
    batch_size = batch_of(config, variant)
    pairs = _pair_batches(config, ldm.latent_shape, batch_size, plain_way=variant.plain)

    def steps() -> None:
        for batch in pairs:
            loss = lambda batch=batch: module.loss(batch)  # noqa: E731
            _optimise(loss, optimizer, CLIP["stage_b"], config.device, variant.precision)
            ldm.zero_grad()

    name = f"Stage B step, {config.num_voxels} voxels, latents of {ldm.latent_shape[-1]}, batch {batch_size}"
    return Work(name, steps, batch_size, "pairs", scale=1 / len(pairs))


def unet_evaluation(config: Filled, variant: Variant) -> Work:
    """One evaluation of the UNet for a batch of pictures, as every step of a sampler needs it."""
    ldm = build_diffusion(config).eval().to(config.device)
    ldm = plain.unfused(ldm) if variant.plain else decoding.make_ready(ldm, variant.precision, compile=variant.compiled)
    noise = torch.randn(config.sampling_batch, *ldm.latent_shape, device=config.device)
    t = torch.full((config.sampling_batch,), 500, device=config.device)
    with torch.no_grad():
        context = decoding.context_of(ldm, seeded_rows(config, config.sampling_batch)["fmri"][:, 0].cpu().numpy())
        noise = noise.to(context.dtype)
        prepared = context if variant.plain else ldm.unet.prepare_context(context)

    @torch.no_grad()
    def evaluate() -> None:
        ldm.unet(noise, t, prepared)

    name = f"UNet evaluation, latents of {ldm.latent_shape[-1]}, batch {config.sampling_batch}"
    return Work(name, evaluate, config.sampling_batch, "pictures")


def pictures(config: Filled, variant: Variant) -> Work:
    """Pictures of one stimulus each: in batches by averaged UniPC, or one at a time by PLMS with 250 steps."""
    own = ("unipc_averaged", config.num_steps, config.sampling_batch)
    draw = _drawing(config, variant, *(("plms", PLAIN_STEPS, 1) if variant.plain else own))
    ways = f"averaged UniPC {config.num_steps} in batches, PLMS {PLAIN_STEPS} one by one"
    return Work(f"{config.num_pictures} pictures: {ways}", draw, config.num_pictures, "pictures")


def pictures_plms(config: Filled, variant: Variant) -> Work:
    """Pictures of one stimulus each in batches, by PLMS with 250 steps as published."""
    draw = _drawing(config, variant, "plms", PLAIN_STEPS, config.sampling_batch)
    name = f"{config.num_pictures} pictures: PLMS {PLAIN_STEPS} in batches of {config.sampling_batch}"
    return Work(name, draw, config.num_pictures, "pictures")


def _drawing(config: Filled, variant: Variant, sampler: str, num_steps: int, batch_size: int) -> Callable[[], None]:
    """Decoding with a model that was made ready, and is compiled, once: before the first call, or in it."""
    ldm = build_diffusion(config).eval().to(config.device)
    if variant.plain:
        plain.unfused(ldm)
    else:
        ldm = decoding.make_ready(ldm, variant.precision, compile=variant.compiled)
    fmri = seeded_rows(config, config.num_pictures)["fmri"][:, 0].cpu().numpy()

    def draw() -> None:
        with patch.object(decoding, "make_ready", lambda ready, *_, **__: ready):
            decoding.decode(
                ldm,
                fmri,
                range(len(fmri)),
                num_samples=1,
                sampler=sampler,
                num_steps=num_steps,
                batch_size=batch_size,
                seed=config.seed,
                precision=variant.precision,
                compile=variant.compiled,
            )

    return draw


def batch_of(config: Filled, variant: Variant) -> int:
    """Samples of a training step: of the variant, else as the settings say."""
    return variant.batch or batches(config, variant.work)[0]


def build_diffusion(config: Filled) -> LatentDiffusion:
    """Stage B model of the sizes in the settings, with random weights."""
    torch.manual_seed(config.seed)
    sizes = {name: value for name, value in vars(config.model).items() if name in ENCODER_SETTINGS}
    return build_ldm(_read_ldm(config.ldm), FMRIEncoder(num_voxels=config.num_voxels, **sizes))


def seeded_rows(config: Filled, num_rows: int) -> dict[str, Tensor]:
    """Random fMRI [b 1 v] on the device, and the keys [b 3] from which a module draws."""
    fmri = torch.randn(num_rows, 1, config.num_voxels, generator=torch.Generator().manual_seed(config.seed))
    key = torch.tensor([[config.seed, 0, index] for index in range(num_rows)])
    return {"fmri": fmri.to(config.device), "key": key}


def _read_ldm(name: str) -> dict:
    """The published config.yaml as a dict, for `published`, `demo` or the path of one."""
    if name == "published":
        return {"model": {"params": LABEL2IMG}}
    path = DEMO_LDM.with_name("config.yaml") if name == "demo" else Path(name)
    if not path.is_file():
        raise InputError(f"setting ldm is {name!r}: no such file; needed: published, demo, or a config.yaml")
    return read_yaml(path)


def _make_ready(module: torch.nn.Module, config: Filled, variant: Variant) -> None:
    """What `fit` attaches on a CPU, or what the plain version leaves out."""
    if variant.plain:
        plain.unfused(module)
    elif variant.compiled:
        compile_networks(module, cuda_graphs=config.device == "cuda")
    elif config.device == "cpu":
        on_cpu.attach(module, mixed=variant.precision == "bf16-mixed")


def _pair_batches(config: Filled, latent_shape: tuple, batch_size: int, *, plain_way: bool) -> list[dict[str, Tensor]]:
    """A batch whose images are all cropped and one whose images are whole."""
    size = 4 * latent_shape[-1]
    found = []
    for cropped in (True, False):
        batch = seeded_rows(config, batch_size)
        batch["image"] = torch.rand(batch_size, 3, size, size, device=config.device) * 2 - 1
        if not plain_way:
            batch["latent"] = torch.randn(batch_size, *latent_shape, device=config.device)
            batch["cropped"] = torch.full((batch_size,), cropped and not config.crops_per_image)
        found.append(batch)
    return found


def _optimizer(groups: list[dict], variant: Variant, **options: Any) -> torch.optim.Optimizer:
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

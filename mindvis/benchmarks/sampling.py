"""Sampling as works: one evaluation of the UNet, and whole pictures."""

import torch

from mindvis.benchmarks.models import build_diffusion, seeded_rows
from mindvis.benchmarks.work import Variant, Work
from mindvis.config.tools import BenchmarkConfig
from mindvis.decoding.decode import autocast, decode, make_ready

PLAIN_STEPS = 250


def unet_evaluation(config: BenchmarkConfig, variant: Variant) -> Work:
    """One evaluation of the UNet for a batch of pictures, as every step of a sampler needs it."""
    ldm = build_diffusion(config).eval().to(config.device)
    noise = torch.randn(config.sampling_batch, *ldm.latent_shape, device=config.device)
    t = torch.full((config.sampling_batch,), 500, device=config.device)
    with torch.no_grad(), autocast(ldm, variant.precision):
        context = ldm.conditioner(seeded_rows(config, config.sampling_batch)["fmri"])
        if not variant.plain:
            make_ready(ldm, variant.precision)
            context = ldm.unet.prepare_context(context)

    def evaluate() -> None:
        with torch.no_grad(), autocast(ldm, variant.precision):
            ldm.unet(noise, t, context)

    name = f"UNet evaluation, latents of {ldm.latent_shape[-1]}, batch {config.sampling_batch}"
    return Work(name, evaluate, config.sampling_batch, "pictures")


def pictures(config: BenchmarkConfig, variant: Variant) -> Work:
    """Pictures of one stimulus each: in batches by averaged UniPC, or one at a time by PLMS with 250 steps."""
    ldm = build_diffusion(config).eval().to(config.device)
    fmri = seeded_rows(config, config.num_pictures)["fmri"][:, 0].cpu().numpy()
    options = {"num_samples": 1, "seed": config.seed, "precision": variant.precision}
    if variant.plain:
        options |= {"sampler": "plms", "num_steps": PLAIN_STEPS, "batch_size": 1}
    else:
        options |= {"sampler": "unipc_averaged", "num_steps": config.num_steps, "batch_size": config.sampling_batch}

    def draw() -> None:
        decode(ldm, fmri, range(len(fmri)), **options)

    ways = f"averaged UniPC {config.num_steps} in batches, PLMS {PLAIN_STEPS} one by one"
    return Work(f"{config.num_pictures} pictures: {ways}", draw, config.num_pictures, "pictures")

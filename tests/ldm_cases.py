"""The latent diffusion models of the parity files, built and loaded; shared by the tests of Stage B."""

from copy import deepcopy

import torch

from mindvis.benchmarks.memory_estimate import SHAPE, UNET
from mindvis.dc_ldm import LatentDiffusion, build_ldm
from mindvis.sc_mbm import FMRIEncoder

CASES = ("dc_ldm", "dc_ldm_pooled_crossattn_only")
PREFIXES = {
    "model.diffusion_model.": "unet.",
    "first_stage_model.": "autoencoder.",
    "cond_stage_model.mae.": "conditioner.encoder.",
    "cond_stage_model.": "conditioner.",
}


def our_name(published: str) -> str | None:
    """Name here of a published weight; None for what has no weight here (the schedule)."""
    for prefix, ours in PREFIXES.items():
        if published.startswith(prefix):
            return ours + published.removeprefix(prefix)
    return None


def build(golden) -> LatentDiffusion:
    """The model of a parity file with its weights, in evaluation mode."""
    meta = golden.meta
    encoder = FMRIEncoder(num_voxels=meta["num_voxels"], global_pool=meta["global_pool"], **meta["mbm"])
    options = {"global_pool": meta["global_pool"], "use_time_condition": meta["use_time_cond"]}
    ldm = build_ldm(meta["ldm"], encoder, **options)
    state = {our_name(name): value for name, value in golden.tensors("state").items() if our_name(name)}
    ldm.load_state_dict(state, strict=True)
    return ldm.eval()


def image(golden) -> torch.Tensor:
    """The input images [b 3 h w] of a parity file."""
    return golden.tensor("in/image_hwc").permute(0, 3, 1, 2)


def full_size_config() -> dict:
    """Published class-conditional ImageNet LDM-4, as its config.yaml gives it; tests may change it."""
    first_stage = {"embed_dim": 3, "n_embed": 8192, "ddconfig": SHAPE, "lossconfig": {"target": "torch.nn.Identity"}}
    sections = {
        "unet_config": {"params": UNET},
        "first_stage_config": {"params": first_stage},
        "cond_stage_config": {"params": {"n_classes": 1001, "embed_dim": 512, "key": "class_label"}},
    }
    params = {"linear_start": 0.0015, "linear_end": 0.0195, "timesteps": 1000, **sections}
    return deepcopy({"model": {"params": params}})

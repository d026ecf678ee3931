"""Stage B: latent diffusion, doubly conditioned on fMRI."""

from mindvis.dc_ldm.autoencoder import KLAutoencoder, VQAutoencoder
from mindvis.dc_ldm.conditioner import ClassEmbedder, ClassMixture, FMRIConditioner
from mindvis.dc_ldm.model import LatentDiffusion
from mindvis.dc_ldm.module import LDMModule
from mindvis.dc_ldm.published import build_autoencoder, build_class_ldm, build_ldm, build_schedule, build_unet
from mindvis.dc_ldm.samplers import (
    noise_for,
    sample_ddim,
    sample_dpm_solver,
    sample_euler,
    sample_plms,
    sample_unipc,
    sample_unipc_averaged,
)
from mindvis.dc_ldm.schedule import NoiseSchedule
from mindvis.dc_ldm.timesteps import averaged_embeddings, averaged_timesteps
from mindvis.dc_ldm.unet import PreparedContext, UNet

__all__ = [
    "ClassEmbedder",
    "ClassMixture",
    "FMRIConditioner",
    "KLAutoencoder",
    "LDMModule",
    "LatentDiffusion",
    "NoiseSchedule",
    "PreparedContext",
    "UNet",
    "VQAutoencoder",
    "averaged_embeddings",
    "averaged_timesteps",
    "build_autoencoder",
    "build_class_ldm",
    "build_ldm",
    "build_schedule",
    "build_unet",
    "noise_for",
    "sample_ddim",
    "sample_dpm_solver",
    "sample_euler",
    "sample_plms",
    "sample_unipc",
    "sample_unipc_averaged",
]

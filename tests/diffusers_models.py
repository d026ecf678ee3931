"""Tiny random models made with the library diffusers, as folders; and the same models opened by it and by us."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel, VQModel

from mindvis.checkpoints import load_state, read_diffusers
from mindvis.dc_ldm import LatentDiffusion, build_ldm
from mindvis.sc_mbm import FMRIEncoder

ATTENDS, PLAIN = "CrossAttnDownBlock2D", "DownBlock2D"
SD_SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SD_SCHEDULE |= {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}
KL = {"latent_channels": 4, "block_out_channels": [32, 64], "layers_per_block": 1, "sample_size": 16}
VQ = {"latent_channels": 3, "block_out_channels": [32, 32, 64], "num_vq_embeddings": 40, "scaling_factor": 1.0}
MODELS = {
    # the class-conditional ImageNet LDM with its VQ autoencoder of factor 4
    "vq_f4": {
        "unet": {
            "in_channels": 3,
            "out_channels": 3,
            "block_out_channels": [32, 64],
            "attends": [False, True],
            "layers_per_block": 2,
            "cross_attention_dim": 24,
            "attention_head_dim": 1,
        },
        "vqvae": {**VQ, "layers_per_block": 2},
        "scheduler": {**SD_SCHEDULE, "beta_start": 0.0015, "beta_end": 0.0195},
    },
    "sd15": {
        "unet": {
            "block_out_channels": [32, 64, 64],
            "attends": [True, True, False],
            "layers_per_block": 2,
            "cross_attention_dim": 40,
            "attention_head_dim": 8,
        },
        "vae": KL,
        "scheduler": SD_SCHEDULE,
    },
    "sd21": {
        "unet": {
            "block_out_channels": [32, 64],
            "attends": [True, True],
            "layers_per_block": 1,
            "cross_attention_dim": 32,
            "attention_head_dim": [2, 4],
            "use_linear_projection": True,
        },
        "vae": KL,
        "scheduler": {**SD_SCHEDULE, "prediction_type": "v_prediction"},
    },
    "two_layers": {
        "unet": {
            "block_out_channels": [32, 64],
            "attends": [True, True],
            "layers_per_block": 1,
            "cross_attention_dim": 24,
            "attention_head_dim": 4,
            "transformer_layers_per_block": [1, 2],
        },
        "vae": {**KL, "types": (["DownEncoderBlock2D", "AttnDownEncoderBlock2D"],)},
        "scheduler": {**SD_SCHEDULE, "beta_schedule": "linear"},
    },
    "uneven": {
        "unet": {
            "block_out_channels": [64, 96, 32],
            "attends": [True, False, True],
            "layers_per_block": [1, 2, 1],
            "cross_attention_dim": 24,
            "attention_head_dim": 2,
        },
        "vae": {**KL, "block_out_channels": [64, 32, 96], "sample_size": 32},
        "scheduler": {**SD_SCHEDULE, "prediction_type": "v_prediction", "rescale_betas_zero_snr": True},
    },
}


def library_model(name: str) -> dict:
    """UNet, autoencoder (under `vae` or `vqvae`) and scheduler of a model in `MODELS`, with random weights."""
    given = MODELS[name]
    torch.manual_seed(sorted(MODELS).index(name))
    place = "vqvae" if "vqvae" in given else "vae"
    options = dict(given["unet"])
    attends = options.pop("attends")
    unet = UNet2DConditionModel(
        sample_size=8,
        down_block_types=[ATTENDS if each else PLAIN for each in attends],
        up_block_types=["CrossAttnUpBlock2D" if each else "UpBlock2D" for each in reversed(attends)],
        **options,
    )
    shape = dict(given[place])
    (down,) = shape.pop("types", (["DownEncoderBlock2D"] * len(shape["block_out_channels"]),))
    up = [each.replace("Down", "Up").replace("Encoder", "Decoder") for each in reversed(down)]
    autoencoder = (VQModel if place == "vqvae" else AutoencoderKL)(down_block_types=down, up_block_types=up, **shape)
    return {"unet": unet.eval(), place: autoencoder.eval(), "scheduler": DDIMScheduler(**given["scheduler"])}


def save(parts: dict, folder: Path, **options) -> Path:
    """Write the parts as the library does; `options` are those of `save_pretrained`."""
    for place, part in parts.items():
        part.save_pretrained(folder / place, **({} if place == "scheduler" else options))
    return folder


def ours(folder: Path) -> LatentDiffusion:
    """The model of a folder under a small fMRI encoder, without time-step condition, in evaluation mode."""
    config, state = read_diffusers(folder)
    encoder = FMRIEncoder(num_voxels=32, patch_size=4, embed_dim=16, depth=1, num_heads=2)
    ldm = build_ldm(config, encoder, use_time_condition=False)
    load_state(ldm, state, expected_missing=("conditioner.",))
    return ldm.eval()

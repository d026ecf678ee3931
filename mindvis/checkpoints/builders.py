"""Networks with their weights, from published files or our own."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from mindvis.checkpoints.loading import LoadReport, load_state
from mindvis.checkpoints.reading import read_kind, read_ldm, read_mbm
from mindvis.checkpoints.weights import Weights
from mindvis.common.errors import InputError
from mindvis.dc_ldm import LatentDiffusion, build_ldm
from mindvis.sc_mbm import FMRIEncoder, MaskedBrainModel

# What a label-to-image LDM does not bring: the fMRI conditioner and the time-step condition.
NOT_IN_LABEL2IMG = ("conditioner.", "unet.time_embed_condtion.")
EXPECTED_MISSING = {"mbm": (), "label2img": NOT_IN_LABEL2IMG, "ldm": ()}


def build_encoder(path: str | Path, *, num_voxels: int | None = None, global_pool: bool = False) -> FMRIEncoder:
    """Encoder with the weights of a Stage A model (published file or run folder), for fMRI [b 1 num_voxels].

    Positions are resized where `num_voxels` (a multiple of the patch size) is not the length it was trained on.
    """
    settings, state = read_mbm(path)
    names = ("num_voxels", "patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio")
    chosen = {name: settings[name] for name in names} | ({"num_voxels": num_voxels} if num_voxels else {})
    encoder = FMRIEncoder(**chosen, global_pool=global_pool)
    encoder.load_pretrained(state)
    return encoder


def build_mbm(
    path: str | Path, *, num_voxels: int | None = None, checkpoint: str = "last"
) -> tuple[MaskedBrainModel, LoadReport]:
    """Stage A model to go on with, and what matched; `num_voxels` as in `build_encoder`."""
    settings, state = read_mbm(path, checkpoint)
    model = MaskedBrainModel(**settings | ({"num_voxels": num_voxels} if num_voxels else {}))
    return model, load_state(model, state, resize=True, source=str(path))


def build_label2img(
    path: str | Path, encoder: FMRIEncoder, *, global_pool: bool = False, use_time_condition: bool = True
) -> tuple[LatentDiffusion, LoadReport]:
    """LDM for tuning: UNet and autoencoder of a label-to-image model, conditioned by `encoder`, and what matched.

    A text- or layout-to-image model serves as well, its config.yaml beside it.
    """
    weights = read_kind(path, "label2img")
    ldm = build_ldm(weights.settings, encoder, global_pool=global_pool, use_time_condition=use_time_condition)
    report = load_state(ldm, weights.state_dict, expected_missing=NOT_IN_LABEL2IMG, source=str(path))
    return ldm, replace(report, dropped=weights.dropped)


def build_ldm_from(
    path: str | Path,
    *,
    fmri_encoder: str | Path | None = None,
    label2img: str | Path | None = None,
    checkpoint: str = "last",
) -> tuple[LatentDiffusion, LoadReport]:
    """A tuned decoder from anything `read_ldm` takes, and what matched."""
    ldm_config, encoder, flags, state = read_ldm(
        path, fmri_encoder=fmri_encoder, label2img=label2img, checkpoint=checkpoint
    )
    ldm = build_ldm(ldm_config, FMRIEncoder(**encoder, global_pool=flags["global_pool"]), **flags)
    return ldm, load_state(ldm, state, source=str(path))


def blank_module(weights: Weights) -> nn.Module:
    """The module that weights belong to, on the meta device: names and shapes without memory.

    Raises InputError for a decoder whose LDM config is not known.
    """
    settings = weights.settings
    with torch.device("meta"):
        if weights.kind == "mbm":
            return MaskedBrainModel(**settings)
        if weights.kind == "label2img":
            return build_ldm(settings, FMRIEncoder())
        if settings["ldm_config"] is None:
            raise InputError("a decoder without its LDM config; needed: the label2img config.yaml")
        flags = {name: settings[name] for name in ("global_pool", "use_time_condition")}
        encoder = FMRIEncoder(**settings["encoder"], global_pool=flags["global_pool"])
        return build_ldm(settings["ldm_config"], encoder, **flags)

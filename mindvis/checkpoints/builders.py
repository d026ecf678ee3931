"""Networks with their weights, from published files or our own, and what the settings of a stage start from."""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mindvis.checkpoints.formats import complete_ldm, read_kind, read_label2img_config, read_mbm, read_weights
from mindvis.checkpoints.weights import IMAGE_DECODER, State, Weights, context_flags
from mindvis.common.errors import InputError, unreadable
from mindvis.common.loading import LoadReport, load_state
from mindvis.config.loading import plain
from mindvis.config.schemas import (
    FinetuneLDMConfig,
    LDMOptimConfig,
    MaskConfig,
    ModelConfig,
    OptimConfig,
    PretextConfig,
)
from mindvis.dc_ldm import LatentDiffusion, build_ldm
from mindvis.dc_ldm.context_losses import ContextLosses
from mindvis.dc_ldm.module import LDMModule
from mindvis.dc_ldm.published import autoencoder_resolution
from mindvis.sc_mbm import FMRIEncoder, MaskedBrainModel, MBMModule
from mindvis.sc_mbm.blocks import resize_positions
from mindvis.sc_mbm.pretext import FEATURE_SHAPE

DEMO_LDM = Path(__file__).resolve().parents[1] / "assets" / "demo" / "model.ckpt"
ENCODER_SETTINGS = ("patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio")
# What a label-to-image LDM does not bring: the fMRI conditioner and the time-step condition.
NOT_IN_LABEL2IMG = ("conditioner.", "unet.time_embed_condtion.")
# of Python and torch, for sizes and names of a wrong kind
SETTINGS_ERRORS = (TypeError, ValueError, KeyError, IndexError, AttributeError, ArithmeticError, RuntimeError)
EXPECTED_MISSING = {"mbm": (), "label2img": NOT_IN_LABEL2IMG, "ldm": ()}


def build_encoder(path: str | Path, *, num_voxels: int | None = None, global_pool: bool = False) -> FMRIEncoder:
    """Encoder with the weights of a Stage A model (published file or run folder), for fMRI [b 1 num_voxels].

    Positions are resized where `num_voxels` (a multiple of the patch size) is not the length it was trained on.
    """
    settings, state = read_mbm(path)
    shape = {name: settings[name] for name in ENCODER_SETTINGS}
    with _from_settings(path):
        encoder = FMRIEncoder(num_voxels=num_voxels or settings["num_voxels"], **shape, global_pool=global_pool)
    encoder.load_pretrained(state)
    return encoder


def build_mbm(
    path: str | Path, *, num_voxels: int | None = None, checkpoint: str = "last"
) -> tuple[MaskedBrainModel, LoadReport]:
    """Stage A model to go on with, and what matched; `num_voxels` as in `build_encoder`.

    A decoder of image features serves pretraining alone and is left out.
    """
    settings, state = read_mbm(path, checkpoint)
    kept = {name: tensor for name, tensor in state.items() if not name.startswith(IMAGE_DECODER)}
    settings = {name: value for name, value in settings.items() if name not in ("image_features", "image_weight")}
    with _from_settings(path):
        model = MaskedBrainModel(**settings | {"num_voxels": num_voxels or settings["num_voxels"]})
    report = load_state(model, kept, resize=resize_positions, source=str(path))
    return model, replace(report, dropped=[name for name in state if name not in kept])


def build_label2img(path: str | Path, encoder: FMRIEncoder, **flags: Any) -> tuple[LatentDiffusion, LoadReport]:
    """LDM for tuning: UNet and autoencoder of a label-to-image model, conditioned by `encoder`, and what matched.

    A text- or layout-to-image model serves as well, its config.yaml beside it. `flags` are as of `build_ldm`.
    """
    weights = read_kind(path, "label2img")
    with _from_settings(path):
        ldm = build_ldm(weights.settings, encoder, **flags)
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
    weights = read_kind(path, "ldm", checkpoint)
    weights = complete_ldm(weights, path, fmri_encoder=fmri_encoder, label2img=label2img)
    with _from_settings(path):
        ldm = _decoder(weights.settings)
    return ldm, load_state(ldm, weights.state_dict, source=str(path))


def _from_settings(path: str | Path) -> AbstractContextManager[None]:
    """While a network is made of settings that a file holds: whatever they break is their fault."""
    return unreadable(f"{path}: its settings describe no network", SETTINGS_ERRORS, "needed: those it was saved with")


def _decoder(settings: dict) -> LatentDiffusion:
    flags = context_flags(settings)
    encoder = FMRIEncoder(**settings["encoder"], global_pool=flags["global_pool"])
    return build_ldm(settings["ldm_config"], encoder, **flags)


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
        return _decoder(settings)


# From the settings of a stage


def start_mbm(
    model: ModelConfig, num_voxels: int, seed: int, pretext: PretextConfig | None = None
) -> tuple[MaskedBrainModel, dict]:
    """A masked brain model with weights drawn from `seed`, and its settings."""
    settings = {"num_voxels": num_voxels, **asdict(model)}
    if pretext is not None and pretext.weight > 0:
        settings |= {"image_features": list(FEATURE_SHAPE), "image_weight": pretext.weight}
    with seeded(seed):
        return MaskedBrainModel(**settings), settings


def build_mbm_module(network: MaskedBrainModel, mask: MaskConfig, optim: OptimConfig, num_epochs: int) -> MBMModule:
    """Training module of Stage A."""
    return MBMModule(
        network,
        mask_ratio=mask.mask_ratio,
        focus_range=mask.focus_range,
        focus_rate=mask.focus_rate,
        num_epochs=num_epochs,
        **_rates(optim),
    )


def _rates(optim: OptimConfig | LDMOptimConfig) -> dict[str, Any]:
    """What a training module takes of them: all but `clip`, which is the Trainer's."""
    return {name: value for name, value in asdict(optim).items() if name != "clip"}


def read_encoder(config: FinetuneLDMConfig) -> tuple[dict, State | None]:
    """Settings of Stage B's encoder and the Stage A weights it starts from, None without any or with `start`."""
    if config.start:
        settings, state = read_kind(config.start, "ldm", "selected").settings["encoder"], None
    else:
        settings, state = read_mbm(config.encoder) if config.encoder else (asdict(config.model), None)
    return {name: settings[name] for name in ENCODER_SETTINGS}, state


def build_stage_b(
    config: FinetuneLDMConfig, encoder_settings: dict, state: State | None
) -> tuple[LatentDiffusion, dict]:
    """Stage B model with its starting weights, and the settings from which it can be built again.

    Weights that no file brings (the projections, the time-step condition) are drawn from the seed; a run named by
    `start` brings all. Raises InputError where that run is of another shape.
    """
    flags: dict[str, Any] = {"global_pool": config.global_pool, "use_time_condition": config.use_time_condition}
    flags |= {"context_tokens": config.context.tokens, "ridge": config.context.ridge}
    path = find_ldm(config.ldm)
    with seeded(config.seed):
        encoder = FMRIEncoder(**encoder_settings, global_pool=config.global_pool)
        if state is not None:
            encoder.load_pretrained(state)
        ldm, _ = build_label2img(path, encoder, **flags)
    settings = {"encoder": encoder_settings, **flags, "ldm_config": read_label2img_config(path)}
    if config.start:
        load_state(ldm, _read_start(config.start, settings), source=config.start)
    return ldm, settings


def _read_start(path: str, settings: dict) -> State:
    """Weights of the run that a training goes on from. Raises InputError where its settings are others."""
    weights = complete_ldm(read_kind(path, "ldm", "selected"), path)
    flags = context_flags(weights.settings)
    found = {**weights.settings["encoder"], **flags}
    needed = {**settings["encoder"], **{name: settings[name] for name in flags}}
    for name, value in needed.items():
        if found.get(name) != value:
            keep = "data.reference and data.roi as in that run keep its voxels"
            differs = f"{name} is {found.get(name)}, this training has {value}"
            raise InputError(f"start={path}: {differs}; needed: {keep if name == 'num_voxels' else 'the same'}")
    if weights.settings["ldm_config"] != settings["ldm_config"]:
        raise InputError(f"start={path}: was tuned on another label-to-image model; needed: the same `ldm`")
    return weights.state_dict


def build_ldm_module(ldm: LatentDiffusion, config: FinetuneLDMConfig, class_targets: Tensor | None = None) -> LDMModule:
    """Training module of Stage B; `class_targets` [n c] are the embeddings of the training rows' classes."""
    context, losses = config.context, None
    if context.regression or context.consistency:
        with seeded(config.seed):
            losses = ContextLosses(
                regression=context.regression,
                consistency=context.consistency,
                class_targets=class_targets if context.target == "class" else None,
                context_dim=ldm.unet.context_dim,
                latent_dim=math.prod(ldm.latent_shape),
            )
    return LDMModule(
        ldm,
        tune=config.tune,
        weighting=config.weighting,
        objective=config.objective,
        num_epochs=config.trainer.max_epochs,
        context_losses=losses,
        **_rates(config.optim),
    )


def find_ldm(path: str) -> Path:
    """Path of the label-to-image model; `demo` is the small one that comes with the package."""
    return DEMO_LDM if path == "demo" else Path(path)


def image_side(path: str) -> int:
    """Side in pixels of the images that a label-to-image model was made for, by its config.yaml or config.json."""
    return autoencoder_resolution(read_label2img_config(find_ldm(path)))


def history(config: FinetuneLDMConfig) -> dict:
    """Settings of a Stage B run with, under `stage_a`, those of the run its encoder came from."""
    if config.start:
        return {**plain(config), "stage_a": read_weights(config.start).config.get("stage_a", {})}
    return {**plain(config), "stage_a": read_weights(config.encoder).config if config.encoder else {}}


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw initial weights from `seed`, and leave torch's generator as it was."""
    with torch.random.fork_rng(devices=[]):  # else it would start CUDA, on every device and in every process
        torch.manual_seed(seed)
        yield

"""Networks, training modules and run folders from settings."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import pytorch_lightning as pl
import torch

from mindvis.checkpoints import build_label2img, read_label2img, read_mbm, read_weights
from mindvis.config.schemas import (
    FinetuneLDMConfig,
    FinetuneMBMConfig,
    MaskConfig,
    ModelConfig,
    OptimConfig,
    PretrainMBMConfig,
    plain,
)
from mindvis.data import FMRIDataset
from mindvis.dc_ldm import LatentDiffusion
from mindvis.dc_ldm.module import LDMModule
from mindvis.sc_mbm import FMRIEncoder, MaskedBrainModel, MBMModule
from mindvis.training.fit import FitResult, fit
from mindvis.training.runs import Run, create_run, global_rank
from mindvis.training.wandb_runs import check_wandb

DEMO_LDM = Path(__file__).resolve().parents[1] / "assets" / "demo" / "model.ckpt"
ENCODER_SETTINGS = ("patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio")


def begin_run(config: object, stage: str) -> Run:
    """The run folder of a training, new or resumed as the settings say."""
    check_wandb(config.logging)
    names = ("resume", "resume_override")
    return create_run(config.run_dir, stage=stage, settings=plain(config), **{n: getattr(config, n) for n in names})


def train(
    config: PretrainMBMConfig | FinetuneMBMConfig | FinetuneLDMConfig,
    run: Run,
    module: pl.LightningModule,
    datasets: tuple[FMRIDataset, FMRIDataset | None],
    callbacks: Sequence[pl.Callback],
) -> FitResult | None:
    """Train a module on (training, validation) data in its run folder, as the settings of its stage say.

    Of several processes the first one returns where it ended, the others None.
    """
    settings = {"seed": config.seed, "trainer": config.trainer, "logging": config.logging, "clip": config.optim.clip}
    result = fit(module, *datasets, run, callbacks=callbacks, **settings)
    return result if global_rank() == 0 else None


def start_mbm(model: ModelConfig, num_voxels: int, seed: int) -> tuple[MaskedBrainModel, dict]:
    """A masked brain model with weights drawn from `seed`, and its settings."""
    settings = {"num_voxels": num_voxels, **asdict(model)}
    with seeded(seed):
        return MaskedBrainModel(**settings), settings


def build_mbm_module(network: MaskedBrainModel, mask: MaskConfig, optim: OptimConfig, num_epochs: int) -> MBMModule:
    """Training module of Stage A."""
    settings = {"mask_ratio": mask.mask_ratio, "focus_range": mask.focus_range, "focus_rate": mask.focus_rate}
    rates = {name: value for name, value in asdict(optim).items() if name != "clip"}
    return MBMModule(network, num_epochs=num_epochs, **rates, **settings)


def read_encoder(config: FinetuneLDMConfig) -> tuple[dict, dict | None]:
    """Settings of Stage B's encoder and the Stage A weights it starts from (None: not pretrained)."""
    if config.encoder is None:
        settings, state = asdict(config.model), None
    else:
        settings, state = read_mbm(config.encoder)
    return {name: settings[name] for name in ENCODER_SETTINGS}, state


def build_stage_b(
    config: FinetuneLDMConfig, encoder_settings: dict, state: dict | None
) -> tuple[LatentDiffusion, dict]:
    """Stage B model with its starting weights, and the settings from which it can be built again.

    Weights that no file brings (the projections, the time-step condition) are drawn from the seed.
    """
    flags = {"global_pool": config.global_pool, "use_time_condition": config.use_time_condition}
    path = find_ldm(config.ldm)
    with seeded(config.seed):
        encoder = FMRIEncoder(**encoder_settings, global_pool=config.global_pool)
        if state is not None:
            encoder.load_pretrained(state)
        ldm, _ = build_label2img(path, encoder, **flags)
    return ldm, {"encoder": encoder_settings, **flags, "ldm_config": read_label2img(path)[0]}


def build_ldm_module(ldm: LatentDiffusion, config: FinetuneLDMConfig) -> LDMModule:
    """Training module of Stage B."""
    rates = {name: value for name, value in asdict(config.optim).items() if name != "clip"}
    return LDMModule(ldm, tune=config.tune, weighting=config.weighting, num_epochs=config.trainer.max_epochs, **rates)


def find_ldm(path: str) -> Path:
    """Path of the label-to-image model; `demo` is the small one that comes with the package."""
    return DEMO_LDM if path == "demo" else Path(path)


def history(config: FinetuneLDMConfig) -> dict:
    """Settings of a Stage B run with, under `stage_a`, those of the run its encoder came from."""
    return {**plain(config), "stage_a": read_weights(config.encoder).config if config.encoder else {}}


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw initial weights from `seed`, and leave torch's generator as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield

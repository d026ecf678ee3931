"""The model that an experiment file describes, built on the meta device: names and shapes without memory."""

from dataclasses import asdict
from functools import cache
from pathlib import Path

import torch
from command_lines import ROOT
from omegaconf import OmegaConf
from torch import nn

from mindvis.benchmarks.memory_estimate import LABEL2IMG
from mindvis.chain.plan import SCHEMAS as STAGES
from mindvis.chain.plan import plan_chain
from mindvis.checkpoints import DEMO_LDM, ENCODER_SETTINGS
from mindvis.checkpoints.diffusers_config import ldm_config as stable_diffusion_config
from mindvis.config import schemas as config
from mindvis.config.decoding import BaselineConfig, EvaluateConfig, GenerateConfig
from mindvis.config.loading import from_plain
from mindvis.config.tools import ChainConfig, ScoreMBMConfig, SimulateConfig
from mindvis.dc_ldm import build_class_ldm, build_ldm
from mindvis.sc_mbm import FMRIEncoder, MaskedBrainModel
from mindvis.simulation.experiment import choose_protocol

NUM_PATCHES = 291  # of the paper's longest subject
TRAININGS = (config.PretrainMBMConfig, config.FinetuneMBMConfig, config.FinetuneLDMConfig)


# Stable Diffusion 1.5 as its config.json have it; what is left out is at the library's defaults
SD15 = (
    {
        "_class_name": "UNet2DConditionModel",
        "attention_head_dim": 8,
        "block_out_channels": [320, 640, 1280, 1280],
        "cross_attention_dim": 768,
        "sample_size": 64,
    },
    {
        "_class_name": "AutoencoderKL",
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "layers_per_block": 2,
        "sample_size": 512,
    },
    {"_class_name": "PNDMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"},
)


class Runs:
    """Experiments by the folder that each writes, so that one which goes on from a run finds its settings."""

    def __init__(self, experiments: list):
        self.by_folder = {each.run_dir: each for each in experiments if isinstance(each, TRAININGS)}

    def model(self, experiment: object) -> nn.Module | None:
        """The network that an experiment trains or decodes with; None where it has none (simulation)."""
        with torch.device("meta"):
            return self._model(experiment)

    def _model(self, experiment: object) -> nn.Module | None:
        match experiment:
            case config.PretrainMBMConfig():
                return _masked(experiment.model)
            case config.FinetuneMBMConfig():
                return self._model(self._run(experiment.pretrained))
            case config.FinetuneLDMConfig():
                return self._ldm(experiment)
            case GenerateConfig() | ScoreMBMConfig():
                return self._model(self._run(experiment.run))
            case EvaluateConfig():
                return self._model(self._run(str(Path(experiment.decoded).parent)))
            case BaselineConfig():
                return build_class_ldm(ldm_config(experiment.ldm))
            case SimulateConfig():
                choose_protocol(experiment.protocol, snr=experiment.snr)
                return None
        raise AssertionError(f"no rule yet for the model of a {type(experiment).__name__}: add one to {__file__}")

    def _run(self, folder: str) -> object:
        assert folder in self.by_folder, f"no file in configs/ has run_dir: {folder}"
        return self.by_folder[folder]

    def _ldm(self, experiment: config.FinetuneLDMConfig) -> nn.Module:
        if experiment.start:
            return self._model(self._run(experiment.start))
        shape = self._stage_a(experiment) if experiment.encoder else experiment.model
        settings = {name: getattr(shape, name) for name in ENCODER_SETTINGS}
        flags = {"global_pool": experiment.global_pool, "use_time_condition": experiment.use_time_condition}
        flags |= {"context_tokens": experiment.context.tokens, "ridge": experiment.context.ridge}
        return _build(experiment.ldm, tuple(settings.items()), tuple(flags.items()))

    def _stage_a(self, experiment: config.FinetuneLDMConfig) -> config.ModelConfig:
        """Shape of the encoder: that of the pretraining at the head of the chain."""
        run = self._run(experiment.encoder)
        return run.model if isinstance(run, config.PretrainMBMConfig) else self._run(run.pretrained).model


def ldm_config(path: str) -> dict:
    """Settings of the label-to-image model that `ldm=` names: the demo's, or the published ones."""
    if path == "demo":
        return OmegaConf.to_container(OmegaConf.load(DEMO_LDM.parent / "config.yaml"))
    if path == "pretrains/stable-diffusion-v1-5":
        return stable_diffusion_config(*SD15, "stable-diffusion-v1-5", "vae")
    kind = Path(path).parent.name
    if kind == "label2img":
        return {"model": {"params": LABEL2IMG}}
    return OmegaConf.to_container(OmegaConf.load(ROOT / "configs" / "ldm" / f"{kind}.yaml"))


def chain_experiments(chain: ChainConfig) -> list:
    """The settings of every step of a chain, in the dataclass of its stage."""
    return [from_plain(STAGES[step.stage], step.settings) for step in plan_chain(chain)]


@cache
def _build(ldm: str, settings: tuple, flags: tuple) -> nn.Module:
    """One decoder for all experiments that describe the same."""
    chosen = dict(flags)
    num_voxels = NUM_PATCHES * dict(settings)["patch_size"]
    encoder = FMRIEncoder(num_voxels=num_voxels, **dict(settings), global_pool=chosen["global_pool"])
    return build_ldm(ldm_config(ldm), encoder, **chosen)


def _masked(model: config.ModelConfig) -> nn.Module:
    return MaskedBrainModel(num_voxels=NUM_PATCHES * model.patch_size, **asdict(model))

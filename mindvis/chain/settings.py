"""Settings of a chain: which stages, for which subjects, with which files and what is laid over them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from mindvis.common.errors import InputError
from mindvis.config.loading import from_plain, plain, read_yaml
from mindvis.config.ranges import number, seed_field
from mindvis.config.schemas import (
    EvaluateConfig,
    FinetuneLDMConfig,
    FinetuneMBMConfig,
    GenerateConfig,
    PretrainMBMConfig,
    SimulateConfig,
)
from mindvis.config.tools import ScoreMBMConfig

# In the order in which they run. Those that come before finetune_mbm are shared by all subjects.
SCHEMAS = {
    "simulate": SimulateConfig,
    "pretrain_mbm": PretrainMBMConfig,
    "score_mbm": ScoreMBMConfig,
    "finetune_mbm": FinetuneMBMConfig,
    "finetune_ldm": FinetuneLDMConfig,
    "generate": GenerateConfig,
    "evaluate": EvaluateConfig,
}
SHARED = ("simulate", "pretrain_mbm", "score_mbm")
TRAININGS = ("pretrain_mbm", "finetune_mbm", "finetune_ldm")


@dataclass
class StageConfig:
    """One stage of a chain."""

    config: str | None = None  # its settings file
    settings: dict[str, Any] = field(default_factory=dict)  # laid over that file


@dataclass
class ChainConfig:
    """The chain from resting state to scores; a stage that is null is left out."""

    root: str = "runs/chain"  # folder of all runs, of chain.json and of the table
    subjects: list[str] = field(default_factory=list)  # each gets Stage A tuning, Stage B, pictures and scores
    seed: int | None = seed_field(None)  # of every stage but simulate; null: as in the stage files
    devices: int = number(1, 1, 1024)  # subjects at a time, one a device; 1: in a row, and trainer.devices counts
    controls: list[str] = field(default_factory=lambda: ["shuffled"])  # decoded beside the pictures
    dry_run: bool = False  # show what would run, and why
    simulate: StageConfig | None = None  # simulated data: {config: FILE, settings: {key: value}}, as below
    pretrain_mbm: StageConfig | None = None  # Stage A, once for all subjects
    score_mbm: StageConfig | None = None  # hidden voxels of Stage A
    finetune_mbm: StageConfig | None = None  # Stage A on the subject's fMRI
    finetune_ldm: StageConfig | None = None  # Stage B
    generate: StageConfig | None = None  # pictures and controls
    evaluate: StageConfig | None = None  # scores


def check_chain(config: ChainConfig) -> None:
    """Raises `InputError` for a chain without stages or subjects, a subject named twice, or no device."""
    stages = [name for name in SCHEMAS if getattr(config, name) is not None]
    if not stages:
        raise InputError(f"chain {config.root}: no stage; needed: --config configs/god.yaml, or one like it")
    if not config.subjects and not set(stages) <= set(SHARED):
        raise InputError("setting subjects is empty; needed: the subjects to decode, such as subjects=[sbj_3]")
    if len(set(config.subjects)) < len(config.subjects):
        raise InputError(f"setting subjects is {config.subjects}; needed: each subject once")
    if config.devices < 1:
        raise InputError(f"setting devices is {config.devices}; needed: at least 1")


def stage_settings(stage: str, config: StageConfig, *wired: dict) -> dict:
    """All settings of a stage as nested dicts: defaults <- its file <- what the chain lays over it <- `wired`.

    Raises `InputError` naming the stage, its file and the setting that is wrong.
    """
    layers = [read_yaml(Path(config.config), as_text=True)] if config.config else []
    merged = OmegaConf.merge(*layers, config.settings, *wired)
    source = f"stage {stage} of the chain" + (f" ({config.config})" if config.config else "")
    return plain(from_plain(SCHEMAS[stage], OmegaConf.to_container(merged), source))

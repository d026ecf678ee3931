"""Settings of a chain: which stages, for which subjects, with which files and what is laid over them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mindvis.common.errors import InputError
from mindvis.config.loading import CONFIG_FILE, find_config, flatten, from_plain, plain
from mindvis.config.ranges import number, seed_field
from mindvis.config.schemas import (
    EvaluateConfig,
    FinetuneLDMConfig,
    FinetuneMBMConfig,
    GenerateConfig,
    PretrainMBMConfig,
    SimulateConfig,
)
from mindvis.config.text import read_yaml
from mindvis.config.tools import ScoreMBMConfig
from mindvis.training.runs import FREE_SETTINGS

# In the order in which they run; each is a script of that name. The SHARED ones run once for all subjects.
SCHEMAS = {
    "simulate": SimulateConfig,
    "pretrain_mbm": PretrainMBMConfig,
    "score_mbm": ScoreMBMConfig,
    "finetune_mbm": FinetuneMBMConfig,
    "finetune_ldm": FinetuneLDMConfig,
    "generate": GenerateConfig,
    "evaluate": EvaluateConfig,
    "demo_summary": EvaluateConfig,
}
SHARED = ("simulate", "pretrain_mbm", "score_mbm")
TRAININGS = ("pretrain_mbm", "finetune_mbm", "finetune_ldm")


@dataclass
class StageConfig:
    """One stage of a chain."""

    config: str | None = field(default=None, metadata=CONFIG_FILE)  # its settings file
    settings: dict[str, Any] = field(default_factory=dict)  # laid over that file


@dataclass
class ChainConfig:
    """The chain from resting state to scores; a stage that is null is left out."""

    root: str = "runs/chain"  # folder of all runs, of chain.json and of the table
    subjects: list[str] = field(default_factory=list)  # each gets Stage A tuning, Stage B, pictures and scores
    subject_folders: bool = True  # runs of a subject in <root>/<subject>; false, for one subject: in the root
    seed: int | None = seed_field(None)  # of every stage but simulate; null: as in the stage files
    devices: int = number(1, 1, 1024)  # subjects at a time, one a device; 1: in a row, and trainer.devices counts
    fork: bool = False  # stages as forks of this process: saves the seconds of their imports; devices=1
    controls: list[str] = field(default_factory=lambda: ["shuffled"])  # decoded beside the pictures
    dry_run: bool = False  # show what would run, and why
    simulate: StageConfig | None = None  # simulated data: {config: FILE, settings: {key: value}}, as below
    pretrain_mbm: StageConfig | None = None  # Stage A, once for all subjects
    score_mbm: StageConfig | None = None  # hidden voxels of Stage A
    finetune_mbm: StageConfig | None = None  # Stage A on the subject's fMRI
    finetune_ldm: StageConfig | None = None  # Stage B
    generate: StageConfig | None = None  # pictures and controls
    evaluate: StageConfig | None = None  # scores
    demo_summary: StageConfig | None = None  # a line with the score beside a linear classifier's, shown at the end


def check_chain(config: ChainConfig) -> None:
    """Raises `InputError` for a chain without stages or subjects, a subject named twice, or devices that don't fit."""
    stages = [name for name in SCHEMAS if getattr(config, name) is not None]
    if not stages:
        raise InputError(f"chain {config.root}: no stage; needed: --config configs/god.yaml, or one like it")
    if not config.subjects and not set(stages) <= set(SHARED):
        raise InputError("setting subjects is empty; needed: the subjects to decode, such as subjects=[sbj_3]")
    if len(set(config.subjects)) < len(config.subjects):
        raise InputError(f"setting subjects is {config.subjects}; needed: each subject once")
    if len(config.subjects) > 1 and not config.subject_folders:
        raise InputError(f"setting subject_folders is false with {len(config.subjects)} subjects; needed: one subject")
    if config.devices < 1:
        raise InputError(f"setting devices is {config.devices}; needed: at least 1")
    if config.fork and config.devices > 1:  # a fork of several threads may wait for the locks of the others for ever
        raise InputError(f"setting fork is true with devices={config.devices}; needed: devices=1, or fork=false")


def stage_settings(
    stage: str, config: StageConfig, wired: dict | None = None, moved: tuple[str, str] | None = None
) -> dict:
    """All settings of a stage as nested dicts: defaults <- its file <- what the chain lays over it <- `wired`.

    `moved`: the folder of simulated data in the file of `simulate`, and in this chain; data in the stage's file follow.
    Raises `InputError` naming the stage, its file and the setting that is wrong.
    """
    content = OmegaConf.create(read_yaml(find_config(config.config), as_text=True) if config.config else {})
    if moved:
        _follow(content, *moved)
    merged = OmegaConf.merge(content, config.settings, wired or {})
    source = f"stage {stage} of the chain" + (f" ({config.config})" if config.config else "")
    return plain(from_plain(SCHEMAS[stage], OmegaConf.to_container(merged), source))


def binding(settings: dict, free: tuple[str, ...] = FREE_SETTINGS) -> dict[str, Any]:
    """Settings as dotted keys, without those of the names (or groups) in `free`."""
    flat = flatten(settings)
    return {k: v for k, v in flat.items() if not any(k == name or k.startswith(name + ".") for name in free)}


def _follow(content: DictConfig, before: str, now: str) -> None:
    """Move the folders of data that lie below `before` to the same place below `now`."""
    for key in ("data.root", "extra_data.root"):
        root = OmegaConf.select(content, key)
        if root and Path(root).is_relative_to(before):
            OmegaConf.update(content, key, str(now / Path(root).relative_to(before)))

"""Settings of a chain: which stages, for which subjects, with which files and what is laid over them."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mindvis.common.errors import InputError
from mindvis.config.decoding import EvaluateConfig, GenerateConfig
from mindvis.config.loading import find_config, flatten, from_plain, plain, read_yaml
from mindvis.config.schemas import FinetuneLDMConfig, FinetuneMBMConfig, PretrainMBMConfig
from mindvis.config.tools import ChainConfig, ScoreMBMConfig, SimulateConfig, StageConfig
from mindvis.training.runs import FREE_SETTINGS

# In the order in which they run; each is a script of that name but for those of SCRIPTS. The SHARED ones run once for
# all subjects.
SCHEMAS = {
    "simulate": SimulateConfig,
    "pretrain_mbm": PretrainMBMConfig,
    "score_mbm": ScoreMBMConfig,
    "pretrain_ldm": FinetuneLDMConfig,
    "finetune_mbm": FinetuneMBMConfig,
    "finetune_ldm": FinetuneLDMConfig,
    "generate": GenerateConfig,
    "evaluate": EvaluateConfig,
    "demo_summary": EvaluateConfig,
}
SCRIPTS = {"pretrain_ldm": "finetune_ldm"}
SHARED = ("simulate", "pretrain_mbm", "score_mbm", "pretrain_ldm")
TRAININGS = ("pretrain_mbm", "pretrain_ldm", "finetune_mbm", "finetune_ldm")


def check_chain(config: ChainConfig) -> None:
    """Raises `InputError` for a chain without stages or subjects, a subject named twice, or devices that don't fit."""
    stages = [name for name in SCHEMAS if getattr(config, name) is not None]
    if not stages:
        raise InputError(f"chain {config.root}: no stage; needed: --config configs/god.yaml, or one like it")
    if config.pretrain_ldm is not None and config.finetune_mbm is not None:
        raise InputError(f"chain {config.root}: pretrain_ldm has its encoder; needed: finetune_mbm=null")
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

"""Settings of what runs many stages: a chain for its subjects, and the tables of an ablation."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from mindvis.config.loading import CONFIG_FILE
from mindvis.config.ranges import number, seed_field


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
    pretrain_ldm: StageConfig | None = None  # Stage B, once on several subjects; finetune_ldm then starts from it
    finetune_mbm: StageConfig | None = None  # Stage A on the subject's fMRI
    finetune_ldm: StageConfig | None = None  # Stage B on the subject's pairs
    generate: StageConfig | None = None  # pictures and controls
    evaluate: StageConfig | None = None  # scores
    demo_summary: StageConfig | None = None  # a line with the score beside a linear classifier's, shown at the end


@dataclass
class AblateConfig:
    """One ablation table, at one scale, over some seeds."""

    table: str = MISSING  # name of the table, for the script several with commas; without key, its first word
    scale: str = "god"  # god (the paper's) | demo (scaled down, on the simulated cortex)
    seeds: list[int] = seed_field([2022])  # every row is trained and decoded with each
    rows: list[str] = field(default_factory=list)  # names of the rows to run; empty: all
    chain: str | None = field(default=None, metadata=CONFIG_FILE)  # under the rows; null: god.yaml, ablate_demo.yaml
    settings: dict[str, dict] = field(default_factory=dict)  # by stage, laid over the chain before the rows
    subject: str | None = None  # whose fMRI is decoded; null: sbj_3 for god, sbj_1 for demo
    root: str | None = None  # folder of the runs and tables; null: runs/ablation_<scale>
    decode: bool = False  # also decode where a table is scored by Stage A alone
    jobs: int = number(1, 1, 1024)  # rows at a time, side by side on the same devices; with 1 a chain with `fork` forks
    dry_run: bool = False  # show what would run

"""Settings of an ablation, and the chain that a row of a table makes of them."""

from dataclasses import dataclass, field, replace

from omegaconf import MISSING, OmegaConf

from mindvis.chain import ChainConfig, StageConfig
from mindvis.chain.ablation.tables import Row, Table
from mindvis.common.errors import InputError
from mindvis.config.ranges import number, seed_field
from mindvis.config.schemas import load_config

CHAINS = {"god": "configs/god.yaml", "demo": "configs/ablate_demo.yaml"}
SUBJECTS = {"god": "sbj_3", "demo": "sbj_1"}  # the paper's ablations are on GOD subject 3
AFTER_STAGE_A = ("finetune_mbm", "finetune_ldm", "generate", "evaluate")


@dataclass
class AblateConfig:
    """One ablation table, at one scale, over some seeds."""

    table: str = MISSING  # name of the table, for the script several with commas; without key, its first word
    scale: str = "god"  # god (the paper's) | demo (scaled down, on the simulated cortex)
    seeds: list[int] = seed_field([2022])  # every row is trained and decoded with each
    rows: list[str] = field(default_factory=list)  # names of the rows to run; empty: all
    chain: str | None = None  # chain that the rows are laid over; null: configs/god.yaml, configs/ablate_demo.yaml
    settings: dict[str, dict] = field(default_factory=dict)  # by stage, laid over the chain before the rows
    subject: str | None = None  # whose fMRI is decoded; null: sbj_3 for god, sbj_1 for demo
    root: str | None = None  # folder of the runs and tables; null: runs/ablation_<scale>
    decode: bool = False  # also decode where a table is scored by Stage A alone
    jobs: int = number(1, 1, 1024)  # rows at a time, as processes side by side on the same devices
    dry_run: bool = False  # show what would run


def base_chain(config: AblateConfig) -> ChainConfig:
    """The chain of the full model. Raises `InputError` for an unknown scale, stage or file, no seeds or no jobs."""
    if config.scale not in CHAINS:
        raise InputError(f"setting scale is {config.scale!r}; needed: {' or '.join(CHAINS)}")
    if not config.seeds or len(set(config.seeds)) < len(config.seeds):
        raise InputError(f"setting seeds is {config.seeds}; needed: at least one, each once")
    if config.jobs < 1:
        raise InputError(f"setting jobs is {config.jobs}; needed: at least 1")
    chain = load_config(ChainConfig, config.chain or CHAINS[config.scale])
    root = config.root or f"runs/ablation_{config.scale}"
    chain = replace(chain, root=root, subjects=[config.subject or SUBJECTS[config.scale]], controls=[], devices=1)
    return lay_over(chain, config.settings)


def measures_of(config: AblateConfig, table: Table) -> list[str]:
    """Names of what is measured for a table."""
    chosen = table.measures[config.scale]
    return chosen if "decoding" in chosen or not config.decode else [*chosen, "decoding"]


def row_chain(chain: ChainConfig, row: Row, scale: str, seed: int, measures: list[str]) -> ChainConfig:
    """The chain of one row and seed, as far as its measures need it."""
    chain = lay_over(replace(chain, seed=seed), getattr(row, scale))
    unneeded = AFTER_STAGE_A if measures == ["hidden_voxels"] else ()
    unneeded += () if "hidden_voxels" in measures else ("score_mbm",)
    return replace(chain, **dict.fromkeys(unneeded))


def lay_over(chain: ChainConfig, settings: dict[str, dict | None]) -> ChainConfig:
    """The chain with settings by stage laid over it; a stage that is None is left out. Raises `InputError`."""
    changed = {}
    for stage, given in settings.items():
        if not hasattr(chain, stage) or stage not in ChainConfig.__dataclass_fields__:
            raise InputError(f"ablation: no stage {stage!r}; needed: stages of a chain")
        before = getattr(chain, stage)
        if given is None or before is None:
            changed[stage] = None
            continue
        merged = OmegaConf.to_container(OmegaConf.merge(before.settings, given))
        changed[stage] = StageConfig(before.config, merged)
    return replace(chain, **changed)

"""Every experiment file in configs/ loads, is short, and says what it is."""

from pathlib import Path

import pytest

from mindvis import config
from mindvis.chain import ChainConfig, plan_chain
from mindvis.config import load_config

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))
SCHEMAS = {
    "simulate": config.SimulateConfig,
    "pretrain": config.PretrainMBMConfig,
    "finetune_mbm": config.FinetuneMBMConfig,
    "finetune_ldm": config.FinetuneLDMConfig,
    "generate": config.GenerateConfig,
    "evaluate": config.EvaluateConfig,
}
CHAINS = [path for path in CONFIGS if not path.stem.startswith(tuple(SCHEMAS))]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_loads_and_opens_with_what_it_is(path):
    """Known settings only; a head of what, command, cost and expected number; at most 25 lines of settings."""
    schema = next((schema for name, schema in SCHEMAS.items() if path.stem.startswith(name)), ChainConfig)
    load_config(schema, path)
    lines = path.read_text().splitlines()
    head = [line for line in lines if line.startswith("#")]
    for word in ("Command:", "Cost:", "Expect:", f"--config configs/{path.name}"):
        assert any(word in line for line in head)
    assert len(lines) - len(head) <= 25


def test_there_is_a_config_for_every_stage_and_data_set():
    """The published data sets and the demo, from their first stage to the score."""
    names = {path.stem for path in CONFIGS}
    stages = ("finetune_mbm", "finetune_ldm", "generate", "evaluate")
    assert names >= {f"{stage}_{data}" for stage in stages for data in ("god", "bold5000", "demo")}
    assert names >= {"pretrain_hcp", "pretrain_demo", "simulate_demo"}


@pytest.mark.parametrize("path", CHAINS, ids=lambda path: path.stem)
def test_chain_of_a_config_can_be_planned(path, monkeypatch):
    """Every stage file that a chain names is there, and what is laid over it is known."""
    monkeypatch.chdir(path.parents[1])
    stages = {step.stage for step in plan_chain(load_config(ChainConfig, path))}
    assert stages >= {"pretrain_mbm", "finetune_mbm", "finetune_ldm", "generate", "evaluate"}

"""Every file in configs/ loads, its model can be built, and its head says what it is, its command, cost and number."""

import re
from pathlib import Path

import pytest
import torch
from command_lines import ROOT, parse_only, schema_of
from config_models import Runs, chain_experiments
from omegaconf import OmegaConf

from mindvis.config.loading import load_config
from mindvis.config.tools import ChainConfig
from mindvis.dc_ldm import build_ldm
from mindvis.sc_mbm import FMRIEncoder

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
NETWORKS = sorted((ROOT / "configs" / "ldm").glob("*.yaml"))
LABELS = ("Command", "Cost", "Expect")


def name(path: Path) -> str:
    return path.stem


def head(path: Path) -> dict[str, str]:
    """The comment that opens a file, by its labels; `what` is the line before them."""
    lines = [line.lstrip("# ") for line in path.read_text().splitlines() if line.startswith("#")]
    parts = re.split(r"(?:^|\n)(\w+): +", "what:  " + "\n".join(lines))
    return {label: " ".join(text.split()) for label, text in zip(parts[1::2], parts[2::2], strict=True)}


def commands(path: Path) -> list[str]:
    """What the head says is to be run: the command, and a second one in brackets after it."""
    found = re.findall(r"(?:python )?(scripts/\w+\.py[^()]*)", head(path)["Command"])
    return [f"python {command.strip()}" for command in found]


def schema(path: Path) -> type:
    """The dataclass of a file: that of the script whose command takes the file."""
    takes = next(words for words in map(str.split, commands(path)) if f"configs/{path.name}" in words)
    return schema_of(ROOT / takes[1])


@pytest.mark.parametrize("path", [*CONFIGS, *NETWORKS], ids=name)
def test_its_head_says_what_command_cost_and_expected_number(path):
    """Each in words, before the settings begin."""
    said = head(path)
    assert len(said["what"]) > 20 and said["what"].endswith(".")
    for label in LABELS:
        assert said.get(label), f"{path.name} opens without `# {label}:`"
    assert path.read_text().startswith("# ")


@pytest.mark.parametrize("path", [*CONFIGS, *NETWORKS], ids=name)
def test_the_command_of_its_head_is_taken(path):
    """The script is there and takes the arguments, the file among them."""
    for command in commands(path):
        parse_only(command)
    assert commands(path)


@pytest.mark.parametrize("path", CONFIGS, ids=name)
def test_it_loads_against_its_dataclass(path):
    """Known settings of the right types; at most 25 lines of them."""
    load_config(schema(path), path)
    settings = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    assert len(settings) <= 25


@pytest.mark.parametrize("path", CONFIGS, ids=name)
def test_its_model_is_built(path, monkeypatch):
    """On the meta device, at full size; of a chain, the model of every step."""
    monkeypatch.chdir(ROOT)
    loaded = load_config(schema(path), path)
    if isinstance(loaded, ChainConfig):
        experiments = chain_experiments(loaded)
        runs = Runs(experiments)
    else:
        runs = Runs([load_config(schema(other), other) for other in CONFIGS])
        experiments = [loaded]
    models = [runs.model(experiment) for experiment in experiments]
    parameters = [p for model in models if model is not None for p in model.parameters()]
    assert all(parameter.is_meta for parameter in parameters)
    assert parameters or path.stem.startswith("simulate")


@pytest.mark.parametrize("path", NETWORKS, ids=name)
def test_a_network_file_is_a_model_that_stage_b_takes(path):
    """The published form, conditioned by an encoder of the published size."""
    with torch.device("meta"):
        ldm = build_ldm(OmegaConf.to_container(OmegaConf.load(path)), FMRIEncoder())
    assert sum(parameter.numel() for parameter in ldm.parameters()) > 4e8


def test_every_file_is_looked_at():
    """No YAML lies where these tests do not see it."""
    assert set((ROOT / "configs").rglob("*.yaml")) == {*CONFIGS, *NETWORKS}


def test_there_is_a_config_for_every_stage_and_data_set():
    """The published data sets and the demo, from their first stage to the score."""
    names = {path.stem for path in CONFIGS}
    stages = ("finetune_mbm", "finetune_ldm", "generate", "evaluate")
    assert names >= {f"{stage}_{data}" for stage in stages for data in ("god", "bold5000", "demo")}
    assert names >= {"pretrain_hcp", "pretrain_demo", "simulate_demo", "god", "bold5000", "demo"}

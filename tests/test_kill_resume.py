"""Runs killed with SIGKILL at random moments end where uninterrupted ones end: the toy, and every real script."""

import sys
from pathlib import Path

import pytest
from kill_harness import check_same_end, environment, run_to_the_end, run_with_kills
from tiny_stages import command, simulate_experiment
from toy import train

TOY = Path(__file__).with_name("toy_run.py")
STAGES = ("pretrain_mbm", "finetune_mbm", "finetune_ldm")


def test_the_toy_run_survives_kills(tmp_path):
    train(tmp_path / "whole")
    toy = [sys.executable, str(TOY), str(tmp_path / "run")]
    assert run_with_kills(toy, tmp_path / "run", environment(), kills=2, num_rows=20, seed=1) == 2
    check_same_end(tmp_path / "run", tmp_path / "whole")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """Data, and each stage run without interruption."""
    folder = tmp_path_factory.mktemp("whole")
    simulate_experiment(folder)
    for stage in STAGES:
        run_to_the_end(command(stage, folder, folder / stage), environment())
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_twenty_kills_change_nothing(tmp_path, whole, stage):
    """About four minutes a stage on two busy cores."""
    num_rows = (whole / stage / "metrics.csv").read_text().count("\n") - 1
    training = command(stage, whole, tmp_path / "run")
    assert run_with_kills(training, tmp_path / "run", environment(), kills=20, num_rows=num_rows, seed=7) == 20
    check_same_end(tmp_path / "run", whole / stage)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["pretrain_mbm", "finetune_ldm"])
def test_two_processes_give_the_curve_of_one_with_the_doubled_batch(tmp_path, whole, stage):
    import numpy as np

    def curve(name: str, *settings: str) -> np.ndarray:
        run_to_the_end(command(stage, whole, tmp_path / name, *settings), environment())
        return np.genfromtxt(tmp_path / name / "metrics.csv", delimiter=",", skip_header=1)

    one = curve("one", "trainer.batch_size=8")
    np.testing.assert_allclose(curve("two", "trainer.devices=2", "trainer.strategy=ddp"), one, atol=1e-5)

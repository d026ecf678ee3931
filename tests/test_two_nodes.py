"""The real scripts on two nodes of one process each, started by torchrun: the curves, pictures and report of one."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from kill_harness import environment, run_to_the_end
from test_chain import GENERATE, without_zeros
from tiny_stages import SCRIPTS, command, simulate_experiment
from two_nodes import run_on_two_nodes

NODES = ["trainer.num_nodes=2", "trainer.devices=1", "trainer.strategy=ddp"]
EVALUATE = ["classifier=demo", "num_ways=[5]", "num_bootstrap=200", "batch_size=3", "logging.wandb=disabled"]
STAGES = ("pretrain_mbm", "finetune_ldm")


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """Data, both stages with the doubled batch, pictures and report, by one process."""
    folder = tmp_path_factory.mktemp("alone")
    simulate_experiment(folder)
    without_zeros(folder / "model.ckpt")
    for stage in STAGES:
        run_to_the_end(command(stage, folder, folder / stage, "trainer.batch_size=8"), environment())
    for name in ("generate", "evaluate"):
        run_to_the_end([sys.executable, *script(name, folder, folder / "decoded")], environment())
    return folder


def script(name: str, folder: Path, output: Path) -> list[str]:
    """`generate` from the run in `folder`, or `evaluate` the pictures there, into `output`."""
    own = {
        "generate": [f"run={folder / 'finetune_ldm'}", f"output={output}", *GENERATE],
        "evaluate": [f"decoded={folder / 'decoded'}", f"output={output}", *EVALUATE],
    }
    return [str(SCRIPTS / f"{name}.py"), *own[name]]


def curve(run: Path) -> tuple[list[str], np.ndarray]:
    """Columns of metrics.csv and its numbers, empty cells as NaN."""
    header, *rows = (run / "metrics.csv").read_text().splitlines()
    return header.split(","), np.genfromtxt(rows, delimiter=",")


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_a_training_has_the_curve_of_one_process_with_the_doubled_batch(tmp_path, alone, stage):
    """Every column of metrics.csv within 1e-5; the first process alone writes."""
    run_on_two_nodes(command(stage, alone, tmp_path / stage, *NODES)[1:], environment())
    (names, two), (expected, one) = curve(tmp_path / stage), curve(alone / stage)
    assert names == expected
    np.testing.assert_allclose(two, one, atol=1e-5, rtol=0)
    pictures = [sorted(path.name for path in (run / "figures").iterdir()) for run in (alone / stage, tmp_path / stage)]
    assert pictures[0] == pictures[1] != []


@pytest.mark.slow
def test_generated_pictures_are_those_of_one_process(tmp_path, alone):
    """Two stimuli on the first node and one on the second; round-off may turn a half into the next level."""
    said = run_on_two_nodes(script("generate", alone, tmp_path / "decoded"), environment())
    assert [line.split(":")[0] for line in said[0].splitlines()] == ["weights", "pictures"] and said[1] == ""
    two, one = (np.load(folder / "decoded.npz") for folder in (tmp_path / "decoded", alone / "decoded"))
    assert np.abs(two["decoded"].astype(int) - one["decoded"]).max() <= 1
    assert np.array_equal(two["stimulus_ids"], one["stimulus_ids"])
    assert [path.name for path in tmp_path.iterdir()] == ["decoded"]


@pytest.mark.slow
def test_the_report_is_that_of_one_process(tmp_path, alone):
    """All but its own command and the time, the table byte for byte; the second node prints nothing."""
    said = run_on_two_nodes(script("evaluate", alone, tmp_path / "report"), environment())
    assert "pairwise_ssim" in said[0] and said[1] == ""
    two, one = (json.loads((folder / "report.json").read_text()) for folder in (tmp_path / "report", alone / "decoded"))
    for report in (two, one):
        assert {"command", "finished_at"} <= report["stages"][-1].keys()
        report["stages"][-1] |= {"command": None, "finished_at": None}
    assert two == one
    assert (tmp_path / "report" / "report.csv").read_bytes() == (alone / "decoded" / "report.csv").read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["report"]

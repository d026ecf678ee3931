"""configs/god.yaml as it stands, on a simulated experiment in the published layout: tiny sizes, all else by default."""

import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tiny_stages
from test_chain import without_zeros

ROOT = tiny_stages.SCRIPTS.parent
ENCODER = {"embed_dim": 32, "depth": 2, "num_heads": 2}
DECODER = {"decoder_embed_dim": 16, "decoder_depth": 1, "decoder_num_heads": 2}


def settings(folder) -> list[str]:
    """Where things lie and how small they are; a classifier whose weights are there, and as many ways as it has."""
    god, hcp = folder / "data" / "Kamitani" / "npz", folder / "data" / "HCP" / "npz"
    by_stage = {
        "pretrain_mbm": {"data.root": hcp, "extra_data.root": god, "trainer.max_epochs": 1}
        | {f"model.{name}": value for name, value in {**ENCODER, **DECODER}.items()},
        "finetune_mbm": {"data.root": god},
        "finetune_ldm": {"data.root": god, "ldm": folder / "model.ckpt", "image_size": 16, "trainer.max_epochs": 1},
        "evaluate": {"classifier": "demo", "num_ways": "[10]"},
    }
    chain = [f"root={folder / 'runs'}", "subjects=[sbj_1]", "fork=true"]
    return chain + [f"{s}.settings.{key}={value}" for s, given in by_stage.items() for key, value in given.items()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of the chain's runs, when it has gone through."""
    folder = tmp_path_factory.mktemp("god_chain")
    tiny_stages.simulate_experiment(folder)
    without_zeros(folder / "model.ckpt")
    command = [sys.executable, "scripts/run_chain.py", "--config", "configs/god.yaml", *settings(folder)]
    environment = {**os.environ, "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1"}
    told = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert told.returncode == 0, told.stdout + told.stderr
    return folder / "runs"


def test_every_step_is_done(finished):
    """Stage A, its tuning, Stage B, pictures, the control, the scores."""
    steps = json.loads((finished / "chain.json").read_text())["steps"]
    assert len(steps) == 6 and (finished / "chain.md").is_file()


def test_the_trainings_are_the_published_ones(finished):
    """Rows, precision and what is held out, as the runs wrote them."""
    tuned = json.loads((finished / "sbj_1" / "finetune_mbm" / "manifest.json").read_text())
    assert tuned["data"]["train"]["rows"] == 8 + 8 * 3 and "validation" not in tuned["data"]  # averages, single trials
    trained = json.loads((finished / "sbj_1" / "finetune_ldm" / "manifest.json").read_text())
    assert trained["data"]["train"]["rows"] == 72 and trained["num_steps"] == 15
    assert (trained["selection"], trained["watched"]) == ("last", "test")


def test_pictures_and_the_leakage_statement(finished):
    """Five pictures a stimulus, the grid of training stimuli, and a report that says what Stage A saw."""
    decoded = finished / "sbj_1" / "finetune_ldm" / "decoded"
    assert np.load(decoded / "decoded.npz")["decoded"].shape == (8, 5, 16, 16, 3)
    assert (decoded / "training.png").is_file() and (decoded / "shuffled" / "decoded.npz").is_file()
    report = (decoded / "report.html").read_text()
    assert "single trials too, as published" in report and "The last checkpoint was taken" in report


def test_stage_b_was_watched(finished):
    """A short run too has the scores of its last weights, and a figure."""
    run = finished / "sbj_1" / "finetune_ldm"
    with (run / "metrics.csv").open(newline="") as file:
        scores = [row["val/pairwise_pcc"] for row in csv.DictReader(file) if row.get("val/pairwise_pcc")]
    assert len(scores) == 1 and 0 <= float(scores[0]) <= 1
    assert list((run / "figures").glob("decoded-*.png"))

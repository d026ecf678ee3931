"""scripts/run_stages.py: several scripts, imported once."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_stages
from script_runner import SCRIPTS, run


def start(folder: Path, *words: object) -> subprocess.CompletedProcess:
    """run_stages as a process of its own, in an empty folder: forks of this one could wait for its threads for ever."""
    command = [sys.executable, str(SCRIPTS / "run_stages.py"), *map(str, words)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


def test_stages_run_in_order_and_leave_what_the_scripts_would(tmp_path):
    """A Stage A and its export; the run folder names the script it came from."""
    tiny_stages.simulate_experiment(tmp_path)
    _, _, *pretrain = tiny_stages.command("pretrain_mbm", tmp_path, tmp_path / "run", "trainer.max_epochs=1")
    convert = ["convert_checkpoint", tmp_path / "run", tmp_path / "weights.safetensors"]
    done = start(tmp_path, "pretrain_mbm", *pretrain, "then", *convert)
    assert done.returncode == 0, done.stderr
    assert done.stdout.index("== pretrain_mbm run_dir=") < done.stdout.index("== convert_checkpoint")
    assert "pretrain_mbm.py run_dir=" in json.loads((tmp_path / "run" / "manifest.json").read_text())["command"]
    assert (tmp_path / "weights.safetensors").is_file()


def test_the_first_failure_ends_it(tmp_path):
    """Its status is that of the whole, and what follows is not begun."""
    done = start(tmp_path, "generate", "run=nowhere", "then", "simulate", "out=data")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "nowhere" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["simulat", "then", "generate"], "simulat.py: no such script"),
        (["simulate", "then"], "a stage is empty"),
        ([], "a stage is empty"),
    ],
)
def test_words_that_name_no_stage_are_refused(words, line):
    """One line, status 2, before anything is begun."""
    outcome = run("run_stages", *words)
    assert outcome.status == 2 and outcome.err.count("\n") == 1 and line in outcome.err

"""How a program is started: by a launcher or alone, with or without somebody who reads what it prints."""

import errno
import logging
import os
import subprocess
import sys

import pytest
from script_runner import run

from mindvis.common.errors import InputError
from mindvis.common.launched import check_count, check_environment, started_by_slurm
from mindvis.config.command_line import CLOSED_PIPE, entry_point
from mindvis.training.callbacks import Assembly

JOB = {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "train", "SLURM_PROCID": "0", "SLURM_NTASKS": "4"}


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"RANK": "one"}, "RANK is 'one'"),
        ({"SLURM_PROCID": ""}, "SLURM_PROCID is ''"),
        ({"LOCAL_RANK": "-1"}, "LOCAL_RANK is '-1'"),
        ({"WORLD_SIZE": "²"}, "WORLD_SIZE is '²'"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK is 2 of WORLD_SIZE=2 processes; needed: 0 to 1"),
    ],
)
def test_what_counts_processes_is_a_number(environment, message):
    """And a rank lies below the count, or the first would wait for a process that is not there."""
    with pytest.raises(InputError, match=message):
        check_environment(environment)


def test_a_rank_that_is_no_number_is_one_line_of_every_script(monkeypatch):
    """Before Lightning, which reads it on import, raises."""
    monkeypatch.setenv("RANK", "one")
    outcome = run("pretrain_mbm", "run_dir=nowhere")
    assert (
        outcome.status == 2
        and outcome.err.startswith("error: environment variable RANK")
        and outcome.err.count("\n") == 1
    )


@pytest.mark.parametrize(
    ("environment", "started"),
    [
        ({}, False),
        (JOB, False),
        (JOB | {"SLURM_STEP_NUM_TASKS": "1"}, False),
        (JOB | {"SLURM_STEP_NUM_TASKS": "4"}, True),
    ],
)
def test_tasks_of_a_job_without_srun_are_not_processes(environment, started):
    """Neither of a job file's own commands, nor of a notebook in a job."""
    assert started_by_slurm(environment) is started


def test_another_number_of_processes_than_devices_is_refused():
    """Each would train alone, and all write to one folder."""
    check_count(1, JOB)
    check_count(4, JOB | {"SLURM_STEP_NUM_TASKS": "4"})
    with pytest.raises(InputError, match="srun has started 4 processes, but .* is 1; needed: 4"):
        check_count(1, JOB | {"SLURM_STEP_NUM_TASKS": "4"})
    with pytest.raises(InputError, match="torchrun has started 2 processes"):
        check_count(1, {"RANK": "0", "WORLD_SIZE": "2"})


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"])
def test_a_rank_left_behind_does_not_silence_a_training_of_one_process(name):
    """It would take itself for one that writes nothing."""
    check_count(1, {name: "0"})
    check_count(4, {name: "3"})
    with pytest.raises(InputError, match=f"environment variable {name}=3, but this training is one process"):
        check_count(1, {name: "3"})


def test_a_training_says_what_it_waits_for(caplog):
    """Of two nodes of which only one was started."""
    assembly = Assembly(1, 2, patience=0.01)
    with assembly.waiting(), caplog.at_level(logging.WARNING):
        assembly.timer.join()
    assert "waiting for all processes of trainer.devices=1 x trainer.num_nodes=2" in caplog.text
    assert "NODE_RANK" in caplog.text


def test_a_training_that_is_complete_says_nothing(caplog):
    """Its setup comes first."""
    assembly = Assembly(2, 1, patience=0.2)
    with assembly.waiting():
        assembly.setup()
        assembly.timer.join()
    assert not caplog.text


PRINTS = "from mindvis.config.command_line import entry_point; entry_point(lambda argv: {})([])"


def piped(body: str, redirect: str, **environment: str) -> tuple[int, str]:
    """Status and stderr of a program whose output goes to a reader that has left."""
    shell = f'{{ sleep .5; "{sys.executable}" -c "$PROGRAM" {redirect}; echo "status $?" >&3; }} 3>&2 | true'
    env = {**os.environ, "PROGRAM": PRINTS.format(body), **environment}
    said = subprocess.run(["bash", "-c", shell], env=env, capture_output=True, text=True).stderr
    return int(said.split()[-1]), said


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("body", ["print('a')", "__import__('sys').stderr.write('a')"])
def test_a_reader_that_has_enough_ends_the_program_quietly(body, unbuffered):
    """Of stdout, or of both; whether Python writes at once or at the end."""
    status, said = piped(body, "2>&1" if "stderr" in body else "", PYTHONUNBUFFERED=unbuffered)
    assert "Traceback" not in said and "BrokenPipe" not in said
    assert status in (0, CLOSED_PIPE)


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_program_runs_without_its_streams(closed):
    """Begun with them closed, as some schedulers do."""
    command = f'"{sys.executable}" -c "$PROGRAM" {closed}'
    done = subprocess.run(["bash", "-c", command], env={**os.environ, "PROGRAM": PRINTS.format("print('a')")})
    assert done.returncode == 0


def test_the_pipe_of_a_worker_is_not_taken_for_that_of_the_output():
    """Its failure is a fault to be seen."""

    @entry_point
    def main(argv):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    with pytest.raises(BrokenPipeError):
        main([])

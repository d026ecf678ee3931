"""Rows shared by processes through part files: the values of one process, kept parts, and parts that never come."""

import numpy as np
import pytest

from mindvis.common.errors import InputError
from mindvis.common.launched import Process
from mindvis.common.shares import Shares, parts_folder


def squares(rows: np.ndarray) -> np.ndarray:
    return np.stack([rows, rows**2], axis=1)


@pytest.mark.parametrize("count", [2, 3, 9])
@pytest.mark.parametrize("block", [1, 3])
def test_processes_give_the_values_of_one(tmp_path, count, block):
    """Also where some have nothing to do; the first one reads what all have written, in the order of the rows."""
    shares = [Shares(tmp_path / "parts", Process(rank, count)) for rank in range(count)]
    for share in reversed(shares):
        whole = share.begin("squares", 7, squares, block=block)
    assert np.array_equal(whole(), squares(np.arange(7)))
    shares[0].remove()
    assert not list(tmp_path.iterdir())


def test_every_batch_is_that_of_one_process(tmp_path):
    """Blocks are dealt out whole, so that a network sees batches of the same pictures."""
    seen = []
    for rank in (0, 1):
        Shares(tmp_path, Process(rank, 2)).begin("x", 10, lambda rows: seen.append(rows.tolist()) or rows, block=4)
    assert seen == [[0, 1, 2, 3, 8, 9], [4, 5, 6, 7]]


def test_one_process_writes_nothing(tmp_path, monkeypatch):
    """Without a folder all rows are computed here."""
    monkeypatch.chdir(tmp_path)
    assert np.array_equal(Shares().begin("squares", 3, squares)(), squares(np.arange(3)))
    assert not list(tmp_path.iterdir())


def test_a_part_that_is_there_is_kept(tmp_path):
    """What was computed before a crash is not computed again, unless it depends on other arrays."""
    share, calls = Shares(tmp_path, Process(0, 1)), []

    def compute(rows: np.ndarray) -> np.ndarray:
        calls.append(len(rows))
        return rows

    images = np.zeros((2, 3))
    for array in (images, images, images + 1):
        share.begin("x" + share.key(array), 2, compute)
    assert calls == [2, 2]


def test_a_part_that_never_comes_is_named(tmp_path):
    """One line with the file, the time waited and the process that should have written it."""
    shares = Shares(tmp_path, Process(0, 2), wait_minutes=0.0)
    whole = shares.begin("squares", 4, squares)
    with pytest.raises(InputError, match=r"squares-00001.npy: not there after 0 minutes .*needed: process 1 of 2"):
        whole()


def test_the_folder_follows_from_settings_and_number_of_processes(tmp_path):
    """Parts of other settings, or of another division, are never taken."""
    folders = {
        parts_folder(tmp_path / "out", settings, Process(0, count))
        for settings in ({"a": 1}, {"a": 2})
        for count in (2, 3)
    }
    assert len(folders) == 4 and {folder.parent for folder in folders} == {tmp_path}


def test_processes_are_numbered_as_their_launcher_says(monkeypatch):
    """Alone unless torchrun or srun has started it; a job file knows its tasks too, but is one process itself."""
    for name in ("RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    assert Process.from_environment() == Process(0, 1)
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_NTASKS", "4")
    assert Process.from_environment() == Process(0, 1)
    monkeypatch.setenv("SLURM_PROCID", "3")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    assert Process.from_environment() == Process(3, 4)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert Process.from_environment() == Process(1, 2)

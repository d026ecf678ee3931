"""Lines of progress where there is no terminal: none for short work, few for long."""

import io
import json
import logging
import sys

import pytest
from toy import train

from mindvis.common import progress
from mindvis.common.progress import LINE_SECONDS, Pace, Progress, done
from mindvis.training import callbacks


class Clock:
    """A second passes, or `step` of them, whenever it is looked at."""

    def __init__(self, step: float = 1.0):
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


class Terminal(io.StringIO):
    """Keeps what is written, as a terminal would show it."""

    def isatty(self) -> bool:
        return True


def test_lines_come_further_and_further_apart():
    """None in the first half minute; about a hundred a day."""
    pace = Pace(Clock())
    lines = [second for second in range(1, 24 * 3600) if pace.due()]
    assert lines[0] >= LINE_SECONDS - 1 and 100 < len(lines) < 250
    assert min(after - before for before, after in zip(lines, lines[1:], strict=False)) >= LINE_SECONDS


def test_without_a_terminal_an_iteration_logs_lines(monkeypatch, caplog):
    """What is done of how much, and the time that is left; every item is given."""
    monkeypatch.setattr(progress, "Pace", lambda: Pace(Clock(5.0)))
    with caplog.at_level(logging.INFO):
        assert list(Progress(range(12), desc="latents", unit="batch")) == list(range(12))
    assert 1 <= len(caplog.messages) < 6
    assert caplog.messages[0].startswith("latents: ") and " of 12 (" in caplog.messages[0]


def test_short_work_says_nothing(caplog):
    with caplog.at_level(logging.INFO), Progress(total=3, desc="short") as bar:
        bar.update(3)
    assert bar.n == 3 and not caplog.messages


def test_the_time_left_follows_from_the_time_taken():
    assert done(30, 120, 60.0) == "30 of 120 (25%), 1.0 min, 3.0 min left"
    assert done(30, None, 6000.0) == "30, 1.7 h"


def test_a_training_logs_steps_and_losses_and_says_at_the_end_what_it_made(monkeypatch, tmp_path, caplog):
    """Steps, epochs and losses on the way; the run folder and its checkpoints at the end."""
    monkeypatch.setattr(callbacks, "Pace", lambda: Pace(Clock(8.0)))
    with caplog.at_level(logging.INFO):
        result = train(tmp_path / "run", max_epochs=2)
    lines = [line for line in caplog.messages if line.startswith("step ")]
    assert 2 <= len(lines) <= 4 and " of 12 (" in lines[-1]
    assert "epoch 2 of 2" in lines[-1] and "train/loss" in lines[-1] and "val/loss" in lines[-1]
    said = str(result)
    assert said.startswith(f"run: {tmp_path / 'run'}, step 12, epoch 2, train/loss ")
    assert "checkpoints last.ckpt and best-" in said


def test_a_trial_run_says_that_nothing_is_kept(tmp_path):
    assert str(train(tmp_path / "run", fast_dev_run=True)) == "fast_dev_run: one batch of everything, nothing kept"


@pytest.mark.parametrize("every", [4, 100])
def test_speed_is_written_whatever_the_length_of_an_epoch(tmp_path, every):
    """Two epochs of 6 steps: rows count on over the end of an epoch, and a run shorter than that has one."""
    train(tmp_path, max_epochs=2, log_every_steps=every)
    rows = (tmp_path / "speed.csv").read_text().splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == (["4", "8", "12"] if every == 4 else ["12"])


def test_on_a_terminal_a_training_has_one_bar(tmp_path, monkeypatch):
    """Step of total over all epochs, the time left, the losses and samples a second; no `v_num`."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    train(tmp_path / "run", max_epochs=2)
    last = terminal.getvalue().rstrip().split("\r")[-1]
    assert "step 12 of 12" in last and " left" in last
    assert "train/loss" in last and "val/loss" in last and "samples/s" in last
    assert "v_num" not in terminal.getvalue() and "Epoch" not in terminal.getvalue()


def test_a_finished_run_given_again_says_so(tmp_path):
    """With the time at which it was finished, which stays; a longer run goes on as ever."""
    first = train(tmp_path / "run", max_epochs=1)
    assert str(first).startswith("run: ")
    again = train(tmp_path / "run", max_epochs=1)
    finished = json.loads((tmp_path / "run" / "manifest.json").read_text())["finished_at"]
    assert str(again).startswith(f"already finished {finished}; run: {tmp_path / 'run'}")
    assert train(tmp_path / "run", max_epochs=1).finished_before == finished

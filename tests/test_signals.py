"""Signals before a training begins, and where the two ways of taking them meet."""

import contextlib
import signal

import pytest
from toy import train

from mindvis.common.files import write_atomic
from mindvis.training.signals import INTERRUPTED, EarlyWatch, SignalWatch, stoppable


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_before_the_training_a_signal_ends_the_program_at_once(number, caplog):
    """With status 75, the words that it can be started again, and the signal handlers as they were."""
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as stopped:
        stoppable(signal.raise_signal)(number)
    assert stopped.value.code == INTERRUPTED and "to go on: python" in caplog.text
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_is_not_needed_before_the_training():
    with pytest.raises(KeyboardInterrupt):
        stoppable(signal.raise_signal)(signal.SIGINT)


def test_nothing_half_written_is_left(tmp_path):
    """A file that is being written when the signal comes is as it was."""

    def write(file):
        file.write(b"half")
        signal.raise_signal(signal.SIGTERM)

    (tmp_path / "x").write_text("old")
    with pytest.raises(SystemExit):
        stoppable(write_atomic)(tmp_path / "x", write)
    assert (tmp_path / "x").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_a_signal_whose_exception_was_lost_stops_the_training_before_its_first_step(tmp_path):
    """Python drops exceptions that are raised in a destructor."""
    with EarlyWatch():
        with contextlib.suppress(SystemExit):
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(SystemExit) as stopped:
            train(tmp_path)
    assert stopped.value.code == INTERRUPTED and not list((tmp_path / "checkpoints").iterdir())


def test_within_the_training_the_program_goes_on_until_it_has_saved():
    """The inner watch remembers; the outer one is back after it."""
    with EarlyWatch() as outer:
        with SignalWatch() as inner:
            signal.raise_signal(signal.SIGTERM)
            assert inner.status == INTERRUPTED and outer.status is None
        with pytest.raises(SystemExit):
            signal.raise_signal(signal.SIGTERM)

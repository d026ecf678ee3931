"""Signals that ask a training to stop: at once while it gets ready, at the next boundary of steps once it has begun."""

import functools
import logging
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

from mindvis.config.invocation import this_command

log = logging.getLogger(__name__)

INTERRUPTED = 75  # EX_TEMPFAIL: the run saved itself on a signal and goes on when it is started again
SIGNALS = {signal.SIGTERM: INTERRUPTED, signal.SIGUSR1: INTERRUPTED, signal.SIGINT: 130}


class SignalWatch:
    """Remembers the first signal that asks the run to stop; use as a context manager around the training."""

    def __init__(self):
        self.status: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "SignalWatch":
        self._before = {number: signal.getsignal(number) for number in SIGNALS}
        outer = [getattr(handler, "__self__", None) for handler in self._before.values()]
        # asked already, where the exception of an outer watch was lost (Python drops those raised in a destructor)
        self.status = next((watch.status for watch in outer if isinstance(watch, SignalWatch) and watch.status), None)
        self.install()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def install(self) -> None:
        """Take the signals, also back from Lightning, which registers handlers of its own when a fit begins."""
        for number in SIGNALS:
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.status is not None:
            raise KeyboardInterrupt  # the second Ctrl-C does not wait for a checkpoint
        self.status = SIGNALS[signal.Signals(number)]


class EarlyWatch(SignalWatch):
    """Ends the program where it stands, through the clean-up of whatever it is doing."""

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        self.status = SIGNALS[signal.Signals(number)]
        raise SystemExit(self.status)


def stoppable(main: Callable[..., Any]) -> Callable[..., Any]:
    """Let SIGTERM and SIGUSR1 end `main` with status 75 before and after its training, which saves before it ends.

    Until then nothing but data has been read and latents encoded, which keep their own (see `kept_latents`).
    """

    @functools.wraps(main)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        with EarlyWatch() as signals:
            try:
                return main(*arguments, **options)
            except SystemExit:
                if signals.status is not None:
                    log.warning("stopped by a signal before the training went on; to go on: %s", this_command())
                raise

    return wrapped

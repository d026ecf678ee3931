"""Standard output and error of a program: closed from the start (`>&-`), or left by their reader (`... | head`)."""

import contextlib
import os
import select
import sys
from pathlib import Path
from typing import TextIO


def open_missing() -> None:
    """Let what is said go nowhere where the program was begun without standard output or error."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - open while the program runs


def silence_left() -> bool:
    """Whether nobody reads stdout or stderr any more; what is still to be said there then goes nowhere."""
    left = [stream for stream in (sys.stdout, sys.stderr) if _has_left(stream)]
    for stream in left:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    return bool(left)


def flush() -> None:
    """Write what stdout and stderr still hold. Raises BrokenPipeError where nobody reads it."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(ValueError):  # closed by the program itself
            stream.flush()


def _has_left(stream: TextIO) -> bool:
    """Whether a stream is a pipe without a reader. Pipes to other processes do not count: they are no such stream."""
    try:
        poll = select.poll()
        poll.register(stream.fileno(), 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except (OSError, ValueError):  # no stream of the system, as in tests
        return False

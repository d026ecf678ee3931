"""Run an entry script in this process, as a user would from the shell."""

import contextlib
import io
import runpy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SCRIPTS = Path(__file__).parents[1] / "scripts"


@dataclass(frozen=True)
class Outcome:
    """Exit status and what was printed."""

    status: int
    out: str
    err: str


def script(name: str) -> Callable[..., int]:
    """`main` of scripts/<name>.py."""
    return runpy.run_path(str(SCRIPTS / f"{name}.py"))["main"]


def assert_one_line(capsys, message: str) -> None:
    """One line on stderr, with `message` in it."""
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert message in err


def run(name: str, *arguments: object) -> Outcome:
    """`python scripts/<name>.py <arguments>` without the cost of a new process."""
    out, err = io.StringIO(), io.StringIO()
    main = script(name)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else 1
    return Outcome(status, out.getvalue(), err.getvalue())

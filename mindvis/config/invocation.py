"""How a step was begun, `python scripts/NAME.py` or `python -m mindvis NAME`, by which sources, and when."""

import re
import shlex
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

_MAIN = Path(__file__).resolve().parents[1] / "__main__.py"
_SCRIPT = re.compile(r"python scripts/(\w+)\.py")


def by_package() -> bool:
    """Whether this is `python -m mindvis`, which an installed package offers without its checkout."""
    return Path(sys.argv[0]).resolve() == _MAIN


def this_command() -> str:
    """The command of this program, as it would be typed again."""
    program = ["-m", "mindvis"] if by_package() else sys.argv[:1]
    return shlex.join(["python", *program, *sys.argv[1:]])


def step_command(step: str, arguments: list[str]) -> str:
    """The command of a step with these arguments, begun as this program was."""
    return as_begun(shlex.join(["python", f"scripts/{step}.py", *arguments]))


def as_begun(text: str) -> str:
    """The same text; under `python -m mindvis` its commands `python scripts/NAME.py` are `python -m mindvis NAME`."""
    return _SCRIPT.sub(r"python -m mindvis \1", text) if by_package() else text


def made_now() -> dict[str, str | None]:
    """What a step notes beside what it has made: command, date and revision of the sources."""
    return {"command": this_command(), "finished_at": now(), "git_revision": git_revision()}


def now() -> str:
    """The date and time in UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def git_revision() -> str | None:
    """Revision of the sources, with `-dirty` for uncommitted changes; None outside a repository."""
    command = ["git", "-C", str(_MAIN.parent), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None

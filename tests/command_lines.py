"""Commands as they are written in docs, heads of configs and --help: found in text, and parsed without running them."""

import argparse
import contextlib
import io
import re
import runpy
import shlex
import typing
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from mindvis.config import command_line as cli

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10; pytest brings it there
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))
PYTHON = re.compile(r"python (scripts/\w+\.py)(.*)", re.DOTALL)


class Parsed(Exception):
    """Raised in the place of the work: `settings` is what a script made of its arguments."""

    def __init__(self, settings: Any):
        super().__init__()
        self.settings = settings


def words(command: str) -> list[str]:
    """A command as the shell divides it, without its comment."""
    return shlex.split(command, comments=True)


def parse_only(command: str) -> Any:
    """Settings of `python scripts/X.py ...` as the script itself reads them; the work is not begun.

    Fails with the script's own message where an argument is wrong.
    """
    _, script, *arguments = words(command)
    if not (ROOT / script).is_file():
        raise AssertionError(f"{command}: there is no {script}")
    if arguments[:1] == ["compare"]:  # the one sub-command: the rest are folders
        return None
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        patch.chdir(ROOT)
        _stop_after_parsing(patch, uses_settings(ROOT / script))
        try:
            status = runpy.run_path(str(ROOT / script))["main"](arguments)
        except Parsed as parsed:
            return parsed.settings
        except SystemExit as error:
            status = error.code
    raise AssertionError(f"{command}: refused with status {status}: {said.getvalue().strip().splitlines()[-1:]}")


def _stop_after_parsing(patch: pytest.MonkeyPatch, settings: bool) -> None:
    owner, name = (cli, "load_config") if settings else (argparse.ArgumentParser, "parse_args")
    original = getattr(owner, name)

    def stop(*arguments: Any, **options: Any) -> None:
        raise Parsed(original(*arguments, **options))

    patch.setattr(owner, name, stop)


def uses_settings(script: Path) -> bool:
    """Whether a script reads a settings dataclass (the others read options such as --out)."""
    return "read_settings(" in script.read_text()


def schema_of(script: Path) -> type:
    """The settings dataclass of a script."""
    name = re.search(r"read_settings\((\w+)", script.read_text()).group(1)
    return runpy.run_path(str(script))[name]


def setting_names(schema: type, prefix: str = "") -> Iterator[str]:
    """Dotted names of all settings, those of optional parts among them."""
    hints = typing.get_type_hints(schema)
    for item in fields(schema):
        options = [hints[item.name], *typing.get_args(hints[item.name])]
        nested = next((option for option in options if is_dataclass(option)), None)
        yield from setting_names(nested, f"{prefix}{item.name}.") if nested else [prefix + item.name]


def examples(text: str) -> list[str]:
    """Lines that begin with `python scripts/`, put together where a backslash goes on; comments taken off."""
    joined = re.sub(r"\\\s*\n\s*", " ", text)
    lines = (line.strip() for line in joined.splitlines())
    return [shlex.join(words(line)) for line in lines if line.startswith("python scripts/")]

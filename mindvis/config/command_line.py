"""What every script shares: one clear line for what a user can put right, and settings from YAML and dotlist."""

import argparse
import ast
import contextlib
import errno
import functools
import inspect
import io
import json
import logging
import os
import re
import select
import sys
import textwrap
import tokenize
from collections.abc import Callable, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, NoReturn, TextIO, TypeVar, get_type_hints

from omegaconf import MISSING

from mindvis.common.errors import InputError, nearest
from mindvis.common.launched import check_environment
from mindvis.config.conform import dataclass_of, own_first
from mindvis.config.invocation import as_begun, by_package, this_command
from mindvis.config.loading import Beneath, load_config

Settings = TypeVar("Settings")

USER_ERROR = 2
INTERRUPTED = 130
CLOSED_PIPE = 141  # as the shell gives it for SIGPIPE
# Errors of the operating system that a user can put right: no such file, no rights, read-only, no space, quota ...
_USER_ERRNOS = {errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR}
_USER_ERRNOS |= {errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.EFBIG}


def entry_point(main: Callable[..., int | None]) -> Callable[..., int]:
    """Make `main(argv)` return an exit status: 2 with one line on stderr for an `InputError` or a refused file.

    Log messages of the package (warnings, progress where there is no terminal) go to stderr too.
    """

    @functools.wraps(main)
    def wrapped(argv: Sequence[str] | None = None) -> int:
        _open_missing()
        _show_log()
        try:
            return _status(main, argv)
        except OSError as error:
            if error.errno == errno.EPIPE and _silence_left():
                return CLOSED_PIPE
            if error.errno not in _USER_ERRNOS:
                raise
            return _fail(f"{error.filename or 'file system'}: {error.strerror}")

    return wrapped


def _status(main: Callable[..., int | None], argv: Sequence[str] | None) -> int:
    """The exit status of `main`; whatever happens, all that it has printed is written."""
    try:
        check_environment()
        return main(argv) or 0
    except InputError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        sys.stderr.write(f"interrupted; to go on, or begin again: {this_command()}\n")
        return INTERRUPTED
    finally:
        _flush()


def _fail(message: str) -> int:
    sys.stderr.write("error: " + " ".join(message.split()) + "\n")
    return USER_ERROR


class _Lines(logging.Handler):
    """A message a line on stderr, as it is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(record.getMessage() + "\n")
        sys.stderr.flush()


def _show_log() -> None:
    """Messages of this package from `info` on."""
    package = logging.getLogger("mindvis")
    package.setLevel(logging.INFO)
    if not any(isinstance(handler, _Lines) for handler in package.handlers):
        package.addHandler(_Lines())


# Standard output and error: closed from the start (`>&-`), or left by their reader (`... | head`)


def _open_missing() -> None:
    """Open the null device in the place of a standard output or error that is closed."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - open while the program runs


def _silence_left() -> bool:
    """Whether nobody reads stdout or stderr any more; further output there is then discarded."""
    left = [stream for stream in (sys.stdout, sys.stderr) if _has_left(stream)]
    for stream in left:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    return bool(left)


def _flush() -> None:
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


class Parser(argparse.ArgumentParser):
    """Options of a script; a wrong one is one line and status 2, as a wrong setting is.

    `description` is the docstring of the script, `epilog` follows the options; both are shown as they are written.
    """

    def __init__(self, description: str, epilog: str | None = None, prog: str | None = None):
        form = argparse.RawDescriptionHelpFormatter
        if prog is None and by_package():
            prog = f"python -m mindvis {sys.argv[1]}"
        text, ending = as_begun(inspect.cleandoc(description)), as_begun(epilog or "")
        super().__init__(prog, description=text, epilog=ending, formatter_class=form)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does it; a path may begin with `~`, which no shell replaces in `--out=~/data`."""
        found = super().parse_args(args, namespace)
        for name, value in vars(found).items():
            if isinstance(value, Path):
                setattr(found, name, value.expanduser())
        return found

    def error(self, message: str) -> NoReturn:
        unknown = re.match(r"unrecognized arguments: (--[\w-]+)", message)
        near = nearest(unknown[1], re.findall(r"--[\w-]+", self.format_usage())) if unknown else []
        hint = f"nearest: {near[0]}; " if near else ""
        self.exit(_fail(f"{message}; {hint}{self.prog} --help says what there is"))


def positive(text: str) -> int:
    """The value of an option that is a whole number from 1 on, in plain decimal."""
    if not re.fullmatch("[1-9][0-9]{0,8}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


def read_settings(
    schema: type[Settings], description: str, argv: Sequence[str] | None = None, *, beneath: Beneath | None = None
) -> Settings:
    """Settings of one script: defaults of `schema` <- the YAML of `--config` <- `key=value` arguments.

    `--help` lists every setting with its default and its comment; `beneath` as of `load_config`. Raises
    `InputError` for an unknown key (naming the nearest), a value of the wrong type, or a missing file.
    """
    parser = Parser(description, "settings (name = default):\n" + "\n".join(_describe(schema, schema())))
    parser.add_argument("--config", metavar="YAML", help="experiment file; see configs/")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that win over the file")
    arguments = parser.parse_args(argv)
    return load_config(schema, arguments.config, arguments.overrides, beneath)


def _describe(schema: type, settings: Any, prefix: str = "") -> list[str]:
    """One line a setting, nested ones by their dotted name; the comments are those of the dataclass source."""
    comments, hints = _comments(schema), get_type_hints(schema)
    lines = []
    for item in own_first(schema):
        value, nested = getattr(settings, item.name), dataclass_of(hints[item.name])
        if nested is None or value is None:
            lines.append(f"  {prefix}{item.name} = {_as_typed(value)}".ljust(44) + "  " + comments.get(item.name, ""))
        if nested is not None:
            lines += _describe(nested, value or nested(), f"{prefix}{item.name}.")
    return lines


def _as_typed(value: Any) -> str:
    """A default as it would be written on the command line: null, true."""
    if value == MISSING:
        return "(required)"
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _comments(schema: type) -> dict[str, str]:
    """The trailing comment of every field, also where its default takes several lines, or a class above declares it."""
    comments: dict[str, str] = {}
    for part in filter(is_dataclass, reversed(schema.__mro__)):
        source = textwrap.dedent(inspect.getsource(part))
        tokens = tokenize.generate_tokens(io.StringIO(source).readline)
        by_line = {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}
        items = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.AnnAssign)]
        comments |= {ast.unparse(item.target): by_line.get(item.end_lineno or 0, "") for item in items}
    return comments

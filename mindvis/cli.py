"""What every script shares: one clear line for what a user can put right, and settings from YAML and dotlist."""

import argparse
import errno
import functools
import inspect
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

from mindvis.errors import InputError
from mindvis.settings import load_config

Settings = TypeVar("Settings")

USER_ERROR = 2
INTERRUPTED = 130
# What an operating system refuses for reasons of the user's: no such file, no rights, read-only, no space, quota.
_USER_ERRNOS = {errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR}
_USER_ERRNOS |= {errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG}


def entry_point(main: Callable[..., int | None]) -> Callable[..., int]:
    """Make `main(argv)` return an exit status: 2 with one line on stderr for an `InputError` or a refused file."""

    @functools.wraps(main)
    def wrapped(argv: Sequence[str] | None = None) -> int:
        try:
            return main(argv) or 0
        except InputError as error:
            return _fail(str(error))
        except OSError as error:
            if error.errno not in _USER_ERRNOS:
                raise
            return _fail(f"{error.filename or 'file system'}: {error.strerror}")
        except KeyboardInterrupt:
            sys.stderr.write("interrupted\n")
            return INTERRUPTED

    return wrapped


def _fail(message: str) -> int:
    sys.stderr.write("error: " + " ".join(message.split()) + "\n")
    return USER_ERROR


def read_settings(schema: type[Settings], description: str, argv: Sequence[str] | None = None) -> Settings:
    """Settings of one script: defaults of `schema` <- the YAML of `--config` <- `key=value` arguments.

    `--help` lists every setting with its default and its comment. Raises `InputError` for an unknown key (naming the
    nearest), a value of the wrong type, or a missing file.
    """
    parser = argparse.ArgumentParser(
        description=inspect.cleandoc(description),
        epilog="settings (name = default):\n" + "\n".join(_describe(schema, schema())),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", metavar="YAML", help="experiment file; see configs/")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that win over the file")
    arguments = parser.parse_args(argv)
    return load_config(schema, arguments.config, arguments.overrides)


def _describe(schema: type, settings: Any, prefix: str = "") -> list[str]:
    """One line a setting, nested ones by their dotted name; the comments are those of the dataclass source."""
    comments = dict(re.findall(r"^    (\w+):[^#\n]*#\s*(.*)$", inspect.getsource(schema), re.MULTILINE))
    lines = []
    for item in fields(schema):
        value = getattr(settings, item.name)
        if is_dataclass(value):
            lines += _describe(type(value), value, f"{prefix}{item.name}.")
        else:
            lines.append(f"  {prefix}{item.name} = {value}".ljust(44) + " " + comments.get(item.name, ""))
    return lines

"""Texts as other systems leave them, read as meant or refused in one line: plain, tables, JSON."""

import csv
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mindvis.common.errors import InputError, unreadable

BYTE_ORDER_MARKS = {
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
LINE_ENDS = re.compile(r"\r\n|\r|\n")


def read_text(path: str | Path) -> str:
    """A text in UTF-8, or with a byte-order mark in UTF-16 or UTF-32. Raises InputError for anything else."""
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    encoding = next((code for mark, code in BYTE_ORDER_MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: no text in {encoding} ({error.reason}), needs to be saved as UTF-8") from None
    if "\0" in text:
        raise InputError(f"{path}: holds binary data, needs text in UTF-8")
    return text


def read_lines(path: str | Path) -> list[str]:
    """The lines of a text that are not blank, without blanks at their ends. Raises InputError as `read_text`."""
    lines = [line.strip("\ufeff\x1a \t").strip() for line in LINE_ENDS.split(read_text(path))]
    return [line for line in lines if line]


def read_table(path: str | Path) -> list[list[str]]:
    """Rows of a table separated by commas, semicolons or tabs, blanks stripped. Raises InputError as `read_text`."""
    lines = read_lines(path)
    first = lines[0] if lines else ""
    separator = next((mark for mark in ";\t" if mark in first), ",")
    with unreadable(f"{path}: no readable table", (csv.Error,)):
        return [[word.strip() for word in row] for row in csv.reader(lines, delimiter=separator)]


def read_json(path: str | Path) -> Any:
    """What a JSON file holds. Raises InputError as `read_text`, and for what is no JSON."""
    with unreadable(f"{path}: not readable as JSON", (ValueError, RecursionError)):
        return json.loads(read_text(path).lstrip("\ufeff").rstrip("\x1a"))


def read_record(path: str | Path) -> dict[str, Any]:
    """What a step noted in a JSON file, by name. Raises InputError as `read_json`, and for anything but an object."""
    found = read_json(path)
    if not isinstance(found, dict):
        raise InputError(f"{path}: holds a {type(found).__name__}, needs an object with names, as the step wrote it")
    return found


def require_groups(record: Mapping[str, Any], names: Iterable[str], where: str) -> None:
    """Raise InputError for an entry of a record, named `where` and by its name, that should hold entries of its own."""
    for name in names:
        if name in record and not isinstance(record[name], Mapping):
            found = f"{where}{name} is {str(record[name])[:60]!r}"
            raise InputError(f"{found}; needed: entries by name, as this program wrote them")

"""What every part of the reader shares: names that were not imported, refusals, and bounds."""

import math
import pickle
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from mindvis.common.errors import InputError


@dataclass(frozen=True)
class Unknown:
    """A class or function of the pickle that was not imported; `name` is module.name."""

    name: str


def refuse(what: str) -> NoReturn:
    """Stop reading, saying what was met; control characters in names are escaped, so that the message is one line."""
    raise pickle.UnpicklingError("refused " + what.encode("unicode_escape").decode()[:200])


@contextmanager
def reading(path: Path):
    """Turn whatever goes wrong while `path` is parsed into one InputError that names it."""
    try:
        yield
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    except pickle.UnpicklingError as error:
        raise InputError(f"{path}: {one_line(error)}") from error
    except Exception as error:  # a malformed program fails in any instruction, with any exception
        raise InputError(f"{path}: damaged or cut short ({type(error).__name__}: {one_line(error)})") from error


def brief(value: object) -> str:
    """A short text for a message: of a container the type alone, for its text could be of any length."""
    scalar = isinstance(value, str | bytes | int | float) or value is None
    return repr(value)[:80] if scalar else getattr(value, "name", type(value).__name__)


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def check_keys(keys: list) -> None:
    """Dict keys and set elements are scalars, names or tuples of scalars: deep ones take for ever to hash."""
    for key in keys:
        parts = key if isinstance(key, tuple) else (key,)
        if not all(part is None or isinstance(part, str | bytes | int | float | Unknown) for part in parts):
            refuse(f"a {type(key).__name__} as a key")


def check_shape(shape: object) -> int:
    """Number of elements of a shape that is a short tuple of non-negative integers."""
    if not isinstance(shape, tuple) or len(shape) > 32 or not all(type(n) is int and 0 <= n < 2**48 for n in shape):
        refuse(f"the shape {brief(shape)}: not a tuple of a few sizes")
    return math.prod(shape)

"""The one exception for what a user can put right, and hints for its message: known names near an unknown one."""

import difflib
import pickle
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

SLIP = 0.6  # least ratio of difflib for a name to be suggested
KINDRED = 0.7  # the same among many names; also for a name that is a word of the other, or the initials of its words
MOST = 20  # names of a folder that are listed


class InputError(ValueError):
    """A file, array or setting that is not what it must be.

    Its message is one line that names the file, array or setting, what was found and what is needed. Scripts print
    that line and exit with status 2, without a traceback.
    """


def check_setting(name: str, value: object, allowed: Collection[str]) -> None:
    """Raise InputError for a setting that is none of the `allowed` words."""
    if value not in allowed:
        raise InputError(f"setting {name} is {value!r}; needed: one of {', '.join(allowed)}")


def one_line(error: BaseException) -> str:
    """The message of another library's error, shortened to fit into one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."


def joined(*parts: str) -> str:
    """The parts of a message that are not empty, with semicolons between them."""
    return "; ".join(filter(None, parts))


@contextmanager
def unreadable(what: str, errors: tuple[type[Exception], ...], needed: str = "") -> Iterator[None]:
    """Turn `errors` of another library into an InputError `<what> (<their message>); <needed>`."""
    try:
        yield
    except InputError:
        raise
    except errors as error:
        raise InputError(joined(f"{what} ({one_line(error)})", needed)) from error


@contextmanager
def reading(path: Path) -> Iterator[None]:
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


def nearest(name: str, known: Iterable[str], count: int = 1, cutoff: float = SLIP) -> list[str]:
    """Up to `count` of the known names that may be meant by `name`, the nearest first; [] where none is near.

    Of dotted names the last part counts: `epochs` is near `trainer.max_epochs`, `learning_rate` near `optim.lr`.
    """
    scores = {other: _likeness(name.lower(), other.lower().rpartition(".")[2]) for other in known}
    ranked = sorted(scores, key=lambda other: -scores[other])
    return [other for other in ranked if scores[other] >= cutoff][:count]


def _likeness(name: str, other: str) -> float:
    """Between 0 and 1."""
    ratio = difflib.SequenceMatcher(None, name, other).ratio()
    words, other_words = name.split("_"), other.split("_")
    kindred = name in other_words or other in words or other == "".join(word[:1] for word in words)
    return max(ratio, KINDRED) if kindred else ratio


def hint(name: str, known: Iterable[str]) -> str:
    """`nearest: x`, or, where none is near, `known: x, y, z`."""
    names = list(known)
    near = nearest(name, names)
    return f"nearest: {near[0]}" if near else f"known: {', '.join(names)}"


def beside(path: Path, pattern: str = "*") -> str:
    """Hint for a path that does not exist: `nearest: runs/b`, or the names in its folder; "" where there are none."""
    if path.exists():
        return ""
    folder = next(parent for parent in path.parents if parent.is_dir() or parent == parent.parent)
    wanted = path.relative_to(folder).parts[0]
    names = sorted(other.name for other in folder.glob(pattern) if not other.name.startswith("."))
    near = difflib.get_close_matches(wanted, names, n=1, cutoff=SLIP)
    if near:
        return f"nearest: {folder / near[0]}"
    if not names or folder == Path():
        return ""
    return f"{folder} holds {', '.join(names[:MOST])}{' ...' * (len(names) > MOST)}"

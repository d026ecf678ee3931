"""Folders as other systems leave them: searched whole, and what is passed over is said."""

import filecmp
import logging
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from mindvis.common.errors import InputError, beside, joined

log = logging.getLogger(__name__)

SYSTEM_FILES = {"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "#recycle", "$recycle.bin"}
SYSTEM_FILES |= {"lost+found", "system volume information", "icon\r"}
COPY = re.compile(
    r"(?:copy of|kopie von|copie de|copia de) (?P<first>.+)|(?P<second>.+?)"
    r"(?:[ _]?\(\d+\)|[ _]?[-–]? ?\(?(?:copy|kopie|copie|copia|副本|コピー)(?: ?\(?\d+\)?)?\)?"
    r"|[ _-](?:old|bak|backup|orig)| \([^()]*conflicted copy[^()]*\)|\.sync-conflict-[\w-]+)",
    re.I,
)
FEW = 3  # names given as examples


class PassedOver:
    """Files and folders that searches left out, with the reasons."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}

    def add(self, path: Path, reason: str) -> None:
        """Note one file or folder; `reason` says what it is: "no picture"."""
        self._names.setdefault(reason, []).append(path.name)

    def lines(self) -> list[str]:
        """One line a reason: `passed over 5: hidden (.DS_Store, ._a, ._b, ...)`."""
        return [
            f"passed over {len(names)}: {reason} ({', '.join(names[:FEW])}{', ...' * (len(names) > FEW)})"
            for reason, names in self._names.items()
        ]

    def log(self, where: str | Path) -> None:
        """Log the lines."""
        for line in self.lines():
            log.info("%s: %s", where, line)


def require_folder(path: str | Path, what: str) -> Path:
    """The folder as a Path. Raises InputError when it is missing."""
    folder = Path(path)
    if not folder.is_dir():
        raise InputError(joined(f"{folder}: no such folder, needs {what}", beside(folder)))
    return folder


def require_file(path: str | Path, what: str | None = None) -> Path:
    """The file as a Path. Raises InputError when it is missing, saying `what` is needed."""
    if not Path(path).is_file():
        found = "a folder, no file" if Path(path).is_dir() else "no such file"
        raise InputError(f"{path}: {found}" + (f", needs {what}" if what else ""))
    return Path(path)


def list_folder(folder: Path, passed: PassedOver, *, copies: bool = False) -> list[Path]:
    """What lies in a folder, sorted, without files of the system and (unless `copies`) without copies of what is there.

    Links are followed. Raises InputError for a folder that may not be read and for a link to nothing.
    """
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder}: the folder cannot be read ({error.strerror})") from None
    names = {path.name for path in paths}
    kept = []
    for path in paths:
        reason = _why_not(path.name, set() if copies else names)
        if reason:
            passed.add(path, reason)
            continue
        try:
            path.stat()
        except OSError as error:
            to = f", a link to {path.readlink()}" if path.is_symlink() else ""
            raise InputError(f"{path}{to}: cannot be read ({error.strerror})") from None
        kept.append(path)
    return kept


def files_below(folder: Path, passed: PassedOver) -> list[Path]:
    """All files below a folder, sorted, as `list_folder` gives them; every folder is entered once, links last."""
    waiting, links, files = [folder], list[Path](), list[Path]()
    seen: set[tuple[int, int]] = set()  # device and inode
    while waiting or links:
        current = waiting.pop() if waiting else links.pop(0)
        status = current.stat()
        if (status.st_dev, status.st_ino) in seen:
            passed.add(current, "a link to a folder that is searched already")
            continue
        seen.add((status.st_dev, status.st_ino))
        for path in list_folder(current, passed):
            if path.is_dir():
                (links if path.is_symlink() else waiting).append(path)
            else:
                files.append(path)
    return sorted(files)


def original_of(name: str) -> str | None:
    """The name that a copy was made from: "sbj_1 (1).npz" and "sbj_1 - Copy.npz" give "sbj_1.npz"; None for others."""
    path = Path(name)
    for part, rest in ((path.stem, path.suffix), (name, "")):
        found = COPY.fullmatch(part)
        if found:
            return (found["first"] or found["second"]) + rest
    return None


def without_twins(paths: Sequence[Path], passed: PassedOver, names: Sequence[str]) -> list[Path]:
    """The files without copies: those with the same bytes as another and its name with an ending.

    `names` are those of the subjects, one a file; "sbj_01" is "sbj_1", and "sbj_10" is not "sbj_1" with an ending. The
    same bytes under another name are kept, and logged.
    """
    kept: list[tuple[str, Path]] = []
    called = [re.sub("(?<![0-9])0+(?=[0-9])", "", name) for name in names]
    for name, path in sorted(zip(called, paths, strict=True), key=lambda pair: (len(pair[1].stem), pair)):
        other = next(((known, first) for known, first in kept if filecmp.cmp(first, path, shallow=False)), None)
        if other is not None and re.fullmatch(re.escape(other[0]) + "([^0-9].*)?", name):
            passed.add(path, f"the same bytes as {other[1].name}")
            continue
        if other is not None:
            log.warning("%s: holds the same bytes as %s and counts as another subject", path, other[1].name)
        kept.append((name, path))
    found = {path for _, path in kept}
    return [path for path in paths if path in found]


class Names:
    """Names of pictures, found also when written in another case, with blanks at the ends or with split accents."""

    def __init__(self, names: Iterable[str]):
        self._exact = set(names)
        self._alike: dict[str, set[str]] = {}
        for name in self._exact:
            self._alike.setdefault(_folded(name), set()).add(name)

    def find(self, name: str) -> str | None:
        """The one name that is meant; None when there is none, or when several are alike."""
        if name in self._exact:
            return name
        alike = self._alike.get(_folded(name), set())
        return next(iter(alike)) if len(alike) == 1 else None

    def find_all(self, wanted: Sequence[str], error: str) -> list[str]:
        """The names that are meant. Raises InputError with `error`, whose {count} and {first} are of missing ones."""
        found = {name: self.find(name) for name in dict.fromkeys(wanted)}
        missing = [name for name, match in found.items() if match is None]
        if missing:
            raise InputError(error.format(count=len(missing), first=repr(missing[0])))
        return [match for name in wanted if (match := found[name]) is not None]


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name.strip()).casefold()


def _why_not(name: str, names: set[str]) -> str | None:
    if name.startswith("."):
        return "hidden"
    if name.casefold() in SYSTEM_FILES:
        return "left by the operating system"
    return "copies of what is beside them" if original_of(name) in names else None

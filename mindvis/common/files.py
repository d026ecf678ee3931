"""Files that are whole or not there: written beside their place, synced, renamed. And the digest of a file."""

import contextlib
import csv
import errno
import hashlib
import io
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from mindvis.common.errors import InputError

TEMPORARY = ".tmp"
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_CHUNK = 1 << 24


def write_atomic(path: str | Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a temporary file beside `path`, sync it and rename it: `path` is old or new, never half.

    Its folder is made where it is missing. Raises `InputError` naming `path` when it cannot be written, when the disk
    is full or the file larger than the file system allows; on any error the temporary file is removed, and `path` is as
    it was.
    """
    path = Path(path)
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            write(file)
        if stat.S_IMODE(temporary.stat().st_mode) != mode:  # a library may have put a file of its own in the place
            temporary.chmod(mode)  # the rights that the umask allows
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    except BaseException as error:  # a signal may end the program here
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        _raise_no_room(error, path, "what was there before is whole")
        _raise_refused(error, path, temporary)
        raise


def write_text(path: str | Path, text: str) -> None:
    """Atomic text file; errors as in `write_atomic`."""
    write_atomic(path, lambda file: file.write(text.encode()))


def write_json(path: str | Path, content: Mapping | Sequence) -> None:
    """Atomic, indented JSON file; errors as in `write_atomic`."""
    write_text(path, json.dumps(content, indent=2, default=str) + "\n")


def write_npz(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Atomic file of named arrays, uncompressed, so that readers can map them; errors as in `write_atomic`."""
    write_atomic(path, lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]


def write_npy(path: str | Path, array: np.ndarray) -> None:
    """Atomic file of one array; errors as in `write_atomic`."""
    write_atomic(path, lambda file: np.save(file, array))


def append_text(path: Path, text: str) -> None:
    """Add lines to a file that is cut back when a run resumes. Raises `InputError` when the disk is full."""
    try:
        with path.open("a", newline="") as file:
            file.write(text)
    except OSError as error:
        _raise_no_room(error, path, "checkpoints are whole")
        raise


def to_csv(columns: Sequence[str], rows: Iterable[Mapping], header: bool = True) -> str:
    """Rows as CSV text; what a row lacks is empty, and what no column names is left out."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", extrasaction="ignore", lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


@contextlib.contextmanager
def staged_folder(folder: Path) -> Iterator[Path]:
    """An empty folder to fill, made anew; where that fails, it is removed again."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(parents=True)
        yield folder
    except BaseException:  # a signal may end the program here
        shutil.rmtree(folder, ignore_errors=True)
        raise


def link(source: Path, target: Path) -> None:
    """Give `source` the second name `target`, atomically; a copy where the file system has no hard links."""
    temporary = target.with_name(target.name + TEMPORARY)
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:
        with source.open("rb") as file:
            return write_atomic(target, lambda out: shutil.copyfileobj(file, out))
    temporary.replace(target)
    # Renaming one name of a file onto another name of the same file does nothing and keeps both.
    temporary.unlink(missing_ok=True)
    return sync(target.parent)


def remove_temporaries(folder: Path) -> None:
    """Remove what a killed process left half-written in `folder`."""
    for path in folder.glob("*" + TEMPORARY):
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Make a file, or the renames in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file, read in pieces."""
    with Path(path).open("rb") as file:
        return sha256_of(file).hexdigest()


def digest(parts: Iterable[str | bytes | np.ndarray]) -> str:
    """Hexadecimal SHA-256 of texts, bytes and the numbers of arrays, one after another."""
    found = hashlib.sha256()
    for part in parts:
        part = part.encode() if isinstance(part, str) else part
        found.update(np.ascontiguousarray(part).data if isinstance(part, np.ndarray) else part)
    return found.hexdigest()


def sha256_of(file: BinaryIO, num_bytes: float = float("inf")) -> "hashlib._Hash":
    """SHA-256 of the next bytes of an open file: of so many, or of all that are left."""
    digest = hashlib.sha256()
    while num_bytes > 0 and (chunk := file.read(int(min(num_bytes, _CHUNK)))):
        digest.update(chunk)
        num_bytes -= len(chunk)
    return digest


def _raise_refused(error: BaseException, path: Path, temporary: Path) -> None:
    """Raise `InputError` naming `path` where the system refused to make the file or its folder."""
    named = getattr(error, "filename", None)
    if isinstance(error, OSError) and named is not None and Path(named) in {temporary, *path.parents}:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error


def _raise_no_room(error: BaseException, path: Path, reassurance: str) -> None:
    """Raise `InputError` naming `path` where the system refused to store more bytes."""
    if not isinstance(error, OSError):
        return
    short_write = error.errno is None and "requested and" in str(error)  # numpy's words, without a reason
    if error.errno in _NO_ROOM or short_write:
        reason = error.strerror or "not all of it could be written"
        needed = "a file system for larger files" if error.errno == errno.EFBIG else "more space"
        raise InputError(f"{path}: {reason}; {reassurance}; needed: {needed}") from error

"""Files that are whole or not there: written beside their place, synced, renamed; checkpoints verified when read."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from mindvis.common.errors import InputError

TEMPORARY = ".tmp"
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
_SEAL = b"mindvis-sha256:"
_SEAL_LENGTH = len(_SEAL) + 64
_CHUNK = 1 << 24


def write_atomic(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Let `write` fill a temporary file beside `path`, sync it and rename it: `path` is old or new, never half.

    Raises `InputError` when the disk is full; on any error the temporary file is removed, and `path` is as it was.
    """
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except BaseException as error:  # a signal may end the program here
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in _NO_SPACE:
            raise InputError(f"{path}: {error.strerror}; what was there before is whole; needed: more space") from error
        raise


def write_text(path: Path, text: str) -> None:
    """Atomic text file; errors as in `write_atomic`."""
    write_atomic(path, lambda file: file.write(text.encode()))


def append_text(path: Path, text: str) -> None:
    """Add lines to a file that is cut back when a run resumes. Raises `InputError` when the disk is full."""
    try:
        with path.open("a", newline="") as file:
            file.write(text)
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise InputError(f"{path}: {error.strerror}; checkpoints are whole; needed: more space") from error
        raise


def write_json(path: Path, content: Mapping) -> None:
    """Atomic, indented JSON file; errors as in `write_atomic`."""
    write_text(path, json.dumps(content, indent=2, default=str) + "\n")


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
    return sync_folder(target.parent)


def remove_temporaries(folder: Path) -> None:
    """Remove what a killed process left half-written in `folder`."""
    for path in folder.glob("*" + TEMPORARY):
        path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def save_tensors(content: Mapping, path: Path) -> None:
    """Write tensors and plain values atomically, as a file that loads with `weights_only=True`."""

    def write(file: BinaryIO) -> None:
        sink = _Sink(file)
        torch.save(plain(content), sink)
        sink.close()

    write_atomic(path, write)


def load_tensors(path: Path, map_location: Any = "cpu") -> dict:
    """Read a file of `save_tensors` after verifying it. Raises `InputError` when it is absent, truncated or corrupt."""
    fault = find_fault(path)
    if fault:
        raise InputError(f"{path}: {fault}; needed: a checkpoint written by this program")
    return torch.load(path, map_location=map_location, weights_only=True)


def find_fault(path: Path) -> str | None:
    """Why `path` cannot be a whole checkpoint of `save_tensors`, or None: its last bytes are a digest of the others."""
    if not path.is_file():
        return "no such file"
    digest, left = hashlib.sha256(), path.stat().st_size - _SEAL_LENGTH
    with path.open("rb") as file:
        while left > 0 and (chunk := file.read(min(left, _CHUNK))):
            digest.update(chunk)
            left -= len(chunk)
        seal = file.read()
    if not seal.startswith(_SEAL):
        return "truncated or corrupt (its checksum is missing)"
    return None if seal == _seal(digest) else "corrupt (its checksum differs)"


def _seal(digest: Any) -> bytes:
    return _SEAL + digest.hexdigest().encode()


def plain(value: Any) -> Any:
    """`value` with subclasses of dict, list, str and numpy scalars made plain. Raises TypeError for anything else."""
    if isinstance(value, torch.Tensor):
        return value.detach()
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return (list if isinstance(value, list) else tuple)(map(plain, value))
    return _plain_scalar(value)


def _plain_scalar(value: Any) -> bool | int | float | str | bytes | None:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    kind = next((kind for kind in (bool, int, float, str, bytes) if isinstance(value, kind)), None)
    if kind is None and value is not None:
        raise TypeError(f"a checkpoint holds tensors and plain values only, not {type(value).__name__}")
    return None if kind is None else kind(value)


class _Sink:
    """File for torch.save that digests what it writes, and remembers an error.

    torch's writer is C++ and must not see Python exceptions; its zip format has checksums that torch does not read, and
    none for its directory. Bytes after the end of a zip archive are allowed.
    """

    def __init__(self, file: BinaryIO):
        self.file, self.error, self.digest = file, None, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        try:
            if self.error is None:
                self.file.write(data)
        except OSError as error:
            self.error = error
        return len(data)

    def flush(self) -> None:
        """The caller syncs."""

    def close(self) -> None:
        """Seal the file; raises the OSError that a write has met."""
        if self.error is not None:
            raise self.error
        self.file.write(_seal(self.digest))

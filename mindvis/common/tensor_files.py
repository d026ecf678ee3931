"""Files of tensors and plain values: whole or not there, sealed with a digest, and verified when read."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from mindvis.common.errors import InputError
from mindvis.common.files import sha256_of, write_atomic

_SEAL = b"mindvis-sha256:"
_SEAL_LENGTH = len(_SEAL) + 64


def save_tensors(content: Mapping, path: Path) -> None:
    """Write tensors and plain values atomically, as a file that loads with `weights_only=True`.

    Raises TypeError for any other object, and what `write_atomic` raises.
    """

    def write(file: BinaryIO) -> None:
        sink = _Sink(file)
        torch.save(_without_classes(content), sink)  # type: ignore[arg-type]
        sink.close()

    write_atomic(path, write)


def load_tensors(path: Path) -> dict:
    """Read a file of `save_tensors` after verifying it. Raises `InputError` when it is absent, truncated or corrupt."""
    fault = find_fault(path)
    if fault:
        raise InputError(f"{path}: {fault}; needed: a checkpoint written by this program")
    return torch.load(path, map_location="cpu", weights_only=True)


def find_fault(path: Path) -> str | None:
    """Why `path` cannot be a whole checkpoint of `save_tensors`, or None: its last bytes are a digest of the others."""
    if not path.is_file():
        return "no such file"
    with path.open("rb") as file:
        digest = sha256_of(file, path.stat().st_size - _SEAL_LENGTH)
        seal = file.read()
    if not seal.startswith(_SEAL):
        return "truncated or corrupt (its checksum is missing)"
    return None if seal == _seal(digest) else "corrupt (its checksum differs)"


def _seal(digest: Any) -> bytes:
    return _SEAL + digest.hexdigest().encode()


def _without_classes(value: Any) -> Any:
    """`value` with subclasses of dict, list, str and numpy scalars as the plain class. Raises TypeError for others."""
    if isinstance(value, torch.Tensor):
        return value.detach()
    if isinstance(value, Mapping):
        return {_without_classes(key): _without_classes(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return (list if isinstance(value, list) else tuple)(map(_without_classes, value))
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
        self.file, self.digest = file, hashlib.sha256()
        self.error: OSError | None = None

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

"""Files of tensors and plain values: whole or not there, sealed with a digest, and verified when read."""

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mindvis.common.errors import InputError, one_line
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


def save_safetensors(path: str | Path, state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors as a safetensors file; those that share memory are written apart. Raises as `write_atomic`."""
    seen: set[int] = set()
    apart = {}
    for name, tensor in state.items():
        memory = tensor.untyped_storage().data_ptr()
        apart[name] = (tensor.detach().clone() if memory in seen else tensor.detach()).contiguous()
        seen.add(memory)

    def save(file: BinaryIO) -> None:
        try:
            save_file(apart, file.name, dict(metadata))  # it writes to names only
        except SafetensorError as error:
            code = re.search(r"os error (\d+)", str(error))  # of a full disk it speaks in words alone
            raise OSError(int(code[1]), os.strerror(int(code[1]))) if code else error from error

    write_atomic(Path(path), save)


def read_safetensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors, mapped from the file, and metadata. Raises InputError for a missing or damaged file."""
    if not Path(path).is_file():
        raise InputError(f"{path}: no such safetensors file")
    try:
        with safe_open(path, framework="pt") as opened:
            state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a dict
            return state, dict(opened.metadata() or {})
    except (SafetensorError, ValueError, OSError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({one_line(error)})") from error

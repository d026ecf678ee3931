"""Files of `torch.save` from anybody, read without running anything in them.

`torch.load` reads the container (zip, or the stream of torch before 1.6) and the storages; the pickle inside goes
through our own unpickler. `weights_only=True` would not do: it takes tensors that reach beyond their entry of a mapped
file, unfolds compressed entries without bound, and reads pickles of protocol 2 alone.
"""

import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import BinaryIO

import torch
from torch import Tensor
from torch.storage import TypedStorage

from mindvis.common.errors import reading
from mindvis.common.safe_pickle import (
    CONSTRUCTORS,
    Name,
    SafeUnpickler,
    brief,
    check_keys,
    check_shape,
    refuse,
)

ZIP_START = b"PK\x03\x04"
STREAM_START = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)  # the magic number of torch
MAX_DIMS = 16


def load_torch(path: str | Path) -> object:
    """The object saved in a torch file, tensors on the CPU; those of a zip file are mapped, and writing to them leaves
    the file alone.

    Raises InputError where the file is not one, is cut short, claims more than it holds or would call anything.
    """
    path = Path(path)
    with reading(path):
        with path.open("rb") as file:
            start = file.read(len(STREAM_START))
        if start.startswith(ZIP_START):
            return _load_zip(path)
        if start == STREAM_START and not tarfile.is_tarfile(path):
            return _load_stream(path)
        found = f"starts with {start!r}: not a torch file (a page or link saved instead?)" if start else "is empty"
        raise pickle.UnpicklingError(found)


def _load_zip(path: Path) -> object:
    class Reader(_TorchUnpickler):
        sizes = _storage_sizes(path)

    module = SimpleNamespace(__name__=__name__, Unpickler=Reader)
    return torch.load(path, "cpu", module, weights_only=False, mmap=True, encoding="latin1")


def _load_stream(path: Path) -> object:
    """Magic number, protocol, system, object, list of storages, then what these hold."""
    headers = []

    class Reader(_TorchUnpickler):
        limit = path.stat().st_size
        sizes: dict[str, int] = {}

    def load(file: BinaryIO, encoding: str) -> object:
        headers.append(SafeUnpickler(file, encoding=encoding).load())
        check_keys(headers[-1] if isinstance(headers[-1], list) else [])
        return headers[-1]

    module = SimpleNamespace(__name__=__name__, Unpickler=Reader, load=load)
    content = torch.load(path, "cpu", module, weights_only=False, mmap=False, encoding="latin1")
    if headers[2].get("little_endian") is False:
        refuse("tensors in big-endian byte order")
    if set(Reader.sizes) - set(headers[3]):
        raise pickle.UnpicklingError("storages are missing")
    return content


def _storage_sizes(path: Path) -> dict[str, int]:
    """Bytes of each storage of a zip file."""
    with zipfile.ZipFile(path) as archive:
        entries = {info.filename.partition("/")[2]: info for info in archive.infolist()}
        if len({name.lower() for name in entries}) < len(archive.infolist()):
            refuse("two entries of the same name")
        for info in entries.values():  # torch stores as it is: a compressed entry could unfold without bound
            if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size or info.flag_bits & 1:
                refuse(f"the compressed or encrypted entry {info.filename}")
        if "data.pkl" not in entries or "constants.pkl" in entries:
            raise pickle.UnpicklingError("a zip archive, but not one of torch.save (no data.pkl, or a compiled model)")
        if "byteorder" in entries and archive.read(entries["byteorder"]) == b"big":
            refuse("tensors in big-endian byte order")
    return {name.removeprefix("data/"): info.file_size for name, info in entries.items() if name.startswith("data/")}


def _tensor(storage: TypedStorage, offset: int, size: tuple, stride: tuple, *_: object) -> Tensor:
    """View of a storage as `_rebuild_tensor_v2` makes it. What follows the strides (gradient, hooks) is left out."""
    return _view(storage, offset, size, stride, getattr(storage, "dtype", None))


def _tensor_of_dtype(storage: TypedStorage, offset: int, size: tuple, stride: tuple, *rest: object) -> Tensor:
    """As `_rebuild_tensor_v3`; `rest`: requires_grad, hooks, dtype."""
    name = getattr(rest[2], "name", "") if len(rest) > 2 else ""
    return _view(storage, offset, size, stride, getattr(torch, name.removeprefix("torch."), None))


def _view(storage: TypedStorage, offset: int, size: tuple, stride: tuple, dtype: object) -> Tensor:
    """A tensor over a part of a storage, its bounds checked."""
    if not isinstance(storage, TypedStorage) or not isinstance(dtype, torch.dtype):
        refuse("a tensor without a storage or type")
    if type(offset) is not int or offset < 0:
        refuse(f"a tensor at offset {brief(offset)}")
    count = check_shape(size)
    check_shape(stride)
    available = storage._untyped_storage.nbytes() // dtype.itemsize
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if len(size) > MAX_DIMS or count > available or (count and last >= available):
        refuse(f"a tensor of shape {tuple(size)} over {available} elements")
    return torch.empty(0, dtype=dtype).set_(storage._untyped_storage, min(offset, available), size, stride)


def _parameter(data: Tensor, *_: object) -> Tensor:
    return data if isinstance(data, Tensor) else refuse("a parameter without a tensor")


class _TorchUnpickler(SafeUnpickler):
    """Admits tensors, whose storages torch reads.

    `sizes` are the bytes of each storage of a zip file. A stream names them as they come: `limit` is its own size.
    """

    sizes: dict[str, int]
    limit: int | None = None
    stack: list  # of pickle._Unpickler, whose Python form has no types
    readline: Callable[[], bytes]
    constructors = {
        **CONSTRUCTORS,
        "torch._utils._rebuild_tensor": _tensor,
        "torch._utils._rebuild_tensor_v2": _tensor,
        "torch._utils._rebuild_tensor_v3": _tensor_of_dtype,
        "torch._utils._rebuild_parameter": _parameter,
        "torch.Size": lambda sizes=(): tuple(sizes),
        "torch.device": lambda *name: ":".join(map(str, name)),
    }

    def find_class(self, module: str, name: str) -> Name | type:  # type: ignore[override]
        """Torch's own subclass of this one takes the names of the other storages."""
        found = super().find_class(module, name)
        return torch.UntypedStorage if found == Name("torch.storage.UntypedStorage") else found

    def load_persid(self) -> None:
        refuse(f"the persistent id {brief(self.readline()[:-1].decode('ascii', 'replace'))}")

    def load_binpersid(self) -> None:
        """Torch uses persistent ids for storages only: ("storage", type, key, location, number of elements)."""
        pid = self.stack[-1]
        if not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] != "storage" or any(pid[5:]):
            refuse(f"the persistent id {brief(pid)}: not that of a storage")
        self._check_storage(pid[1], pid[2], pid[4])
        super().load_binpersid()  # type: ignore[misc]

    def _check_storage(self, kind: object, key: object, count: object) -> None:
        dtype = torch.uint8 if kind is torch.UntypedStorage else getattr(kind, "dtype", None)
        if not isinstance(dtype, torch.dtype):
            refuse(f"the storage type {brief(kind)}")
        if not isinstance(key, str) or type(count) is not int or count < 0:
            refuse(f"storage {brief(key)} of {brief(count)} elements")
        size = count * dtype.itemsize
        if self.limit is not None:
            self.sizes.setdefault(key, min(size, self.limit))
        if key not in self.sizes:
            raise pickle.UnpicklingError(f"storage {key!r} is missing")
        if size > self.sizes[key]:
            refuse(f"storage {key!r}, said to be of {size} bytes, which has {self.sizes[key]}")

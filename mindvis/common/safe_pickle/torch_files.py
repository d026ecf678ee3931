"""Files written by `torch.save`, in the zip format and in the stream format of torch before 1.6.

Tensors are views of the mapped file: nothing is read before it is used, and writing to a tensor does not change the
file.
"""

import io
import mmap
import pickle
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from mindvis.common.safe_pickle import arrays
from mindvis.common.safe_pickle.rules import Unknown, brief, check_shape, reading, refuse
from mindvis.common.safe_pickle.unpickler import SafeUnpickler

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_START = pickle.dumps(LEGACY_MAGIC, protocol=2)
LEGACY_PROTOCOL = 1001
MAX_DIMS = 16
STORAGE_DTYPES = {
    "Double": torch.float64, "Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16,
    "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8,
    "Bool": torch.bool, "ComplexFloat": torch.complex64, "ComplexDouble": torch.complex128, "Untyped": torch.uint8,
}  # fmt: skip


@dataclass(frozen=True)
class Storage:
    """Bytes of one or several tensors."""

    bytes: torch.UntypedStorage
    dtype: torch.dtype


class StorageId(NamedTuple):
    """What the pickle says about a storage: ("storage", type, key, location, number of elements)."""

    dtype: torch.dtype
    key: str
    num_elements: int

    @property
    def num_bytes(self) -> int:
        return self.num_elements * self.dtype.itemsize


def load_torch(path: str | Path) -> object:
    """The object saved in a torch file, tensors on the CPU and mapped.

    Raises InputError where the file is not one, is cut short, claims more than it holds or would call anything.
    """
    path = Path(path)
    with reading(path), path.open("rb") as file:
        start = file.read(64)
        if not start:
            raise pickle.UnpicklingError("is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if start.startswith(b"PK\x03\x04"):
                return _load_zip(path, content)
            if start.startswith(LEGACY_START):
                return _load_stream(path, content)
        raise pickle.UnpicklingError(f"starts with {start[:16]!r}: not a torch file (a page or link saved instead?)")


def _load_zip(path: Path, content: mmap.mmap) -> object:
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: info for info in archive.infolist()}
    root = next((name.removesuffix("data.pkl") for name in members if name.endswith("data.pkl")), None)
    if root is None or f"{root}constants.pkl" in members:
        raise pickle.UnpicklingError("a zip archive, but not one of torch.save (no data.pkl, or a compiled model)")
    spans = {name.removeprefix(root): _span(info, content) for name, info in members.items()}
    start, size = spans.get("byteorder", (0, 0))
    if content[start : start + size] == b"big":
        refuse("tensors in big-endian byte order")
    mapped = torch.UntypedStorage.from_file(str(path), False, len(content))
    start, size = spans["data.pkl"]
    return _unpickle(io.BytesIO(content[start : start + size]), partial(_zip_storage, mapped, spans, {}))


def _span(info: zipfile.ZipInfo, content: mmap.mmap) -> tuple[int, int]:
    """Offset and size of a member, which torch stores as it is: a compressed one could unfold without bound."""
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size or info.flag_bits & 1:
        refuse(f"the compressed or encrypted entry {info.filename}")
    header = content[info.header_offset : info.header_offset + 30]
    signature, name_size, extra_size = struct.unpack("<4s22xHH", header)
    offset = info.header_offset + 30 + name_size + extra_size
    if signature != b"PK\x03\x04" or offset + info.file_size > len(content):
        refuse(f"the entry {info.filename}, which reaches beyond the file")
    return offset, info.file_size


def _zip_storage(mapped: torch.UntypedStorage, spans: dict, cache: dict, pid: tuple) -> Storage:
    wanted = storage_id(pid)
    if f"data/{wanted.key}" not in spans:
        raise pickle.UnpicklingError(f"storage {wanted.key!r} is missing")
    offset, size = spans[f"data/{wanted.key}"]
    if wanted.num_bytes > size:
        refuse(f"storage {wanted.key!r}, said to be of {wanted.num_bytes} bytes, which has {size}")
    return _view(mapped, cache, wanted, offset)


def _view(mapped: torch.UntypedStorage, cache: dict, wanted: StorageId, offset: int) -> Storage:
    """One storage per key, so that tensors which shared memory still do."""
    if wanted.key not in cache:
        empty = torch.UntypedStorage(0)
        cache[wanted.key] = mapped[offset : offset + wanted.num_bytes] if wanted.num_bytes else empty
    if cache[wanted.key].nbytes() < wanted.num_bytes:
        refuse(f"storage {wanted.key!r}, which is said to have two sizes")
    return Storage(cache[wanted.key], wanted.dtype)


def storage_id(pid: tuple) -> StorageId:
    """Read a persistent id; torch uses them for storages only."""
    if len(pid) not in (5, 6) or pid[0] != "storage" or not isinstance(pid[1], Unknown) or any(pid[5:]):
        refuse(f"the persistent id {brief(pid[0] if pid else pid)}: not that of a storage")
    module, _, name = pid[1].name.rpartition(".")
    kind = name.removesuffix("Storage")
    if module not in ("torch", "torch.cuda", "torch.storage") or kind not in STORAGE_DTYPES:
        refuse(f"the storage type {pid[1].name}")
    if not isinstance(pid[2], str) or type(pid[4]) is not int or not 0 <= pid[4] < 2**48:
        refuse(f"storage {brief(pid[2])} of {brief(pid[4])} elements")
    return StorageId(STORAGE_DTYPES[kind], pid[2], pid[4])


def _load_stream(path: Path, content: mmap.mmap) -> object:
    """Magic number, protocol, system, object, list of keys, then the storages: so the object is read twice."""
    wanted: dict[str, StorageId] = {}
    header = [SafeUnpickler(content, {}).load() for _ in range(3)]
    if header[1] != LEGACY_PROTOCOL or not isinstance(header[2], dict) or header[2].get("little_endian") is False:
        refuse(f"the stream protocol {brief(header[1])} or its byte order")
    begin = content.tell()
    _unpickle(content, partial(_noted_storage, wanted))
    keys = SafeUnpickler(content, {}).load()
    offsets = _stream_offsets(content, keys, wanted)
    mapped = torch.UntypedStorage.from_file(str(path), False, len(content))
    content.seek(begin)
    cache: dict = {}
    return _unpickle(content, lambda pid: _view(mapped, cache, storage_id(pid), offsets[storage_id(pid).key]))


def _noted_storage(wanted: dict[str, StorageId], pid: tuple) -> Storage:
    found = storage_id(pid)
    if wanted.setdefault(found.key, found) != found:
        refuse(f"storage {found.key!r}, which is said to have two sizes")
    return Storage(torch.UntypedStorage(found.num_bytes, device="meta"), found.dtype)


def _stream_offsets(content: mmap.mmap, keys: object, wanted: dict[str, StorageId]) -> dict[str, int]:
    """Where each storage begins: they follow each other in the order of `keys`, an int64 count before each."""
    offsets, position = {}, content.tell()
    if not isinstance(keys, list) or set(wanted) - set(keys):
        raise pickle.UnpicklingError("storages are missing")
    for key in keys:
        (count,) = struct.unpack("<q", content[position : position + 8])
        offsets[key] = position + 8
        position += 8 + wanted[key].num_bytes
        if count != wanted[key].num_elements or position > len(content):
            refuse(f"storage {key!r}, which reaches beyond the file")
    return offsets


def _unpickle(file: io.BytesIO | mmap.mmap, storage: Callable) -> object:
    return SafeUnpickler(file, ADMITTED, storage).load()


def _tensor(storage: Storage, offset: int, size: tuple, stride: tuple, *_: object, dtype: object = None) -> Tensor:
    """View of a storage, its bounds checked. What follows the strides (gradient, hooks) is left out."""
    if not isinstance(storage, Storage) or type(offset) is not int or offset < 0:
        refuse("a tensor without a storage")
    dtype = storage.dtype if dtype is None else dtype
    count, _ = check_shape(size), check_shape(stride)
    available = storage.bytes.nbytes() // dtype.itemsize
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if len(size) > MAX_DIMS or count > available or (count and last >= available):
        refuse(f"a tensor of shape {tuple(size)} over {available} elements")
    empty = torch.empty(0, dtype=dtype, device=storage.bytes.device)
    return empty.set_(storage.bytes, min(offset, available), size, stride)


def _tensor_of_dtype(storage: Storage, offset: int, size: tuple, stride: tuple, *rest: object) -> Tensor:
    """`rest`: requires_grad, hooks, dtype."""
    name = getattr(rest[2], "name", "") if len(rest) > 2 else ""
    dtype = getattr(torch, name.removeprefix("torch."), None)
    if not isinstance(dtype, torch.dtype):
        refuse(f"the tensor type {name}")
    return _tensor(storage, offset, size, stride, dtype=dtype)


def _parameter(data: Tensor, *_: object) -> Tensor:
    return data if isinstance(data, Tensor) else refuse("a parameter without a tensor")


ADMITTED = {
    **arrays.ADMITTED,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_dtype,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.Size": lambda sizes=(): tuple(sizes),
    "torch.device": lambda *name: ":".join(map(str, name)),
}

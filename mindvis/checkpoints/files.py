"""Our own checkpoint files and safetensors: whole or not there at all."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mindvis.common.errors import InputError
from mindvis.common.files import write_atomic
from mindvis.common.safe_pickle.rules import one_line
from mindvis.common.tensor_files import save_tensors


def save_checkpoint(path: str | Path, content: Mapping) -> None:
    """Write tensors and plain containers as a torch file that `weights_only=True` reads.

    Raises TypeError for any other object in it, and OSError or InputError where the file cannot be written: what was
    there before is then whole.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    save_tensors(content, Path(path))


def read_checkpoint(path: str | Path) -> dict:
    """What `save_checkpoint` wrote, tensors mapped from the file.

    Raises InputError for a missing, damaged or foreign file.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such checkpoint file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch raises unrelated classes for a damaged file
        raise InputError(f"{path}: not a readable checkpoint ({type(error).__name__}: {one_line(error)})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}, a checkpoint is a dict")
    return content


def save_safetensors(path: str | Path, state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors as a safetensors file; those that share memory are written apart. Raises as `save_checkpoint`."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    apart = _apart(state)
    # opened by name a second time: safetensors writes to names only, and the handle syncs the same file
    write_atomic(Path(path), lambda file: save_file(apart, file.name, dict(metadata)))


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


def _apart(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors, a copy of each whose memory an earlier one uses."""
    seen: set[int] = set()
    apart = {}
    for name, tensor in state.items():
        memory = tensor.untyped_storage().data_ptr()
        apart[name] = (
            tensor.detach().clone(memory_format=torch.contiguous_format)
            if memory in seen
            else tensor.detach().contiguous()
        )
        seen.add(memory)
    return apart

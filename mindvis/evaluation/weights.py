"""Weights files: found or refused in one line, never downloaded, loaded without executing code, named by their hash."""

import hashlib
import pickle
from pathlib import Path

import torch
from torch import Tensor

from mindvis.common.errors import InputError


def find_weights(path: str | Path | None, *, cached_name: str, purpose: str) -> Path:
    """The file given, or else `cached_name` in the torch cache; raises InputError where neither exists."""
    if path is None:
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        path, remedy = folder / cached_name, f"; put {cached_name} there, or give its path"
    else:
        path, remedy = Path(path), ""
    if not path.is_file():
        where = f"in {path.parent}" if remedy else path
        raise InputError(f"{purpose}: no weights file {where}{remedy}")
    return path


def load_state(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a weights file (.pth, .bin, .safetensors); raises InputError unless it is a dict of tensors."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such weights file")
    try:
        state = _read(path)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise InputError(f"{path}: not a weights file of tensors only ({str(error).splitlines()[0]})") from error
    state = state.get("state_dict", state.get("model", state)) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise InputError(f"{path}: found {type(state).__name__}, need a dict of tensors")
    return state


def load_into(model: torch.nn.Module, path: str | Path, state: dict[str, Tensor] | None = None) -> torch.nn.Module:
    """Strictly fill a model from a weights file; raises InputError that counts and names the keys that do not match."""
    state = load_state(path) if state is None else state
    wanted = model.state_dict()
    wrong = [k for k in wanted if k not in state or state[k].shape != wanted[k].shape]
    wrong += [k for k in state if k not in wanted]
    if wrong:
        raise InputError(f"{path}: {len(wrong)} keys do not fit {type(model).__name__}, the first is {wrong[0]}")
    model.load_state_dict(state)
    return model.eval().requires_grad_(False)


def sha256(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _read(path: Path) -> dict:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)

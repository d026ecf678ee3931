"""Weights that no step of a training changes: kept once beside its checkpoints, which hold the others.

A checkpoint names the file and the digest of these weights; read together they are a whole model.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mindvis.common.errors import InputError
from mindvis.common.tensor_files import find_fault, save_tensors

NAMES = "base_names"  # entry by which a module tells which of its weights no step changes
BASE = "base"  # entry of a checkpoint without them: `file` and `sha256`


class BaseWriter:
    """Takes those weights out of the checkpoints of one training; they are written with the first of them."""

    def __init__(self) -> None:
        self._said: dict[str, str] | None = None

    def split(self, checkpoint: dict[str, Any], folder: Path) -> dict[str, Any]:
        """The checkpoint without the weights it names under `base_names`, which are in a file of `folder` then."""
        kept = {key: value for key, value in checkpoint.items() if key != NAMES}
        names = checkpoint.get(NAMES) or ()
        if not names:
            return kept
        state = checkpoint["state_dict"]
        if self._said is None or not (folder / self._said["file"]).is_file():
            self._said = _write({name: state[name] for name in names}, folder)
        tuned = {name: tensor for name, tensor in state.items() if name not in set(names)}
        return kept | {"state_dict": tuned, BASE: self._said}


def with_base(checkpoint: dict[str, Any], path: Path, load: Callable[[Path], Any]) -> dict[str, Any]:
    """A checkpoint read from `path`, with the weights it names in the file beside it, which `load` reads.

    One that holds all its weights, as those of earlier versions do, comes back as it is. Raises `InputError` where the
    file is missing, damaged, or of other weights.
    """
    said = checkpoint.get(BASE)
    if not isinstance(said, Mapping):
        return checkpoint
    file = path.parent / Path(str(said.get("file"))).name
    fault = find_fault(file)
    content = load(file) if fault is None else {}
    if fault is None and content.get("sha256") != said.get("sha256"):
        fault = "of other weights"
    if fault is not None:
        raise InputError(f"{path}: {file.name}, which holds the rest of its weights, is {fault}; needed: beside it")
    return checkpoint | {"state_dict": {**content["state_dict"], **checkpoint["state_dict"]}}


def _write(state: dict[str, Tensor], folder: Path) -> dict[str, str]:
    digest = digest_of(state.items())
    said = {"file": f"base-{digest[:16]}.ckpt", "sha256": digest}
    if find_fault(folder / said["file"]) is not None:
        save_tensors({"sha256": digest, "state_dict": state}, folder / said["file"])
    return said


def digest_of(state: Iterable[tuple[str, Tensor]]) -> str:
    """sha256 of names, types, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()

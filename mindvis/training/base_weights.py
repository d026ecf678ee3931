"""Weights that no step of a training changes: kept once beside its checkpoints, which hold the others.

A checkpoint names the file and the digest of these weights; read together they are a whole model.
"""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mindvis.common.errors import InputError
from mindvis.common.tensor_files import find_fault, save_tensors

NAMES = "base_names"  # entry of a checkpoint with the names of the weights that no step changes
BASE = "base"  # entry of a checkpoint without them: `file` and `sha256`


class BaseWriter:
    """Takes those weights out of the checkpoints of one training; they are written with the first of them."""

    def __init__(self) -> None:
        self._reference: dict[str, str] | None = None  # `file` and `sha256` of what was written

    def split(self, checkpoint: dict[str, Any], folder: Path) -> dict[str, Any]:
        """The checkpoint without the weights it names under `base_names`, which are then in a file of `folder`."""
        kept = {key: value for key, value in checkpoint.items() if key != NAMES}
        names = set(checkpoint.get(NAMES) or ())
        if not names:
            return kept
        state = checkpoint["state_dict"]
        if self._reference is None or not (folder / self._reference["file"]).is_file():
            self._reference = _write({name: state[name] for name in names}, folder)
        tuned = {name: tensor for name, tensor in state.items() if name not in names}
        return kept | {"state_dict": tuned, BASE: self._reference}


def with_base(checkpoint: dict[str, Any], path: Path, load: Callable[[Path], Any]) -> dict[str, Any]:
    """A checkpoint read from `path`, with the weights it names in the file beside it, which `load` reads.

    One that holds all its weights, as those of earlier versions do, comes back as it is. Raises `InputError` where the
    file is missing, damaged, or of other weights.
    """
    reference = checkpoint.get(BASE)
    if not isinstance(reference, Mapping):
        return checkpoint
    file = path.parent / Path(str(reference.get("file"))).name
    fault = find_fault(file)
    content = load(file) if fault is None else {}
    if fault is None and content.get("sha256") != reference.get("sha256"):
        fault = "of other weights"
    if fault is not None:
        raise InputError(f"{path}: {file.name}, which holds the rest of its weights, is {fault}; needed: beside it")
    return checkpoint | {"state_dict": {**content["state_dict"], **checkpoint["state_dict"]}}


def _write(state: dict[str, Tensor], folder: Path) -> dict[str, str]:
    """Write the weights to a file named by the sha256 of their names, types, shapes and bytes; its name and digest."""
    content = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        content.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        content.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    digest = content.hexdigest()
    file = f"base-{digest[:16]}.ckpt"
    if find_fault(folder / file) is not None:
        save_tensors({"sha256": digest, "state_dict": state}, folder / file)
    return {"file": file, "sha256": digest}

"""The ridge regression from fMRI to image latents that a decoder keeps beside its weights."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mindvis.checkpoints.weights import read_safetensors, save_safetensors
from mindvis.common.errors import InputError
from mindvis.common.ridge import Ridge

STRENGTH = 0.4  # keeps most of the linear map's layout, and leaves the model enough steps to draw
INITS = ("none", "ridge")
ARRAYS = ("mean", "scale", "weights", "intercept")


def home_of(run: str) -> Path:
    """Where what belongs to a decoder is kept: its folder; for a file `<file>_decoder` beside it."""
    path = Path(run)
    return path.with_name(f"{path.stem}_decoder") if path.is_file() else path


def how_decoded(settings: Mapping[str, Any]) -> str:
    """In words, how pictures were sampled: `settings` are those that generate.json keeps."""
    guidance = f"guidance {settings.get('guidance', 1):g}"
    if settings.get("init", "none") == "none":
        return f"MinD-Vis alone ({guidance})"
    return f"MinD-Vis begun from a ridge regression's picture (strength {settings['strength']:g}, {guidance})"


def predict_rows(ridge: Ridge, fmri: np.ndarray) -> np.ndarray:
    """Flattened latents [n d] of rows [n v]; one by one, so that a row does not change with those beside it."""
    return np.concatenate([ridge.predict(row[None]) for row in np.asarray(fmri, np.float32)])


def save_ridge(file: Path, ridge: Ridge, origin: dict) -> None:
    """Write a regression as safetensors, with its penalty, the errors of all penalties, and what it was fitted to."""
    state = {name: torch.from_numpy(getattr(ridge, name)) for name in ARRAYS}
    said = {"alpha": ridge.alpha, "errors": list(ridge.errors.items()), "origin": origin}
    save_safetensors(file, state, {"ridge": json.dumps(said)})


def read_ridge(file: Path) -> tuple[Ridge, dict]:
    """A regression and what it was fitted to. Raises InputError for a file that `save_ridge` did not write."""
    state, metadata = read_safetensors(file)
    try:
        said = json.loads(metadata["ridge"])
        arrays = [state[name].numpy() for name in ARRAYS]
        return Ridge(*arrays, float(said["alpha"]), {float(a): float(e) for a, e in said["errors"]}), said["origin"]
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"{file}: no ridge regression in it; needed: remove it, and generate fits it again") from error

"""The ridge regression from fMRI to image latents: fitted, applied, and kept beside the weights of a decoder."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from mindvis.common.errors import InputError
from mindvis.common.ridge import ALPHAS, Ridge, fit_ridge
from mindvis.common.tensor_files import read_safetensors, save_safetensors
from mindvis.data import PairedDataset
from mindvis.dc_ldm import LatentDiffusion
from mindvis.dc_ldm.latents import encode_batches

STRENGTH = 0.4  # keeps most of the linear map's layout, and leaves the model enough steps to draw
INITS = ("none", "ridge")
ARRAYS = ("mean", "scale", "weights", "intercept")


def home_of(run: str) -> Path:
    """Where what belongs to a decoder is kept: its folder; for a file `<file>_decoder` beside it."""
    path = Path(run)
    return path.with_name(f"{path.stem}_decoder") if path.is_file() else path


def fit_latent(
    ldm: LatentDiffusion,
    train: PairedDataset,
    alphas: Sequence[float] = ALPHAS,
    batch_size: int = 16,
    kept: np.ndarray | None = None,
) -> Ridge:
    """fMRI -> flattened latent of the training pictures; `kept` [m c h w]: their latents, if known."""
    if kept is None:
        kept = np.concatenate(list(encode_batches(ldm.autoencoder, train.stimuli, batch_size, bfloat16=False)))
    return fit_ridge(np.asarray(train.fmri), kept.reshape(len(kept), -1)[train.stimulus], alphas)


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
        arrays = {name: state[name].numpy() for name in ARRAYS}
        errors = {float(alpha): float(error) for alpha, error in said["errors"]}
        return Ridge(**arrays, alpha=float(said["alpha"]), errors=errors), said["origin"]
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{file}: no ridge regression in it; needed: remove it, and generate fits it again") from error

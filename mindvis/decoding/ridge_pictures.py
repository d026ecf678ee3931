"""What a user would try first: ridge regression from fMRI into the spaces of the same label-to-image LDM.

`latent`: fMRI -> image latent, decoded by the autoencoder; blurred, as a mean of pictures is. `class`: fMRI -> class
embedding, which conditions the untuned UNet as a class would. MinD-Vis has to beat both.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mindvis.checkpoints import is_diffusers, load_state, load_torch, read_label2img
from mindvis.common.errors import InputError
from mindvis.common.progress import Progress
from mindvis.common.ridge import Ridge, fit_ridge
from mindvis.config.decoding import BaselineConfig
from mindvis.data import PairedDataset
from mindvis.data.images import to_float, to_uint8
from mindvis.dc_ldm import LatentDiffusion, build_class_ldm
from mindvis.decoding.decode import decode
from mindvis.decoding.output import mean_fmri

WITHOUT_CLASSES = "the class baseline needs class ids, which this data set has not"
CLASS_EMBEDDING = "cond_stage_model.embedding.weight"
SAMPLING = ("num_samples", "sampler", "num_steps", "guidance", "batch_size", "seed")
SAMPLING += ("compile", "matmul_precision")


class RidgeConditioner(nn.Module):
    """A fitted ridge regression in the place of the fMRI conditioner: fMRI [b 1 v] -> context [b 1 c]."""

    def __init__(self, ridge: Ridge):
        super().__init__()
        weights = ridge.weights / ridge.scale[:, None]  # [v c]
        self.register_buffer("weights", torch.from_numpy(weights).float())
        self.register_buffer("bias", torch.from_numpy(ridge.intercept - ridge.mean @ weights).float())

    def forward(self, fmri: Tensor) -> Tensor:
        return fmri @ self.weights + self.bias


def load_class_ldm(path: str | Path) -> LatentDiffusion:
    """A label-to-image LDM with its class embedding, in evaluation mode. Raises InputError where a part is missing.

    A diffusers folder has no such embedding: its model comes without conditioner.
    """
    settings, state = read_label2img(path)
    if is_diffusers(path):
        ldm = build_class_ldm(settings, with_classes=False)
        load_state(ldm, state, source=str(path))
        return ldm.eval()
    path = Path(path) / "model.ckpt" if Path(path).is_dir() else Path(path)
    embedding = load_torch(path)["state_dict"].get(CLASS_EMBEDDING)
    if embedding is None:
        raise InputError(f"{path}: no {CLASS_EMBEDDING}, which the class baseline needs")
    ldm = build_class_ldm(settings)
    load_state(ldm, {**state, "conditioner.embedding.weight": embedding}, source=str(path))
    return ldm.float().eval()


def decode_with_ridge(
    ldm: LatentDiffusion, train: PairedDataset, test: PairedDataset, target: str, config: BaselineConfig
) -> tuple[np.ndarray, Ridge]:
    """Fit the regression to `latent` or `class` and decode the test fMRI: uint8 [n k h w 3], and the fit."""
    fmri = np.asarray(test.fmri)
    if target == "latent":
        ridge = fit_latent(ldm, train, config.alphas, config.batch_size)
        return decode_latents(ldm, ridge.predict(fmri), config.batch_size), ridge
    ridge = fit_class(ldm, train, config.alphas)
    conditioner = RidgeConditioner(ridge).to(next(ldm.parameters()).device)
    parts = {"unet": ldm.unet, "autoencoder": ldm.autoencoder, "schedule": ldm.schedule}
    decoder = LatentDiffusion(conditioner=conditioner, **parts, parameterization=ldm.parameterization).eval()
    options = {name: getattr(config, name) for name in SAMPLING} | {"mean_fmri": mean_fmri(train)}
    return decode(decoder, fmri, range(len(fmri)), **options), ridge


def fit_latent(
    ldm: LatentDiffusion,
    train: PairedDataset,
    alphas: Sequence[float],
    batch_size: int = 16,
    kept: np.ndarray | None = None,
) -> Ridge:
    """fMRI -> flattened latent of the training pictures; `kept` [m c h w] are their latents, where there are some."""
    if kept is not None:
        return fit_ridge(np.asarray(train.fmri), kept.reshape(len(kept), -1)[train.stimulus], alphas)
    device = next(ldm.parameters()).device
    batches = Progress(_split(train.stimuli, batch_size), desc="latents", leave=False)
    latents = np.concatenate([ldm.encode(to_float(images).to(device)).cpu().flatten(1).numpy() for images in batches])
    return fit_ridge(np.asarray(train.fmri), latents[train.stimulus], alphas)


def fit_class(ldm: LatentDiffusion, train: PairedDataset, alphas: Sequence[float]) -> Ridge:
    """fMRI -> embedding of the class of the training picture. Raises InputError where its class is not known."""
    return fit_ridge(np.asarray(train.fmri), class_embeddings(ldm, train), alphas)


def class_embeddings(ldm: LatentDiffusion, train: PairedDataset) -> np.ndarray:
    """Embedding of the class of every training row: [n c]."""
    table = ldm.conditioner.embedding.weight.detach().cpu().numpy()
    if train.class_ids is None:
        raise InputError(f"targets: {WITHOUT_CLASSES}; take [latent]")
    ids = np.asarray(train.class_ids)
    if ids.min() < 0 or ids.max() >= len(table):
        raise InputError(f"class ids run from {ids.min()} to {ids.max()}, the LDM knows 0 to {len(table) - 1}")
    return table[ids]


@torch.no_grad()
def decode_latents(ldm: LatentDiffusion, latents: np.ndarray, batch_size: int = 16) -> np.ndarray:
    """Flattened latents [n d] -> pictures uint8 [n 1 h w 3]."""
    device = next(ldm.parameters()).device
    shaped = latents.reshape(-1, *ldm.latent_shape).astype(np.float32)
    parts = [torch.from_numpy(part).to(device) for part in _split(shaped, batch_size)]
    return np.concatenate([to_uint8(ldm.autoencoder.decode(part, quantize=True)) for part in parts])[:, None]


def _split(array: np.ndarray, size: int) -> list[np.ndarray]:
    return [array[start : start + size] for start in range(0, len(array), size)]

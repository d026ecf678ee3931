"""What a user would try first: baselines and ceilings as decoders, with the same label-to-image LDM.

Baselines use the test fMRI by ridge regression: `latent`, fMRI -> image latent, decoded by the autoencoder (blurred, as
a mean of pictures is); `class`, fMRI -> class embedding, which conditions the untuned UNet as a class would;
`retrieval`, the training picture nearest to predicted features; `predicted_class`, the generator given the class that
is read off the fMRI. MinD-Vis has to beat them. Ceilings use the true picture: `autoencoder` shows it as the latent can
hold it, `true_class` lets the generator draw its class. `mean` and `noise` use nothing. Their pictures lie in ordinary
folders, to be evaluated and audited like any other.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mindvis.checkpoints import is_diffusers, load_state
from mindvis.checkpoints.formats import read_kind
from mindvis.common.draws import generator
from mindvis.common.errors import InputError
from mindvis.common.ridge import Ridge, fit_ridge
from mindvis.config.decoding import BaselineConfig
from mindvis.data import PairedDataset
from mindvis.data.images import to_uint8
from mindvis.dc_ldm import LatentDiffusion, build_class_ldm
from mindvis.dc_ldm.latents import encode_batches
from mindvis.decoding.categories import predict_classes
from mindvis.decoding.decode import OPTIONS, decode
from mindvis.decoding.ridge import fit_latent
from mindvis.evaluation.audit_features import choose_spaces

WITHOUT_CLASSES = "the class baseline needs class ids, which this data set has not"
WITHOUT_EMBEDDING = "it needs an embedding of classes, which this diffusers folder has not"
NEED_CLASSES = ("class", "predicted_class", "true_class")


def load_class_ldm(path: str | Path) -> LatentDiffusion:
    """A label-to-image LDM with its class embedding, in evaluation mode. Raises InputError where a part is missing.

    A diffusers folder of others has no such embedding: its model comes without conditioner.
    """
    weights = read_kind(path, "label2img")
    if weights.classes is None and not is_diffusers(path):
        raise InputError(f"{path}: no cond_stage_model.embedding.weight, which the class baseline needs")
    ldm = build_class_ldm(weights.settings, with_classes=weights.classes is not None)
    classes = {} if weights.classes is None else {"conditioner.embedding.weight": weights.classes}
    load_state(ldm, weights.state_dict | classes, source=str(path))
    return ldm.float().eval()


def usable_targets(ldm: LatentDiffusion, train: PairedDataset, targets: Sequence[str]) -> tuple[list[str], list[str]]:
    """The targets that are possible with this data, and a line about each that is not.

    Raises InputError for class ids that the LDM does not know, and where no target is left.
    """
    reason = ""
    if train.class_ids is None:
        reason = WITHOUT_CLASSES
    elif not hasattr(ldm.conditioner, "embedding"):
        reason = WITHOUT_EMBEDDING
    elif set(targets) & set(NEED_CLASSES):
        class_embeddings(ldm, train)
    skipped = [target for target in targets if reason and target in NEED_CLASSES]
    usable = [target for target in targets if target not in skipped]
    if not usable:
        raise InputError(f"setting targets is {list(targets)}: {reason or 'none is named'}; needed: [latent]")
    return usable, [f"{target} skipped: {reason}" for target in skipped]


def decode_baseline(
    ldm: LatentDiffusion, train: PairedDataset, test: PairedDataset, target: str, config: BaselineConfig
) -> tuple[np.ndarray, dict]:
    """Pictures of one of `config.targets` for the test rows, uint8 [n k h w 3], and what generate.json says of them."""
    fmri = np.asarray(test.fmri)
    if target == "latent":
        ridge = fit_latent(ldm, train, config.alphas, config.batch_size)
        return decode_latents(ldm, ridge.predict(fmri), config.batch_size), _facts(ridge)
    if target == "class":
        ridge = fit_class(ldm, train, config.alphas)
        return generate(ldm, RidgeConditioner(ridge), fmri, config, train.mean_row()), _facts(ridge)
    if target == "retrieval":
        return retrieve(train, test, config)
    if target == "predicted_class":
        class_ids = predict_classes(train, test)
        return generate_classes(ldm, class_ids, config), {"class_ids": class_ids.tolist()}
    if target == "true_class":
        return generate_classes(ldm, np.asarray(test.class_ids), config), {}
    return _without_fmri(ldm, train, test.stimuli[test.stimulus], target, config), {}


def _without_fmri(
    ldm: LatentDiffusion, train: PairedDataset, images: np.ndarray, target: str, config: BaselineConfig
) -> np.ndarray:
    """Pictures that need no fMRI: the true ones [n h w 3] through the autoencoder, the mean training one, or noise."""
    if target == "autoencoder":
        latents = np.concatenate(list(encode_batches(ldm.autoencoder, images, config.batch_size, bfloat16=False)))
        return decode_latents(ldm, latents, config.batch_size)
    if target == "mean":
        mean = np.asarray(train.stimuli[train.stimulus]).mean(axis=0).round().astype(np.uint8)
        return np.tile(mean, (len(images), 1, 1, 1, 1))
    noise = generator((config.seed,), "noise pictures").integers(0, 256, (len(images), 1, *images.shape[1:]))
    return noise.astype(np.uint8)


def _facts(ridge: Ridge) -> dict:
    return {"alpha": ridge.alpha, "errors": ridge.errors}


def fit_class(ldm: LatentDiffusion, train: PairedDataset, alphas: Sequence[float]) -> Ridge:
    """fMRI -> embedding of the class of the training picture. Raises InputError where its class is not known."""
    return fit_ridge(np.asarray(train.fmri), class_embeddings(ldm, train), alphas)


def class_embeddings(ldm: LatentDiffusion, train: PairedDataset) -> np.ndarray:
    """Embedding of the class of every training row: [n c]."""
    if train.class_ids is None:
        raise InputError(f"targets: {WITHOUT_CLASSES}; take [latent]")
    table = ldm.conditioner.embedding.weight.detach().cpu().numpy()
    return table[_known_classes(ldm, np.asarray(train.class_ids))]


def _known_classes(ldm: LatentDiffusion, class_ids: np.ndarray) -> np.ndarray:
    """The same classes. Raises InputError for one that the LDM does not know."""
    num_classes = len(ldm.conditioner.embedding.weight)
    if class_ids.min() < 0 or class_ids.max() >= num_classes:
        found = f"class ids run from {class_ids.min()} to {class_ids.max()}"
        raise InputError(f"{found}, the LDM knows 0 to {num_classes - 1}")
    return class_ids


class RidgeConditioner(nn.Module):
    """A fitted ridge regression in the place of the fMRI conditioner: fMRI [b 1 v] -> context [b 1 c]."""

    weights: Tensor
    bias: Tensor

    def __init__(self, ridge: Ridge):
        super().__init__()
        weights = ridge.weights / ridge.scale[:, None]  # [v c]
        self.register_buffer("weights", torch.from_numpy(weights).float())
        self.register_buffer("bias", torch.from_numpy(ridge.intercept - ridge.mean @ weights).float())

    def forward(self, fmri: Tensor) -> Tensor:
        return fmri @ self.weights + self.bias


class ClassConditioner(nn.Module):
    """The class embedding in the place of the fMRI conditioner: class numbers [b 1 1] -> context [b 1 c]."""

    def __init__(self, embedding: nn.Embedding):
        super().__init__()
        self.embedding = embedding

    def forward(self, class_ids: Tensor) -> Tensor:
        return self.embedding(class_ids[:, 0].round().long())


def generate_classes(ldm: LatentDiffusion, class_ids: np.ndarray, config: BaselineConfig) -> np.ndarray:
    """What the untuned model draws for these classes [n]: uint8 [n k h w 3]. Raises InputError for an unknown one."""
    rows = _known_classes(ldm, class_ids)[:, None].astype(np.float32)
    return generate(ldm, ClassConditioner(ldm.conditioner.embedding), rows, replace(config, guidance=1.0))


def generate(
    ldm: LatentDiffusion,
    conditioner: nn.Module,
    rows: np.ndarray,
    config: BaselineConfig,
    mean_row: np.ndarray | None = None,
) -> np.ndarray:
    """What the untuned model draws under another conditioner of rows [n v]: uint8 [n k h w 3]."""
    decoder = LatentDiffusion(
        unet=ldm.unet,
        autoencoder=ldm.autoencoder,
        conditioner=conditioner.to(next(ldm.parameters()).device),
        schedule=ldm.schedule,
        parameterization=ldm.parameterization,
    ).eval()
    options = {name: getattr(config, name) for name in OPTIONS}
    return decode(decoder, rows, range(len(rows)), mean_fmri=mean_row, **options)


def retrieve(train: PairedDataset, test: PairedDataset, config: BaselineConfig) -> tuple[np.ndarray, dict]:
    """The training picture whose features correlate best with those that ridge predicts: uint8 [n 1 h w 3].

    `features=auto` are those of the demo's classifier for the demo's model, else those of an audit.
    """
    usual = "demo" if config.ldm == "demo" else None
    space = choose_spaces(usual if config.features == "auto" else config.features)[-1]
    shown = np.unique(train.stimulus)
    rows = space(train.stimuli[shown])  # [t d]
    ridge = fit_ridge(np.asarray(train.fmri), rows[np.searchsorted(shown, train.stimulus)], config.alphas)
    predicted = ridge.predict(np.asarray(test.fmri))
    predicted = predicted - predicted.mean(axis=1, keepdims=True)
    nearest = shown[(predicted @ rows.T).argmax(axis=1)]  # rows have unit length: this orders as correlation does
    return train.stimuli[nearest][:, None], _facts(ridge) | {"features": space.name, "nearest": nearest.tolist()}


@torch.no_grad()
def decode_latents(ldm: LatentDiffusion, latents: np.ndarray, batch_size: int = 16) -> np.ndarray:
    """Latents [n d] or [n c h w] -> pictures uint8 [n 1 h w 3]."""
    device = next(ldm.parameters()).device
    shaped = torch.from_numpy(latents.reshape(-1, *ldm.latent_shape).astype(np.float32))
    parts = (part.to(device) for part in shaped.split(batch_size))
    return np.concatenate([to_uint8(ldm.autoencoder.decode(part, quantize=True)) for part in parts])[:, None]

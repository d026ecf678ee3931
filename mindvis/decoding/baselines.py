"""Baselines and ceilings as decoders: what a retriever, a classifier, a perfect generator make of the same data.

Baselines use the test fMRI: `retrieval`, the nearest training picture of ridge-predicted features; `predicted_class`,
the generator given the class that ridge reads off the fMRI; `latent` and `class` (see `ridge_pictures`). Ceilings use
the true picture: `autoencoder` shows it as the latent can hold it, `true_class` lets the generator draw its class.
`mean` and `noise` use nothing. Their pictures lie in ordinary folders, to be evaluated and audited like any other.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from mindvis.common.draws import generator
from mindvis.common.errors import InputError
from mindvis.common.ridge import fit_ridge
from mindvis.config.decoding import BaselineConfig
from mindvis.data import PairedDataset
from mindvis.data.images import to_float
from mindvis.dc_ldm import LatentDiffusion
from mindvis.decoding.decode import decode
from mindvis.decoding.ridge import class_scores
from mindvis.decoding.ridge_pictures import (
    SAMPLING,
    WITHOUT_CLASSES,
    class_embeddings,
    decode_latents,
    decode_with_ridge,
)
from mindvis.evaluation.audit_features import Space, choose_spaces

RIDGE = ("latent", "class")
WITHOUT_EMBEDDING = "it needs an embedding of classes, which a diffusers folder has not"
NEED_CLASSES = ("class", "predicted_class", "true_class")
TARGETS = (*RIDGE, "retrieval", "predicted_class", "autoencoder", "true_class", "mean", "noise")


class ClassConditioner(nn.Module):
    """The class embedding in the place of the fMRI conditioner: class numbers [b 1 1] -> context [b 1 c]."""

    def __init__(self, embedding: nn.Embedding):
        super().__init__()
        self.embedding = embedding

    def forward(self, class_ids: Tensor) -> Tensor:
        return self.embedding(class_ids[:, 0].round().long())


def usable_targets(ldm: LatentDiffusion, train: PairedDataset, targets: Sequence[str]) -> tuple[list[str], list[str]]:
    """Those of the targets that this data allows, and a line about each that is left out.

    Raises InputError for unknown targets, for class ids that the LDM does not know, and where no target is left.
    """
    for target in targets:
        if target not in TARGETS:
            raise InputError(f"setting targets names {target!r}; needed: one or more of {', '.join(TARGETS)}")
    reason = WITHOUT_CLASSES if train.class_ids is None else WITHOUT_EMBEDDING
    without = train.class_ids is None or not hasattr(ldm.conditioner, "embedding")
    usable = [target for target in targets if target not in NEED_CLASSES or not without]
    if not usable:
        raise InputError(f"setting targets is {list(targets)}: {reason}; needed: [latent]")
    if set(usable) & set(NEED_CLASSES):
        class_embeddings(ldm, train)
    return usable, [f"{target} skipped: {reason}" for target in targets if target not in usable]


def decode_baseline(
    ldm: LatentDiffusion, train: PairedDataset, test: PairedDataset, target: str, config: BaselineConfig
) -> tuple[np.ndarray, dict]:
    """Pictures of a target of `TARGETS` for the test rows, uint8 [n k h w 3], and what generate.json says of them."""
    if target in RIDGE:
        decoded, ridge = decode_with_ridge(ldm, train, test, target, config)
        return decoded, {"alpha": ridge.alpha, "errors": ridge.errors}
    if target == "retrieval":
        return retrieve(train, test, retrieval_space(config), config)
    if target == "predicted_class":
        class_ids = predict_classes(train, test)
        return generate_classes(ldm, class_ids, config), {"class_ids": class_ids.tolist()}
    if target == "true_class":
        return generate_classes(ldm, np.asarray(test.class_ids), config), {}
    images = test.stimuli[test.stimulus]
    if target == "autoencoder":
        return autoencode(ldm, images, config.batch_size), {}
    if target == "mean":
        mean = np.asarray(train.stimuli[train.stimulus]).mean(axis=0).round().astype(np.uint8)
        return np.tile(mean, (len(images), 1, 1, 1, 1)), {}
    noise = generator((config.seed,), "noise pictures").integers(0, 256, (len(images), 1, *images.shape[1:]))
    return noise.astype(np.uint8), {}


def retrieval_space(config: BaselineConfig) -> Space:
    """The features that training pictures are looked up by: the demo's for the demo's model, else as an audit's."""
    if config.features != "auto":
        return choose_spaces(config.features)[-1]
    return choose_spaces("demo" if config.ldm == "demo" else None)[-1]


def retrieve(
    train: PairedDataset, test: PairedDataset, space: Space, config: BaselineConfig
) -> tuple[np.ndarray, dict]:
    """The training picture whose features correlate best with those that ridge predicts: uint8 [n 1 h w 3]."""
    shown = np.unique(train.stimulus)
    rows = space(train.stimuli[shown])  # [t d]
    ridge = fit_ridge(np.asarray(train.fmri), rows[np.searchsorted(shown, train.stimulus)], config.alphas)
    predicted = ridge.predict(np.asarray(test.fmri))
    predicted = predicted - predicted.mean(axis=1, keepdims=True)
    nearest = shown[(predicted @ rows.T).argmax(axis=1)]  # rows have unit length: this orders as correlation does
    facts = {"alpha": ridge.alpha, "errors": ridge.errors, "features": space.name, "nearest": nearest.tolist()}
    return train.stimuli[nearest][:, None], facts


def predict_classes(train: PairedDataset, test: PairedDataset) -> np.ndarray:
    """The class that a ridge regression of one-hot classes scores highest for every test row: int [n]."""
    class_ids = np.asarray(train.class_ids)
    known = np.unique(class_ids)
    scores = class_scores(np.asarray(train.fmri), np.searchsorted(known, class_ids), np.asarray(test.fmri), len(known))
    return known[scores.argmax(axis=1)]


def generate_classes(ldm: LatentDiffusion, class_ids: np.ndarray, config: BaselineConfig) -> np.ndarray:
    """What the untuned model draws for these classes [n]: uint8 [n k h w 3]. Raises InputError for an unknown one."""
    embedding = ldm.conditioner.embedding
    if class_ids.min() < 0 or class_ids.max() >= len(embedding.weight):
        found = f"class ids run from {class_ids.min()} to {class_ids.max()}"
        raise InputError(f"{found}, the LDM knows 0 to {len(embedding.weight) - 1}")
    parts = {"unet": ldm.unet, "autoencoder": ldm.autoencoder, "schedule": ldm.schedule}
    decoder = LatentDiffusion(
        conditioner=ClassConditioner(embedding), **parts, parameterization=ldm.parameterization
    ).eval()
    options = {name: getattr(replace(config, guidance=1.0), name) for name in SAMPLING}
    return decode(decoder, class_ids[:, None].astype(np.float32), range(len(class_ids)), **options)


@torch.no_grad()
def autoencode(ldm: LatentDiffusion, images: np.ndarray, batch_size: int) -> np.ndarray:
    """Pictures as the autoencoder gives them back: uint8 [n h w 3] -> uint8 [n 1 h w 3]."""
    device = next(ldm.parameters()).device
    starts = range(0, len(images), batch_size)
    latents = [ldm.encode(to_float(images[start : start + batch_size]).to(device)).cpu() for start in starts]
    return decode_latents(ldm, torch.cat(latents).flatten(1).numpy(), batch_size)

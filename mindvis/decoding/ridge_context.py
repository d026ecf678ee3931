"""A conditioner that begins as ridge regression onto the class embedding, and the embeddings themselves as targets."""

import numpy as np
import torch
from torch import Tensor, nn

from mindvis.checkpoints import find_ldm
from mindvis.common.errors import InputError
from mindvis.common.ridge import ALPHAS, fit_ridge
from mindvis.config.schemas import FinetuneLDMConfig
from mindvis.data import PairedDataset
from mindvis.dc_ldm import LatentDiffusion
from mindvis.decoding.baselines import RidgeConditioner, class_embeddings, load_class_ldm


def start_context(ldm: LatentDiffusion, config: FinetuneLDMConfig, train: PairedDataset) -> Tensor | None:
    """What `class_targets` gives; with `context.ridge` the conditioner begins as its regression, except in `start`."""
    targets = class_targets(config, train)
    if config.context.ridge and targets is not None and not config.start:
        start_from_ridge(ldm, train, targets)
    return targets


def class_targets(config: FinetuneLDMConfig, train: PairedDataset) -> Tensor | None:
    """Embedding of the class of each training row [n c] where the settings of the context need it.

    Raises InputError for an unknown target, for data without classes, or for a label-to-image model without embedding.
    """
    context = config.context
    if context.target not in ("class", "latent"):
        raise InputError(f"setting context.target is {context.target!r}; needed: class or latent")
    if not context.ridge and (context.regression == 0 or context.target == "latent"):
        return None
    if train.class_ids is None:
        found = "context.ridge" if context.ridge else "context.target=class"
        raise InputError(f"setting {found} needs the classes of the training pictures, which this data set has not")
    ldm = load_class_ldm(find_ldm(config.ldm))
    if not hasattr(ldm.conditioner, "embedding"):
        raise InputError(f"{config.ldm}: a diffusers folder has no embedding of classes; needed: the model.ckpt")
    return torch.from_numpy(class_embeddings(ldm, train))


def start_from_ridge(ldm: LatentDiffusion, train: PairedDataset, targets: Tensor) -> None:
    """Let contexts begin as the ridge regression of `targets` [n c] on the fMRI, and the time condition at 0.

    The model then begins as ridge regression onto the class embedding with the untuned model (see `baselines`).
    """
    linear = RidgeConditioner(fit_ridge(np.asarray(train.fmri), targets.numpy(), ALPHAS))
    ldm.conditioner.start_from_linear(linear.weights.T, linear.bias)
    condition = ldm.unet.time_embed_condtion
    last = condition[-1] if isinstance(condition, nn.Sequential) else condition
    for parameter in [] if last is None else last.parameters():
        nn.init.zeros_(parameter)

"""A conditioner that begins as ridge regression onto the class, and the class embeddings themselves as targets."""

import numpy as np
import torch
from torch import Tensor, nn

from mindvis.checkpoints import find_ldm
from mindvis.common.errors import InputError, check_setting
from mindvis.common.ridge import ALPHAS, fit_ridge
from mindvis.config.schemas import FinetuneLDMConfig
from mindvis.data import PairedDataset
from mindvis.dc_ldm import ClassMixture, LatentDiffusion
from mindvis.decoding.baselines import RidgeConditioner, class_embeddings, load_class_ldm

LEAD = 20.0  # by how many logits, in the median over training rows, a class leads the next: doubt is rare
ABSENT = -1e4  # logit of classes that no training row shows


def start_context(ldm: LatentDiffusion, config: FinetuneLDMConfig, train: PairedDataset) -> Tensor | None:
    """Embedding of the class of each training row [n c], where the settings of the context need it.

    With `context.ridge` the conditioner begins as ridge regression, except where weights come from `start`. Raises
    InputError for an unknown target, for data without classes, or for a label-to-image model without embedding.
    """
    context = config.context
    check_setting("context.target", context.target, ("class", "latent"))
    if context.ridge == "none" and (context.regression == 0 or context.target == "latent"):
        return None
    if train.class_ids is None:
        found = "context.target=class" if context.ridge == "none" else f"context.ridge={context.ridge}"
        raise InputError(f"setting {found} needs the classes of the training pictures, which this data set has not")
    class_ldm = load_class_ldm(find_ldm(config.ldm))
    if not hasattr(class_ldm.conditioner, "embedding"):
        needed = "needed: one that has, or a model.ckpt"
        raise InputError(f"{config.ldm}: this diffusers folder has no embedding of classes; {needed}")
    targets = torch.from_numpy(class_embeddings(class_ldm, train))
    if ldm.conditioner.ridge is not None and not config.start:
        start_from_ridge(ldm, train, targets, class_ldm.conditioner.embedding.weight)
    return targets


@torch.no_grad()
def start_from_ridge(ldm: LatentDiffusion, train: PairedDataset, targets: Tensor, embeddings: Tensor) -> None:
    """Let what is added to every token be fitted to the training rows; what the encoder adds begins at 0.

    So does the time condition. A linear map is fitted to the embeddings `targets` [n c]: the model then begins as ridge
    regression onto the class embedding with the untuned UNet. A mixture of the `embeddings` [k c] of all classes is
    fitted to the classes.
    """
    ridge = ldm.conditioner.ridge
    if isinstance(ridge, ClassMixture):
        weight, bias = fit_classes(np.asarray(train.fmri), np.asarray(train.class_ids), len(embeddings))
        ridge.embeddings.copy_(embeddings)
    else:
        linear = RidgeConditioner(fit_ridge(np.asarray(train.fmri), targets.numpy(), ALPHAS))
        weight, bias = linear.weights.T, linear.bias
    ridge.weight.copy_(weight)
    ridge.bias.copy_(bias)
    condition = ldm.unet.time_embed_condtion
    last = condition[-1] if isinstance(condition, nn.Sequential) else condition
    for layer in [ldm.conditioner.dim_mapper, *([] if last is None else [last])]:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)


def fit_classes(fmri: np.ndarray, class_ids: np.ndarray, num_classes: int) -> tuple[Tensor, Tensor]:
    """Logits of all classes as a linear layer, weight [k v] and bias [k]: ridge regression of one-hot classes.

    It is stretched until the first class leads the second by `LEAD`, in the median over the rows of fMRI [n v].
    """
    shown = np.unique(class_ids)
    ridge = fit_ridge(fmri, (class_ids[:, None] == shown).astype(float))
    best = np.sort(ridge.predict(fmri), axis=1)[:, -2:]  # of the rows it was fitted to
    stretch = LEAD / max(float(np.median(best[:, 1] - best[:, 0])), 1e-6)
    linear = RidgeConditioner(ridge)
    weight, bias = torch.zeros(num_classes, fmri.shape[1]), torch.full((num_classes,), ABSENT)
    weight[shown] = stretch * linear.weights.T
    bias[shown] = stretch * linear.bias
    return weight, bias

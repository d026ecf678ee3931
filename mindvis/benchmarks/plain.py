"""The plain way of doing the same work with the same modules, as the published recipe does it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mindvis.dc_ldm import LatentDiffusion


@contextmanager
def unfused_attention() -> Iterator[None]:
    """Every attention as two products and a softmax between them."""
    fused = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = _products_and_softmax
    try:
        yield
    finally:
        F.scaled_dot_product_attention = fused


def with_all_gradients(ldm: LatentDiffusion) -> LatentDiffusion:
    """Gradients for every weight a training step meets, those of the autoencoder too, though only some are stepped."""
    ldm.requires_grad_(True)
    ldm.encode = ldm.autoencoder.encode  # inside autograd
    return ldm


def adamw(groups: list[dict], **options: Any) -> torch.optim.AdamW:
    """AdamW tensor by tensor."""
    return torch.optim.AdamW(groups, **options, foreach=False, fused=False)


def _products_and_softmax(query: Tensor, key: Tensor, value: Tensor, **_: Any) -> Tensor:
    """[b heads n c], [b heads m c] twice -> [b heads n c]; the networks here use neither mask, dropout nor scale."""
    weights = (query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5).softmax(dim=-1)
    return weights @ value

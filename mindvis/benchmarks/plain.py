"""The plain way of doing the same work with the same modules, as the published recipe does it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional as F

from mindvis.dc_ldm import LatentDiffusion
from mindvis.sc_mbm import MaskedBrainModel, attention, products
from mindvis.sc_mbm.model import run


@contextmanager
def plain_layers() -> Iterator[None]:
    """Every attention as two products and a softmax between them, every linear layer as torch has it."""
    with ExitStack() as stack:
        stack.enter_context(patch.object(F, "scaled_dot_product_attention", _products_and_softmax))
        stack.enter_context(patch.object(attention, "grouped_pays", lambda *_: False))
        stack.enter_context(patch.object(products, "onednn_pays", lambda *_: False))
        yield


class CopyingModel(MaskedBrainModel):
    """Masked autoencoder that embeds every patch, copies the visible ones, and puts them back among mask tokens."""

    def encode(self, patches: Tensor, visible: Tensor) -> Tensor:
        """[b l p], [b k] -> [b 1+k d]."""
        tokens = self.patch_embed.proj(patches.flatten(1)[:, None]).transpose(1, 2) + self.pos_embed[:, 1:]  # [b l d]
        tokens = tokens.gather(1, visible[..., None].expand(-1, -1, tokens.shape[2]))  # [b k d]
        class_token = (self.cls_token + self.pos_embed[:, :1]).expand(len(tokens), -1, -1)
        return self.norm(run(self.blocks, torch.cat([class_token, tokens], dim=1)))

    def decode(self, latent: Tensor, visible: Tensor) -> Tensor:
        """[b 1+k d], [b k] -> [b l p]."""
        shown = self.decoder_embed(latent)  # [b 1+k d']
        hidden = self.mask_token.repeat(len(shown), self.num_patches - visible.shape[1], 1)
        seen = torch.zeros(len(shown), self.num_patches, device=visible.device).scatter_(1, visible, 1.0)
        order = torch.cat([visible, seen.argsort(dim=1)[:, : hidden.shape[1]]], dim=1)  # [b l]: hidden ones last
        tokens = torch.cat([shown[:, 1:], hidden.to(shown.dtype)], dim=1)  # [b l d']
        tokens = tokens.gather(1, order.argsort(dim=1)[..., None].expand_as(tokens))
        tokens = torch.cat([shown[:, :1], tokens], dim=1) + self.decoder_pos_embed
        return self.decoder_pred(self.decoder_norm(run(self.decoder_blocks, tokens))[:, 1:])


def correlation(fmri: Tensor, reconstruction: Tensor) -> Tensor:
    """Mean correlation over samples, one after the other and on the CPU: [b v], [b v] -> scalar."""
    pairs = zip(reconstruction.detach().cpu(), fmri.cpu(), strict=True)
    return torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in pairs]).mean()


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

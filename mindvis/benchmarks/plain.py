"""The plain way of doing the same work with the same modules, as the published recipe does it."""

from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from mindvis.dc_ldm import LatentDiffusion
from mindvis.sc_mbm import MaskedBrainModel
from mindvis.training.on_cpu import split_attention

Network = TypeVar("Network", bound=nn.Module)


class CopyingModel(MaskedBrainModel):
    """Masked autoencoder that embeds every patch, copies the visible ones, and puts them back among mask tokens."""

    def encode(self, patches: Tensor, visible: Tensor) -> Tensor:
        """[b l p], [b k] -> [b 1+k d]."""
        tokens = self.patch_embed.proj(patches.flatten(1)[:, None]).transpose(1, 2) + self.pos_embed[:, 1:]  # [b l d]
        tokens = tokens.gather(1, visible[..., None].expand(-1, -1, tokens.shape[2]))  # [b k d]
        class_token = (self.cls_token + self.pos_embed[:, :1]).expand(len(tokens), -1, -1)
        return self.norm(self.run(self.blocks, torch.cat([class_token, tokens], dim=1)))

    def decode(self, latent: Tensor, visible: Tensor) -> Tensor:
        """[b 1+k d], [b k] -> [b l p]."""
        shown = self.decoder_embed(latent)  # [b 1+k d']
        hidden = self.mask_token.repeat(len(shown), self.num_patches - visible.shape[1], 1)
        seen = torch.zeros(len(shown), self.num_patches, device=visible.device).scatter_(1, visible, 1.0)
        order = torch.cat([visible, seen.argsort(dim=1)[:, : hidden.shape[1]]], dim=1)  # [b l]: hidden ones last
        tokens = torch.cat([shown[:, 1:], hidden.to(shown.dtype)], dim=1)  # [b l d']
        tokens = tokens.gather(1, order.argsort(dim=1)[..., None].expand_as(tokens))
        tokens = torch.cat([shown[:, :1], tokens], dim=1) + self.decoder_pos_embed
        return self.decoder_pred(self.decoder_norm(self.run(self.decoder_blocks, tokens))[:, 1:])


def unfused(network: Network) -> Network:
    """The network with every attention as two products and a softmax between them, in place."""
    split_attention(network)
    return network


def with_all_gradients(ldm: LatentDiffusion) -> LatentDiffusion:
    """Gradients for every weight of UNet and conditioner, though only some are stepped; the autoencoder has none."""
    ldm.unet.requires_grad_(True)
    ldm.conditioner.requires_grad_(True)
    return ldm


def correlation(fmri: Tensor, reconstruction: Tensor) -> Tensor:
    """Mean correlation over samples, one after the other and on the CPU: [b v], [b v] -> scalar."""
    pairs = zip(reconstruction.detach().cpu(), fmri.cpu(), strict=True)
    return torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in pairs]).mean()


def adamw(groups: list[dict], **options: Any) -> torch.optim.AdamW:
    """AdamW tensor by tensor."""
    return torch.optim.AdamW(groups, **options, foreach=False, fused=False)

"""Attention of the encoder over its patches, followed through the layers.

Abnar & Zuidema, "Quantifying Attention Flow in Transformers" (ACL 2020), section 3: rollout. It says where information
can have come from, not what a score depends on: that is what occlusion measures.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from einops import rearrange
from timm.models.vision_transformer import Attention
from torch import Tensor

from mindvis.sc_mbm.model import BrainEncoder


def attention_weights(attention: Attention, tokens: Tensor) -> Tensor:
    """Weights that a layer gives `tokens` [b l d] (after its norm): [b heads l l], the last axis sums to 1.

    Computed beside the layer, because its fused kernel does not give them away.
    """
    qkv = attention.qkv(tokens)  # [b l 3*heads*e]
    queries, keys, _ = rearrange(qkv, "b l (three h e) -> three b h l e", three=3, h=attention.num_heads)
    queries, keys = attention.q_norm(queries), attention.k_norm(keys)
    return (queries @ keys.transpose(-2, -1) * attention.scale).softmax(dim=-1)


def rollout(layers: Iterable[Tensor]) -> Tensor:
    """Attention from the last layer back to the input, layers [b heads l l] in order -> [b l l], rows sum to 1.

    Heads are averaged and half of each layer is the residual: the product over layers of (A + I) / 2.
    """
    flow = None
    for weights in layers:
        identity = torch.eye(weights.shape[-1], dtype=weights.dtype, device=weights.device)
        layer = 0.5 * (weights.mean(dim=1) + identity)  # [b l l]
        flow = layer if flow is None else layer @ flow
    return flow


@torch.no_grad()
def patch_attention(encoder: BrainEncoder, fmri: np.ndarray, batch_size: int = 16) -> np.ndarray:
    """Share of every input patch in the tokens of an encoder, their mean: fmri [n v] -> float64 [n l], rows sum to 1.

    A Stage A model is looked at as Stage B uses its encoder: all patches visible, no class token.
    """
    rows = torch.from_numpy(np.asarray(fmri, dtype=np.float32))[:, None].split(batch_size)
    device = encoder.pos_embed.device
    parts = [rollout(_layers(encoder, batch.to(device))).mean(dim=1).double().cpu() for batch in rows]
    return torch.cat(parts).numpy()


def _layers(encoder: BrainEncoder, fmri: Tensor) -> Iterator[Tensor]:
    """Attention weights of block after block on the way of fmri [b 1 v]; all at once would be gigabytes."""
    tokens = encoder.patch_embed(encoder.patchify(fmri)) + encoder.pos_embed[:, 1:]  # [b l d]
    for block in encoder.blocks:
        yield attention_weights(block.attn, block.norm1(tokens))
        tokens = block(tokens)

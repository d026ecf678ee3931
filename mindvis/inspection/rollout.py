"""Attention of the encoder over its patches, followed through the layers, as numbers a region.

Abnar & Zuidema, "Quantifying Attention Flow in Transformers" (ACL 2020), section 3: rollout. It says where information
can have come from, not what a score depends on: that is what occlusion measures.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from einops import rearrange
from timm.models.vision_transformer import Attention
from torch import Tensor

from mindvis.evaluation.statistics import interval
from mindvis.inspection.inputs import Regions
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
    flow: Any = None
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
    blocks: Iterable[Any] = encoder.blocks
    for block in blocks:
        yield attention_weights(block.attn, block.norm1(tokens))
        tokens = block(tokens)


@dataclass(frozen=True)
class RegionAttention:
    """Attention a voxel of a region gets, 1 = as the average voxel, mean over rows with its 95 % interval."""

    roi: str
    num_voxels: int
    attention: float
    low: float
    high: float
    share: float  # of all attention


def voxel_attention(attention: np.ndarray, patch_size: int, padding: np.ndarray) -> np.ndarray:
    """Attention of patches [n l] as that of voxels [n v], 1 = the average voxel of the row; NaN where padded.

    The voxels of a patch share its attention alike.
    """
    voxels = np.repeat(attention / patch_size, patch_size, axis=1)  # [n v]
    voxels[:, padding] = np.nan
    return voxels / np.nanmean(voxels, axis=1, keepdims=True)


def region_attention(
    voxels: np.ndarray, regions: Regions, *, seed: int, num_bootstrap: int = 10_000
) -> list[RegionAttention]:
    """Mean over the voxels of each region, so that its size does not decide, from [n v]; bootstrap over rows."""
    table = []
    for roi, mask in regions.masks.items():
        rows = voxels[:, mask].mean(axis=1)  # [n]
        share = rows.mean() * mask.sum() / (~regions.padding).sum()
        table.append(RegionAttention(roi, int(mask.sum()), rows.mean(), *interval(rows, seed, num_bootstrap), share))
    return table

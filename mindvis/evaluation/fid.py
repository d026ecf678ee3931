"""Frechet inception distance through torchmetrics, from the features of any network.

The features of every picture are computed once elsewhere; torchmetrics then accumulates moments and takes the distance.
The name of a figure holds network and feature size, because values of different networks cannot be compared.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from mindvis.common.errors import InputError
from mindvis.evaluation.networks import find_weights
from mindvis.evaluation.pictures import Array, as_finite_matrix

INCEPTION_FILE = "pt_inception-2015-12-05-6726825d.pth"
INCEPTION_SIZES = (64, 2048)  # the size the published code uses, and the usual one
CAVEAT = (
    "FID between {n} decoded and {n} true pictures in {d} dimensions: the covariance has at most {rank} of {d} "
    "dimensions from so few pictures, so the value is biased upwards and depends on n. Compare it only between sets of "
    "the same size and the same network."
)


class _Identity(nn.Module):
    """Hands precomputed features to torchmetrics in place of pictures."""

    def __init__(self, num_features: int):
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def frechet_distance(decoded: Array, true: Array) -> float:
    """FID of two sets of features: [n d], [m d]. Raises InputError on NaN, other shapes or fewer than two pictures."""
    decoded, true = as_finite_matrix(decoded, "decoded features"), as_finite_matrix(true, "true features")
    if min(len(decoded), len(true)) < 2 or decoded.shape[1] != true.shape[1]:
        raise InputError(f"FID: found features {list(decoded.shape)} and {list(true.shape)}, need two pictures or more")
    decoded, true = _in_their_span(decoded.astype(np.float64), true.astype(np.float64))
    metric = FrechetInceptionDistance(feature=_Identity(true.shape[1])).set_dtype(torch.float64)
    metric.update(torch.from_numpy(true), real=True)
    metric.update(torch.from_numpy(decoded), real=False)
    return float(metric.compute())


def _in_their_span(decoded: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates in the span of both sets, from their mean: [n d], [m d] -> [n r], [m r], r <= n + m.

    Moving and turning the axes, and leaving out those in which nothing varies, changes no distance; few pictures in
    2048 dimensions take milliseconds so, instead of many seconds.
    """
    both = np.concatenate([decoded, true])
    both -= both.mean(axis=0)
    if len(both) < both.shape[1]:
        basis, _ = np.linalg.qr(both.T)  # [d n+m]
        both = both @ basis
    return both[: len(decoded)], both[len(decoded) :]


def small_sample_caveat(num_pictures: int, num_features: int) -> str:
    """What a reader must know about an FID of so few pictures."""
    return CAVEAT.format(n=num_pictures, d=num_features, rank=min(num_pictures - 1, num_features))


def load_inception(weights: str | Path | None, size: int) -> nn.Module:
    """The Inception network of the original FID, uint8 [b 3 h w] -> [b size], from its file or that of the torch cache.

    Raises InputError where the file or the package torch-fidelity, which holds the architecture, is absent.
    """
    from torchmetrics.image.fid import _TORCH_FIDELITY_AVAILABLE, NoTrainInceptionV3

    if not _TORCH_FIDELITY_AVAILABLE:
        raise InputError("FID with Inception features: needs the package torch-fidelity (pip install torch-fidelity)")
    path = find_weights(weights, cached_name=INCEPTION_FILE, purpose="FID with Inception features")
    return NoTrainInceptionV3("inception-v3-compat", [str(size)], feature_extractor_weights_path=str(path)).eval()

"""Similarities and distances between every decoded and every true picture, vectorised over pairs.

`mse`: mean squared difference of the 0..255 values. `pcc`: Pearson correlation of all values; 0 where a picture is
flat, since it has none. `ssim`: scikit-image's defaults. `lpips`: AlexNet, lower is closer.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mindvis.common.errors import InputError
from mindvis.evaluation.arrays import Array, as_images, check_same_size
from mindvis.evaluation.lpips import load_lpips
from mindvis.evaluation.ssim import ssim_matrix

LARGER_IS_CLOSER = {"mse": False, "pcc": True, "ssim": True, "lpips": False}
BLOCK = 64  # pictures a side in memory as float64: 100 MB at 256 x 256


def similarity_matrix(
    predictions: Array,
    targets: Array,
    metric: str = "ssim",
    *,
    device: str | torch.device = "cpu",
    lpips_weights: str | Path | None = None,
) -> np.ndarray:
    """Similarity (pcc, ssim) or distance (mse, lpips) of every pair: uint8 [n h w 3], [m h w 3] -> float64 [n m].

    Raises InputError for an unknown metric, arrays of another kind or size, and where the weights of lpips are absent.
    """
    if metric not in LARGER_IS_CLOSER:
        raise InputError(f"metric: found {metric!r}, need one of {', '.join(LARGER_IS_CLOSER)}")
    predictions, targets = as_images(predictions, "predictions"), as_images(targets, "targets")
    check_same_size(predictions, targets)
    device = torch.device(device)
    if metric == "ssim":
        matrix = ssim_matrix(predictions, targets, device)
    elif metric == "lpips":
        matrix = _lpips_matrix(predictions, targets, lpips_weights, device)
    else:
        matrix = _by_blocks(predictions, targets, {"mse": _mse, "pcc": _pcc}[metric], device)
    return matrix.numpy()


def _by_blocks(predictions: Tensor, targets: Tensor, compare, device: torch.device) -> Tensor:
    """Apply compare([n d], [m d]) -> [n m], float64, to blocks of flattened pictures."""
    rows = []
    for some in predictions.flatten(1).split(BLOCK):
        some = some.to(device, torch.float64)
        parts = [compare(some, part.to(device, torch.float64)).cpu() for part in targets.flatten(1).split(BLOCK)]
        rows.append(torch.cat(parts, dim=1))
    return torch.cat(rows)


def _mse(x: Tensor, y: Tensor) -> Tensor:
    """Exact for uint8 values: every sum is an integer below 2^53."""
    return squared_distances(x, y) / x.shape[1]


def _pcc(x: Tensor, y: Tensor) -> Tensor:
    """Pearson correlation from sums, all multiplied by d so that they stay integers."""
    d = x.shape[1]
    covariance = d * (x @ y.T) - x.sum(1)[:, None] * y.sum(1)
    variance_x, variance_y = [d * z.square().sum(1) - z.sum(1).square() for z in (x, y)]
    scale = (variance_x[:, None] * variance_y).sqrt()
    return torch.where(scale > 0, covariance / scale, 0.0)


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Squared Euclidean distances: [n d], [m d] -> [n m]."""
    distances = x.square().sum(1)[:, None] + y.square().sum(1) - 2 * (x @ y.T)
    return distances.clamp(min=0)


@torch.no_grad()
def _lpips_matrix(predictions: Tensor, targets: Tensor, weights: str | Path | None, device: torch.device) -> Tensor:
    network = load_lpips(weights).to(device)
    embedded = [(images, [network(part.to(device)) for part in images.split(16)]) for images in (predictions, targets)]
    (_, rows), (_, columns) = embedded
    return torch.cat([torch.cat([squared_distances(x, y) for y in columns], 1) for x in rows]).cpu().double()

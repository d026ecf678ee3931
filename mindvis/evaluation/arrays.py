"""Arrays that enter the evaluation: numpy or torch in, checked once, with one line about what is wrong."""

import numpy as np
import torch
from torch import Tensor

from mindvis.common.errors import InputError

Array = np.ndarray | Tensor


def to_numpy(array: Array) -> np.ndarray:
    """The same values as a numpy array, from any device."""
    return array.detach().cpu().numpy() if isinstance(array, Tensor) else np.asarray(array)


def as_images(images: Array, name: str) -> Tensor:
    """Checked pictures: uint8 [n h w 3], numpy or torch, -> the same as a tensor where they were.

    Raises InputError unless they are uint8 with three colours and at least one picture.
    """
    images = images if isinstance(images, Tensor) else torch.from_numpy(np.ascontiguousarray(images))
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != torch.uint8 or len(images) == 0:
        found = f"{str(images.dtype).removeprefix('torch.')} {list(images.shape)}"
        raise InputError(f"{name}: found {found}, need uint8 [n h w 3] with at least one picture")
    return images


def check_same_size(predictions: Tensor, targets: Tensor) -> None:
    """Raises InputError unless both sets [n h w 3], [m h w 3] have pictures of one size."""
    if predictions.shape[1:] != targets.shape[1:]:
        sizes = [f"{images.shape[1]} x {images.shape[2]}" for images in (predictions, targets)]
        raise InputError(f"predictions are {sizes[0]} pixels and targets {sizes[1]}, need one size")


def as_finite_matrix(values: Array, name: str = "probabilities") -> np.ndarray:
    """Checked logits, probabilities or features: [n c] -> numpy; raises InputError on NaN, infinity, other shapes."""
    values = to_numpy(values)
    if values.ndim != 2 or 0 in values.shape:
        raise InputError(f"{name}: found shape {list(values.shape)}, need two axes with at least one row and column")
    finite = np.isfinite(values).all(axis=1)
    if not finite.all():
        raise InputError(f"{name}: row {int(np.argmin(finite))} holds NaN or infinity, need finite numbers")
    return values

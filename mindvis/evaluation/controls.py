"""Copying check: is a decoded picture a training picture? A model that only looks one up can score well too."""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import interpolate

from mindvis.evaluation.arrays import Array, as_images
from mindvis.evaluation.similarity import similarity_matrix

SIDE = 32  # pixels: enough to tell pictures apart, small enough for thousands
COPY = 0.95  # correlation at this size above which two photographs are the same for the eye


@dataclass
class CopyingCheck:
    """Nearest training picture (Pearson correlation at 32 pixels) of decoded and, for scale, of true pictures."""

    decoded: np.ndarray  # [n k] highest correlation with any training picture
    true: np.ndarray  # [n] the same of the true pictures: what no copying at all looks like
    nearest: np.ndarray  # [n k] index of that training picture

    def summary(self) -> dict[str, float | int]:
        """Plain numbers for the report."""
        return {
            "decoded_mean": float(self.decoded.mean()),
            "true_mean": float(self.true.mean()),
            "decoded_max": float(self.decoded.max()),
            "near_copies": int((self.decoded > COPY).sum()),
            "true_near_copies": int((self.true > COPY).sum()),
            "num_decoded": int(self.decoded.size),
            "threshold": COPY,
        }


def copying_check(decoded: Array, stimuli: Array, training: Array) -> CopyingCheck:
    """Closeness to training pictures: uint8 [n k h w 3], [n h w 3], [t h' w' 3] -> CopyingCheck."""
    n, k = decoded.shape[:2]
    small = shrink(training)
    of_decoded = similarity_matrix(shrink(decoded.reshape(n * k, *decoded.shape[2:])), small, "pcc")
    of_true = similarity_matrix(shrink(stimuli), small, "pcc")
    return CopyingCheck(
        of_decoded.max(axis=1).reshape(n, k), of_true.max(axis=1), of_decoded.argmax(axis=1).reshape(n, k)
    )


def shrink(images: Array, side: int = SIDE) -> np.ndarray:
    """Pictures at `side` x `side` pixels, anti-aliased: uint8 [n h w 3] -> uint8 [n side side 3]."""
    parts = as_images(images, "images").split(256)
    return np.concatenate([_shrink(part, side) for part in parts])


def _shrink(images: torch.Tensor, side: int) -> np.ndarray:
    pictures = interpolate(images.permute(0, 3, 1, 2).float(), (side, side), mode="bilinear", antialias=True)
    return pictures.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()

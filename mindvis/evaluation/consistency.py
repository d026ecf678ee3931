"""How much the samples of one stimulus agree, whether or not they are right (the paper's stability claim)."""

import numpy as np

from mindvis.evaluation.arrays import Array
from mindvis.evaluation.similarity import similarity_matrix


def between_sample_ssim(decoded: Array, device: str = "cpu") -> np.ndarray:
    """Mean SSIM of the pairs of samples of each stimulus: uint8 [n k h w 3], k >= 2, -> float64 [n]."""
    matrices = [similarity_matrix(samples, samples, "ssim", device=device) for samples in decoded]
    return np.array([_mean_of_pairs(matrix) for matrix in matrices])


def classifier_agreement(top_class: np.ndarray) -> np.ndarray:
    """Share of pairs of samples with the same most probable class: [n k], k >= 2, -> float64 [n]."""
    return np.array([_mean_of_pairs((row[:, None] == row).astype(np.float64)) for row in top_class])


def _mean_of_pairs(matrix: np.ndarray) -> float:
    return float(matrix[np.triu_indices(len(matrix), 1)].mean())

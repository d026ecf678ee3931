"""Evaluation as works: pairwise SSIM beside scikit-image's, and exact n-way identification."""

from collections.abc import Callable

import numpy as np

from mindvis.benchmarks.work import Variant, Work
from mindvis.common.errors import InputError
from mindvis.config.tools import BenchmarkConfig
from mindvis.evaluation import n_way_table, similarity_matrix

NUM_CLASSES = 1000


def pairwise_ssim(config: BenchmarkConfig, variant: Variant) -> Work:
    """SSIM of every decoded image with every true one; scikit-image is timed on as many pairs as there are stimuli."""
    rng = np.random.default_rng(config.seed)
    true = rng.integers(0, 256, (config.num_stimuli, config.size, config.size, 3), dtype=np.uint8)
    decoded = rng.integers(0, 256, (config.num_stimuli * config.num_samples, *true.shape[1:]), dtype=np.uint8)
    pairs = len(decoded) * len(true)
    name = f"pairwise SSIM, {len(decoded)} x {len(true)} images of {config.size}"
    if variant.plain:
        call, scale = _scikit_image(decoded, true), pairs / len(true)
        return Work(name, call, pairs, "pairs", scale=scale)
    return Work(name, lambda: similarity_matrix(decoded, true, metric="ssim"), pairs, "pairs")


def n_way(config: BenchmarkConfig, variant: Variant) -> Work:
    """Exact 50- and 100-way top-1 and top-5; it has no plain version."""
    rng = np.random.default_rng(config.seed)
    number = config.num_stimuli * config.num_samples
    probabilities = rng.random((number, NUM_CLASSES)).astype(np.float32)
    target = rng.integers(0, NUM_CLASSES, number)

    def table() -> None:
        n_way_table(probabilities, target, num_ways=[50, 100], top_k=[1, 5])

    name = f"exact 50- and 100-way top-1 and top-5, {number} images of {NUM_CLASSES} classes"
    return Work(name, table, number, "images")


def _scikit_image(decoded: np.ndarray, true: np.ndarray) -> Callable[[], None]:
    try:
        from skimage.metrics import structural_similarity
    except ModuleNotFoundError as error:
        raise InputError("benchmark: scikit-image is missing; needed: pip install mindvis[test]") from error

    def some_pairs() -> None:
        for one, other in zip(decoded, true, strict=False):
            structural_similarity(one, other, channel_axis=-1, data_range=255)

    return some_pairs

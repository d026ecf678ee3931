"""Evaluation against a plain version: pairwise SSIM by scikit-image, pair by pair; and the time of exact n-way."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mindvis.benchmarks.timing import Timing, measure
from mindvis.errors import InputError
from mindvis.evaluation import n_way_table, similarity_matrix


@dataclass(frozen=True)
class Row:
    """One line of the table: the work, its time, and the time of the plain version (None: there is none)."""

    work: str
    ours: Timing
    plain: Timing | None = None

    @property
    def ratio(self) -> float | None:
        return None if self.plain is None else self.plain.median / self.ours.median


def benchmark_evaluation(
    *, num_stimuli: int, num_samples: int, size: int, repetitions: int, seed: int
) -> Iterator[Row]:
    """Rows for `num_stimuli` true images and `num_samples` decoded ones of each, of `size` pixels a side.

    scikit-image is timed on as many pairs as there are stimuli, and multiplied up to all pairs.
    """
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 256, (num_stimuli, size, size, 3), dtype=np.uint8)
    decoded = rng.integers(0, 256, (num_stimuli * num_samples, size, size, 3), dtype=np.uint8)
    ours = measure(lambda: similarity_matrix(decoded, true, metric="ssim"), repetitions, warmup=0)
    pairs = len(decoded) * len(true)
    yield Row(
        f"pairwise SSIM, {len(decoded)} x {len(true)} images of {size}", ours, _scikit_image(decoded, true, pairs)
    )

    probabilities = rng.random((len(decoded), 1000)).astype(np.float32)
    target = rng.integers(0, 1000, len(decoded))
    table = measure(lambda: n_way_table(probabilities, target, num_ways=[50, 100], top_k=[1, 5]), repetitions)
    yield Row(f"exact 50- and 100-way top-1 and top-5, {len(decoded)} images of 1000 classes", table)


def _scikit_image(decoded: np.ndarray, true: np.ndarray, pairs: int) -> Timing:
    try:
        from skimage.metrics import structural_similarity
    except ModuleNotFoundError as error:
        raise InputError("benchmark: scikit-image is missing; needed: pip install mindvis[test]") from error

    def some_pairs() -> None:
        for one, other in zip(decoded, true, strict=False):
            structural_similarity(one, other, channel_axis=-1, data_range=255)

    timing = measure(some_pairs, repetitions=3)
    scale = pairs / min(len(decoded), len(true))
    return Timing(timing.median * scale, timing.fastest * scale, timing.slowest * scale)

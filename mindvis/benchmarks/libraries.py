"""Works beside the models: pairwise SSIM (scikit-image's beside it), exact n-way, the audit, a first batch of data."""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torch.utils.data import DataLoader

from mindvis.benchmarks.works import Variant, Work
from mindvis.common.errors import InputError
from mindvis.config.tools import BenchmarkConfig
from mindvis.data import load_hcp
from mindvis.data.hcp import FILE_NAME, VISUAL_CORTEX
from mindvis.evaluation import audit_pictures, n_way_table, similarity_matrix
from mindvis.evaluation.audit_training import MIN_TRAINING

NUM_CLASSES = 1000
BATCH_SIZE = 100


def pairwise_ssim(config: BenchmarkConfig, variant: Variant) -> Work:
    """SSIM of every decoded image with every true one; scikit-image is timed on as many pairs as there are stimuli."""
    rng = np.random.default_rng(config.seed)
    true = rng.integers(0, 256, (config.num_stimuli, config.size, config.size, 3), dtype=np.uint8)
    decoded = rng.integers(0, 256, (config.num_stimuli * config.num_samples, *true.shape[1:]), dtype=np.uint8)
    pairs = len(decoded) * len(true)
    name = f"pairwise SSIM, {len(decoded)} x {len(true)} images of {config.size}"
    if variant.plain:
        return Work(name, _scikit_image(decoded, true), pairs, "pairs", scale=pairs / len(true))
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


@dataclass(frozen=True)
class DrawnPictures:
    """Random pictures uint8 [count size size 3] that are drawn when a slice is asked for, so that none is in memory."""

    count: int
    size: int
    seed: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, rows: slice) -> np.ndarray:
        return np.stack([self._draw(row) for row in range(self.count)[rows]])

    def _draw(self, row: int) -> np.ndarray:
        blocks = np.random.default_rng([self.seed, row]).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        return np.asarray(Image.fromarray(blocks).resize((self.size, self.size), Image.Resampling.BICUBIC))


def audit(config: BenchmarkConfig, variant: Variant) -> Work:
    """The audit of decoded pictures with ten training pictures a stimulus; it has no plain version."""
    true = DrawnPictures(config.num_stimuli, config.size, config.seed)[:]
    decoded = DrawnPictures(config.num_stimuli * config.num_samples, config.size, config.seed + 1)[:]
    decoded = decoded.reshape(config.num_stimuli, config.num_samples, *true.shape[1:])
    training = DrawnPictures(max(MIN_TRAINING, 10 * config.num_stimuli), config.size, config.seed + 2)
    class_ids = (np.arange(config.num_stimuli) % 20).tolist()

    def run() -> None:
        audit_pictures(decoded, true, training=training, class_ids=class_ids)

    name = f"audit, {decoded.shape[0] * decoded.shape[1]} decoded and {len(training)} training images of {config.size}"
    return Work(name, run, len(decoded) * config.num_samples, "images")


def first_batch(config: BenchmarkConfig, variant: Variant) -> Work:
    """Opening the data set and drawing a batch from it, the cache being there; plain reads every file at each start."""
    folder = Path(tempfile.mkdtemp(prefix="mindvis-benchmark-"))
    root = folder / "HCP" / "npz"
    write_subjects(root, config)
    if not variant.plain:
        load_hcp(root)

    def load() -> None:
        cache = Path(tempfile.mkdtemp(dir=folder)) if variant.plain else None
        next(iter(DataLoader(load_hcp(root, cache_dir=cache), batch_size=BATCH_SIZE, shuffle=True)))

    name = f"first batch of {BATCH_SIZE} from {config.num_subjects} HCP subjects"
    return Work(name, load, 1, "starts", close=lambda: shutil.rmtree(folder))


def write_subjects(root: Path, config: BenchmarkConfig) -> None:
    """Files of `num_subjects` resting subjects in the published layout, with random responses."""
    rng = np.random.default_rng(config.seed)
    for subject in range(config.num_subjects):
        (root / str(100_000 + subject)).mkdir(parents=True)
        shape = (config.num_frames, config.region_voxels)
        regions = {name: rng.standard_normal(shape, dtype=np.float32) for name in VISUAL_CORTEX}
        np.savez(root / str(100_000 + subject) / FILE_NAME, **regions)


def _scikit_image(decoded: np.ndarray, true: np.ndarray) -> Callable[[], None]:
    try:
        from skimage.metrics import structural_similarity
    except ModuleNotFoundError as error:
        raise InputError("benchmark: scikit-image is missing; needed: pip install mindvis[test]") from error

    def some_pairs() -> None:
        for one, other in zip(decoded, true, strict=False):
            structural_similarity(one, other, channel_axis=-1, data_range=255)

    return some_pairs

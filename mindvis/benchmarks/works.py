"""What is timed: a piece of work in one precision, done our way or the plain way; the works beside the networks.

These are pairwise SSIM (scikit-image's beside it), exact n-way, the audit, and a first batch of data.
"""

import math
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import DataLoader

from mindvis.common.devices import choose_device
from mindvis.common.errors import InputError
from mindvis.config.tools import BenchmarkConfig
from mindvis.data import load_hcp
from mindvis.data.hcp import FILE_NAME, VISUAL_CORTEX
from mindvis.evaluation import audit_pictures, n_way_table, similarity_matrix
from mindvis.evaluation.audit_features import MIN_TRAINING

PARTS = {
    "stage_a": ["stage_a"],
    "stage_b": ["stage_b"],
    "sampling": ["unet_evaluation", "pictures", "pictures_plms"],
    "evaluation": ["pairwise_ssim", "n_way"],
    "audit": ["audit"],
    "data": ["first_batch"],
}
WITHOUT_PLAIN = ("n_way", "audit", "pictures_plms")
ON_THE_CPU = ("evaluation", "audit", "data")  # one precision, whatever the device
NUM_CLASSES = 1000
BATCH_SIZE = 100


@dataclass(frozen=True)
class Variant:
    """Which work, in which precision, and whether as the published recipe does it, or compiled; `batch` of a step."""

    work: str
    precision: str = "32-true"
    plain: bool = False
    compiled: bool = False
    batch: int | None = None


@dataclass(frozen=True)
class Work:
    """A call that can be timed again and again, and the items it processes.

    `scale` multiplies time and operations where a call does only that part of the work.
    """

    name: str
    call: Callable[[], object]
    items: float
    unit: str
    scale: float = 1.0
    close: Callable[[], object] = lambda: None


class Limit:
    """Seconds that a benchmark may take, None for any; counted from when it is made."""

    def __init__(self, seconds: float | None = None):
        self.ends = math.inf if seconds is None else time.monotonic() + seconds

    @property
    def left(self) -> float:
        return self.ends - time.monotonic()


# What `device=cuda` measures unless told otherwise: the cells of the table in the README, without plain versions.
ON_A_GPU: dict[str, Any] = {
    "sampling_batch": 25,
    "num_pictures": 25,
    "repetitions": 30,
    "precisions": ["bf16-mixed"],
    "plain": False,
    "max_seconds": 390,
    "parts": ["stage_a", "stage_b", "sampling", "fit", "fit_stage_b"],
}
ON_A_CPU: dict[str, Any] = {
    "sampling_batch": 5,
    "num_pictures": 0,
    "repetitions": 3,
    "precisions": ["32-true", "bf16-mixed"],
    "plain": True,
    "parts": ["evaluation"],
}
BATCHES = {  # of a step where the setting is null, the one through `fit` first
    "stage_a": {"cpu": (8,), "cuda": (100, 62)},
    "stage_b": {"cpu": (1,), "cuda": (25, 5)},
}


@dataclass(kw_only=True)
class Filled(BenchmarkConfig):
    """Settings with what follows from the device in the place of null; batches of steps are as of `batches`."""

    parts: list[str]
    precisions: list[str]
    plain: bool
    repetitions: int
    sampling_batch: int
    num_pictures: int


def complete(config: BenchmarkConfig) -> Filled:
    """The settings, filled."""
    usual = ON_A_GPU if config.device == "cuda" else ON_A_CPU
    return Filled(**vars(config) | {name: value for name, value in usual.items() if getattr(config, name) is None})


def batches(config: Filled, work: str) -> tuple[int, ...]:
    """Batches to time a training step with; () for another work."""
    if work not in BATCHES:
        return ()
    given = getattr(config, f"{work}_batch")
    return BATCHES[work][config.device] if given is None else (given,)


def check(config: Filled, others: tuple[str, ...]) -> None:
    """Raises InputError for unknown parts and precisions, fewer than one repetition, and a GPU that is not there."""
    choices = {"parts": (*PARTS, *others), "precisions": ("32-true", "bf16-mixed")}
    for name, allowed in choices.items():
        unknown = [value for value in getattr(config, name) if value not in allowed]
        if unknown or not getattr(config, name):
            raise InputError(f"setting {name} is {getattr(config, name)}; needed: one or more of {', '.join(allowed)}")
    if config.repetitions < 1:
        raise InputError(f"setting repetitions is {config.repetitions}; needed: at least 1")
    if set(config.parts) - set(ON_THE_CPU):
        choose_device(config.device)


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
        regions: dict[str, Any] = {name: rng.standard_normal(shape, dtype=np.float32) for name in VISUAL_CORTEX}
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

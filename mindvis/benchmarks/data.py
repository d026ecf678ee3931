"""Data loading as a work: the first batch from many resting subjects, whose files are small and made for it."""

import shutil
import tempfile
from pathlib import Path

import numpy as np
from torch.utils.data import DataLoader

from mindvis.benchmarks.work import Variant, Work
from mindvis.config.tools import BenchmarkConfig
from mindvis.data import load_hcp
from mindvis.data.hcp import FILE_NAME, VISUAL_CORTEX

BATCH_SIZE = 100


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

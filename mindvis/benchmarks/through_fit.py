"""A stage through `fit`, with loaders, logging and callbacks, beside the bare step: what the training loop costs."""

import csv
import json
import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pytorch_lightning as pl

from mindvis.benchmarks.measure import Measured, measure_variants
from mindvis.benchmarks.networks import CLIP, batch_of, build_diffusion
from mindvis.benchmarks.works import Filled, Limit, Variant, batches
from mindvis.common.draws import generator
from mindvis.common.files import write_json
from mindvis.config.loading import plain
from mindvis.config.schemas import LoggingConfig, OptimConfig, PretrainMBMConfig, TrainerConfig
from mindvis.data import FMRIDataset, PairedDataset
from mindvis.dc_ldm import LDMModule
from mindvis.sc_mbm import MaskedBrainModel, MBMModule
from mindvis.training.fit import fit
from mindvis.training.runs import create_run

STEPS, EVERY = {"cpu": 6, "cuda": 100}, {"cpu": 2, "cuda": 10}  # of the training, and between the rows of its speed.csv
STAGES = {"stage_a": "pretrain_mbm", "stage_b": "finetune_ldm"}
TITLES = {"stage_a": "Stage A", "stage_b": "Stage B"}


@dataclass(frozen=True)
class FitSpeed:
    """Seconds of a step through `fit` and of the bare step, and the share of the time spent waiting for the loader."""

    stage: str
    batch_size: int
    precision: str
    compiled: bool
    seconds: float
    bare_seconds: float
    loader_share: float

    @property
    def share_of_bare(self) -> float:
        """1 where the loop costs nothing."""
        return self.bare_seconds / self.seconds

    def __str__(self) -> str:
        way = f"{self.precision}{', compiled' if self.compiled else ''}"
        times = f"{self.seconds:.3g} s a step, {self.share_of_bare:.0%} of the speed of the bare step"
        waiting = f"{self.loader_share:.1%} of the time waiting for the loader"
        return f"{TITLES[self.stage]} through fit, {way}, batch {self.batch_size}: {times}, {waiting}"


def benchmark_fit(
    config: Filled,
    stage: str = "stage_a",
    measured: Mapping[Variant, Measured] | None = None,
    limit: Limit | None = None,
) -> list[str]:
    """One line a precision, eager, and on a GPU compiled too while the limit lasts; fit*.json in `config.output`.

    `measured` are bare steps that were timed already; others are timed here.
    """
    known, limit, found = dict(measured or {}), limit or Limit(), []
    for compiled in (False, True) if config.device == "cuda" else (False,):
        for precision in config.precisions if limit.left > 0 else ():
            variant = Variant(stage, precision, compiled=compiled, batch=batches(config, stage)[0])
            bare = known.get(variant) or measure_variants(config, [variant])[variant]
            seconds, share = train_briefly(config, variant)
            size = batch_of(config, variant)
            found.append(FitSpeed(stage, size, precision, compiled, seconds, bare.timing.median, share))
    if config.output:
        rows = [asdict(speed) | {"share_of_bare": speed.share_of_bare} for speed in found]
        name = "fit.json" if stage == "stage_a" else f"fit_{stage}.json"
        write_json(Path(config.output) / name, json.loads(json.dumps({"rows": rows})))
    return [str(speed) for speed in found]


def train_briefly(config: Filled, variant: Variant) -> tuple[float, float]:
    """Seconds of a step and share of waiting, medians over the rows of speed.csv after the first, which warms up."""
    batch_size = batch_of(config, variant)
    module, dataset = MODULES[variant.work](config, STEPS[config.device] * batch_size)
    trainer = TrainerConfig(
        max_epochs=1,
        batch_size=batch_size,
        precision=variant.precision,
        compile=variant.compiled,
        accelerator="gpu" if config.device == "cuda" else "cpu",
        log_every_steps=EVERY[config.device],
        checkpoint_every_steps=0,
        val_fraction=0.0,
    )
    with tempfile.TemporaryDirectory(prefix="mindvis-benchmark-") as folder:
        stage, recorded = STAGES[variant.work], {"trainer": plain(trainer)}
        run = create_run(folder, stage=stage, settings=recorded, resume="auto", resume_override=False)
        optim, logging = OptimConfig(clip=CLIP[variant.work]), LoggingConfig(wandb="disabled")
        settings = PretrainMBMConfig(seed=config.seed, trainer=trainer, logging=logging, optim=optim)
        fit(settings, run, module, (dataset, None))
        lines = (Path(folder) / "speed.csv").read_text().splitlines()
    rows = list(csv.DictReader(lines))[1:]
    seconds = statistics.median(batch_size / float(row["samples_per_second"]) for row in rows)
    return seconds, statistics.median(float(row["loader_share"]) for row in rows)


def _stage_a(config: Filled, num_rows: int) -> tuple[pl.LightningModule, FMRIDataset]:
    network = MaskedBrainModel(num_voxels=config.num_voxels, **vars(config.model))
    return MBMModule(network), FMRIDataset(_rows(config, num_rows))


def _stage_b(config: Filled, num_rows: int) -> tuple[pl.LightningModule, PairedDataset]:
    """Every picture has a kept latent, and every other one that is shown is cropped and encoded: the default."""
    ldm = build_diffusion(config)
    stimulus = np.arange(num_rows) % 16
    draw = generator((config.seed,), "benchmark pictures")
    side = ldm.autoencoder.encoder.resolution
    images = draw.integers(0, 256, (stimulus.max() + 1, side, side, 3), dtype=np.uint8)
    latents = draw.standard_normal((len(images), *ldm.latent_shape), dtype=np.float32)
    pairs = PairedDataset(_rows(config, num_rows), images, stimulus=stimulus)
    return LDMModule(ldm), pairs.with_latents(latents).with_augmentation()


MODULES = {"stage_a": _stage_a, "stage_b": _stage_b}


def _rows(config: Filled, num_rows: int) -> np.ndarray:
    return generator((config.seed,), "benchmark").standard_normal((num_rows, config.num_voxels), dtype=np.float32)

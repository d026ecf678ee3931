"""Stage A through `fit`, with loaders, logging and callbacks, beside the bare step: what the training loop costs."""

import csv
import json
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from mindvis.benchmarks.measure import measure_variants
from mindvis.benchmarks.works import Variant
from mindvis.common.draws import generator
from mindvis.common.files import write_json
from mindvis.config.schemas import LoggingConfig, TrainerConfig, plain
from mindvis.config.tools import BenchmarkConfig
from mindvis.data import FMRIDataset
from mindvis.sc_mbm import MaskedBrainModel, MBMModule
from mindvis.training.fit import fit
from mindvis.training.runs import create_run

STEPS, EVERY = {"cpu": 6, "cuda": 100}, {"cpu": 2, "cuda": 10}  # of the training, and between the rows of its speed.csv


@dataclass(frozen=True)
class FitSpeed:
    """Seconds of a step through `fit` and of the bare step, and the share of the time spent waiting for the loader."""

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
        return f"Stage A through fit, {way}: {times}, {self.loader_share:.1%} of the time waiting for the loader"


def benchmark_fit(config: BenchmarkConfig) -> list[str]:
    """One line a precision, eager and on a GPU compiled too; fit.json in `config.output`."""
    ways = [(precision, compiled) for precision in config.precisions for compiled in _compiled(config)]
    found = []
    for precision, compiled in ways:
        variant = Variant("stage_a", precision, compiled=compiled)
        bare = measure_variants(config, [variant])[variant].timing.median
        seconds, share = train_briefly(config, precision, compiled)
        found.append(FitSpeed(precision, compiled, seconds, bare, share))
    if config.output:
        Path(config.output).mkdir(parents=True, exist_ok=True)
        rows = [asdict(speed) | {"share_of_bare": speed.share_of_bare} for speed in found]
        write_json(Path(config.output) / "fit.json", json.loads(json.dumps({"rows": rows})))
    return [str(speed) for speed in found]


def train_briefly(config: BenchmarkConfig, precision: str, compiled: bool) -> tuple[float, float]:
    """Seconds of a step and share of waiting, medians over the rows of speed.csv after the first, which warms up."""
    network = MaskedBrainModel(num_voxels=config.num_voxels, **vars(config.model))
    steps, every = STEPS[config.device], EVERY[config.device]
    rows = generator((config.seed,), "benchmark").standard_normal(
        (steps * config.stage_a_batch, config.num_voxels), dtype=np.float32
    )
    trainer = TrainerConfig(
        max_epochs=1,
        batch_size=config.stage_a_batch,
        precision=precision,
        compile=compiled,
        accelerator="gpu" if config.device == "cuda" else "cpu",
        log_every_steps=every,
        checkpoint_every_steps=0,
        val_fraction=0.0,
    )
    with tempfile.TemporaryDirectory(prefix="mindvis-benchmark-") as folder:
        settings = {"trainer": plain(trainer)}
        run = create_run(folder, stage="pretrain_mbm", settings=settings, resume="auto", resume_override=False)
        options = {"seed": config.seed, "trainer": trainer, "logging": LoggingConfig(wandb="disabled"), "clip": 0.8}
        fit(MBMModule(network), FMRIDataset(rows), None, run, **options)
        return _medians((Path(folder) / "speed.csv").read_text().splitlines(), config.stage_a_batch)


def _medians(lines: Sequence[str], batch_size: int) -> tuple[float, float]:
    rows = list(csv.DictReader(lines))[1:]
    seconds = [batch_size / float(row["samples_per_second"]) for row in rows]
    return statistics.median(seconds), statistics.median(float(row["loader_share"]) for row in rows)


def _compiled(config: BenchmarkConfig) -> tuple[bool, ...]:
    return (False, True) if config.device == "cuda" else (False,)

"""Train a module in a run folder: devices, loaders, loggers and callbacks from settings, resumed where it stopped."""

import logging
import warnings
from collections.abc import Sequence, Sized
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch.utils.data import Dataset

from mindvis.common.devices import describe_arithmetic, use_threads
from mindvis.common.errors import InputError
from mindvis.common.launched import global_rank
from mindvis.config.invocation import now
from mindvis.config.loading import plain
from mindvis.config.schemas import FinetuneLDMConfig, FinetuneMBMConfig, PretrainMBMConfig, TrainerConfig
from mindvis.training import on_cpu
from mindvis.training.callbacks import Assembly, LossWatch, Speed, StepLimit, StepProgress, peak_memory_gb
from mindvis.training.checkpointing import CheckpointJudge, Checkpoints
from mindvis.training.engine import check_trainer, compile_networks, is_on_gpu, kernels, largest_batch_size, make_engine
from mindvis.training.loaders import Loaders, check_samples
from mindvis.training.logging import MetricsFile, make_loggers
from mindvis.training.runs import Run, create_run
from mindvis.training.signals import SignalWatch
from mindvis.training.wandb_runs import check_logging

StageSettings = PretrainMBMConfig | FinetuneMBMConfig | FinetuneLDMConfig

# Warnings of Lightning that do not apply here: about resuming, workers and logging, and about its own use of torch.
_NO_CONCERN = (
    ".*ended before the epoch ended.*",
    ".*does not have many workers.*",
    ".*smaller than the logging interval.*",
    ".*module.s. in eval mode.*",
    ".*overridden `transfer_batch_to_device`.*",
    ".*Total length of `list`.*",
    ".*LeafSpec.*",
)


@dataclass(frozen=True)
class FitResult:
    """Where a training ended: its checkpoints, counters and last metrics."""

    last: Path
    best: Path
    num_steps: int
    num_epochs: int
    metrics: dict[str, float]
    finished_before: str | None = None  # when it was finished, if there was nothing left to do

    def __str__(self) -> str:
        """What was made and where."""
        if not self.last.is_file():
            return "fast_dev_run: one batch of everything, nothing kept"
        losses = [f"{name} {self.metrics[name]:.4g}" for name in ("train/loss", "val/loss") if name in self.metrics]
        saved = dict.fromkeys((self.last.name, self.best.name))
        counts = [f"step {self.num_steps}", f"epoch {self.num_epochs}"]
        before = f"already finished {self.finished_before}; " if self.finished_before else ""
        return f"{before}run: {self.last.parents[1]}, {', '.join(counts + losses)}; checkpoints {' and '.join(saved)}"


def fit(
    config: StageSettings,
    run: Run,
    module: pl.LightningModule,
    datasets: tuple[Dataset, Dataset | None],
    callbacks: Sequence[pl.Callback] = (),
    judge: CheckpointJudge | None = None,
) -> FitResult | None:
    """Train a module on (training, validation) data in its run folder, as the settings of its stage say.

    It goes on from the checkpoint the run resumes from, if there is one, and leaves complete checkpoints. The best of
    these are judged by val/loss, or by `judge`, which is one of the `callbacks`. The data gives samples for keys (seed,
    epoch, index). Of several processes the first one returns where it ended, the others None.

    Raises `InputError` for settings that cannot be met, a full disk, and a loss that is no number; on SIGTERM and
    SIGUSR1 it saves and raises SystemExit(75).
    """
    trainer = config.trainer
    check_trainer(trainer)
    _quiet_lightning()
    _prepare(module, trainer)
    if trainer.find_batch_size:
        trainer = replace(trainer, batch_size=_find_batch_size(module, datasets[0], run, trainer))
    data = Loaders(*datasets, seed=config.seed, settings=trainer, draw=getattr(module, "draw", None))
    with SignalWatch() as signals, kernels(trainer):
        metrics, losses = MetricsFile(run.path), LossWatch(run.last)
        loggers = [] if trainer.fast_dev_run else make_loggers(run, config.logging, metrics)
        assembly = Assembly(trainer.devices, trainer.num_nodes)
        # StepLimit before LossWatch: the last step of all is logged
        watchers: list[pl.Callback] = [assembly, *callbacks, StepLimit(trainer.max_steps), losses]
        if not trainer.fast_dev_run:  # the last one saves, after all others have done their part of a step
            saving = Checkpoints(run, metrics, signals, trainer, judge=judge, check=losses.check)
            watchers += [Speed(run.path, trainer), StepProgress(trainer), saving]
        engine = make_engine(trainer, run, clip=config.optim.clip, loggers=loggers, callbacks=watchers)
        if engine.strategy.root_device.type == "cpu" and not trainer.compile:
            on_cpu.attach(module, mixed=trainer.precision != "32-true")
        facts = describe_arithmetic(engine.strategy.root_device, trainer.precision, trainer.matmul_precision)
        run.record(machine=facts | {"processes": engine.world_size, "deterministic": trainer.deterministic})
        with assembly.waiting():
            _fit_quietly(engine, module, data, run)
    result = _finish(engine, run, fast=trainer.fast_dev_run)
    return result if global_rank() == 0 else None


def _prepare(module: pl.LightningModule, settings: TrainerConfig) -> None:
    """Settings that concern the network or torch itself."""
    use_threads(settings.num_threads)
    if settings.activation_checkpointing:
        enable = getattr(module, "enable_activation_checkpointing", None)
        if enable is None:
            raise InputError(f"setting trainer.activation_checkpointing: {type(module).__name__} does not offer it")
        enable()
    if settings.compile:
        # with several processes or accumulation gradients outlive the step they were made in
        alone = settings.devices * settings.num_nodes == settings.accumulate == 1
        compile_networks(module, cuda_graphs=is_on_gpu(settings) and alone)


def _find_batch_size(module: pl.LightningModule, train_set: Any, run: Run, settings: TrainerConfig) -> int:
    """The largest batch that fits one device; a resumed run keeps the one it was begun with."""
    if run.resume_from is not None and "batch_size" in run.manifest:
        return run.manifest["batch_size"]

    draw = getattr(module, "draw", None)

    def attempt(copy: pl.LightningModule, size: int) -> None:
        trial = replace(settings, batch_size=size, fast_dev_run=2)  # type: ignore[arg-type] # two steps
        engine = make_engine(trial, run, clip=0.0, loggers=[], callbacks=[])
        engine.fit(copy, datamodule=Loaders(train_set, None, seed=0, settings=trial, draw=draw))

    size = largest_batch_size(module, attempt, start=settings.batch_size, most=len(train_set))
    run.record(batch_size=size)
    return size


def _fit_quietly(engine: pl.Trainer, module: pl.LightningModule, data: Loaders, run: Run) -> None:
    """Fit without the warnings of Lightning that do not hold for our samplers."""
    with warnings.catch_warnings():
        for message in _NO_CONCERN:
            warnings.filterwarnings("ignore", message)
        try:
            engine.fit(module, datamodule=data, ckpt_path=run.resume_from, weights_only=True)
        except RuntimeError as error:
            if "loading state_dict" not in str(error):
                raise
            found = f"holds another network ({str(error).splitlines()[1].strip()[:120]})"
            raise InputError(f"{run.resume_from}: {found}; needed: its model settings") from error


def _quiet_lightning() -> None:
    """No greetings, tips and notices of progress."""
    for name in ("pytorch_lightning", "lightning_fabric", "pytorch_lightning.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _finish(engine: pl.Trainer, run: Run, *, fast: bool) -> FitResult:
    metrics = {name: float(value) for name, value in engine.callback_metrics.items()}
    if fast:
        return FitResult(run.last, run.last, engine.global_step, engine.current_epoch, metrics)
    num_steps = engine.global_step
    idle = run.manifest.get("num_steps") == num_steps  # of a run that was finished and is started again
    finished_at = run.manifest.get("finished_at", "before") if idle else now()
    memory = peak_memory_gb(engine.strategy.root_device)
    run.record(finished=True, finished_at=finished_at, num_steps=num_steps, peak_memory_gb=memory)
    before = finished_at if idle else None
    return FitResult(run.last, run.checkpoint("best"), num_steps, engine.current_epoch, metrics, before)


def begin_run(config: StageSettings, stage: str, datasets: Sequence[Sized | None] = ()) -> Run:
    """The run folder of a training, new or resumed as the settings say; none is made for settings that cannot be.

    Nor for `datasets`, training and validation, of fewer samples than the processes that share them.
    """
    check_trainer(config.trainer)
    check_logging(config.logging)
    for dataset in datasets:
        if dataset is not None:
            check_samples(len(dataset), config.trainer.devices * config.trainer.num_nodes)
    settings = plain(config)
    return create_run(
        config.run_dir, stage=stage, settings=settings, resume=config.resume, resume_override=config.resume_override
    )

"""Lightning's Trainer from our settings: device, processes, precision, kernels, compilation, the batch that fits."""

import copy
import gc
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from pytorch_lightning.plugins.precision import MixedPrecision
from pytorch_lightning.strategies import DDPStrategy, Strategy
from torch import nn

from mindvis.common.devices import choose_device, matmul_precision, num_gpus
from mindvis.common.errors import InputError
from mindvis.common.launched import check_count, global_rank, started_by_slurm
from mindvis.config.conform import check_values
from mindvis.config.schemas import TrainerConfig
from mindvis.training.checkpointing import WholeCheckpointIO
from mindvis.training.runs import Run

log = logging.getLogger(__name__)


def check_trainer(settings: TrainerConfig) -> None:
    """Raises `InputError` for an impossible setting, and for a GPU that is not there."""
    check_values(settings, prefix="trainer.")
    check_count(settings.devices * settings.num_nodes)
    if settings.accelerator == "gpu" and not num_gpus():
        raise InputError("setting trainer.accelerator is gpu but torch finds none; needed: a CUDA torch, or cpu")
    if settings.precision == "16-mixed" and not is_on_gpu(settings):  # Lightning would take bf16-mixed in its place
        raise InputError("setting trainer.precision is 16-mixed on a CPU; needed: a GPU, bf16-mixed or 32-true")


def is_on_gpu(settings: TrainerConfig) -> bool:
    """Whether these settings train on a GPU, on this machine."""
    return settings.accelerator != "cpu" and num_gpus() > 0


def training_device(settings: TrainerConfig) -> torch.device:
    """The device that this process trains on, for work before the training."""
    return choose_device("auto" if is_on_gpu(settings) else "cpu", global_rank())


@contextmanager
def kernels(settings: TrainerConfig) -> Iterator[None]:
    """On a GPU: float32 products as the settings say, and convolutions that were tried out first. Undone afterwards."""
    if not is_on_gpu(settings):
        yield
        return
    searched = torch.backends.cudnn.benchmark
    try:
        with matmul_precision(settings.matmul_precision):
            torch.backends.cudnn.benchmark = not settings.deterministic
            yield
    finally:
        torch.backends.cudnn.benchmark = searched


def make_engine(settings: TrainerConfig, run: Run, *, clip: float, loggers: list, callbacks: list) -> pl.Trainer:
    """The Trainer for a run; `clip` is the largest gradient norm, 0 for any."""
    on_gpu_in_half = settings.precision == "16-mixed" and is_on_gpu(settings)
    scaled = [ScaledPrecision("16-mixed", "cuda")] if on_gpu_in_half else []
    strategy: str | Strategy = "auto"
    if settings.strategy == "ddp" or settings.devices * settings.num_nodes > 1:
        # what a forward pass does not use is frozen, so nobody need look for it in every step
        strategy = DDPStrategy(find_unused_parameters=False)
    return pl.Trainer(
        accelerator=settings.accelerator,
        devices=settings.devices,
        num_nodes=settings.num_nodes,
        strategy=strategy,
        precision=None if scaled else settings.precision,  # type: ignore[arg-type]
        max_epochs=settings.max_epochs,
        accumulate_grad_batches=settings.accumulate,
        gradient_clip_val=clip or None,
        check_val_every_n_epoch=max(1, settings.val_every_epochs),
        limit_val_batches=1.0 if settings.val_every_epochs else 0,
        log_every_n_steps=settings.log_every_steps,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        logger=loggers,
        callbacks=callbacks,
        plugins=[WholeCheckpointIO(), *_environment(), *scaled],
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        # On a CPU always, which costs little there. "warn" would leave attention on a GPU as it is.
        deterministic=settings.deterministic or (False if is_on_gpu(settings) else "warn"),
        fast_dev_run=settings.fast_dev_run,
        default_root_dir=run.path,
    )


class ScaledPrecision(MixedPrecision):
    """16-mixed on a GPU whose fused optimiser itself leaves out a step with gradients that are no numbers.

    Lightning reads them back in every step to decide, because it lets a fused optimiser undo the scaling alone, which
    is too late for clipping. Here they are unscaled and clipped first.
    """

    scaler: torch.amp.GradScaler

    def optimizer_step(  # type: ignore[override]
        self, optimizer: Any, model: pl.LightningModule, closure: Callable[[], Any], **options: Any
    ) -> Any:
        loss = closure()
        self.scaler.unscale_(optimizer)
        self._after_closure(model, optimizer)  # where the gradients are clipped
        optimizer._step_supports_amp_scaling = bool(optimizer.defaults.get("fused"))
        self.scaler.step(optimizer, **options)
        optimizer._step_supports_amp_scaling = False
        self.scaler.update()
        return loss


def compile_networks(module: nn.Module, *, cuda_graphs: bool = False, backend: Any = "inductor") -> None:
    """torch.compile, in place, of the outermost modules below `module` that have a forward pass.

    Each is compiled whole and once for every shape of a batch: of a training these are two, the last one being shorter.
    `cuda_graphs` starts all kernels of a network at once, which one process on a GPU that accumulates nothing can use.
    """
    options: dict[str, Any] = {"mode": "reduce-overhead"} if cuda_graphs else {}
    for network in _outermost(module):
        network.compile(fullgraph=True, dynamic=False, backend=backend, **options)


def largest_batch_size(module: nn.Module, attempt: Callable[[Any, int], None], *, start: int, most: int) -> int:
    """Double the batch size from `start` up to `most`, as long as `attempt(copy of module, size)` has the memory.

    `attempt` takes two optimiser steps, because the second has gradients and optimiser state in memory together.
    """
    size, fits = start, start
    while True:
        try:
            attempt(copy.deepcopy(module), size)
        except RuntimeError as error:  # torch.OutOfMemoryError is one; the CPU allocator has no class of its own
            if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
                raise
            log.warning("batch size %d does not fit in memory; using %d", size, fits)
            return fits
        finally:
            gc.collect()
            torch.cuda.empty_cache()
        fits = size
        if size >= most:
            return fits
        size = min(2 * size, most)


def _environment() -> list[ClusterEnvironment]:
    """Which launcher has numbered the processes: torchrun, also inside a SLURM job, else srun, else Lightning.

    Lightning would take any command of a SLURM job for a task of srun, and wait for the others.
    """
    if TorchElasticEnvironment.detect():
        return [TorchElasticEnvironment()]
    # Our own signals end a job; Lightning's requeueing would save checkpoints of another kind beside ours.
    if started_by_slurm():
        return [SLURMEnvironment(auto_requeue=False)]
    return [LightningEnvironment()] if SLURMEnvironment.detect() else []


def _outermost(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        if type(child).forward is nn.Module.forward:
            yield from _outermost(child)
        else:
            yield child

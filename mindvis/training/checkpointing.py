"""Complete checkpoints at step boundaries, from which a run goes on as if it had never stopped.

A boundary lies between two optimiser steps, after everything of the step before (its row in metrics.csv, validation,
figures) is done. Lightning has no such hook at the end of a step, so the start of the next batch, of the next epoch and
the end of training serve, and the counters of its loops are put where they stand at the boundary.
"""

import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, cast

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import CheckpointIO

from mindvis.common.files import link, write_json
from mindvis.common.tensor_files import load_tensors, save_tensors
from mindvis.config.invocation import this_command
from mindvis.config.schemas import TrainerConfig
from mindvis.training.base_weights import BaseWriter, with_base
from mindvis.training.logging import MetricsFile
from mindvis.training.runs import Run
from mindvis.training.signals import INTERRUPTED, SignalWatch

log = logging.getLogger(__name__)

ASK_SECONDS, ASK_STEPS = 10.0, 100  # how often several processes ask each other whether to save or to stop
EXTRA = "mindvis"  # entry of a checkpoint that holds what Lightning does not know


class WholeCheckpointIO(CheckpointIO):
    """How Lightning reads and writes checkpoints: atomic, verified, tensors and plain values only.

    Weights that no step changes are kept apart, see `base_weights`.
    """

    def __init__(self) -> None:
        self._base = BaseWriter()

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        # Lightning adds the class names of hyper-parameters; a checkpoint must not name code to import.
        kept = {key: value for key, value in checkpoint.items() if not key.endswith(("hparams_name", "hparams_type"))}
        save_tensors(self._base.split(kept, Path(path).parent), Path(path))

    def load_checkpoint(
        self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            chosen = [str(path)]  # the first process has chosen before it changed the folder
            torch.distributed.broadcast_object_list(chosen, src=0)
            path = chosen[0]
        return with_base(load_tensors(Path(path)), Path(path), load_tensors)

    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)


class CheckpointJudge(Protocol):
    """Scores the weights in place of val/loss; larger is better."""

    def take(self) -> float | None:
        """The newest score, given once; None where there is no new one."""


class Checkpoints(pl.Callback):
    """Saves `last` by steps, minutes, best score, on a signal (then exits with its status) and at the end.

    The score is val/loss, smaller is better, or that of a `judge`.
    """

    def __init__(
        self,
        run: Run,
        metrics: MetricsFile,
        signals: SignalWatch,
        settings: TrainerConfig,
        *,
        judge: CheckpointJudge | None = None,
        check: Callable[[pl.Trainer], None] = lambda trainer: None,
    ):
        self.run, self.metrics, self.signals = run, metrics, signals
        self.every_steps, self.every_seconds = settings.checkpoint_every_steps, 60 * settings.checkpoint_every_minutes
        self.keep_best = settings.keep_best
        self.judge = judge
        self.best: dict[str, float] = {}  # file name -> score, the best first
        self.check = check  # raises for a state that must not be kept
        self.clock = time.monotonic
        self.saved_step, self.saved_at = 0, self.clock()
        self._ask_at = 0  # of several processes: step at which they ask each other next
        self._asked = 0, self.clock()  # step and time of the last question
        self.finished = False
        self._score: float | None = None
        self._next_batch = 0
        # Without a whole `last`, `previous` is what the run stands on and must not be replaced by it.
        self._last_is_whole = run.continues and run.resume_from is not None and run.resume_from.name == run.last.name
        self._begun, self._seconds_before = self.clock(), run.manifest.get("wall_seconds", 0.0)

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if not self.run.continues and trainer.is_global_zero:
            self.metrics.truncate(0)  # rows of a run that was killed before its first checkpoint

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.signals.install()
        self.saved_at = self.clock()
        self._ask_at, self._asked = trainer.global_step, (trainer.global_step, self.clock())

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self.judge is not None:
            return
        score = trainer.callback_metrics.get("val/loss")
        self._score = None if score is None else float(score)

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._boundary(trainer, next_batch=0)

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx > 0 and batch_idx % trainer.accumulate_grad_batches == 0:
            self._boundary(trainer, next_batch=batch_idx)

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.finished = True
        self._ask_judge()
        self._save(trainer, next_batch=0)

    def _ask_judge(self) -> None:
        judged = None if self.judge is None else self.judge.take()
        self._score = self._score if judged is None else judged

    def _boundary(self, trainer: pl.Trainer, next_batch: int) -> None:
        self._ask_judge()
        stop = self.signals.status is not None
        late = bool(self.every_seconds) and self.clock() - self.saved_at >= self.every_seconds
        due = late or _best_name(trainer.global_step) in self._ranked(trainer.global_step)
        if trainer.world_size > 1:
            stop, due = self._agree(trainer, stop, due, epoch_begins=next_batch == 0)
        by_step = bool(self.every_steps) and trainer.global_step % self.every_steps == 0
        if trainer.global_step > self.saved_step and (stop or due or by_step):
            self._save(trainer, next_batch)
        if stop:
            stopped = f"stopped by a signal at step {trainer.global_step}, which is saved in {self.run.last}"
            log.warning("%s; to go on: %s", stopped, this_command())
            raise SystemExit(self.signals.status or INTERRUPTED)

    def _agree(self, trainer: pl.Trainer, stop: bool, due: bool, *, epoch_begins: bool) -> tuple[bool, bool]:
        """Whether any process says so: clocks and signals differ between them, and they must act together.

        They wait for each other to ask, so they do not ask at every step but about every `ASK_SECONDS`, as counted in
        steps of the slowest of them, and when an epoch begins.
        """
        step = trainer.global_step
        if step < self._ask_at and not epoch_begins:
            return False, False
        steps = step - self._asked[0]
        seconds = (self.clock() - self._asked[1]) / max(1, steps)
        own = torch.tensor([stop, due, seconds], dtype=torch.float32, device=trainer.strategy.root_device)
        any_stop, any_due, slowest = trainer.strategy.reduce(own, reduce_op="max").tolist()
        self._asked = (step, self.clock())
        self._ask_at = step + (max(1, min(ASK_STEPS, int(ASK_SECONDS / max(slowest, 1e-6)))) if steps else 1)
        return bool(any_stop), bool(any_due)

    def _ranked(self, step: int) -> dict[str, float]:
        """The best checkpoints, with that of this step if its score is among them; of equal ones the first stays."""
        if self._score is None or not math.isfinite(self._score):
            return self.best
        scores = self.best | {_best_name(step): self._score}
        ranked = sorted(scores.items(), key=lambda item: item[1], reverse=self.judge is not None)
        return dict(ranked[: self.keep_best])

    def _save(self, trainer: pl.Trainer, next_batch: int) -> None:
        self.check(trainer)
        self._next_batch = next_batch
        step = trainer.global_step
        self.best, self._score = self._ranked(step), None
        if trainer.is_global_zero:
            self.metrics.sync()
            if self._last_is_whole:
                link(self.run.last, self.run.checkpoints / "previous.ckpt")
        trainer.save_checkpoint(self.run.last)
        self._last_is_whole, self.saved_step, self.saved_at = True, step, self.clock()
        if trainer.is_global_zero:
            self._settle_best(step)
            self.run.record(wall_seconds=round(self._seconds_before + self.clock() - self._begun, 1))

    def on_save_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict) -> None:
        _settle_counters(checkpoint["loops"]["fit_loop"], self._next_batch)
        checkpoint[EXTRA] = {
            "stage": self.run.stage,
            "settings": self.run.settings,
            "next_batch": self._next_batch,
            "metrics_rows": self.metrics.num_rows,
            "best": self.best,
            "finished": self.finished,
        }

    def on_load_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict) -> None:
        extra = checkpoint[EXTRA]
        self.saved_step = checkpoint["global_step"]
        if not self.run.continues:
            return
        self.best = dict(extra["best"])
        if trainer.is_global_zero:
            self.metrics.truncate(extra["metrics_rows"])
            self._settle_best(self.saved_step)

    def _settle_best(self, step: int) -> None:
        """Make the files of the best checkpoints agree with `best`, also after a kill between two of these lines."""
        folder, newest = self.run.checkpoints, _best_name(step)
        if newest in self.best and not (folder / newest).exists():
            link(self.run.last if self._last_is_whole else cast(Path, self.run.resume_from), folder / newest)
        self.best = {name: score for name, score in self.best.items() if (folder / name).exists()}
        write_json(folder / "best.json", self.best)
        for path in folder.glob("best-*.ckpt"):
            if path.name not in self.best:
                path.unlink()


def _best_name(step: int) -> str:
    return f"best-{step:08d}.ckpt"


def _settle_counters(fit_loop: dict, next_batch: int) -> None:
    """Counters of Lightning's loops as they stand at a boundary: what is begun but not done is not counted."""
    epochs, batches = fit_loop["epoch_progress"], fit_loop["epoch_loop.batch_progress"]
    batches["is_last_batch"] = False
    for counter in (batches["total"], batches["current"]):
        counter.update(ready=counter["completed"], started=counter["completed"], processed=counter["completed"])
    if next_batch == 0:
        batches["current"] = dict.fromkeys(batches["current"], 0)
        for counter in (epochs["total"], epochs["current"]):
            counter.update(ready=counter["processed"], started=counter["processed"], completed=counter["processed"])

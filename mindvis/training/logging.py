"""Where curves and pictures go: metrics.csv and figures/ always, wandb and TensorBoard by setting."""

import csv
import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from mindvis.common.files import append_text, to_csv, write_atomic, write_text
from mindvis.config.schemas import LoggingConfig
from mindvis.training.boards import Board, RunLogger, TensorBoard, Wandb
from mindvis.training.runs import Run
from mindvis.training.wandb_runs import check_wandb


class MetricsFile(RunLogger):
    """metrics.csv: one row a logging step, a column a metric, in the order in which they first appear.

    It holds nothing that depends on the clock or on interruptions. `step` counts optimiser steps done.
    """

    def __init__(self, folder: Path):
        super().__init__()
        self.folder, self.path = folder, folder / "metrics.csv"
        self.columns: list[str] = []
        self.num_rows = 0

    @property
    def name(self) -> str:
        return "csv"

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        epoch = int(metrics.get("epoch", 0))
        row = {"step": (step or 0) + 1, "epoch": epoch} | {key: metrics[key] for key in metrics if key != "epoch"}
        self._append(row)

    def _append(self, row: dict[str, float]) -> None:
        new = [name for name in row if name not in self.columns]
        if new:
            rows = self._read()
            self.columns += new
            write_text(self.path, to_csv(self.columns, rows))
        append_text(self.path, to_csv(self.columns, [row], header=False))
        self.num_rows += 1

    def truncate(self, num_rows: int) -> None:
        """Keep the first `num_rows` rows, and the columns they use: what came after a checkpoint is run again."""
        rows = self._read()[:num_rows]
        used = dict.fromkeys(name for row in rows for name, value in row.items() if value != "")
        self.columns, self.num_rows = list(used), len(rows)
        if rows:
            write_text(self.path, to_csv(self.columns, rows))
        else:
            self.path.unlink(missing_ok=True)

    def sync(self) -> None:
        """Put all rows on disk before a checkpoint counts them."""
        if self.path.exists():
            with self.path.open("rb") as file:
                os.fsync(file.fileno())

    def _read(self) -> list[dict[str, str]]:
        if not self.path.exists():
            return []
        with self.path.open(newline="") as file:
            return list(csv.DictReader(file, restval=""))


def make_loggers(run: Run, settings: LoggingConfig, metrics: MetricsFile) -> list[Logger]:
    """`metrics` and what the settings add. Raises `InputError` for an unknown mode or a missing package or key."""
    check_wandb(settings)
    loggers: list[Logger] = [metrics]
    if settings.tensorboard:
        loggers.append(TensorBoard(run))
    if settings.wandb != "disabled":
        loggers.append(Wandb(run, settings))
    return loggers


@rank_zero_only
def log_figure(loggers: Iterable[Logger], name: str, picture: Any, step: int, *, caption: str | None = None) -> None:
    """Keep a picture as figures/<name>-<step>.png and show it on the boards, where it has a caption.

    `picture`: a matplotlib figure, or uint8 [h w 3]. `loggers`: those of the trainer.
    """
    content = io.BytesIO()
    if isinstance(picture, np.ndarray):
        Image.fromarray(picture).save(content, format="png")
    else:
        picture.savefig(content, format="png")
    for logger in loggers:
        if isinstance(logger, MetricsFile):
            path = logger.folder / "figures" / f"{name.replace('/', '_')}-{step:08d}.png"
            write_atomic(path, lambda file: file.write(content.getvalue()))
        elif isinstance(logger, Board):
            logger.show(name, np.asarray(Image.open(content).convert("RGB")), step, caption)

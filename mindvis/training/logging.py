"""Where curves and pictures go: metrics.csv and figures/ always, wandb and TensorBoard by setting.

Lightning's own loggers for these two are not used: they count steps from another end than metrics.csv does, change the
environment of the process, and greet and warn on the terminal.
"""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from mindvis.common.files import append_text, sync, to_csv, write_text
from mindvis.common.launched import global_rank
from mindvis.common.plots import as_pixels, save_png
from mindvis.config.schemas import LoggingConfig
from mindvis.training.runs import Run
from mindvis.training.wandb_runs import new_identity, open_wandb, origin, source_runs, staged_in, summary_writer


class RunLogger(Logger):
    """A logger of one run folder, which has no versions and holds the settings itself."""

    @property
    def name(self) -> str:
        return type(self).__name__.lower()

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Settings are in config.yaml, and in the config of the wandb run."""


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
        row: dict[str, float] = {"step": (step or 0) + 1, "epoch": int(metrics.get("epoch", 0))}
        row |= {name: value for name, value in metrics.items() if name != "epoch"}
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
            sync(self.path)

    def _read(self) -> list[dict[str, str]]:
        if not self.path.exists():
            return []
        with self.path.open(newline="") as file:
            return list(csv.DictReader(file, restval=""))


class Wandb(RunLogger):
    """A wandb run for the stage; with `save_artifacts` it ends by sending the last and the best checkpoint.

    Raises `InputError` where the run cannot be opened.
    """

    def __init__(self, run: Run, settings: LoggingConfig):
        super().__init__()
        self.run, self.save_artifacts = run, settings.save_artifacts
        if global_rank() != 0:
            return
        begun = run.manifest.get("wandb", {})
        identity = begun.get("id") or new_identity()
        names = {"stage": run.stage, "name": run.path.name}
        sources = source_runs(origin(run.settings))
        self.session = open_wandb(settings, run.path, **names, config=run.settings, identity=identity, sources=sources)
        run.record(wandb=begun | {"id": identity, "name": run.path.name, "group": self.session.group or None})

    @property
    def version(self) -> str:
        return self.run.manifest["wandb"]["id"]

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.session.log(metrics | {"step": (step or 0) + 1})

    def show(self, name: str, picture: np.ndarray, step: int, caption: str | None) -> None:
        import wandb

        self.session.log({name: [wandb.Image(picture, caption=caption)], "step": step})

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if self.save_artifacts and status == "success":
            self._send_checkpoints()
        self.session.finish(exit_code=0 if status == "success" else 1)

    def _send_checkpoints(self) -> None:
        import wandb

        artifact = wandb.Artifact(f"{self.run.stage}-{self.version}", type="model")
        bases = self.run.checkpoints.glob("base-*.ckpt")  # what both of them go without
        for path in sorted({self.run.last, self.run.checkpoint("best"), *bases}):
            artifact.add_file(str(path), policy="immutable", skip_cache=True)  # no copies in the home folder
        self.session.log_artifact(artifact)
        self.run.record(wandb=self.run.manifest["wandb"] | {"artifact": artifact.name})


class TensorBoard(RunLogger):
    """Event files in <run>/tensorboard. Raises `InputError` where the package is missing."""

    def __init__(self, run: Run):
        super().__init__()
        writer = summary_writer()
        if global_rank() == 0:
            self.writer = writer(run.path / "tensorboard")

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, (step or 0) + 1)

    def show(self, name: str, picture: np.ndarray, step: int, caption: str | None) -> None:
        self.writer.add_image(name, picture, step, dataformats="HWC")

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.writer.close()


def make_loggers(run: Run, settings: LoggingConfig, metrics: MetricsFile) -> list[Logger]:
    """`metrics` and what the settings add. Raises `InputError` for an unknown mode or a missing package or key."""
    loggers: list[Logger] = [metrics]
    if settings.tensorboard:
        loggers.append(TensorBoard(run))
    if settings.wandb != "disabled":
        loggers.append(Wandb(run, settings))
    return loggers


@rank_zero_only
def log_figure(loggers: Iterable[Logger], name: str, picture: Any, step: int, *, caption: str | None = None) -> None:
    """Keep a picture as figures/<name>-<step>.png and show it in wandb and TensorBoard, with a caption there.

    `picture`: a matplotlib figure, or uint8 [h w 3]. `loggers`: those of the trainer.
    """
    for logger in loggers:
        if isinstance(logger, MetricsFile):
            save_png(picture, logger.folder / "figures" / f"{name.replace('/', '_')}-{step:08d}.png")
        elif isinstance(logger, Wandb | TensorBoard):
            logger.show(name, as_pixels(picture), step, caption)


def show_pictures(
    settings: LoggingConfig,
    folder: Path,
    pictures: Mapping[str, np.ndarray],
    *,
    stage: str,
    name: str,
    config: Mapping[str, Any],
    source: str | Path | None,
) -> None:
    """Show pictures, uint8 [h w 3] by name, in a wandb run of their own and as TensorBoard events below `folder`.

    `source` is the run folder they came from. Raises `InputError` where one of the two cannot be opened.
    """
    if settings.tensorboard:
        with summary_writer()(folder / "tensorboard") as writer:
            for key, picture in pictures.items():
                writer.add_image(key, picture, 0, dataformats="HWC")
    if settings.wandb == "disabled":
        return
    import wandb

    names = {"stage": stage, "name": name}
    with (
        staged_in(folder / "wandb"),
        open_wandb(settings, folder, **names, config=config, sources=source_runs(source)) as session,
    ):
        session.log({key: [wandb.Image(picture)] for key, picture in pictures.items()})

"""The toy training as a process: python toy_run.py RUN_DIR [setting=value ...]; exit statuses as of the scripts.

The variable TOY_BACKEND is what several processes talk through, where it is not what Lightning takes.
"""

import os
import sys
import time
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import DDPStrategy
from toy import SETTINGS, train

from mindvis.config.command_line import entry_point
from mindvis.training import engine


class Slow(pl.Callback):
    """Leaves a test time to send a signal."""

    def on_train_batch_end(self, *_: object) -> None:
        time.sleep(0.05)


@entry_point
def main(argv: list[str] | None = None) -> None:
    path, *items = argv or sys.argv[1:]
    settings = {key: type(getattr(SETTINGS, key))(value) for key, value in (item.split("=") for item in items)}
    torch.set_num_threads(1)
    if backend := os.environ.get("TOY_BACKEND"):
        engine._strategy = lambda _: DDPStrategy(find_unused_parameters=False, process_group_backend=backend)
    train(Path(path), callbacks=[Slow()], **settings)


if __name__ == "__main__":
    raise SystemExit(main())

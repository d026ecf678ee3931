"""The toy training as a process: python toy_run.py RUN_DIR [setting=value ...]; exit statuses as of the scripts."""

import sys
import time
from pathlib import Path

import pytorch_lightning as pl
import torch
from toy import SETTINGS, train

from mindvis.config.command_line import entry_point


class Slow(pl.Callback):
    """Leaves a test time to send a signal."""

    def on_train_batch_end(self, *_: object) -> None:
        time.sleep(0.05)


@entry_point
def main(argv: list[str] | None = None) -> None:
    path, *items = argv or sys.argv[1:]
    settings = {key: type(getattr(SETTINGS, key))(value) for key, value in (item.split("=") for item in items)}
    torch.set_num_threads(1)
    train(Path(path), callbacks=[Slow()], **settings)


if __name__ == "__main__":
    raise SystemExit(main())

"""Says what a training of several processes waits for, when the others do not come."""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 10.0


class Assembly(pl.Callback):
    """A line in the log when not all processes have come together after some seconds."""

    def __init__(self, devices: int, num_nodes: int, patience: float = PATIENCE_SECONDS):
        self.devices, self.num_nodes = devices, num_nodes
        self.timer = threading.Timer(patience, self._say)
        self.timer.daemon = True

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around the training; from its setup on, all are there."""
        if self.devices * self.num_nodes > 1:
            self.timer.start()
        try:
            yield
        finally:
            self.timer.cancel()

    def setup(self, *_: Any, **__: Any) -> None:
        self.timer.cancel()

    def _say(self) -> None:
        each = "the same command on every node, with its own NODE_RANK and one MASTER_ADDR and MASTER_PORT"
        remedy = f"needed: {each}, by torchrun or srun; on one machine trainer.num_nodes=1"
        if self.num_nodes == 1:
            remedy = "they are started on this machine"
        where = f"{os.environ.get('MASTER_ADDR', 'this machine')}, port {os.environ.get('MASTER_PORT', 'not set')}"
        count = f"trainer.devices={self.devices} x trainer.num_nodes={self.num_nodes}"
        log.warning("waiting for all processes of %s at %s; %s", count, where, remedy)

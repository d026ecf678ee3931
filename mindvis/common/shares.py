"""Work on rows, shared by the processes that torchrun or SLURM starts: each writes its part, the first reads them all.

No process group is needed, only a folder that all of them see; they need not run at the same time. A part that is there
is kept, so that what is done before a crash is not done again.
"""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mindvis.common.errors import InputError
from mindvis.common.files import digest, write_npy
from mindvis.common.launched import Process

Compute = Callable[[np.ndarray], np.ndarray]  # rows: int [m] -> values [m ...]
POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Shares:
    """Shares of work and the folder of their parts; without a folder, all of it is done here and nothing is written."""

    folder: Path | None = None
    process: Process = Process()
    wait_minutes: float = 60.0

    def begin(self, name: str, num_rows: int, compute: Compute, *, block: int = 1) -> Callable[[], np.ndarray]:
        """Compute this process's share of the rows; the function returned gives all values [num_rows ...].

        The rows are dealt out in blocks of `block`, so that batches of that size hold the rows they hold in one
        process. The function waits for the parts of the others: only the first process should call it. It raises
        `InputError` naming the part that is missing after `wait_minutes`.
        """
        if self.folder is None:
            values = compute(np.arange(num_rows))
            return lambda: values
        path, rows = self._part(name, self.process.rank), self._rows(self.process.rank, num_rows, block)
        if not path.is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            values = compute(rows) if len(rows) else np.zeros(0, np.uint8)
            write_npy(path, values)
        return lambda: self._gather(name, num_rows, block)

    def key(self, *arrays: np.ndarray) -> str:
        """Ending for the name of a part that depends on these arrays, empty where no parts are written."""
        return "" if self.folder is None else f"-{digest(arrays)[:12]}"

    def remove(self) -> None:
        """Remove the parts, once they have been read."""
        if self.folder is not None:
            shutil.rmtree(self.folder)

    def _gather(self, name: str, num_rows: int, block: int) -> np.ndarray:
        parts = [self._part(name, rank) for rank in range(self.process.count)]
        deadline = time.monotonic() + 60 * self.wait_minutes
        for rank, path in enumerate(parts):
            while not path.is_file():
                if time.monotonic() > deadline:
                    lacks = f"{path}: not there after {self.wait_minutes:g} minutes (setting wait_minutes)"
                    raise InputError(f"{lacks}; needed: process {rank} of {self.process.count}, which writes it")
                time.sleep(POLL_SECONDS)
        shares = [np.load(path, allow_pickle=False) for path in parts]
        values = np.empty((num_rows, *shares[0].shape[1:]), shares[0].dtype)
        for rank, share in enumerate(shares):
            if len(share):
                values[self._rows(rank, num_rows, block)] = share
        return values

    def _rows(self, rank: int, num_rows: int, block: int) -> np.ndarray:
        return np.flatnonzero(np.arange(num_rows) // block % self.process.count == rank)

    def _part(self, name: str, rank: int) -> Path:
        assert self.folder is not None
        return self.folder / f"{name}-{rank:05d}.npy"


def parts_folder(output: Path, settings: dict | list, process: Process) -> Path:
    """Where the parts of one output are kept until they are whole: by its settings, so that an old part never fits.

    An entry `machine` does not count: the processes may run on different ones.
    """
    if isinstance(settings, dict):
        settings = {name: value for name, value in settings.items() if name != "machine"}
    text = json.dumps([settings, process.count], sort_keys=True, default=str)
    return output.with_name(f".{output.name}.parts-{digest([text])[:12]}")

"""Stage scripts as processes of their own: memory is freed after each, and a crash ends one step only."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from omegaconf import OmegaConf

from mindvis.chain.plan import Step
from mindvis.common.files import write_text

SAVED_AND_STOPPED = 75  # exit status of a training that was asked to stop
# (step, settings file, log file, visible device or None for all) -> exit status
Launch = Callable[[Step, Path, Path, str | None], int]


class Processes:
    """Starts the scripts of a folder, called as `Launch`; `stopped` is set once a signal has asked for the end."""

    def __init__(self, scripts: Path):
        self.scripts, self.stopped = scripts, threading.Event()
        self.running: list[subprocess.Popen] = []

    def __call__(self, step: Step, settings: Path, log: Path, device: str | None) -> int:
        """Run a step to its end, its output going to `log`."""
        command = [sys.executable, str(self.scripts / f"{step.stage}.py"), "--config", str(settings)]
        environment = os.environ | ({} if device is None else {"CUDA_VISIBLE_DEVICES": device})
        if self.stopped.is_set():
            return SAVED_AND_STOPPED
        with log.open("ab") as file:
            options = {"stdout": file, "stderr": subprocess.STDOUT, "env": environment}
            # a session of its own: Ctrl-C reaches it through `_stop` alone, as a request to save
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, **options)
        self.running.append(process)
        if self.stopped.is_set():  # the signal came before the process could be listed
            process.terminate()
        status = process.wait()
        self.running.remove(process)
        return SAVED_AND_STOPPED if self.stopped.is_set() and status else status

    @contextmanager
    def stopping_on_signals(self) -> Iterator[None]:
        """Let Ctrl-C, SIGHUP, SIGTERM and SIGUSR1 ask the running stages to save and stop; no other one starts."""
        kinds = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1)
        before = {kind: signal.getsignal(kind) for kind in kinds}
        for kind in kinds:
            if before[kind] is not signal.SIG_IGN:  # nohup stays nohup
                signal.signal(kind, self._stop)
        try:
            yield
        finally:
            for kind, handler in before.items():
                signal.signal(kind, handler)

    def _stop(self, number: int, frame: object) -> None:
        self.stopped.set()
        for process in list(self.running):
            process.terminate()


def write_settings(step: Step, path: Path) -> None:
    """The settings file of a step: complete, so that it can be given to its script by hand."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, OmegaConf.to_yaml(OmegaConf.create(step.settings)))


def visible_devices(count: int) -> list[str]:
    """Names of `count` devices for CUDA_VISIBLE_DEVICES, among those that are visible already."""
    given = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return [given[i % len(given)] if given else str(i) for i in range(count)]

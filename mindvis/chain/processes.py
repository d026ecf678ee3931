"""Running stages: each as a process of its own, or as a fork of this one; and what a terminal shows meanwhile."""

import ast
import importlib.util
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from omegaconf import OmegaConf

from mindvis.chain.plan import Step
from mindvis.common.files import write_text

SAVED_AND_STOPPED = 75  # exit status of a training that was asked to stop
SIGNALS = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1)
LOOK_SECONDS = 1.0  # between two looks at a running stage
LOOK_BYTES = 4096  # of the end of its log
HEADER = "== "  # begins the line of a log that a stage was begun with
# (step, settings file, log file, visible device or None for all) -> exit status, -n where signal n ended it
Launch = Callable[[Step, Path, Path, str | None], int]


class Screen:
    """Lines for what happens; on a terminal also a last line that says how the running stages get on."""

    def __init__(self, out: TextIO):
        self.out, self.live, self.lock = out, out.isatty(), threading.Lock()
        self.running: dict[str, str] = {}  # what to say of each step

    def say(self, line: str) -> None:
        """Print a line."""
        with self.lock:
            self.out.write("\r\x1b[K" * self.live + line + "\n")
            self._draw()

    def watch(self, name: str, seconds: float, log: Path) -> None:
        """Show that a step runs since `seconds`, and the last line of its log."""
        if self.live:
            with self.lock:
                self.running[name] = f"{name} {seconds // 60:.0f}:{seconds % 60:02.0f} {last_line(log)}"
                self._draw()

    def ended(self, name: str) -> None:
        """Show a step no longer."""
        with self.lock:
            self.running.pop(name, None)
            self._draw()

    def _draw(self) -> None:
        if self.live:
            text = " | ".join(self.running.values())[: shutil.get_terminal_size().columns - 1]
            self.out.write("\r\x1b[K" + text)
        self.out.flush()


class Processes:
    """Runs the scripts of a folder, called as `Launch`; `stopped` is set by a signal that asks for the end.

    Memory is freed after each stage, and a crash ends one step only.
    """

    def __init__(self, scripts: Path, screen: Screen | None = None):
        self.scripts, self.screen, self.stopped = scripts, screen, threading.Event()
        self.running: list[Any] = []  # with terminate()

    def __call__(self, step: Step, settings: Path, log: Path, device: str | None) -> int:
        """Run a step to its end, its output going to `log`."""
        if self.stopped.is_set():
            return SAVED_AND_STOPPED
        begun = time.monotonic()
        process = self.start(step.script, ["--config", str(settings)], log, device)
        self.running.append(process)
        if self.stopped.is_set():  # the signal came before the process could be listed
            process.terminate()
        while (status := self.wait(process, LOOK_SECONDS)) is None:
            if self.screen:
                self.screen.watch(step.name, time.monotonic() - begun, log)
        self.running.remove(process)
        if self.screen:
            self.screen.ended(step.name)
        return SAVED_AND_STOPPED if self.stopped.is_set() and status else status

    def start(self, stage: str, arguments: list[str], log: Path, device: str | None) -> Any:
        """Begin a script, with its output going to `log`."""
        command = [sys.executable, str(self.scripts / f"{stage}.py"), *arguments]
        environment = os.environ | ({} if device is None else {"CUDA_VISIBLE_DEVICES": device})
        with log.open("ab") as file:
            options: dict[str, Any] = {"stdout": file, "stderr": subprocess.STDOUT, "env": environment}
            # a session of its own: Ctrl-C reaches it through `_stop` alone, as a request to save
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, **options)

    def wait(self, process: Any, seconds: float) -> int | None:
        """Exit status of what was started, or None while it still runs after some seconds."""
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    @contextmanager
    def stopping_on_signals(self) -> Iterator[None]:
        """Let Ctrl-C, SIGHUP, SIGTERM and SIGUSR1 ask the running stages to save and stop; no other one starts."""
        before = {kind: signal.getsignal(kind) for kind in SIGNALS}
        for kind in SIGNALS:
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


class Forks(Processes):
    """Runs the scripts in forks of this process, which begin with all that it has imported; one at a time.

    Importing torch takes longer than many a stage of a small experiment.
    """

    def __init__(self, scripts: Path, screen: Screen | None = None):
        super().__init__(scripts, screen)
        self.mains: dict[str, Callable[[list[str]], int]] = {}

    def start(self, stage: str, arguments: list[str], log: Path, device: str | None) -> Any:
        """Begin a script, with its output going to `log`."""
        if stage not in self.mains:
            self.mains[stage] = _main_of(self.scripts / f"{stage}.py")
        work = (self.mains[stage], [str(self.scripts / f"{stage}.py"), *arguments], log, device)
        process = multiprocessing.get_context("fork").Process(target=_run_in_fork, args=work)
        before = signal.pthread_sigmask(
            signal.SIG_BLOCK, SIGNALS
        )  # the fork must not do what this process does on them
        process.start()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return process

    def wait(self, process: Any, seconds: float) -> int | None:
        """Exit status of what was started, or None while it still runs after some seconds."""
        process.join(seconds)
        return process.exitcode


def _main_of(script: Path) -> Callable[[list[str]], int]:
    """The script's `main`. What that imports once its settings are right is imported here, once for all forks."""
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            importlib.import_module(node.module)
    spec: Any = importlib.util.spec_from_file_location(script.stem, script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def _run_in_fork(main: Callable[[list[str]], int], command: list[str], log: Path, device: str | None) -> None:
    os.setsid()  # as in `Processes.start`
    for kind in SIGNALS:
        if signal.getsignal(kind) is not signal.SIG_IGN:
            signal.signal(kind, signal.default_int_handler if kind == signal.SIGINT else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    sys.argv = command  # what a run folder says of its command
    sys.modules["__main__"].__spec__ = None  # more processes of this stage are begun by its script
    sys.exit(main(command[1:]))


def last_line(log: Path) -> str:
    """The last thing that a stage has written to its log since it was begun; "" where it has written nothing."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - LOOK_BYTES))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    return "" if not lines or lines[-1].startswith(HEADER) else lines[-1]


def launcher(fork: bool, at_once: int, scripts: Path, screen: Screen) -> Processes:
    """What runs the stages: forks with `fork` and one stage at a time, else processes."""
    return Forks(scripts, screen) if fork and at_once == 1 else Processes(scripts, screen)


def write_settings(step: Step, path: Path) -> None:
    """The settings file of a step: complete, so that it can be given to its script by hand."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, OmegaConf.to_yaml(OmegaConf.create(step.settings)))


def visible_devices(count: int) -> list[str]:
    """Names of `count` devices for CUDA_VISIBLE_DEVICES, among those that are visible already."""
    given = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return [given[i % len(given)] if given else str(i) for i in range(count)]

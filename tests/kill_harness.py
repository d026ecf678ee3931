"""Start a training as a process, kill it with SIGKILL at random moments, start it again, until it has ended."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from toy import contents, same

PATIENCE_SECONDS = 300


def run_to_the_end(command: Sequence[str], environment: dict[str, str]) -> None:
    """Run a command; an exit status other than 0 fails with what it wrote to stderr."""
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    assert done.returncode == 0, done.stderr[-2000:]


def run_with_kills(
    command: Sequence[str], run_dir: Path, environment: dict[str, str], *, kills: int, num_rows: int, seed: int
) -> int:
    """Kill the training `kills` times, then let it end; returns how often SIGKILL met it alive.

    Most kills wait until metrics.csv holds a drawn number of its `num_rows` rows and then a drawn moment within the
    steps that follow; every fifth comes at a drawn moment of the start.
    """
    draw = random.Random(seed)
    rows = sorted(draw.choices(range(1, num_rows), k=kills))
    met = 0
    for index, row in enumerate(rows):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        if index % 5 == 4:
            time.sleep(draw.uniform(0.0, 4.0))
        else:
            _await_rows(process, run_dir / "metrics.csv", row)
            time.sleep(draw.uniform(0.0, 0.1))
        process.send_signal(signal.SIGKILL)
        error = process.communicate()[1].decode()
        assert process.returncode in (0, -signal.SIGKILL), error[-2000:]
        met += process.returncode == -signal.SIGKILL
    run_to_the_end(command, environment)
    return met


def _await_rows(process: subprocess.Popen, path: Path, rows: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if path.exists() and path.read_bytes().count(b"\n") > rows:
            return
        time.sleep(0.002)


def check_same_end(run_dir: Path, uninterrupted: Path) -> None:
    """Weights, optimiser, counters, curves and pictures agree to the last bit, and no temporary file is left."""
    got, expected = (_without_run_dir(contents(path)) for path in (run_dir, uninterrupted))
    differing = [name for name in expected.keys() | got.keys() if not same(got.get(name, 0), expected.get(name, 0))]
    assert not differing, differing
    assert not [path for path in run_dir.rglob("*") if ".tmp" in path.name]


def _without_run_dir(value: object) -> object:
    """Settings name the folder they were used in; nothing else may."""
    if isinstance(value, dict):
        return {key: _without_run_dir(item) for key, item in value.items() if key != "run_dir"}
    return value


def environment() -> dict[str, str]:
    """Environment in which scripts find the package and use one thread."""
    root = Path(__file__).resolve().parents[1]
    folders = [str(root), str(root / "tests")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(folders), "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}

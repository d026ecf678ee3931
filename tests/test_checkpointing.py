"""Checkpoints: whole whatever happens while they are written, plain, verified, the best kept."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from toy import contents, same, train

from mindvis.common import tensor_files as storage
from mindvis.common.errors import InputError
from mindvis.config.schemas import TrainerConfig
from mindvis.training.checkpointing import EXTRA, Checkpoints, WholeCheckpointIO
from mindvis.training.logging import MetricsFile
from mindvis.training.runs import create_run, newest_checkpoint
from mindvis.training.signals import INTERRUPTED, SignalWatch

TOY = Path(__file__).with_name("toy_run.py")


class Training:
    """A training reduced to what Checkpoints sees of it: a step counter, a validation loss, one weight."""

    def __init__(self, folder: Path, keep_best: int = 2):
        self.run = create_run(folder, stage="pretrain_mbm", settings={}, resume="auto", resume_override=False)
        self.metrics = MetricsFile(folder)
        settings = TrainerConfig(checkpoint_every_steps=1, keep_best=keep_best)
        self.callback = Checkpoints(self.run, self.metrics, SignalWatch(), settings)
        self.trainer = SimpleNamespace(global_step=0, world_size=1, is_global_zero=True, save_checkpoint=self._save)
        self.trainer.callback_metrics = {}
        if self.run.resume_from:
            content = WholeCheckpointIO().load_checkpoint(self.run.resume_from)
            self.trainer.global_step = content["global_step"]
            self.callback.on_load_checkpoint(self.trainer, None, content)

    def _save(self, path: Path) -> None:
        counter = {"ready": 1, "started": 1, "processed": 1, "completed": 0}
        progress = {"total": dict(counter), "current": dict(counter)}
        loops = {"fit_loop": {"epoch_progress": progress, "epoch_loop.batch_progress": {**progress}}}
        content = {"weight": torch.full((1000,), self.trainer.global_step), "global_step": self.trainer.global_step}
        content["loops"] = loops
        self.callback.on_save_checkpoint(self.trainer, None, content)
        WholeCheckpointIO().save_checkpoint(content, path)

    def go(self, losses: dict[int, float], until: int) -> None:
        """Steps up to `until`, with validation losses after some of them."""
        while self.trainer.global_step < until:
            self.trainer.global_step += 1
            if self.trainer.global_step in losses:
                self.trainer.callback_metrics = {"val/loss": torch.tensor(losses[self.trainer.global_step])}
                self.callback.on_validation_end(self.trainer, None)
            self.callback.on_train_epoch_start(self.trainer, None)


LOSSES = {1: 3.0, 2: 1.0, 3: 2.0, 4: float("nan"), 5: 1.5}


def names(folder: Path) -> set[str]:
    return {path.name for path in (folder / "checkpoints").iterdir()}


def step_of(path: Path) -> int:
    return storage.load_tensors(path)["global_step"]


def test_last_previous_and_the_best_are_kept(tmp_path):
    Training(tmp_path).go(LOSSES, until=6)
    kept = {"best-00000002.ckpt", "best-00000005.ckpt"}
    assert names(tmp_path) == {"last.ckpt", "previous.ckpt", "best.json"} | kept
    folder = tmp_path / "checkpoints"
    assert [step_of(folder / f"{name}.ckpt") for name in ("last", "previous", "best-00000002")] == [6, 5, 2]


def count_calls(monkeypatch, kill_at: int) -> list[str]:
    """Count the calls that write, sync, rename, link or remove; the `kill_at`-th is SIGKILL, a write half-done."""
    calls: list[str] = []

    def counted(name, original):
        def call(*args, **kwargs):
            calls.append(name)
            if len(calls) == kill_at:
                if name == "write":
                    args[0].file.write(args[1][: len(args[1]) // 2])
                    args[0].file.flush()
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **kwargs)

        return call

    targets = [(os, "fsync"), (os, "link"), (Path, "replace"), (Path, "unlink"), (storage._Sink, "write")]
    for owner, name in targets:
        monkeypatch.setattr(owner, name, counted(name, getattr(owner, name)))
    return calls


def killed_process(work: Callable[[], None]) -> bool:
    """Do `work` in a forked process; whether SIGKILL ended it."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_a_kill_at_any_step_of_writing_leaves_a_loadable_last_and_the_same_end(tmp_path, monkeypatch):
    """SIGKILL at the calls of three saves in turn (of the many writes, every fifth), then the rest of the training."""
    Training(tmp_path / "whole").go(LOSSES, until=5)
    Training(tmp_path / "begun").go(LOSSES, until=2)
    with monkeypatch.context() as patch:
        calls = count_calls(patch, kill_at=0)
        _copy_and_go(tmp_path / "begun", tmp_path / "count")
    assert {"write", "fsync", "link", "replace", "unlink"} <= set(calls) and len(calls) > 60
    for kill_at in [n for n, name in enumerate(calls, 1) if name != "write" or n % 5 == 0]:
        folder = tmp_path / str(kill_at)
        with monkeypatch.context() as patch:
            count_calls(patch, kill_at)
            assert killed_process(lambda folder=folder: _copy_and_go(tmp_path / "begun", folder))
        assert storage.find_fault(folder / "checkpoints" / "last.ckpt") is None
        Training(folder).go(LOSSES, until=5)
        assert names(folder) == names(tmp_path / "whole"), f"after call {kill_at}, {calls[kill_at - 1]}"
        for name in names(folder) - {"best.json", "previous.ckpt"}:
            assert step_of(folder / "checkpoints" / name) == step_of(tmp_path / "whole" / "checkpoints" / name)


def _copy_and_go(source: Path, folder: Path) -> None:
    for path in [p for p in source.rglob("*") if p.is_file()]:
        (folder / path.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
        (folder / path.relative_to(source)).write_bytes(path.read_bytes())
    Training(folder).go(LOSSES, until=5)


def test_after_falling_back_the_damaged_last_does_not_replace_previous(tmp_path, monkeypatch):
    Training(tmp_path).go({}, until=3)
    last, previous = (tmp_path / "checkpoints" / f"{name}.ckpt" for name in ("last", "previous"))
    last.write_bytes(b"damaged")
    training = Training(tmp_path)
    with monkeypatch.context() as patch:
        count_calls(patch, kill_at=6)
        assert killed_process(lambda: training.go({}, until=3))
    assert step_of(previous) == 2 and newest_checkpoint(tmp_path / "checkpoints") == previous


def test_a_changed_byte_is_found_wherever_it_is(tmp_path):
    path = tmp_path / "x.ckpt"
    storage.save_tensors({"weight": torch.randn(500)}, path)
    content = path.read_bytes()
    for position in range(0, len(content), 13):
        path.write_bytes(content[:position] + bytes([content[position] ^ 0x40]) + content[position + 1 :])
        with pytest.raises(InputError, match="corrupt"):
            storage.load_tensors(path)


def test_every_truncation_is_found(tmp_path):
    path = tmp_path / "x.ckpt"
    storage.save_tensors({"weight": torch.randn(50)}, path)
    content = path.read_bytes()
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        assert storage.find_fault(path)


def test_a_checkpoint_holds_plain_values_only(tmp_path):
    path = tmp_path / "x.ckpt"
    storage.save_tensors({"a": np.float64(0.5), "b": Path("x"), "c": ({"d": None},), 3: True}, path)
    assert torch.load(path, weights_only=True) == {"a": 0.5, "b": "x", "c": ({"d": None},), 3: True}
    with pytest.raises(TypeError, match="not SimpleNamespace"):
        storage.save_tensors({"a": SimpleNamespace()}, path)


def test_a_full_disk_is_one_line_and_leaves_the_checkpoints_before_it(tmp_path, monkeypatch):
    training = Training(tmp_path)
    training.go({}, until=2)
    original = storage._Sink.write

    def full(sink, data):
        sink.error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(sink, data)

    monkeypatch.setattr(storage._Sink, "write", full)
    with pytest.raises(InputError, match="last.ckpt: No space left on device; what was there before is whole"):
        training.go({}, until=3)
    assert step_of(tmp_path / "checkpoints" / "last.ckpt") == 2
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_really_full_disk(tmp_path):
    """The same on a file system of 1 MB, where this process may mount one."""
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path], check=False).returncode:
        pytest.skip("no right to mount a small file system")
    try:
        storage.save_tensors({"weight": torch.zeros(150_000)}, tmp_path / "last.ckpt")
        with pytest.raises(InputError, match="No space left on device"):
            storage.save_tensors({"weight": torch.ones(150_000)}, tmp_path / "last.ckpt")
        assert not storage.load_tensors(tmp_path / "last.ckpt")["weight"].any()
        assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_links_become_copies_where_there_are_none(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EPERM, "no hard links")))
    Training(tmp_path).go(LOSSES, until=3)
    assert step_of(tmp_path / "checkpoints" / "best-00000002.ckpt") == 2


def test_minutes_are_counted_by_the_clock(tmp_path):
    now = [0.0]
    training = Training(tmp_path)
    training.callback.clock, training.callback.every_steps, training.callback.every_seconds = lambda: now[0], 0, 60.0
    training.callback.saved_at = 0.0
    for now[0] in (30.0, 61.0, 90.0):
        training.go({}, until=training.trainer.global_step + 1)
    assert step_of(tmp_path / "checkpoints" / "last.ckpt") == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_and_exits_with_the_status_for_requeueing(tmp_path, number):
    """As a real process: signalled in the middle of an epoch, continued, it ends as one left alone."""
    options = {"max_epochs": 2, "checkpoint_every_steps": 0}
    train(tmp_path / "whole", **options)
    arguments = [str(tmp_path / "run"), *(f"{key}={value}" for key, value in options.items())]
    process = subprocess.Popen([sys.executable, str(TOY), *arguments], stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "run" / "metrics.csv").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    assert process.wait(60) == INTERRUPTED
    assert "to go on: python" in process.stderr.read()
    saved = storage.load_tensors(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert 0 < saved["global_step"] < 12 and saved[EXTRA]["next_batch"] > 0
    train(tmp_path / "run", **options)
    assert same(contents(tmp_path / "run"), contents(tmp_path / "whole"))

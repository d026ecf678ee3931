"""wandb and the network: never called offline; online never a prompt, and one clear line where it cannot work."""

import os
import subprocess
import sys
import threading
from pathlib import Path
from socketserver import BaseRequestHandler, TCPServer

import pytest
import tiny_stages
import wandb
from script_runner import run
from wandb_files import offline_runs

from mindvis.common.errors import InputError
from mindvis.config.schemas import LoggingConfig
from mindvis.training.wandb_runs import check_logging, open_wandb


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """Data for trainings."""
    folder = tmp_path_factory.mktemp("experiment")
    tiny_stages.simulate_experiment(folder)
    return folder


@pytest.fixture
def contacts():
    """A server in the place of wandb's and of any proxy, which notes who calls: (url, list of calls)."""
    calls: list[tuple] = []

    class Note(BaseRequestHandler):
        def handle(self) -> None:
            calls.append(self.client_address)

    with TCPServer(("127.0.0.1", 0), Note) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", calls
        server.shutdown()


NO_SOCKETS = """
import runpy, socket, sys
connect = socket.socket.connect
def guarded(self, address):
    if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "localhost", "::1"):
        raise SystemExit(f"network call to {address}")
    return connect(self, address)
socket.socket.connect = socket.socket.connect_ex = guarded
sys.argv = sys.argv[1:]
raise SystemExit(runpy.run_path(sys.argv[0])["main"]())
"""


def child(command: list[str], url: str, home: Path, **more: str) -> subprocess.CompletedProcess:
    """A script in a process without network: whatever asks wandb's server, or goes through a proxy, asks `url`."""
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY"), url)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    environment = kept | proxies | {"WANDB_BASE_URL": url, "HOME": str(home), **more}
    options = {"env": environment, "capture_output": True, "text": True, "timeout": 120, "stdin": subprocess.DEVNULL}
    return subprocess.run([sys.executable, "-c", NO_SOCKETS, *command[1:]], **options)


def test_offline_nobody_is_called(experiment, contacts, tmp_path):
    """With a key at hand and the server within reach: pictures, curves and checkpoints stay here, in silence."""
    url, calls = contacts
    settings = ["logging.wandb=offline", "logging.save_artifacts=true", "trainer.max_epochs=1"]
    command = tiny_stages.command("pretrain_mbm", experiment, tmp_path / "run", *settings)
    done = child(command, url, tmp_path, WANDB_API_KEY="0" * 40)
    assert (done.returncode, done.stderr, calls) == (0, "", [])
    assert done.stdout.startswith("run: ") and done.stdout.count("\n") == 1  # the line that every training ends with
    [kept] = offline_runs(tmp_path / "run")
    assert kept.curve("train/loss") and kept.pictures("masked_reconstruction") and kept.artifacts


def test_the_server_of_these_tests_would_have_noticed(contacts, tmp_path):
    """Online, the same process calls it."""
    url, calls = contacts
    settings = {"mode": "online", "dir": str(tmp_path), "settings": {"init_timeout": 3, "silent": True}}
    code = f"import wandb\ntry: wandb.init(**{settings!r})\nexcept wandb.Error: pass"
    environment = os.environ | {"WANDB_BASE_URL": url, "WANDB_API_KEY": "0" * 40, "WANDB_MODE": "online"}
    subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, timeout=60)
    assert calls


@pytest.fixture
def no_key(monkeypatch, tmp_path):
    """A terminal at which any question fails, and no key."""

    class Terminal:
        def isatty(self) -> bool:
            return True

        def readline(self, *_: object) -> str:
            raise AssertionError("asked")

    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("NETRC", raising=False)
    monkeypatch.setattr(sys, "stdin", Terminal())
    return tmp_path


@pytest.mark.parametrize("stage", ["pretrain_mbm", "finetune_ldm"])
def test_online_without_a_key_is_one_line(experiment, no_key, stage):
    """Status 2, no question, no run folder."""
    command = tiny_stages.command(stage, experiment, no_key / "run", "logging.wandb=online")
    outcome = run(stage, *command[2:])
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.err.splitlines() == [
        "error: setting logging.wandb is online but there is no key; needed: `wandb login`, or offline"
    ]
    assert not (no_key / "run").exists()


def test_evaluation_online_without_a_key_scores_nothing(no_key):
    """It is refused before the pictures are looked for."""
    outcome = run("evaluate", f"decoded={no_key / 'nowhere'}", "logging.wandb=online")
    assert outcome.status == 2 and "there is no key" in outcome.err


def test_a_key_in_netrc_is_found(no_key):
    """Where `wandb login` puts it."""
    (no_key / ".netrc").write_text("machine api.wandb.ai\n  login user\n  password " + "0" * 40 + "\n")
    check_logging(LoggingConfig(wandb="online"))


class FakeRun:
    """Stands for an online run."""

    def __init__(self, fault: Exception | None = None):
        self.used, self.fault = [], fault

    def define_metric(self, *_: object, **__: object) -> None:
        pass

    def use_artifact(self, name: str) -> None:
        if self.fault:
            raise self.fault
        self.used.append(name)


def go_online(monkeypatch, tmp_path, opened, sources=()) -> tuple[FakeRun, dict]:
    """Open an online run; `opened` is what wandb.init gives or raises."""
    given = {}

    def init(**arguments):
        given.update(arguments)
        if isinstance(opened, Exception):
            raise opened
        return opened

    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setattr(wandb, "init", init)
    settings = LoggingConfig(wandb="online")
    return open_wandb(settings, tmp_path, stage="evaluate", name="x", config={}, sources=sources), given


SOURCE = {"stage": "finetune_ldm", "id": "a", "name": "n", "group": "g", "artifact": "finetune_ldm-a"}


def test_online_the_artifact_it_came_from_is_named(monkeypatch, tmp_path):
    """The nearest run that sent one; the run can be continued by its id."""
    session, given = go_online(monkeypatch, tmp_path, FakeRun(), [SOURCE | {"id": "b"}, SOURCE])
    assert session.used == ["finetune_ldm-a:latest"]
    assert (given["mode"], given["resume"], given["group"]) == ("online", "allow", "g")


def test_an_artifact_that_was_never_sent_does_not_stop_a_run(monkeypatch, tmp_path, caplog):
    """The run before may have been offline."""
    go_online(monkeypatch, tmp_path, FakeRun(wandb.errors.CommError("not found")), [SOURCE])
    assert "wandb has no artifact finetune_ldm-a" in caplog.text


def test_a_server_out_of_reach_is_one_line(monkeypatch, tmp_path):
    """wandb's own words, without its traceback."""
    with pytest.raises(InputError, match="logging.wandb is online: timed out"):
        go_online(monkeypatch, tmp_path, wandb.errors.CommError("timed out\nand more"))

"""How a chain runs its stages: processes or forks, signals, what a terminal shows, and what is said of a failure."""

import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import script_runner

from mindvis.chain.plan import plan_chain
from mindvis.chain.processes import Processes, Screen, last_line
from mindvis.config.tools import ChainConfig, StageConfig

STAGE = """import json, os, sys
LOADED_IN = os.getpid()
def main(arguments):
    facts = {"argv": sys.argv, "fork": LOADED_IN != os.getpid(), "session": os.getsid(0) == os.getpid()}
    print(json.dumps(facts))
    %s
if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def step(tmp_path):
    """A step of a chain that simulates and nothing more."""
    chain = ChainConfig(root=str(tmp_path / "runs"), simulate=StageConfig(settings={"out": str(tmp_path / "data")}))
    return plan_chain(chain)[0]


def scripts(folder: Path, work: str) -> Path:
    """run_chain.py in a folder of its own, beside a stage that does `work`."""
    (folder / "scripts").mkdir()
    (folder / "scripts" / "simulate.py").write_text(STAGE % work)
    (folder / "scripts" / "run_chain.py").write_text((script_runner.SCRIPTS / "run_chain.py").read_text())
    return folder / "scripts"


def begin(folder: Path, *settings: str, **options) -> subprocess.Popen:
    """The chain as a process of its own: forks of this one could wait for its threads for ever."""
    command = [sys.executable, str(folder / "scripts" / "run_chain.py"), f"root={folder / 'runs'}"]
    command += [f"simulate.settings.out={folder / 'data'}", *settings]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "preexec_fn": hear_ctrl_c} | options
    return subprocess.Popen(command, text=True, **options)


def hear_ctrl_c() -> None:
    """A process begun in the background of a shell has Ctrl-C ignored, and so would these tests' chains."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.01)


def test_process_of_a_step_leaves_its_output_and_status(step, tmp_path):
    """A script runs with its settings file and its device; what it prints goes to the log."""
    script = "import os, sys\nprint(sys.argv[1:], os.environ['CUDA_VISIBLE_DEVICES'])\nsys.exit(3)\n"
    (tmp_path / "simulate.py").write_text(script)
    log = tmp_path / "log"
    assert Processes(tmp_path)(step, tmp_path / "s.yaml", log, "1") == 3
    assert log.read_text() == f"['--config', '{tmp_path / 's.yaml'}'] 1\n"


def test_signal_stops_the_running_step_and_starts_no_other(step, tmp_path):
    """A stage is asked to save; what it returns then is the status of a stopped chain."""
    (tmp_path / "simulate.py").write_text("import time\nopen('%s', 'w')\ntime.sleep(60)" % (tmp_path / "up"))
    processes = Processes(tmp_path)

    def interrupt():
        wait_for(tmp_path / "up")
        os.kill(os.getpid(), signal.SIGTERM)

    with processes.stopping_on_signals():
        threading.Thread(target=interrupt).start()
        assert processes(step, tmp_path / "s", tmp_path / "log", None) == 75
        assert processes(step, tmp_path / "s", tmp_path / "log", None) == 75


@pytest.mark.parametrize("fork", ["true", "false"])
def test_a_stage_runs_in_a_fork_where_that_is_asked_for(tmp_path, fork):
    """It sees its command, has a session of its own, and what it leaves is found."""
    scripts(tmp_path, f"os.makedirs('{tmp_path}/data/HCP/npz'); open('{tmp_path}/data/HCP/npz/a', 'w').write('a')")
    chain = begin(tmp_path, f"fork={fork}")
    assert "chain: 1 of 1 steps done" in chain.communicate(timeout=100)[0] and chain.returncode == 0
    facts = json.loads(last_line(tmp_path / "runs" / "logs" / "simulate.log"))
    settings = str(tmp_path / "runs" / "steps" / "simulate.yaml")
    assert facts["argv"] == [str(tmp_path / "scripts" / "simulate.py"), "--config", settings]
    assert facts["session"] and facts["fork"] == (fork == "true")


@pytest.mark.parametrize("fork", ["true", "false"])
def test_a_terminal_shows_the_stage_and_ctrl_c_says_how_to_go_on(tmp_path, fork):
    """Name, time and the last line of its log while it runs; then what happened, not a cause to mend."""
    scripts(tmp_path, "import time; print('3 of 9', flush=True); time.sleep(60)")
    screen, terminal = pty.openpty()
    chain = begin(tmp_path, f"fork={fork}", stdout=terminal, stderr=terminal)
    shown = ""
    while not re.search(r"simulate \d+:\d\d 3 of 9", shown):
        shown += os.read(screen, 10_000).decode()
    chain.send_signal(signal.SIGINT)
    assert chain.wait(timeout=60) == 75
    shown += os.read(screen, 100_000).decode()
    assert "simulate stopped on a signal; given the same command again, it begins anew" in shown
    assert f"to go on: python scripts/run_chain.py root={tmp_path}/runs" in shown.replace("\r\n", "")
    assert "mend the cause" not in shown


@pytest.mark.parametrize(
    ("work", "parts"),
    [
        ("os.kill(os.getpid(), 15)", ["failed (ended by SIGTERM): {", "mend the cause"]),
        ("os.kill(os.getpid(), 9)", ["failed (ended by SIGKILL, often for lack of memory): {"]),
        ("sys.exit('error: no such thing')", ["failed (status 1): error: no such thing;"]),
        ("pass", ["failed (status 0): left nothing in"]),
    ],
)
def test_a_failure_says_what_happened(tmp_path, monkeypatch, work, parts):
    """The signal by its name, or the last line of the log; and the command that goes on."""
    monkeypatch.setattr(script_runner, "SCRIPTS", scripts(tmp_path, "sys.stdout.flush(); " + work))
    outcome = script_runner.run("run_chain", f"root={tmp_path / 'runs'}", f"simulate.settings.out={tmp_path / 'data'}")
    (line,) = [line for line in outcome.out.splitlines() if "failed" in line]
    assert outcome.status == 1 and all(part in line for part in parts)
    assert f"to go on: python scripts/run_chain.py root={tmp_path / 'runs'}" in outcome.out


def test_a_stage_that_said_nothing_is_not_quoted(tmp_path):
    """The line that the chain itself has put into the log is no reason."""
    log = tmp_path / "log"
    log.write_text("of an earlier run\n== 2026-01-01 generate --config a.yaml\n\n")
    assert last_line(log) == ""
    log.write_text(log.read_text() + "first\nlast\n")
    assert last_line(log) == "last"


def test_without_a_terminal_there_are_lines_and_nothing_else(tmp_path):
    """No control characters in a file."""
    out, log = io.StringIO(), tmp_path / "log"
    log.write_text("10 of 20\n")
    screen = Screen(out)
    screen.watch("a", 1, log)
    screen.say("b")
    screen.ended("a")
    assert out.getvalue() == "b\n"


def test_stages_side_by_side_share_the_last_line(tmp_path, monkeypatch):
    """What happens is written above it; it is cut to the width of the terminal."""
    monkeypatch.setenv("COLUMNS", "30")
    out, log = io.StringIO(), tmp_path / "log"
    out.isatty = lambda: True
    log.write_text("10 of 20\n")
    screen = Screen(out)
    screen.watch("a", 61, log)
    screen.watch("b", 5, log)
    assert out.getvalue().endswith("\x1b[Ka 1:01 10 of 20 | b 0:05 10 o")
    screen.ended("a")
    screen.say("c")
    assert out.getvalue().endswith("\x1b[Kc\n\r\x1b[Kb 0:05 10 of 20")

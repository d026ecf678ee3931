"""Two processes, of one machine or two, train as one does with the doubled batch."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from toy import train

TOY = Path(__file__).with_name("toy_run.py")
ONE = {"batch_size": 4, "max_epochs": 2}
HALF = ["batch_size=2", "max_epochs=2"]


def curves(path: Path) -> np.ndarray:
    """metrics.csv as numbers, empty cells as NaN."""
    return np.genfromtxt(path / "metrics.csv", delimiter=",", skip_header=1)


@pytest.fixture(scope="module")
def one(tmp_path_factory) -> np.ndarray:
    path = tmp_path_factory.mktemp("one")
    train(path, **ONE)
    return curves(path)


def environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key not in ("LOCAL_RANK", "RANK", "WORLD_SIZE")}
    folders = [str(TOY.parents[1]), str(TOY.parent)]
    return kept | {"PYTHONPATH": os.pathsep.join(folders), "OMP_NUM_THREADS": "1"}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def test_two_devices_give_the_curve_of_one_with_the_doubled_batch(tmp_path, one):
    """11 samples: the last batch is shared unevenly, in training and in validation."""
    subprocess.run([sys.executable, str(TOY), str(tmp_path), *HALF, "devices=2"], check=True, env=environment())
    np.testing.assert_allclose(curves(tmp_path), one, atol=1e-5)
    assert len(list((tmp_path / "checkpoints").glob("best-*"))) == 1


def test_two_nodes_started_by_torchrun_do_likewise(tmp_path, one):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
    launcher += ["--master-addr=127.0.0.1", f"--master-port={free_port()}"]
    command = [str(TOY), str(tmp_path), *HALF, "num_nodes=2"]
    nodes = [subprocess.Popen([*launcher, f"--node-rank={r}", *command], env=environment()) for r in (0, 1)]
    assert [node.wait(120) for node in nodes] == [0, 0]
    np.testing.assert_allclose(curves(tmp_path), one, atol=1e-5)

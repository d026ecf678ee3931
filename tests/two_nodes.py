"""Two nodes of one process each on this machine: what torchrun starts on either, for tests."""

import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence

PATIENCE_SECONDS = 300
LAUNCHED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "NODE_RANK")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def run_on_two_nodes(command: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """Start `command` (script and arguments) by one torchrun a node; what each has printed, once both have ended."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
    launcher += ["--master-addr=127.0.0.1", f"--master-port={free_port()}"]
    kept = {key: value for key, value in environment.items() if key not in LAUNCHED}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": kept}
    nodes = [subprocess.Popen([*launcher, f"--node-rank={rank}", *command], **pipes) for rank in (0, 1)]
    try:
        said = [node.communicate(timeout=PATIENCE_SECONDS) for node in nodes]
    finally:
        for node in nodes:
            node.kill()
    assert [node.returncode for node in nodes] == [0, 0], "\n".join(err[-2000:] for _, err in said)
    return [out for out, _ in said]

"""How this process was started: alone, or as one of several by torchrun, SLURM or Lightning; read from the environment.

A job of SLURM sets its variables in every process, a notebook or a command without srun among them. Only the tasks of a
step of more than one (`srun`) are processes that SLURM has started to work together.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from mindvis.common.errors import InputError

COUNTED: tuple[str, ...] = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK", "GROUP_RANK")
COUNTED += ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_NTASKS", "SLURM_STEP_NUM_TASKS")
RANKS = ("NODE_RANK", "LOCAL_RANK", "SLURM_PROCID")  # without RANK, which wins where it is set
# The tasks of the step, not of the job: a command in a job file without srun is one process.
PLACES = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"))


@dataclass(frozen=True)
class Process:
    """One of `count` processes that share work, as torchrun and SLURM number them."""

    rank: int = 0
    count: int = 1

    @staticmethod
    def from_environment(environment: Mapping[str, str] = os.environ) -> "Process":
        for rank, count in PLACES:
            if rank in environment and count in environment:
                return Process(int(environment[rank]), int(environment[count]))
        return Process()

    @property
    def leads(self) -> bool:
        return self.rank == 0


def global_rank(environment: Mapping[str, str] = os.environ) -> int:
    """Rank of this process among all of a training, before any process group exists.

    Lightning too starts processes, of which it says the number but not how many they are.
    """
    if "RANK" in environment:
        return int(environment["RANK"])
    return max(int(environment.get(name) or 0) for name in RANKS)


def check_environment(environment: Mapping[str, str] = os.environ) -> None:
    """Raise `InputError` naming a variable that counts processes and is no number, or a rank that cannot be."""
    for name in COUNTED:
        if name in environment and not environment[name].isdecimal():
            needed = "a whole number, as torchrun and SLURM set it, or none"
            raise InputError(f"environment variable {name} is {environment[name]!r}; needed: {needed}")
    for rank, count in PLACES:
        if rank in environment and count in environment and int(environment[rank]) >= int(environment[count]):
            found = f"{rank} is {environment[rank]} of {count}={environment[count]} processes"
            raise InputError(f"environment variable {found}; needed: 0 to {max(int(environment[count]) - 1, 0)}")


def started_by_slurm(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether srun has started this process and others beside it."""
    return int(environment.get("SLURM_STEP_NUM_TASKS", 1)) > 1


def check_count(needed: int, environment: Mapping[str, str] = os.environ) -> None:
    """Raise `InputError` where a launcher has started another number of processes than a training has devices.

    Also for a rank that a training of one process cannot have: it would write nothing.
    """
    found = Process.from_environment(environment).count
    launcher = "torchrun" if "RANK" in environment else "srun"
    if found > 1 and found != needed:
        wanted = f"trainer.devices x trainer.num_nodes is {needed}; needed: {found}, or another number of processes"
        raise InputError(f"{launcher} has started {found} processes, but {wanted}")
    if needed == 1 and found == 1 and global_rank(environment) > 0:
        ranks = {name: environment.get(name, "0") for name in ("RANK", *RANKS)}
        wrong = ", ".join(f"{name}={value}" for name, value in ranks.items() if value != "0")
        raise InputError(f"environment variable {wrong}, but this training is one process; needed: 0, or none")

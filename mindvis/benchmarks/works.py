"""What is timed: a piece of work in one precision, done our way or the plain way."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from mindvis.common.devices import choose_device
from mindvis.common.errors import InputError
from mindvis.config.tools import BenchmarkConfig

PARTS = {
    "stage_a": ["stage_a"],
    "stage_b": ["stage_b"],
    "sampling": ["unet_evaluation", "pictures"],
    "evaluation": ["pairwise_ssim", "n_way"],
    "audit": ["audit"],
    "data": ["first_batch"],
}
WITHOUT_PLAIN = ("n_way", "audit")
COMPILED = ("stage_a", "stage_b", "unet_evaluation", "pictures")  # on a GPU also timed compiled
ON_THE_CPU = ("evaluation", "audit", "data")  # one precision, whatever the device


@dataclass(frozen=True)
class Variant:
    """Which work, in which precision, and whether as the published recipe does it, or compiled."""

    work: str
    precision: str = "32-true"
    plain: bool = False
    compiled: bool = False


@dataclass(frozen=True)
class Work:
    """A call that can be timed again and again, and the items it processes.

    `scale` multiplies time and operations where a call does only that part of the work.
    """

    name: str
    call: Callable[[], object]
    items: float
    unit: str
    scale: float = 1.0
    close: Callable[[], object] = lambda: None


# What `device=cuda` measures unless told otherwise: the sizes of the table in the README, without plain versions.
ON_A_GPU = {"stage_a_batch": 100, "stage_b_batch": 25, "sampling_batch": 25, "num_pictures": 25, "repetitions": 30}
ON_A_CPU = {"stage_a_batch": 8, "stage_b_batch": 1, "sampling_batch": 5, "num_pictures": 0, "repetitions": 3}


def complete(config: BenchmarkConfig) -> BenchmarkConfig:
    """The settings with what follows from the device in the place of null."""
    on_gpu = config.device == "cuda"
    usual = (ON_A_GPU if on_gpu else ON_A_CPU) | {"plain": not on_gpu}
    usual |= {"parts": ["stage_a", "stage_b", "sampling", "fit"] if on_gpu else ["evaluation"]}
    return replace(config, **{name: value for name, value in usual.items() if getattr(config, name) is None})


def check(config: BenchmarkConfig, others: tuple[str, ...]) -> None:
    """Raises InputError for unknown parts and precisions, fewer than one repetition, and a GPU that is not there."""
    choices = {"parts": (*PARTS, *others), "precisions": ("32-true", "bf16-mixed")}
    for name, allowed in choices.items():
        unknown = [value for value in getattr(config, name) if value not in allowed]
        if unknown or not getattr(config, name):
            raise InputError(f"setting {name} is {getattr(config, name)}; needed: one or more of {', '.join(allowed)}")
    if config.repetitions < 1:
        raise InputError(f"setting repetitions is {config.repetitions}; needed: at least 1")
    if set(config.parts) - set(ON_THE_CPU):
        choose_device(config.device)

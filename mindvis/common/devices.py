"""The device and the CPU threads that the settings `device` and `num_threads` ask for."""

import torch

from mindvis.common.errors import InputError


def num_gpus() -> int:
    """How many GPUs torch can use."""
    return torch.cuda.device_count()


def choose_device(name: str, rank: int = 0) -> torch.device:
    """The device of that name; `auto` is a GPU where there is one, of several the one for the process of that rank.

    Raises `InputError` for a device that is not there.
    """
    if name == "auto":
        name = f"cuda:{rank % num_gpus()}" if num_gpus() else "cpu"
    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"setting device is {name!r}: {str(error).splitlines()[0]}") from error


def use_threads(number: int | None) -> None:
    """Let torch use so many CPU threads; None leaves it as it is. Raises `InputError` for less than one."""
    if number is None:
        return
    if number < 1:
        raise InputError(f"setting num_threads is {number}; needed: at least 1, or null")
    torch.set_num_threads(number)

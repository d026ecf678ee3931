"""The device, its arithmetic and the CPU threads that settings ask for."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from mindvis.common.errors import InputError, check_setting

MATMUL_PRECISIONS = ("highest", "high", "medium")  # float32 products on a GPU: float32, TF32, bfloat16


def num_gpus() -> int:
    """How many GPUs torch can use."""
    return torch.cuda.device_count()


def choose_device(name: str, rank: int = 0) -> torch.device:
    """The device of that name; `auto` is a GPU where there is one, of several the one for the process of that rank.

    Raises `InputError` for a device that is not there.
    """
    if name == "auto":
        name = f"cuda:{rank % num_gpus()}" if num_gpus() else "cpu"
    needed = "needed: auto, cpu, or cuda where there is a GPU"
    try:
        device = torch.device(name)
    except RuntimeError as error:  # its message lists all that torch has ever known
        raise InputError(f"setting device is {name!r}; {needed}") from error
    try:
        return torch.zeros(1, device=device).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"setting device is {name!r}: {str(error).splitlines()[0]}; {needed}") from error


@contextmanager
def matmul_precision(name: str, device: torch.device | None = None) -> Iterator[None]:
    """Let a GPU compute float32 products and convolutions in `name`, one of `MATMUL_PRECISIONS`; undone afterwards.

    It concerns only what is float32: a model in bfloat16 computes as before, and so does one on another `device`.
    Raises `InputError` for another name.
    """
    check_setting("matmul_precision", name, MATMUL_PRECISIONS)
    if device is not None and device.type != "cuda":
        yield
        return
    products = torch.get_float32_matmul_precision()
    convolutions = torch.backends.cudnn.allow_tf32
    try:
        torch.set_float32_matmul_precision(name)
        torch.backends.cudnn.allow_tf32 = name != "highest"
        yield
    finally:
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = convolutions


def describe_device(device: torch.device) -> dict[str, str | None]:
    """Name and driver of a device, for manifests and reports; the driver of a CPU is None."""
    if device.type != "cuda" or not num_gpus():
        return {"device": device.type, "driver": None}
    return {"device": torch.cuda.get_device_name(device), "driver": _driver()}


def describe_arithmetic(device: torch.device, precision: str, matmul: str) -> dict[str, str | None]:
    """Name and driver of a device, and in which precisions it computes: a CPU's float32 is float32."""
    matmul = matmul if device.type == "cuda" else "highest"
    return describe_device(device) | {"precision": precision, "matmul_precision": matmul}


def _driver() -> str | None:
    """Version of the driver by nvidia-smi; None where there is no such tool."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        versions = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return None
    return versions[0] if versions else None


def use_threads(number: int | None) -> None:
    """Let torch use so many CPU threads; None leaves it as it is. Raises `InputError` for less than one."""
    if number is None:
        return
    if number < 1:
        raise InputError(f"setting num_threads is {number}; needed: at least 1, or null")
    torch.set_num_threads(number)

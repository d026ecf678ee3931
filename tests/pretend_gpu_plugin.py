"""Plugin of pytest under which the tests for a GPU run on a pretend one:  pytest -m gpu -p pretend_gpu_plugin

Not those that start processes, compile, or measure memory. Fixtures of modules still work on the CPU.
"""

from collections.abc import Callable, Iterator

import pytest
import torch
from pretend_gpu import PretendGPU, pretend_trainer
from torch.utils.data import DataLoader

from mindvis.common import devices
from mindvis.training import engine

real = torch.cuda.is_available
torch.cuda.is_available = lambda: True  # while the tests are collected, which are skipped without a GPU


def pytest_collection_finish() -> None:
    torch.cuda.is_available = real


@pytest.fixture(autouse=True)
def pretend_gpu() -> Iterator[None]:
    """A pretend GPU, and nothing done by those functions that ask for a driver."""
    with pytest.MonkeyPatch.context() as patch, PretendGPU() as gpu:
        patch.setattr("pytorch_lightning.Trainer", pretend_trainer(gpu))
        for module in (devices, engine):
            patch.setattr(module, "num_gpus", lambda: 1)
        patch.setattr(torch.cuda, "current_device", lambda: 0)
        patch.setattr(torch.cuda, "set_sync_debug_mode", lambda _: None)
        check = "_accelerator_graph_capture_health_check"
        patch.setattr(torch.optim.Optimizer, check, lambda _: None, raising=False)
        patch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
        patch.setattr(DataLoader, "__init__", _without_pinning(DataLoader.__init__))
        yield


def _without_pinning(init: Callable) -> Callable:
    return lambda self, *rest, **options: init(self, *rest, **options | {"pin_memory": False})

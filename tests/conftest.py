"""Shared fixtures: a seeded generator, golden numbers, and the optional folder of parity files."""

import json
import os
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "disabled")

# The same examples in every run: a suite that passes here passes there. `--hypothesis-profile=default` draws new ones.
hypothesis.settings.register_profile("suite", derandomize=True, deadline=None)
hypothesis.settings.load_profile("suite")

TESTS = Path(__file__).parent
SHARED = TESTS.parents[1] / "shared"


class Golden:
    """One golden file: `golden.meta`, `golden["out/x"]` as an array, `golden.tensors("state")` as a dict of tensors."""

    def __init__(self, path: Path):
        self.arrays = np.load(path)
        self.meta = json.loads(str(self.arrays["meta"])) if "meta" in self.arrays else {}

    def __getitem__(self, key: str) -> np.ndarray:
        return self.arrays[key]

    def tensor(self, key: str) -> torch.Tensor:
        return torch.from_numpy(self.arrays[key])

    def tensors(self, group: str) -> dict[str, torch.Tensor]:
        prefix = group + "/"
        return {k.removeprefix(prefix): self.tensor(k) for k in self.arrays.files if k.startswith(prefix)}


@pytest.fixture
def golden():
    """`golden("mbm_forward")`: tests/golden/mbm_forward.npz, or the file of that name in the parity folder."""

    def load(name: str) -> Golden:
        for path in (TESTS / "golden" / f"{name}.npz", SHARED / "parity" / f"{name}.npz"):
            if path.exists():
                return Golden(path)
        pytest.skip(f"{name}.npz is neither in tests/golden nor in {SHARED / 'parity'}")

    return load


@pytest.fixture
def shared() -> Path:
    """The folder of parity files and real data beside the project; skips where it is absent."""
    if not SHARED.exists():
        pytest.skip(f"no folder {SHARED}")
    return SHARED


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)  # the networks of the tests are too small to share over cores

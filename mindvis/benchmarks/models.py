"""Networks of any size with random weights, and random inputs for them."""

from pathlib import Path

import torch
from omegaconf import OmegaConf
from torch import Tensor

from mindvis.benchmarks.memory_estimate import LABEL2IMG
from mindvis.checkpoints import DEMO_LDM, ENCODER_SETTINGS
from mindvis.common.errors import InputError
from mindvis.config.tools import BenchmarkConfig
from mindvis.dc_ldm import LatentDiffusion, build_ldm
from mindvis.sc_mbm import FMRIEncoder


def build_diffusion(config: BenchmarkConfig) -> LatentDiffusion:
    """Stage B model of the sizes in the settings, with random weights."""
    torch.manual_seed(config.seed)
    sizes = {name: value for name, value in vars(config.model).items() if name in ENCODER_SETTINGS}
    return build_ldm(_read_ldm(config.ldm), FMRIEncoder(num_voxels=config.num_voxels, **sizes))


def seeded_rows(config: BenchmarkConfig, num_rows: int) -> dict[str, Tensor]:
    """Random fMRI [b 1 v] on the device, and the keys [b 3] from which a module draws."""
    fmri = torch.randn(num_rows, 1, config.num_voxels, generator=torch.Generator().manual_seed(config.seed))
    key = torch.tensor([[config.seed, 0, index] for index in range(num_rows)])
    return {"fmri": fmri.to(config.device), "key": key}


def _read_ldm(name: str) -> dict:
    """The published config.yaml as a dict, for `published`, `demo` or the path of one."""
    if name == "published":
        return {"model": {"params": LABEL2IMG}}
    path = DEMO_LDM.with_name("config.yaml") if name == "demo" else Path(name)
    if not path.is_file():
        raise InputError(f"setting ldm is {name!r}: no such file; needed: published, demo, or a config.yaml")
    return OmegaConf.to_container(OmegaConf.load(path))

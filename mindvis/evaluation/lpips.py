"""LPIPS (Zhang et al. 2018) as an embedding: its squared Euclidean distances are the LPIPS distances.

Written so, every picture goes through the network once, and n x m pairs cost one matrix product. The linear heads are
those that torchmetrics ships; the AlexNet backbone is torchvision's and comes from a weights file.
"""

from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import alexnet

from mindvis.evaluation.weights import find_weights, load_into, load_state

ALEXNET_FILE = "alexnet-owt-7be5be79.pth"
TAPS = (1, 4, 7, 9, 11)  # the five ReLUs of AlexNet's features
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class PerceptualEmbedding(nn.Module):
    """uint8 [n h w 3] -> float32 [n d] whose squared distances are LPIPS."""

    def __init__(self, backbone: nn.Module, heads: list[Tensor]):
        super().__init__()
        self.features = backbone.features
        self.heads = nn.ParameterList([nn.Parameter(head.flatten(), requires_grad=False) for head in heads])
        self.register_buffer("shift", torch.tensor(SHIFT)[:, None, None])
        self.register_buffer("scale", torch.tensor(SCALE)[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        images = images.permute(0, 3, 1, 2).float() / 127.5 - 1  # [n 3 h w] in [-1, 1]
        pairs = zip(self.heads, self._taps((images - self.shift) / self.scale), strict=True)
        return torch.cat([_embed(head, features) for head, features in pairs], dim=1)

    def _taps(self, x: Tensor) -> Iterator[Tensor]:
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in TAPS:
                yield x


@cache
def lpips_heads() -> list[Tensor]:
    """The five linear heads for AlexNet that ship with torchmetrics, each [1 c 1 1]."""
    state = load_state(Path(str(files("torchmetrics.functional.image") / "lpips_models" / "alex.pth")))
    return [state[key] for key in sorted(state)]


def load_lpips(weights: str | Path | None = None) -> PerceptualEmbedding:
    """LPIPS with torchvision's AlexNet weights, from a file or the torch cache; raises InputError without."""
    path = find_weights(weights, cached_name=ALEXNET_FILE, purpose="lpips (AlexNet)")
    return PerceptualEmbedding(load_into(alexnet(weights=None), path), lpips_heads()).eval()


def _embed(head: Tensor, features: Tensor) -> Tensor:
    """Unit-normalised features [n c h w], weighted so that squared distances are means over places -> [n chw]."""
    features = features / (features.square().sum(dim=1, keepdim=True) + 1e-8).sqrt()
    weights = (head / features[0, 0].numel()).sqrt()
    return (features * weights[:, None, None]).flatten(1)

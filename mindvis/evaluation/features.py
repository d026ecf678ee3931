"""The measures by which decoding from the Natural Scenes Dataset is compared.

Ozcelik & VanRullen 2023, Scotti et al. 2023. Low level: pixel correlation, and SSIM of grey pictures, at 425 pixels.
Networks: two-way identification by the correlation of AlexNet layers 2 and 5, Inception and CLIP; correlation distance
of EfficientNet-B1 and SwAV. Every network comes from a weights file, none is downloaded; a measure whose weights are
absent is skipped with a line that says so.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import timm
import torch
import torchvision.models as tv
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate

from mindvis.evaluation.arrays import Array, as_images
from mindvis.evaluation.preprocess import Preprocess
from mindvis.evaluation.weights import find_weights, load_into, load_state

GREY = (0.2125, 0.7154, 0.0721)  # luminance of linear sRGB primaries, as in scikit-image
SIDE = 425  # the side at which NSD showed its pictures
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class FeatureSpec:
    """One measure: which layer of which network, and whether pairs are identified or their distance is averaged."""

    network: str  # key of the weights files a user gives
    file: str  # name of the published weights file, looked for in the torch cache
    build: Callable[[], nn.Module]
    layer: str
    preprocess: Preprocess
    two_way: bool


def _clip() -> nn.Module:
    return timm.create_model("vit_large_patch14_clip_quickgelu_224", pretrained=False, num_classes=768)


def _inception() -> nn.Module:
    return tv.inception_v3(weights=None, init_weights=False, transform_input=True)


def _swav() -> nn.Module:
    return tv.resnet50(weights=None)


ALEXNET = ("alexnet", "alexnet-owt-7be5be79.pth", tv.alexnet)
SPECS = {
    "alexnet_2": FeatureSpec(*ALEXNET, "features.4", Preprocess(256, 256, interpolation="bilinear"), True),
    "alexnet_5": FeatureSpec(*ALEXNET, "features.11", Preprocess(256, 256, interpolation="bilinear"), True),
    "inception_v3": FeatureSpec(
        "inception_v3",
        "inception_v3_google-0cc3c7bd.pth",
        _inception,
        "avgpool",
        Preprocess(342, 342, interpolation="bilinear"),
        True,
    ),
    "clip_vit_l_14": FeatureSpec(
        "clip_vit_l_14",
        "vit_large_patch14_clip_quickgelu_224.openai.safetensors",
        _clip,
        "head",
        Preprocess(224, 224, CLIP_MEAN, CLIP_STD, "bilinear"),
        True,
    ),
    "efficientnet_b1": FeatureSpec(
        "efficientnet_b1",
        "efficientnet_b1-c27df63c.pth",
        tv.efficientnet_b1,
        "avgpool",
        Preprocess(255, 255, interpolation="bilinear"),
        False,
    ),
    "swav": FeatureSpec(
        "swav",
        "swav_800ep_pretrain.pth.tar",
        _swav,
        "avgpool",
        Preprocess(224, 224, interpolation="bilinear"),
        False,
    ),
}


def load_feature_network(spec: FeatureSpec, weights: str | Path | None = None) -> nn.Module:
    """The network of a measure, from its file or the torch cache. Raises InputError where the weights are absent."""
    path = find_weights(weights, cached_name=spec.file, purpose=f"{spec.network} features")
    state = load_state(path)
    network = spec.build()
    if spec.network == "swav":
        # trained with projection heads in a wrapper; they are no part of the features
        network.fc = nn.Identity()
        state = {
            k.removeprefix("module."): v
            for k, v in state.items()
            if "projection_head" not in k and "prototypes" not in k
        }
    return load_into(network, path, state)


@torch.no_grad()
def layer_features(
    network: nn.Module, spec: FeatureSpec, images: Array, *, device: str | torch.device = "cpu", batch_size: int = 16
) -> Tensor:
    """Activations of the layer of a measure: uint8 [n h w 3] -> float32 [n d]."""
    seen: list[Tensor] = []
    layer = network.to(device).get_submodule(spec.layer)
    handle = layer.register_forward_hook(lambda _m, _i, output: seen.append(output.flatten(1).float().cpu()))
    try:
        for batch in as_images(images, "images").split(batch_size):
            network(spec.preprocess(batch.to(device)))
    finally:
        handle.remove()
    return torch.cat(seen)


def correlation_matrix(x: Tensor, y: Tensor) -> np.ndarray:
    """Pearson correlation of feature vectors: [n d], [m d] -> float64 [n m]; 0 for constant vectors."""
    x, y = [nn.functional.normalize(z - z.mean(dim=1, keepdim=True)) for z in (x, y)]
    return (x @ y.T).double().numpy()


def pixel_correlation(decoded: Array, true: Array) -> np.ndarray:
    """Pearson correlation of each pair of pictures at 425 pixels: uint8 [n h w 3] twice -> float64 [n]."""
    x, y = [_at_nsd_size(images).flatten(1) for images in (decoded, true)]
    x, y = [nn.functional.normalize(z - z.mean(dim=1, keepdim=True)) for z in (x, y)]
    return (x * y).sum(dim=1).numpy()


def grey_ssim(decoded: Array, true: Array) -> np.ndarray:
    """SSIM of each pair in grey at 425 pixels: Gaussian window of deviation 1.5, uint8 [n h w 3] twice -> [n]."""
    weights = torch.tensor(GREY, dtype=torch.float64)[:, None, None]
    x, y = [(_at_nsd_size(images) * weights).sum(dim=1, keepdim=True) for images in (decoded, true)]
    mean_x, mean_y = _blur(x), _blur(y)
    variance_x, variance_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    above = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    below = (mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2)
    return (above / below).mean(dim=(1, 2, 3)).numpy()


def _at_nsd_size(images: Array) -> Tensor:
    """uint8 [n h w 3] -> float64 [n 3 425 425] in [0, 1]."""
    pictures = as_images(images, "images").permute(0, 3, 1, 2).double() / 255
    return interpolate(pictures, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)


def _blur(pictures: Tensor) -> Tensor:
    """Gaussian of deviation 1.5 cut at 3.5 deviations, where it lies inside: [n 1 h w] -> [n 1 h-10 w-10]."""
    offsets = torch.arange(-5, 6, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (offsets / 1.5) ** 2)
    kernel /= kernel.sum()
    return conv2d(conv2d(pictures, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))

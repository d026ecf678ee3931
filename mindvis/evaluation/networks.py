"""Networks that look at pictures: their weights, their preprocessing, and the features by which pictures are compared.

Weights files are found or refused in one line, never downloaded, and loaded without executing code.

The feature networks are those by which decoding from the Natural Scenes Dataset is compared (Ozcelik & VanRullen 2023,
Scotti et al. 2023): two-way identification by the correlation of AlexNet layers 2 and 5, Inception and CLIP;
correlation distance of EfficientNet-B1 and SwAV.

Frechet inception distance is taken by torchmetrics from features that were computed once. The name of such a figure
holds network and feature size, because values of different networks cannot be compared.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torchvision.models as tv
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchmetrics.image.fid import FrechetInceptionDistance
from torchvision.transforms.functional import center_crop, normalize

from mindvis.common.errors import InputError, one_line
from mindvis.common.loading import load_state, unwrapped
from mindvis.evaluation.pictures import Array, as_finite_matrix, as_images

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
INCEPTION_FILE = "pt_inception-2015-12-05-6726825d.pth"
INCEPTION_SIZES = (64, 2048)  # the size the published code uses, and the usual one
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def find_weights(path: str | Path | None, *, cached_name: str, purpose: str) -> Path:
    """The file given, or else `cached_name` in the torch cache; raises InputError where neither exists."""
    if path is None:
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        path, remedy = folder / cached_name, f"; put {cached_name} there, or give its path"
    else:
        path, remedy = Path(path), ""
    if not path.is_file():
        where = f"in {path.parent}" if remedy else path
        raise InputError(f"{purpose}: no weights file {where}{remedy}")
    return path


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a weights file (.pth, .bin, .safetensors); raises InputError unless it is a dict of tensors."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such weights file")
    try:
        is_torch = path.suffix != ".safetensors"
        state = torch.load(path, map_location="cpu", weights_only=True) if is_torch else load_file(path)
    except Exception as error:  # a damaged file fails in any instruction of the reader, with any exception
        raise InputError(f"{path}: not a weights file of tensors only ({one_line(error)})") from error
    state = state.get("state_dict", state.get("model", state)) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise InputError(f"{path}: found {type(state).__name__}, need a dict of tensors")
    return unwrapped(state, str(path))


def load_into(model: nn.Module, path: str | Path, state: dict[str, Tensor] | None = None) -> nn.Module:
    """The model filled strictly from a weights file, in evaluation mode; raises InputError where names do not match."""
    load_state(model, read_tensors(path) if state is None else state, source=str(path))
    return model.eval().requires_grad_(False)


@dataclass(frozen=True)
class Preprocess:
    """Resize the shorter side to `resize`, cut out the central square of `size`, normalise, as in training."""

    size: int
    resize: int
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: str = "bicubic"

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 [b h w 3] -> float32 [b 3 size size]."""
        pictures = resize_shorter(images.permute(0, 3, 1, 2).float() / 255, self.resize, self.interpolation)
        return normalize(center_crop(pictures, [self.size, self.size]), self.mean, self.std)


def resize_shorter(pictures: Tensor, side: int, interpolation: str = "bicubic") -> Tensor:
    """Resize so that the shorter side has `side` pixels, anti-aliased: float [b c h w] in [0, 1] -> the same range."""
    height, width = pictures.shape[-2:]
    scale = side / min(height, width)
    size = [max(side, int(height * scale)), max(side, int(width * scale))]
    if size == [height, width]:
        return pictures
    # bicubic overshoots at edges; 8-bit resizing, which the networks were trained with, cuts it off
    return interpolate(pictures, size, mode=interpolation, antialias=True, align_corners=False).clamp(0, 1)


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
    import timm  # here, because it brings wandb along

    return timm.create_model("vit_large_patch14_clip_quickgelu_224", pretrained=False, num_classes=768)


def _at(size: int, mean: tuple[float, ...] = IMAGENET_MEAN, std: tuple[float, ...] = IMAGENET_STD) -> Preprocess:
    return Preprocess(size, size, mean, std, "bilinear")


ALEXNET = ("alexnet", "alexnet-owt-7be5be79.pth", tv.alexnet)
inception = partial(tv.inception_v3, weights=None, init_weights=False, transform_input=True)
INCEPTION = ("inception_v3", "inception_v3_google-0cc3c7bd.pth", inception)
CLIP = ("clip_vit_l_14", "vit_large_patch14_clip_quickgelu_224.openai.safetensors", _clip)
EFFICIENTNET = ("efficientnet_b1", "efficientnet_b1-c27df63c.pth", tv.efficientnet_b1)
SWAV = ("swav", "swav_800ep_pretrain.pth.tar", tv.resnet50)
SPECS = {
    "alexnet_2": FeatureSpec(*ALEXNET, "features.4", _at(256), two_way=True),
    "alexnet_5": FeatureSpec(*ALEXNET, "features.11", _at(256), two_way=True),
    "inception_v3": FeatureSpec(*INCEPTION, "avgpool", _at(342), two_way=True),
    "clip_vit_l_14": FeatureSpec(*CLIP, "head", _at(224, CLIP_MEAN, CLIP_STD), two_way=True),
    "efficientnet_b1": FeatureSpec(*EFFICIENTNET, "avgpool", _at(255), two_way=False),
    "swav": FeatureSpec(*SWAV, "avgpool", _at(224), two_way=False),
}


def load_feature_network(spec: FeatureSpec, weights: str | Path | None = None) -> nn.Module:
    """The network of a measure, from its file or the torch cache. Raises InputError where the weights are absent."""
    path = find_weights(weights, cached_name=spec.file, purpose=f"{spec.network} features")
    state = read_tensors(path)
    network = spec.build()
    if spec.network == "swav":
        # trained with projection heads in a wrapper; they are no part of the features
        network.fc = nn.Identity()
        kept = [k for k in state if "projection_head" not in k and "prototypes" not in k]
        state = {k.removeprefix("module."): state[k] for k in kept}
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


class _Identity(nn.Module):
    """Hands precomputed features to torchmetrics in place of pictures."""

    def __init__(self, num_features: int):
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def frechet_distance(decoded: Array, true: Array) -> float:
    """FID of two sets of features: [n d], [m d]. Raises InputError on NaN, other shapes or fewer than two pictures."""
    decoded, true = as_finite_matrix(decoded, "decoded features"), as_finite_matrix(true, "true features")
    if min(len(decoded), len(true)) < 2 or decoded.shape[1] != true.shape[1]:
        raise InputError(f"FID: found features {list(decoded.shape)} and {list(true.shape)}, need two pictures or more")
    decoded, true = _in_their_span(decoded.astype(np.float64), true.astype(np.float64))
    metric = FrechetInceptionDistance(feature=_Identity(true.shape[1])).set_dtype(torch.float64)
    metric.update(torch.from_numpy(true), real=True)
    metric.update(torch.from_numpy(decoded), real=False)
    return float(metric.compute())


def _in_their_span(decoded: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates in the span of both sets, from their mean: [n d], [m d] -> [n r], [m r], r <= n + m.

    Moving and turning the axes, and leaving out those in which nothing varies, changes no distance; few pictures in
    2048 dimensions take milliseconds so, instead of many seconds.
    """
    both = np.concatenate([decoded, true])
    both -= both.mean(axis=0)
    if len(both) < both.shape[1]:
        both = both @ np.linalg.qr(both.T).Q  # [n+m d] @ [d n+m]
    return both[: len(decoded)], both[len(decoded) :]


def small_sample_caveat(num_pictures: int, num_features: int) -> str:
    """What a reader must know about an FID of so few pictures."""
    n, d = num_pictures, num_features
    return (
        f"FID between {n} decoded and {n} true pictures in {d} dimensions: the covariance has at most {min(n - 1, d)} "
        f"of {d} dimensions from so few pictures, so the value is biased upwards and depends on n. Compare it only "
        "between sets of the same size and the same network."
    )


def load_inception(weights: str | Path | None, size: int) -> nn.Module:
    """The Inception network of the original FID, uint8 [b 3 h w] -> [b size], from its file or that of the torch cache.

    Raises InputError where the file or the package torch-fidelity, which holds the architecture, is absent.
    """
    from torchmetrics.image.fid import _TORCH_FIDELITY_AVAILABLE, NoTrainInceptionV3

    if not _TORCH_FIDELITY_AVAILABLE:
        raise InputError("FID with Inception features: needs the package torch-fidelity (pip install torch-fidelity)")
    path = find_weights(weights, cached_name=INCEPTION_FILE, purpose="FID with Inception features")
    return NoTrainInceptionV3("inception-v3-compat", [str(size)], feature_extractor_weights_path=str(path)).eval()

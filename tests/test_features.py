"""The NSD suite against scikit-image and plain loops; consistency over samples; the copying check."""

import numpy as np
import pytest
import torch
from skimage import data
from skimage.color import rgb2gray
from skimage.metrics import structural_similarity
from torch import nn

from mindvis.common.errors import InputError
from mindvis.evaluation import networks
from mindvis.evaluation.checks import copying_check
from mindvis.evaluation.classifiers import classifier_agreement
from mindvis.evaluation.networks import FeatureSpec, Preprocess, correlation_matrix, layer_features
from mindvis.evaluation.similarity import between_sample_ssim, grey_ssim, pixel_correlation


@pytest.fixture
def photos():
    """Two pairs of photographs at 425 pixels, so that no resizing enters."""
    first = np.stack([data.astronaut()[:425, :425], data.astronaut()[80:505, 80:505]])
    return first, np.roll(first, 4, axis=1)


def test_grey_ssim_is_scikit_image(photos):
    """Grey, Gaussian weights of deviation 1.5, population covariance, range 1."""
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    wanted = [structural_similarity(rgb2gray(x), rgb2gray(y), **options) for x, y in zip(*photos, strict=True)]
    np.testing.assert_allclose(grey_ssim(*photos), wanted, atol=1e-9)


def test_pixel_correlation_is_numpys(photos):
    """Over all colours and pixels; 1 for a picture with itself; other sizes are resized."""
    wanted = [np.corrcoef(x.ravel(), y.ravel())[0, 1] for x, y in zip(*photos, strict=True)]
    np.testing.assert_allclose(pixel_correlation(*photos), wanted, atol=1e-9)
    small = photos[0][:, ::5, ::5]
    np.testing.assert_allclose(pixel_correlation(small, small), 1.0, atol=1e-9)


def test_correlation_matrix_is_numpys(rng):
    """Every pair of rows; constant rows give 0."""
    x, y = rng.standard_normal((3, 50)).astype(np.float32), rng.standard_normal((2, 50)).astype(np.float32)
    found = correlation_matrix(torch.from_numpy(x), torch.from_numpy(y))
    np.testing.assert_allclose(found, np.corrcoef(x, y)[:3, 3:], atol=1e-6)
    assert correlation_matrix(torch.ones(1, 50), torch.from_numpy(y)).tolist() == [[0.0, 0.0]]


def test_layer_features_come_from_the_layer(rng):
    """The named layer's activations, whatever the batches."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2)).eval()
    spec = FeatureSpec("tiny", "tiny.pth", lambda: network, "1", Preprocess(8, 8), True)
    images = rng.integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    found = layer_features(network, spec, images, batch_size=2)
    wanted = torch.relu(network[0](spec.preprocess(torch.from_numpy(images)))).flatten(1)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("name", ["alexnet_2", "alexnet_5", "inception_v3", "clip_vit_l_14", "efficientnet_b1", "swav"])
def test_every_measure_has_its_layer(name):
    """The layer exists in the network of that name (built without memory), and absent weights are one line."""
    spec = networks.SPECS[name]
    with torch.device("meta"):
        network = spec.build()
    assert network.get_submodule(spec.layer) is not None
    with pytest.raises(InputError, match=f"{spec.network} features: no weights file absent.pth"):
        networks.load_feature_network(spec, "absent.pth")


def test_swav_loads_without_its_projection_heads(tmp_path, monkeypatch):
    """The published file wraps the backbone and adds heads that are no features."""
    backbone = nn.Module()
    backbone.layer, backbone.fc = nn.Linear(2, 2), nn.Linear(2, 9)
    state = {"module.layer.weight": torch.ones(2, 2), "module.layer.bias": torch.ones(2)}
    state |= {"module.projection_head.0.weight": torch.ones(1), "module.prototypes.weight": torch.ones(1)}
    torch.save(state, tmp_path / "swav.pth.tar")
    spec = FeatureSpec("swav", "swav.pth.tar", lambda: backbone, "layer", Preprocess(8, 8), False)
    assert networks.load_feature_network(spec, tmp_path / "swav.pth.tar").layer.weight.sum() == 4


def test_agreement_of_samples():
    """Share of pairs that agree: all, one of three, none."""
    assert classifier_agreement(np.array([[1, 1, 1], [1, 1, 2], [1, 2, 3]])).tolist() == [
        1.0,
        pytest.approx(1 / 3),
        0.0,
    ]


def test_ssim_between_samples(rng):
    """Equal samples score 1; the mean is over pairs of different samples."""
    images = rng.integers(0, 256, (1, 3, 12, 12, 3), dtype=np.uint8)
    pairs = [structural_similarity(images[0, i], images[0, j], channel_axis=-1) for i, j in [(0, 1), (0, 2), (1, 2)]]
    found = between_sample_ssim(np.concatenate([images, images[:, [0, 0, 0]]]))
    np.testing.assert_allclose(found, [np.mean(pairs), 1.0], atol=1e-6)


def test_copies_of_training_pictures_are_found(rng):
    """A decoded copy is a near copy of the right training picture; fresh pictures are not, nor are the true ones."""
    training = rng.integers(0, 256, (6, 40, 40, 3), dtype=np.uint8)
    stimuli = rng.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    decoded = rng.integers(0, 256, (2, 2, 40, 40, 3), dtype=np.uint8)
    decoded[1, 0] = training[4]
    check = copying_check(decoded, stimuli, training)
    assert check.nearest[1, 0] == 4 and check.decoded[1, 0] == pytest.approx(1.0)
    assert check.summary()["near_copies"] == 1 and check.summary()["true_near_copies"] == 0


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_orig_mod.module."])
def test_weights_of_wrapped_networks_are_read(tmp_path, prefix):
    """As DataParallel and torch.compile name them, whatever network they are for."""
    network = nn.Linear(2, 2)
    torch.save({prefix + name: tensor for name, tensor in network.state_dict().items()}, tmp_path / "w.pth")
    again = networks.load_into(nn.Linear(2, 2), tmp_path / "w.pth")
    assert torch.equal(again.weight, network.weight)

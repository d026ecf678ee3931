"""Similarities against golden numbers, scikit-image pair by pair, and torchmetrics."""

import numpy as np
import pytest
import torch
from skimage import data
from skimage.metrics import structural_similarity

from mindvis.common.errors import InputError
from mindvis.evaluation import similarity_matrix
from mindvis.evaluation.similarity import PerceptualEmbedding, lpips_heads, squared_distances


def random_images(rng, n, height=24, width=31):
    return rng.integers(0, 256, (n, height, width, 3), dtype=np.uint8)


def reference_ssim(predictions, targets):
    return np.array([[structural_similarity(p, t, channel_axis=-1) for t in targets] for p in predictions])


@pytest.mark.parametrize("metric", ["mse", "pcc", "ssim"])
def test_golden_matrices(golden, metric):
    """The published similarity matrices, to 1e-6."""
    metrics = golden("metrics")
    matrix = similarity_matrix(metrics["in/pred"], metrics["in/gt"], metric)
    np.testing.assert_allclose(matrix, metrics[f"out/{metric}_matrix"], rtol=1e-9, atol=1e-6)


def test_ssim_is_scikit_image_on_random_pictures(rng):
    """Another number of rows than columns, and sides that differ."""
    predictions, targets = random_images(rng, 3), random_images(rng, 4)
    wanted = reference_ssim(predictions, targets)
    np.testing.assert_allclose(similarity_matrix(predictions, targets, "ssim"), wanted, atol=1e-6)


def test_ssim_is_scikit_image_on_photographs():
    """Real photographs, and a shifted one."""
    photos = np.stack([data.chelsea()[:200, :256], data.coffee()[:200, :256], data.astronaut()[:200, :256]])
    shifted = np.roll(photos, 3, axis=2)
    np.testing.assert_allclose(similarity_matrix(shifted, photos), reference_ssim(shifted, photos), atol=1e-6)


def test_ssim_of_flat_pictures(rng):
    """Flat pictures and pictures of 2 x 2 flat blocks, dark and bright, where cancellation would show."""
    flat = np.stack([np.full((16, 16, 3), value, np.uint8) for value in (0, 3, 252, 255)])
    blocks = rng.integers(240, 256, (2, 8, 8, 3), dtype=np.uint8).repeat(2, axis=1).repeat(2, axis=2)
    quarters = rng.integers(0, 256, (2, 2, 2, 3), dtype=np.uint8).repeat(8, axis=1).repeat(8, axis=2)
    images = np.concatenate([flat, blocks, quarters])
    np.testing.assert_allclose(similarity_matrix(images, images), reference_ssim(images, images), atol=1e-6)


def test_mse_and_pcc_are_exact_at_full_size(rng):
    """Sums over 256 x 256 x 3 bright values lose nothing."""
    images = rng.integers(250, 256, (2, 256, 256, 3), dtype=np.uint8)
    x, y = images.reshape(2, -1).astype(np.float64)
    assert similarity_matrix(images[:1], images[1:], "mse").item() == ((x - y) ** 2).mean()
    assert similarity_matrix(images[:1], images[1:], "pcc").item() == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-12)


def test_blocks_do_not_show(rng, monkeypatch):
    """The matrix does not depend on how many pictures are compared at once."""
    images = random_images(rng, 5, 8, 8)
    whole = similarity_matrix(images, images[:3], "pcc")
    monkeypatch.setattr("mindvis.evaluation.similarity.BLOCK", 2)
    np.testing.assert_allclose(similarity_matrix(images, images[:3], "pcc"), whole, atol=1e-15)


def test_flat_picture_has_no_correlation(rng):
    """pcc with a flat picture is 0, not NaN."""
    flat = np.full((1, 8, 8, 3), 7, np.uint8)
    assert similarity_matrix(flat, random_images(rng, 2, 8, 8), "pcc").tolist() == [[0.0, 0.0]]
    assert similarity_matrix(flat, flat, "pcc").item() == 0.0


@pytest.mark.parametrize("metric", ["mse", "pcc", "ssim"])
def test_identical_pictures_and_torch_input(rng, metric):
    """The diagonal of a set with itself is the best value, and torch in gives the same numpy out."""
    images = random_images(rng, 3)
    matrix = similarity_matrix(torch.from_numpy(images), images, metric)
    assert isinstance(matrix, np.ndarray) and matrix.dtype == np.float64
    np.testing.assert_allclose(np.diag(matrix), 0.0 if metric == "mse" else 1.0, atol=1e-7)


def test_lpips_equals_torchmetrics(rng, monkeypatch):
    """The embedding's squared distances are torchmetrics' LPIPS with the same backbone."""
    from torchmetrics.functional.image.lpips import _LPIPS
    from torchvision.models import alexnet

    torch.manual_seed(0)
    backbone = alexnet(weights=None)
    monkeypatch.setattr("torchvision.models.alexnet", lambda weights: backbone)
    reference = _LPIPS(net="alex", pnet_rand=True)
    images = torch.from_numpy(random_images(rng, 4, 64, 72))
    scaled = images.permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        embedded = PerceptualEmbedding(backbone, lpips_heads())(images)
        wanted = reference(scaled[:2], scaled[2:]).flatten()
    np.testing.assert_allclose(squared_distances(embedded[:2], embedded[2:]).diag(), wanted, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("predictions", "targets", "metric", "message"),
    [
        (np.zeros((1, 8, 8, 3)), np.zeros((1, 8, 8, 3), np.uint8), "ssim", "predictions: found float64"),
        (np.zeros((1, 8, 8), np.uint8), np.zeros((1, 8, 8, 3), np.uint8), "mse", r"need uint8 \[n h w 3\]"),
        (np.zeros((1, 8, 8, 3), np.uint8), np.zeros((0, 8, 8, 3), np.uint8), "mse", "at least one picture"),
        (np.zeros((1, 8, 8, 3), np.uint8), np.zeros((1, 9, 8, 3), np.uint8), "mse", "8 x 8 pixels and targets 9 x 8"),
        (np.zeros((1, 6, 8, 3), np.uint8), np.zeros((1, 6, 8, 3), np.uint8), "ssim", "at least 7 x 7"),
        (np.zeros((1, 8, 8, 3), np.uint8), np.zeros((1, 8, 8, 3), np.uint8), "psnr", "need one of mse, pcc"),
    ],
)
def test_bad_pictures_get_one_line(predictions, targets, metric, message):
    """What was found and what is needed."""
    with pytest.raises(InputError, match=message) as error:
        similarity_matrix(predictions, targets, metric)
    assert "\n" not in str(error.value)


def test_lpips_without_weights_says_what_is_missing(rng, tmp_path, monkeypatch):
    """No download: one line with the name of the file, or the path that was given."""
    images = random_images(rng, 2, 64, 64)
    with pytest.raises(InputError, match="no weights file .*absent.pth"):
        similarity_matrix(images, images, "lpips", lpips_weights=tmp_path / "absent.pth")
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    with pytest.raises(InputError, match="put alexnet-owt-7be5be79.pth there"):
        similarity_matrix(images, images, "lpips")

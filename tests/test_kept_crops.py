"""Latents of a few crops of each image, kept in place of encoding a crop in every step."""

import signal

import numpy as np
import pytest
import torch

from mindvis.data import PairedDataset
from mindvis.data.images import LazyImages
from mindvis.dc_ldm.latents import encode_batches, kept_crops, kept_latents
from mindvis.training.signals import INTERRUPTED, stoppable


class Means(torch.nn.Module):
    """Stands for an autoencoder: the latent of an image is the means of its quarters."""

    scale_factor = 1.0

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def encode(self, image):
        return torch.nn.functional.adaptive_avg_pool2d(image, 2)


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)


@pytest.fixture
def bank(images, tmp_path):
    return kept_crops(Means(), images, tmp_path, crops_per_image=2, crop_ratio=0.5, seed=1)


def test_crops_are_kept_and_differ(bank, images, tmp_path):
    """Every crop of every image is another one; a second call reads them from the folder."""
    whole = next(encode_batches(Means(), images, 3, False))
    assert [crops.shape for crops in bank] == [whole.shape] * 2 and len(list(tmp_path.iterdir())) == 2
    assert not np.allclose(bank[0], bank[1]) and not np.allclose(bank[0], whole)
    again = kept_crops(Means(), images, tmp_path, crops_per_image=2, crop_ratio=0.5, seed=1)
    assert all(np.array_equal(one, other) for one, other in zip(bank, again, strict=True))
    assert len(list(tmp_path.iterdir())) == 2


def test_a_cropped_item_takes_one_of_them(bank, images, tmp_path, rng):
    """With a bank nothing is left to encode; about every other item is whole, the others use all the crops."""
    latents = kept_latents(Means(), images, tmp_path)
    pairs = PairedDataset(rng.standard_normal((3, 8)).astype(np.float32), images).with_augmentation(sparsify=0)
    items = [pairs.with_latents(latents, bank)[(0, epoch, 1)] for epoch in range(40)]
    assert not any(item["cropped"] for item in items)
    sources = [
        [i for i, kept in enumerate((latents, *bank)) if np.array_equal(item["latent"], kept[1])] for item in items
    ]
    counts = [sources.count([i]) for i in range(3)]
    assert sum(counts) == 40 and 10 < counts[0] < 30 and min(counts) > 3


def test_only_the_first_of_several_processes_keeps_them(images, tmp_path, monkeypatch):
    """The second one encodes for itself what is not there yet: two would write over each other."""
    monkeypatch.setenv("RANK", "1")
    own = kept_latents(Means(), images, tmp_path)
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv("RANK", "0")
    assert np.array_equal(kept_latents(Means(), images, tmp_path), own)
    assert len(list(tmp_path.iterdir())) == 1


class Signalled(Means):
    """A signal comes while the second batch is encoded; counts the images it was given."""

    def __init__(self, number=None):
        super().__init__()
        self.number, self.images = number, 0

    def encode(self, image):
        if self.number and self.images:
            signal.raise_signal(self.number)
        self.images += len(image)
        return super().encode(image)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_keeps_the_batches_encoded_so_far(images, tmp_path, number):
    """It ends the program with status 75; the next time only the rest is encoded, to the same latents."""
    with pytest.raises(SystemExit) as stopped:
        stoppable(kept_latents)(Signalled(number), images, tmp_path, batch_size=2)
    assert stopped.value.code == INTERRUPTED
    assert [path.suffixes for path in tmp_path.iterdir()] == [[".part", ".npy"]]
    again = Signalled()
    latents = kept_latents(again, images, tmp_path, batch_size=2)
    assert again.images == 1 and [path.suffixes for path in tmp_path.iterdir()] == [[".npy"]]
    assert np.array_equal(latents, next(encode_batches(Means(), images, 3, False)))


class Counted:
    """Pictures in a file, of which it is counted how many are in memory at a time."""

    path, shape = __file__, (40, 16, 16, 3)

    def __init__(self):
        self.read = []

    def __len__(self):
        return 40

    def __getitem__(self, index):
        self.read.append(index)
        return np.full((16, 16, 3), index, np.uint8)


def test_lazy_pictures_are_read_once_and_a_batch_at_a_time(tmp_path, monkeypatch):
    """Neither the latents nor the pictures are ever in memory as a whole; the crops are those of an array."""
    source, rows = Counted(), []
    images = LazyImages(source)
    monkeypatch.setattr(Means, "encode", lambda self, image: rows.append(len(image)) or image[:, :, :2, :2])
    latents = kept_latents(Means(), images, tmp_path / "lazy", batch_size=8)
    assert source.read == list(range(40)) and rows == [8] * 5 and isinstance(latents, np.memmap)
    assert np.array_equal(latents, kept_latents(Means(), np.asarray(images), tmp_path / "array"))
    bank = {"crops_per_image": 1, "crop_ratio": 0.5, "seed": 1}
    crops = kept_crops(Means(), images, tmp_path / "lazy", **bank)
    assert np.array_equal(crops, kept_crops(Means(), np.asarray(images), tmp_path / "array", **bank))


@pytest.mark.parametrize("left", [0, 40, 200, 310])
def test_a_file_that_was_cut_short_is_gone_on_with(images, tmp_path, left):
    """Of a kill in the middle of a write, whole latents are kept, and a header that is not whole is made anew."""
    whole = np.array(kept_latents(Means(), images, tmp_path, batch_size=1))
    path = next(tmp_path.iterdir())
    content = path.read_bytes()
    path.unlink()
    path.with_suffix(".part.npy").write_bytes(content[: left if left < 300 else len(content) - 5])
    assert np.array_equal(kept_latents(Means(), images, tmp_path, batch_size=1), whole)

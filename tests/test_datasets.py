"""Data sets: items, keys, augmentation, subsets, joining, mapping."""

import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from mindvis.common.errors import InputError
from mindvis.data import FMRIDataset, PairedDataset, join_for_pretraining
from mindvis.data.images import to_float
from mindvis.data.rows import MappedArray, VoxelRows


@pytest.fixture
def pairs(rng) -> PairedDataset:
    fmri = rng.normal(size=(6, 100)) + 10
    images = rng.integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)
    return PairedDataset(fmri, images, class_ids=[3, 1, 4, 1, 5, 9])


@pytest.fixture
def mapped(tmp_path, rng) -> np.memmap:
    np.save(tmp_path / "rows.npy", rng.normal(size=(8, 20)).astype(np.float32))
    return np.load(tmp_path / "rows.npy", mmap_mode="r")


def test_plain_items(pairs):
    """An integer gives the row, its image and the key (0, 0, i), without augmentation."""
    item = pairs.with_augmentation()[2]
    assert torch.equal(item["fmri"], torch.from_numpy(pairs.fmri[2])[None])
    assert torch.equal(item["image"], to_float(pairs.images[2]))
    assert item["key"].tolist() == [0, 0, 2]
    assert (item["fmri"].dtype, item["key"].dtype) == (torch.float32, torch.int64)


def test_augmentation_is_a_function_of_the_key(pairs):
    """The same key gives the same item, after others or from another copy; another epoch gives another."""
    train = pairs.with_augmentation(crop_probability=1.0)
    first, later = train[(7, 0, 2)], train[(7, 1, 2)]
    again = pairs.with_augmentation(crop_probability=1.0)[(7, 0, 2)]
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["fmri"], later["fmri"])
    assert not torch.equal(first["image"], later["image"])


def test_augmented_items_hide_a_fifth_of_the_voxels(pairs):
    """Exactly 20 of 100 voxels, others untouched."""
    item = pairs.with_augmentation(sparsify=0.2)[(1, 0, 0)]
    row = item["fmri"][0].numpy()
    assert (row == 0).sum() == 20
    assert np.array_equal(row[row != 0], pairs.fmri[0][row != 0])


def test_without_augmentation_keys_change_nothing(pairs):
    """A data set that was not asked to augment gives plain items for keys too."""
    assert torch.equal(pairs[(5, 3, 1)]["fmri"], pairs[1]["fmri"])
    assert torch.equal(pairs[(5, 3, 1)]["image"], pairs[1]["image"])


def test_default_collation(pairs):
    """A loader with keys as samples gives batches of the agreed shapes."""
    batch = next(iter(DataLoader(pairs, batch_size=4, sampler=[(1, 0, i) for i in range(4)])))
    assert {name: tuple(value.shape) for name, value in batch.items()} == {
        "fmri": (4, 1, 100),
        "image": (4, 3, 16, 16),
        "key": (4, 3),
    }


def test_iteration_ends(pairs):
    """Items beyond the end are an IndexError, the protocol by which loops stop."""
    assert len(list(pairs)) == 6
    with pytest.raises(IndexError):
        pairs[(0, 0, 6)]


def test_interpolated_items_lie_halfway_between_two_rows(rng):
    """Extra items are means of two rows, a function of their key."""
    fmri = rng.normal(size=(5, 12)).astype(np.float32)
    dataset = FMRIDataset(fmri, num_interpolated=7)
    assert len(dataset) == 12
    halfway = (fmri[:, None] + fmri[None]).reshape(-1, 12) / 2
    for i in range(5, 12):
        row = dataset[(3, 1, i)]["fmri"][0].numpy()
        assert np.abs(halfway - row).max(axis=1).min() < 1e-6
        assert np.array_equal(row, dataset[(3, 1, i)]["fmri"][0].numpy())
    rows = {dataset.with_interpolated(50)[(3, 1, i)]["fmri"].sum().item() for i in range(5, 55)}
    assert len(rows) > 8


def test_subset_keeps_rows_and_what_belongs_to_them(pairs):
    """Every per-row attribute follows the rows, in the order asked for."""
    assert pairs.images.shape[0] == 6
    chosen = pairs.subset([4, 1])
    assert np.array_equal(chosen.fmri, pairs.fmri[[4, 1]])
    assert np.array_equal(chosen.images, pairs.images[[4, 1]])
    assert chosen.class_ids == [5, 1]
    assert torch.equal(chosen[0]["image"], pairs[4]["image"])
    with pytest.raises(InputError, match="0 .. 5"):
        pairs.subset([6])


def test_stimulus_points_at_distinct_images(rng):
    """Repeats share one image; `images` has one for each row all the same."""
    images = rng.integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    dataset = PairedDataset(rng.normal(size=(5, 10)), images, stimulus=[0, 1, 1, 0, 1])
    assert dataset.stimuli.shape == (2, 8, 8, 3)
    assert np.array_equal(dataset.images, images[[0, 1, 1, 0, 1]])
    assert torch.equal(dataset[3]["image"], to_float(images[0]))
    assert np.array_equal(dataset.subset([2]).images, images[[1]])


def test_image_size_resizes_once(pairs):
    """Images of another size are brought to the one asked for."""
    assert pairs.with_image_size(8)[0]["image"].shape == (3, 8, 8)
    assert pairs.with_image_size(8).images.shape == (6, 8, 8, 3)
    assert PairedDataset(pairs.fmri, pairs.images, image_size=8).images.shape == (6, 8, 8, 3)
    assert pairs.with_image_size(16).stimuli is pairs.stimuli


def test_mapped_arrays_stay_mapped(mapped):
    """A mapped array is neither read whole nor copied, and its items are right."""
    dataset = FMRIDataset(mapped)
    assert isinstance(dataset.fmri, np.memmap)
    assert np.array_equal(dataset[5]["fmri"][0].numpy(), mapped[5])
    chosen = dataset.subset([6, 0])
    assert isinstance(chosen.fmri, VoxelRows)
    assert np.array_equal(np.asarray(chosen.fmri), mapped[[6, 0]])
    assert len(pickle.dumps(dataset)) < 2000


def test_mapped_slices_and_views(mapped):
    """A view of a map is not taken for the whole file."""
    assert np.array_equal(MappedArray.of(mapped)[2:5], mapped[2:5])
    assert np.array_equal(FMRIDataset(mapped[3:]).fmri, mapped[3:])
    assert np.array_equal(FMRIDataset(mapped[3:])[0]["fmri"][0].numpy(), mapped[3])


def test_joined_sources_are_wrap_padded_to_the_longest(mapped, rng):
    """HCP-like and GOD-like rows side by side, read row by row."""
    other = FMRIDataset(rng.normal(size=(3, 32)), subject=["sbj_3"] * 3)
    joined = join_for_pretraining([FMRIDataset(mapped), other])
    assert joined.fmri.shape == (11, 32)
    assert np.array_equal(joined.fmri[1], np.pad(mapped[1], (0, 12), mode="wrap"))
    assert np.array_equal(np.asarray(joined.fmri)[8:], other.fmri)
    assert joined.subject.tolist() == [""] * 8 + ["sbj_3"] * 3
    assert isinstance(join_for_pretraining([FMRIDataset(mapped)]).fmri, np.memmap)


def test_joined_sources_padded_with_zeros_or_cut(mapped, rng):
    """The two other ways of the ablation."""
    sources = [FMRIDataset(mapped), FMRIDataset(rng.normal(size=(3, 32)))]
    zeros = join_for_pretraining(sources, pad_mode="constant").fmri
    assert np.array_equal(zeros[0], np.pad(mapped[0], (0, 12)))
    cut = join_for_pretraining(sources, pad_mode="cut").fmri
    assert cut.shape == (11, 20)
    assert np.array_equal(cut[9], sources[1].fmri[1, :20])
    with pytest.raises(InputError, match="no data set"):
        join_for_pretraining([])


def test_fitted_to_the_length_of_a_model(pairs, mapped):
    """Shorter data is wrapped, longer data cut; maps stay unread."""
    assert np.array_equal(pairs.fitted(112).fmri[:, 100:], pairs.fmri[:, :12])
    assert np.array_equal(pairs.fitted(64).fmri, pairs.fmri[:, :64])
    fitted = FMRIDataset(mapped).fitted(32)
    assert isinstance(fitted.fmri, VoxelRows)
    assert np.array_equal(fitted[0]["fmri"][0, 20:].numpy(), mapped[0, :12])


def test_rows_are_scaled_one_by_one(rng):
    """Scaling by a mean and deviation of each row, after choosing columns and before padding."""
    raw = rng.normal(size=(3, 10)).astype(np.float32)
    columns = np.array([9, 0, 4])
    rows = VoxelRows([raw], columns=columns, mean=np.arange(3.0), deviation=np.full(3, 2.0), num_voxels=4)
    wanted = (raw[:, columns] - np.arange(3.0)[:, None]) / 2
    assert np.allclose(np.asarray(rows), np.pad(wanted, [(0, 0), (0, 1)], mode="wrap"), atol=1e-6)
    assert np.array_equal(rows.subset(np.array([2]))[0], rows[2])


FMRI, IMAGES = np.ones((3, 4)), np.zeros((3, 8, 8, 3), np.uint8)


@pytest.mark.parametrize(
    ("fmri", "images", "options", "message"),
    [
        (np.full((3, 4), np.nan), IMAGES, {}, "12 NaN or infinite of 12 values"),
        (np.full((3, 4), 1e300), IMAGES, {}, "values up to 1e\\+300"),
        (np.ones(3), IMAGES, {}, "float64 .3., needs real numbers .n v."),
        (np.ones((0, 4)), IMAGES, {}, "none of them empty"),
        (np.array([["a"]]), IMAGES, {}, "needs real numbers"),
        (np.full((3, 4), 2**40), IMAGES, {}, "values up to .*, needs values of at most"),
        (np.full((3, 4), None), IMAGES, {}, "object"),
        (FMRI, IMAGES[:2], {}, "images has 2 rows, fmri has 3"),
        (FMRI, IMAGES.astype(np.float32), {}, "needs uint8 images"),
        (FMRI, IMAGES[..., :1], {}, "needs uint8 images"),
        (FMRI, IMAGES, {"class_ids": [1, 2]}, "class_ids has 2 rows"),
        (FMRI, IMAGES, {"subject": ["a"]}, "subject has 1 rows"),
        (FMRI, IMAGES, {"stimulus": [0, 1, 3]}, "indices in 0 .. 2"),
        (FMRI, IMAGES, {"stimulus": [0, 1]}, "stimulus has 2 rows"),
    ],
)
def test_what_enters_is_checked(fmri, images, options, message):
    """Each wrong array is one line that says what was found and what is needed."""
    with pytest.raises(InputError, match=message) as caught:
        PairedDataset(fmri, images, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["sparsify", "crop_ratio", "crop_probability"])
def test_augmentation_settings_are_shares(pairs, name):
    """20 for 20 % is refused."""
    with pytest.raises(InputError, match=f"{name} is 20"):
        pairs.with_augmentation(**{name: 20})

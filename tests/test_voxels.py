"""Voxel vectors: padding, scaling, windows, augmentation."""

import numpy as np
import pytest

from mindvis.common.errors import InputError
from mindvis.data import voxels


def test_wrap_pad_adds_a_whole_patch_when_divisible(rng):
    """Published weights were trained on rows that grew by a patch even when they were whole patches."""
    fmri = rng.normal(size=(3, 32))
    padded = voxels.pad_to_patches(fmri, 16)
    assert padded.shape == (3, 48)
    assert np.array_equal(padded[:, 32:], fmri[:, :16])


@pytest.mark.parametrize(("num_voxels", "wanted"), [(4643, 4656), (4183, 4192), (16, 32), (5, 16)])
def test_wrap_pad_repeats_from_the_start(rng, num_voxels, wanted):
    """Every padded voxel is the one `v` places before it (numpy's own wrapping as reference)."""
    fmri = rng.normal(size=(2, num_voxels))
    reference = np.pad(fmri, [(0, 0), (0, wanted - num_voxels)], mode="wrap")
    assert np.array_equal(voxels.pad_to_patches(fmri, 16), reference)


def test_pad_modes(rng):
    """Wrap repeats, constant adds zeros, cut drops the end."""
    fmri = rng.normal(size=(2, 10))
    assert np.array_equal(voxels.pad_to(fmri, 25, "wrap"), np.concatenate([fmri, fmri, fmri[:, :5]], axis=1))
    assert np.array_equal(voxels.pad_to(fmri, 12, "constant")[:, 10:], np.zeros((2, 2)))
    assert np.array_equal(voxels.pad_to(fmri, 8, "cut"), fmri[:, :8])
    assert voxels.patched_length(10, 4, "cut") == 8
    assert voxels.common_length([8, 12], "cut") == 8
    assert voxels.common_length([8, 12]) == 12


@pytest.mark.parametrize(("num_voxels", "mode"), [(9, "wrap"), (11, "cut"), (12, "mirror"), (0, "cut")])
def test_pad_to_refuses_the_other_direction(rng, num_voxels, mode):
    """No mode silently does the work of another, and unknown modes are named."""
    with pytest.raises(InputError, match="pad_mode"):
        voxels.pad_to(rng.normal(size=(2, 10)), num_voxels, mode)


def test_fit_length_pads_or_cuts(rng):
    """Data of another length than the model's is padded when shorter, cut when longer."""
    fmri = rng.normal(size=(2, 10))
    assert np.array_equal(voxels.fit_length(fmri, 12)[:, 10:], fmri[:, :2])
    assert np.array_equal(voxels.fit_length(fmri, 7), fmri[:, :7])
    assert voxels.fit_length(fmri, 10) is fmri


def test_normalise_uses_one_mean_and_deviation(rng):
    """The whole array has mean 0 and deviation 1; voxels keep their relative strength."""
    fmri = rng.normal(3, 5, size=(20, 8)) * np.arange(1, 9)
    scaled = voxels.normalise(fmri)
    assert abs(scaled.mean()) < 1e-6
    assert abs(scaled.std() - 1) < 1e-6
    assert scaled.std(axis=0)[7] > 4 * scaled.std(axis=0)[0]
    assert scaled.dtype == np.float32


def test_constant_fmri_is_refused():
    """A division by a deviation of 0 would be NaN throughout."""
    with pytest.raises(InputError, match="constant"):
        voxels.normalise(np.ones((3, 4)))


@pytest.mark.parametrize("num_frames", [10, 60, 69, 128, 1200])
def test_window_average_against_a_loop(rng, num_frames):
    """The windows are those of np.array_split, left-over frames included, to the last bit."""
    frames = rng.normal(100, 7, size=(num_frames, 6)).astype(np.float32)
    loop = np.stack([window.mean(axis=0) for window in np.array_split(frames, num_frames // 10)])
    assert np.array_equal(voxels.window_average(frames, 10), loop)


def test_fewer_frames_than_a_window(rng):
    """A run too short for one window is refused."""
    with pytest.raises(InputError, match="9 frames"):
        voxels.window_average(rng.normal(size=(9, 4)), 10)


@pytest.mark.parametrize("shape", [(100,), (7, 100)])
def test_sparsify_hides_exactly_a_fifth_of_every_row(rng, shape):
    """20 of 100 voxels are 0, the others untouched, the input left alone."""
    fmri = rng.normal(size=shape) + 10
    before = fmri.copy()
    sparse = voxels.sparsify(fmri, 0.2, rng)
    assert np.array_equal((sparse == 0).sum(axis=-1), np.full(shape[:-1], 20))
    assert np.array_equal(sparse[sparse != 0], fmri[sparse != 0])
    assert np.array_equal(fmri, before)


def test_sparsify_hides_every_voxel_equally_often(rng):
    """Over many draws each voxel is hidden in a fifth of them."""
    share = (voxels.sparsify(np.ones((4000, 20)), 0.2, rng) == 0).mean(axis=0)
    assert np.abs(share - 0.2).max() < 5 * np.sqrt(0.2 * 0.8 / 4000)


def test_sparsify_zero_reproduces_the_published_code(rng):
    """A fraction of 0 hides nothing."""
    fmri = rng.normal(size=50)
    assert np.array_equal(voxels.sparsify(fmri, 0, rng), fmri)


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.9])
def test_interpolate_parity(golden, ratio):
    """Equal to the published interpolation."""
    file = golden("voxel_interpolation")
    ours = voxels.interpolate(file["in/x"], file["in/y"], ratio)
    assert np.abs(ours - file[f"out/ratio_{ratio}"]).max() < 1e-12

"""Images: conversion, resizing, the random crop."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mindvis.common.errors import InputError
from mindvis.data import images

shapes = st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.just(3))


@settings(max_examples=50, deadline=None)
@given(arrays(np.uint8, shapes))
def test_round_trip_is_exact(batch):
    """uint8 -> float -> uint8 gives back every pixel, for batches and single images."""
    assert np.array_equal(images.to_uint8(images.to_float(batch)), batch)
    assert np.array_equal(images.to_uint8(images.to_float(batch[0])), batch[0])


def test_every_value_round_trips_and_spans_the_range():
    """All 256 values, from -1 to 1, channels first."""
    ramp = np.arange(256 * 3, dtype=np.int64).astype(np.uint8).reshape(16, 16, 3)
    inside = images.to_float(ramp)
    assert inside.shape == (3, 16, 16)
    assert inside.dtype == torch.float32
    assert (inside.min().item(), inside.max().item()) == (-1, 1)
    assert np.array_equal(images.to_uint8(inside), ramp)


def test_channels_keep_their_meaning():
    """A red image stays red: channel 0 is 1, the others -1."""
    red = np.zeros((4, 5, 3), np.uint8)
    red[..., 0] = 255
    assert images.to_float(red).mean(dim=(1, 2)).tolist() == [1, -1, -1]


def test_values_outside_the_range_are_clipped():
    """A decoder overshoots; pixels must not wrap around."""
    assert images.to_uint8(torch.tensor([-3.0, 0.0, 3.0]).reshape(3, 1, 1)).ravel().tolist() == [0, 128, 255]


@pytest.mark.parametrize("bad", [np.zeros((3, 4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((4, 3), np.uint8)])
def test_other_arrays_are_refused(bad):
    """Channels-first or float arrays are not silently taken for images."""
    with pytest.raises(InputError, match="needs uint8"):
        images.to_float(bad)
    with pytest.raises(InputError, match="needs"):
        images.to_uint8(torch.zeros(4, 4, 4))


def test_resize_and_center_crop(rng):
    """A landscape picture becomes its centred square; a constant one stays constant; the right size is left alone."""
    wide = np.zeros((6, 10, 3), np.uint8)
    wide[:, 2:8] = 200
    assert np.array_equal(images.center_crop(wide), np.full((6, 6, 3), 200, np.uint8))
    assert np.array_equal(images.resize_all(wide[None], 12), np.full((1, 12, 12, 3), 200, np.uint8))
    picture = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    assert images.resize(picture, 8) is picture


def test_random_crop_shows_a_window_of_the_image():
    """A crop of .8 of a ramp spans .8 of its range, wherever it lies, at the size of the original."""
    ramp = np.repeat(np.linspace(0, 255, 100).astype(np.uint8)[None, :, None], 100, axis=0).repeat(3, axis=2)
    starts = set()
    for seed in range(20):
        crop = images.random_crop(ramp, 0.2, 1.0, np.random.default_rng(seed))
        assert crop.shape == ramp.shape
        assert crop.dtype == np.uint8
        assert abs(int(crop[0, -1, 0]) - int(crop[0, 0, 0]) - 0.8 * 255) < 6
        starts.add(int(crop[0, 0, 0]))
    assert len(starts) > 8


def test_random_crop_happens_with_its_probability(rng):
    """Never at probability 0 or ratio 0, every other time at .5."""
    picture = rng.integers(0, 256, (10, 10, 3), dtype=np.uint8)
    assert all(images.random_crop(picture, 0.2, 0.0, rng) is picture for _ in range(50))
    assert all(images.random_crop(picture, 0.0, 1.0, rng) is picture for _ in range(50))
    cropped = sum(images.random_crop(picture, 0.2, 0.5, rng) is not picture for _ in range(1000))
    assert abs(cropped - 500) < 5 * np.sqrt(250)


def test_pictures_are_cropped_to_another_shape_around_their_centre():
    """[height, width] keeps the middle of what has another shape, and scales both sides alike."""
    tall = np.zeros((12, 4, 3), np.uint8)
    tall[5:7] = 200
    assert images.center_crop(tall, aspect=2).shape == (2, 4, 3)
    assert np.array_equal(images.resize_all(tall[None], (4, 8)), np.full((1, 4, 8, 3), 200, np.uint8))
    assert np.array_equal(images.resize_all(tall[None], (12, 4))[0], tall)

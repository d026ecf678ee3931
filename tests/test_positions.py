"""Positions of patches: against a naive loop, and their resizing."""

import math

import pytest
import torch

from mindvis.sc_mbm.blocks import resize_positions, sincos_positions


def test_positions_equal_a_naive_loop():
    """Entry (l, i) is sin or cos of l / 10000^(i / (d / 2)), sines in the first half, a zero row in front."""
    positions = sincos_positions(5, 8)
    assert positions.shape == (1, 6, 8) and positions.dtype == torch.float32
    assert positions[0, 0].eq(0).all()
    for patch in range(5):
        for i in range(4):
            angle = patch / 10000 ** (i / 4)
            assert positions[0, 1 + patch, i] == pytest.approx(math.sin(angle), abs=1e-7)
            assert positions[0, 1 + patch, 4 + i] == pytest.approx(math.cos(angle), abs=1e-7)


@pytest.mark.parametrize("group", ["pos_embed", "decoder_pos_embed"])
def test_positions_equal_the_published_ones(golden, group):
    """Encoder and decoder positions of the parity file."""
    published = golden("mbm_forward").tensor(f"state/{group}")
    torch.testing.assert_close(sincos_positions(12, published.shape[-1]), published, atol=1e-7, rtol=0)


def test_resizing_to_the_same_length_changes_nothing():
    """The published loader leaves positions of the right length alone."""
    positions = sincos_positions(7, 4)
    assert torch.equal(resize_positions(positions, 7), positions)


@pytest.mark.parametrize("length", [3, 12, 17])
def test_resizing_takes_the_nearest_patch_and_keeps_the_class_row(rng, length):
    """Row j of the new positions is row floor(j * l / l') of the old ones."""
    positions = torch.from_numpy(rng.normal(size=(1, 9, 4))).float()
    resized = resize_positions(positions, length)
    assert torch.equal(resized[:, 0], positions[:, 0])
    for j in range(length):
        assert torch.equal(resized[0, 1 + j], positions[0, 1 + j * 8 // length])


def test_resizing_equals_the_published_one(golden):
    """The parity file of an encoder of 15 patches loaded from a model of 12."""
    file = golden("encoder_pooled_resized")
    assert torch.equal(resize_positions(file.tensor("pretrain/pos_embed"), 15), file.tensor("state/pos_embed"))

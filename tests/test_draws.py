"""Draws are functions of their key: not of the batch, the order or what was drawn before."""

import numpy as np
import torch

from mindvis.common import draws

KEYS = torch.tensor([[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0], [2022, 499, 136000]])


def test_rows_do_not_depend_on_the_batch():
    """Each row alone, in any order, equals its row in the batch."""
    for draw in (
        lambda keys: draws.uniform(keys, "mask", (5,)),
        lambda keys: draws.normal(keys, "eps", (2, 3)),
        lambda keys: draws.integers(keys, "t", 1000),
    ):
        whole = draw(KEYS)
        assert torch.equal(whole.flip(0), draw(KEYS.flip(0)))
        assert all(torch.equal(whole[i : i + 1], draw(KEYS[i : i + 1])) for i in range(len(KEYS)))


def test_seed_epoch_sample_and_stream_each_matter():
    """No two keys, and no two streams of a key, share a draw."""
    rows = torch.cat([draws.uniform(KEYS, stream, (4,)) for stream in ("mask", "eps")])
    assert len({tuple(row.tolist()) for row in rows}) == 2 * len(KEYS)


def test_draws_leave_global_generators_alone():
    """Neither torch's nor numpy's global state moves."""
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - the legacy state is what is watched
    wanted = torch.rand(2), np.random.rand(2)  # noqa: NPY002
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    draws.normal(KEYS, "eps", (3,))
    assert torch.equal(torch.rand(2), wanted[0])
    assert np.array_equal(np.random.rand(2), wanted[1])  # noqa: NPY002


def test_shapes_types_and_ranges():
    """float32 in [0, 1), float32 normal with unit moments, int64 below the bound."""
    keys = torch.stack([torch.zeros(2000), torch.zeros(2000), torch.arange(2000)], dim=1).long()
    uniform, normal, integers = (
        draws.uniform(keys, "a", (3,)),
        draws.normal(keys, "a", (3,)),
        draws.integers(keys, "a", 7),
    )
    assert uniform.shape == normal.shape == (2000, 3) and integers.shape == (2000,)
    assert uniform.dtype == normal.dtype == torch.float32 and integers.dtype == torch.int64
    assert uniform.min() >= 0 and uniform.max() < 1 and abs(uniform.mean() - 0.5) < 0.02
    assert abs(normal.mean()) < 0.05 and abs(normal.std() - 1) < 0.05
    assert sorted(set(integers.tolist())) == list(range(7))


def test_draws_are_the_same_numbers_for_ever():
    """Recorded values: a change here changes every run that is resumed across versions."""
    expected = [[0.261117816, 0.0384961367, 0.164622962], [-0.669892669, 1.39847279, 0.500904202]]
    drawn = [draws.uniform(KEYS[4:], "mask", (3,))[0], draws.normal(KEYS[4:], "eps", (3,))[0]]
    np.testing.assert_allclose(np.stack(drawn), np.array(expected), rtol=1e-6)
    assert draws.integers(KEYS, "t", 1000).tolist() == [440, 524, 129, 43, 16]


def test_derangement_leaves_no_row_in_its_group():
    """Rows of one, two and many a group, for many seeds: an order of all rows, none in the place of its own group."""
    for groups in ([0, 1], [0, 0, 1, 1], [3, 3, 3, 1, 2, 7], list(range(50)), [0] * 5 + [1, 2, 3, 4, 5]):
        for seed in range(30):
            taken = draws.derangement(groups, np.random.default_rng(seed))
            assert sorted(taken) == list(range(len(groups)))
            assert (np.asarray(groups)[taken] != np.asarray(groups)).all()


def test_a_group_of_more_than_half_cannot_be_deranged():
    """There is no place for all of it."""
    assert draws.derangement([0, 0, 1], np.random.default_rng(0)) is None
    assert draws.derangement([5], np.random.default_rng(0)) is None


def test_derangements_of_three_rows_are_equally_likely():
    """There are two, (1 2 0) and (2 0 1)."""
    found = [tuple(draws.derangement(range(3), np.random.default_rng(seed)).tolist()) for seed in range(400)]
    assert set(found) == {(1, 2, 0), (2, 0, 1)} and 140 < found.count((1, 2, 0)) < 260

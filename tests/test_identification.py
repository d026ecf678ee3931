"""n-way identification against trials drawn one by one, and pairwise identification."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mindvis.common.errors import InputError
from mindvis.evaluation import identification_accuracy, n_way_accuracy, n_way_table
from mindvis.evaluation.identification import (
    chance_level,
    identification_from_matrix,
    n_way_accuracy_sampled,
    success_by_rank,
)


def naive_trials(probabilities, target, num_ways, top_k, num_trials, rng):
    """The published protocol, one draw of classes after another; the target comes first, so it wins ties."""
    others = np.delete(np.arange(len(probabilities)), target)
    hits = 0
    for _ in range(num_trials):
        among = np.concatenate([[target], rng.choice(others, num_ways - 1, replace=False)])
        hits += 0 in np.argsort(-probabilities[among], kind="stable")[:top_k]
    return hits / num_trials


@pytest.mark.parametrize(("num_ways", "top_k"), [(2, 1), (50, 1), (50, 5), (100, 1)])
def test_golden_trials(golden, num_ways, top_k):
    """4000 trials of the published code, within four deviations of the exact probability."""
    metrics = golden("metrics")
    exact = n_way_accuracy(metrics["in/probabilities"], metrics["in/true_class"], num_ways, top_k)
    bound = 4 * np.sqrt(exact * (1 - exact) / 4000) + 1e-9
    assert (np.abs(exact - metrics[f"out/n_way_{num_ways}_top_{top_k}"]) <= bound).all()


@pytest.mark.parametrize("metric", ["mse", "pcc", "ssim"])
def test_golden_pairwise(golden, metric):
    """The published pairwise identification, exactly."""
    metrics = golden("metrics")
    accuracy = identification_accuracy(metrics["in/pred"], metrics["in/gt"], metric)
    np.testing.assert_allclose(accuracy, metrics[f"out/pairwise_{metric}"], atol=1e-12)


def test_exact_is_the_mean_of_many_trials(rng):
    """100,000 draws of the classes above the target, beside trials drawn class by class."""
    probabilities, target = rng.dirichlet(np.ones(12), size=3), np.array([3, 0, 7])
    exact = n_way_accuracy(probabilities, target, 5, 2)
    many = n_way_accuracy_sampled(probabilities, target, 5, 2, num_trials=100_000, seed=1)
    np.testing.assert_allclose(exact, many, atol=0.008)
    naive = [naive_trials(p, t, 5, 2, 3000, rng) for p, t in zip(probabilities, target, strict=True)]
    np.testing.assert_allclose(exact, naive, atol=0.05)


def test_ties_go_to_the_target_as_in_the_trials(rng):
    """A class as probable as the target does not beat it, in the closed form and in the published protocol alike."""
    probabilities, target = np.array([[0.2, 0.2, 0.2, 0.2, 0.2], [0.3, 0.3, 0.2, 0.1, 0.1]]), np.array([4, 2])
    exact = n_way_accuracy(probabilities, target, 3, 1)
    naive = [naive_trials(p, t, 3, 1, 3000, rng) for p, t in zip(probabilities, target, strict=True)]
    assert exact[0] == 1.0 == naive[0]
    np.testing.assert_allclose(exact, naive, atol=0.05)


def test_sampled_protocol_is_seeded(rng):
    """Same seed, same numbers; another seed, others."""
    probabilities, target = rng.random((4, 100)), np.arange(4)
    one, again, other = (n_way_accuracy_sampled(probabilities, target, 10, seed=seed) for seed in (0, 0, 1))
    assert (one == again).all() and (one != other).any()


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 40), st.data())
def test_properties_of_rank_table(num_classes, data):
    """Between 0 and 1, 1 for the best rank, falling with rank and n, growing with k; averages to chance."""
    ways = data.draw(st.integers(2, num_classes))
    k = data.draw(st.integers(1, ways))
    by_rank = success_by_rank(num_classes, ways, k)
    assert by_rank[0] == 1.0 and by_rank.min() >= 0 and (np.diff(by_rank) <= 1e-12).all()
    assert (success_by_rank(num_classes, ways, k + 1) >= by_rank - 1e-12).all()
    assert (success_by_rank(num_classes, min(ways + 1, num_classes), k) <= by_rank + 1e-12).all()
    assert by_rank.mean() == pytest.approx(chance_level(ways, k), abs=1e-9)


def test_permuting_stimuli_permutes_rows(rng):
    """Each picture's score is its own."""
    probabilities, target, order = rng.random((6, 30)), rng.integers(0, 30, 6), rng.permutation(6)
    table = n_way_table(probabilities, target, num_ways=(2, 10), top_k=(1, 3))
    assert table.shape == (6, 2, 2)
    np.testing.assert_array_equal(
        n_way_table(
            torch.from_numpy(probabilities[order]), torch.from_numpy(target[order]), num_ways=(2, 10), top_k=(1, 3)
        ),
        table[order],
    )


def test_one_class_set(rng):
    """All stimuli of one class: the score is that of the class, nothing breaks."""
    assert n_way_accuracy(np.eye(5)[[2, 2, 2]], np.array([2, 2, 2]), 5).tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("metric", ["mse", "pcc", "ssim"])
def test_identical_pictures_score_one(rng, metric):
    """Also for the smallest set, two pictures."""
    images = rng.integers(0, 256, (2, 9, 9, 3), dtype=np.uint8)
    assert identification_accuracy(images, images, metric).tolist() == [1.0, 1.0]
    assert identification_accuracy(images[::-1], images, metric).tolist() == [0.0, 0.0]


def test_pairwise_ties_are_failures_and_samples_share_targets():
    """Equal similarity to another picture is no success; extra rows are further samples."""
    matrix = np.array([[0.5, 0.5, 0.1], [0.0, 0.9, 0.1], [0.3, 0.2, 0.1], [0.9, 0.1, 0.9]])
    assert identification_from_matrix(matrix, larger_is_closer=True).tolist() == [0.5, 1.0, 0.0, 0.5]
    assert identification_from_matrix(-matrix, larger_is_closer=False).tolist() == [0.5, 1.0, 0.0, 0.5]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.full((2, 5), np.nan), np.array([0, 1]), 2), "row 0 holds NaN"),
        ((np.ones((2, 5)), np.array([0, 5]), 2), "classes 0 to 5, need 0 to 4"),
        ((np.ones((2, 5)), np.array([0]), 2), "need 2 integers"),
        ((np.ones((2, 5)), np.array([0.0, 1.0]), 2), "need 2 integers"),
        ((np.ones((2, 5)), np.array([0, 1]), 6), "num_ways: found 6, need 2 to 5"),
        ((np.ones((2, 5)), np.array([0, 1]), 2, 0), "top_k: found 0"),
        ((np.ones((0, 5)), np.array([], int), 2), "at least one row"),
    ],
)
def test_bad_probabilities_get_one_line(arguments, message):
    """What was found and what is needed."""
    with pytest.raises(InputError, match=message):
        n_way_accuracy(*arguments)


def test_one_picture_cannot_be_identified():
    """Pairwise identification needs another picture to compare with."""
    image = np.zeros((1, 8, 8, 3), np.uint8)
    with pytest.raises(InputError, match="need at least two"):
        identification_accuracy(image, image)

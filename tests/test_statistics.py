"""Intervals over stimuli, paired differences and their p."""

import numpy as np
import pytest
from scipy.stats import permutation_test

from mindvis.evaluation.statistics import interval, paired_difference, sign_flip_p


def test_bootstrap_interval(rng):
    """Near the normal approximation, seeded, and a paired difference is sharper than its parts."""
    values = rng.standard_normal(400)
    low, high = interval(values, 0)
    assert (low, high) == interval(values, 0) != interval(values, 1)
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.015) and high == pytest.approx(
        values.mean() + half, abs=0.015
    )
    difference, low, high, p = paired_difference(values + 0.1, values, 0)
    assert difference == pytest.approx(0.1) == pytest.approx(low) == pytest.approx(high) and p < 0.001
    assert paired_difference(values, values, 0)[3] == 1.0


@pytest.mark.parametrize("n", [3, 10, 13])
def test_p_is_that_of_scipys_paired_permutations(rng, n):
    """Exact where all patterns of signs can be tried, as scipy then tries them too."""
    difference = rng.normal(0.2, 1, n)
    expected = permutation_test((difference,), np.mean, permutation_type="samples", n_resamples=10_000).pvalue
    assert sign_flip_p(difference, 0) == pytest.approx(expected)


def test_p_of_drawn_signs_is_near_the_exact_one(rng):
    """Four thousand patterns drawn in the place of all 65,536; another seed draws others."""
    difference = rng.normal(0.2, 1, 16)
    drawn, exact = sign_flip_p(difference, 0, 4000), sign_flip_p(difference, 0, 2**16)
    assert drawn == pytest.approx(exact, abs=0.03)
    assert drawn == sign_flip_p(difference, 0, 4000) != sign_flip_p(difference, 1, 4000)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_few_stimuli_cannot_give_a_small_p(n):
    """However large the difference, its 2^n signs are all the evidence there is."""
    assert paired_difference(np.arange(1.0, n + 1), np.zeros(n), 0)[3] == pytest.approx(2 / 2**n)


def test_p_of_no_difference_is_rarely_small():
    """Under no difference, p below .05 comes up in about one of twenty experiments."""
    rng = np.random.default_rng(0)
    found = [sign_flip_p(rng.standard_normal(8), seed) for seed in range(400)]
    assert 0.02 < np.mean(np.array(found) < 0.05) < 0.08

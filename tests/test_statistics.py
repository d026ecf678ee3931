"""Intervals, paired differences, own against other and their p agree with naive loops and with scipy."""

import numpy as np
import pytest
from scipy import stats
from scipy.stats import permutation_test

from mindvis.evaluation import statistics
from mindvis.evaluation.statistics import (
    accident_level,
    as_table,
    deal_within,
    interval,
    paired_difference,
    permutation_p,
    shares_beaten,
    sign_flip_p,
)


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


def test_resamples_do_not_change_with_how_many_are_in_memory(rng, monkeypatch):
    """Drawn in blocks of 7 or all at once: the same interval and the same p, to the bit."""
    values = rng.standard_normal(30) + 0.2
    found = []
    for block in (7, 1000, 10_000):
        monkeypatch.setattr(statistics, "BLOCK", block)
        found.append((interval(values, 3, 2000), sign_flip_p(values, 3, 1999)))
    assert found[0] == found[1] == found[2]


def naive_share(closeness, row, column, others):
    """Share of other stimuli less close to a decoded picture, a tie counting half."""
    wins = [
        (closeness[row, column] > closeness[row, j]) + 0.5 * (closeness[row, column] == closeness[row, j])
        for j in others
        if j != column
    ]
    return np.mean(wins)


def test_shares_beaten_count_every_other_stimulus(rng):
    """A loop over pictures, with ties."""
    closeness = rng.integers(0, 4, (7, 5)).astype(float)
    wanted = [[naive_share(closeness, r, j, range(5)) for j in range(5)] for r in range(7)]
    np.testing.assert_allclose(shares_beaten(closeness, np.arange(7) % 5), wanted)


def test_shares_within_a_class(rng):
    """Only others of the same class count; a class of one has none; other classes are NaN."""
    closeness, own = rng.standard_normal((6, 6)), np.arange(6)
    classes = np.array([0, 1, 0, 1, 0, 2])
    shares = shares_beaten(closeness, own, classes)
    assert shares[0, 2] == naive_share(closeness, 0, 2, [0, 2, 4])
    assert np.isnan(shares[0, 1]) and np.isnan(shares[5]).all()


def test_area_does_not_depend_on_the_pool(rng):
    """An accident scores a half among 5 and among 500."""
    for m in (5, 500):
        table = as_table(shares_beaten(rng.standard_normal((4000, m)), np.arange(4000) % m), np.arange(4000) % m)
        assert np.diagonal(table).mean() == pytest.approx(0.5, abs=0.02)
        assert accident_level(table) == pytest.approx(0.5, abs=0.02)


def test_table_averages_the_pictures_of_a_stimulus():
    """Two decoded pictures of stimulus 0, one of 1."""
    values = np.array([[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]])
    np.testing.assert_allclose(as_table(values, np.array([0, 0, 1])), [[0.25, 0.75], [1.0, 0.0]])


@pytest.mark.parametrize("two_sided", [False, True])
def test_permutation_p_is_that_of_scipy(rng, two_sided):
    """Against scipy's exact test over all 720 orders of six stimuli."""
    table = rng.random((6, 6)) + 0.25 * np.eye(6)
    exact = stats.permutation_test(
        (np.arange(6),),
        lambda order: table[np.arange(6), np.asarray(order, int)].mean(),
        permutation_type="pairings",
        n_resamples=np.inf,
        alternative="two-sided" if two_sided else "greater",
        vectorized=False,
    )
    found = permutation_p(table, None, 0, two_sided=two_sided, count=20_000)
    assert found == pytest.approx(exact.pvalue, abs=0.012)


def test_stimuli_are_dealt_within_their_class():
    """Every deal is an order of all stimuli that leaves classes as they are, and deals differ."""
    classes = np.array([2, 0, 2, 1, 0, 2])
    dealt = deal_within(classes, 0, 50)
    assert (np.sort(dealt, axis=1) == np.arange(6)).all()
    assert (classes[dealt] == classes).all()
    assert len(np.unique(dealt, axis=0)) == 12  # 3! orders of one class, 2! of another


def test_permutation_p_at_chance_is_uniform():
    """5 % of tables without an effect fall below .05, neither more nor much less."""
    rng = np.random.default_rng(1)
    found = [permutation_p(rng.random((12, 12)), None, seed, count=400) for seed in range(400)]
    assert 0.02 < np.mean(np.array(found) < 0.05) < 0.08


def test_holm_by_its_definition(rng):
    """The smallest p counts m times, the next m - 1 times, and none falls below an earlier one."""
    p = rng.random(6) / 4
    order, wanted, highest = np.argsort(p), np.empty(6), 0.0
    for step, place in enumerate(order):
        highest = max(highest, min(1.0, p[place] * (6 - step)))
        wanted[place] = highest
    np.testing.assert_allclose(statistics.holm(p), wanted)


def test_d_prime_of_two_normal_distributions(rng):
    """The area under the curve of distributions 1.5 deviations apart gives 1.5 back; certainty stays finite."""
    area = (rng.normal(1.5, 1, 100_000) > rng.normal(0, 1, 100_000)).mean()
    assert statistics.d_prime(area, 100_000) == pytest.approx(1.5, abs=0.02)
    assert np.isfinite(statistics.d_prime(1.0, 50)) and statistics.d_prime(0.5, 50) == 0


def test_estimate_has_the_interval_of_scipy(rng):
    """The percentile bootstrap of scipy; NaN left out."""
    values = np.append(rng.exponential(size=60), np.nan)
    found = statistics.estimate(values, 0)
    wanted = stats.bootstrap((values[:-1],), np.mean, method="percentile", rng=np.random.default_rng(0))
    assert found.n == 60 and found.value == pytest.approx(values[:-1].mean())
    assert (found.low, found.high) == pytest.approx(tuple(wanted.confidence_interval), abs=0.02)


def test_two_levels_agree_with_the_variance_they_stand_for(rng):
    """The interval's width is that of subjects drawn, then stimuli drawn: computed by the variance of both."""
    groups = [rng.normal(mean, 1, 40) for mean in (0.0, 0.5, 1.0, 2.0)]
    low, high = statistics.two_level_interval(groups, 0, 4000)
    means = np.array([group.mean() for group in groups])
    variance = means.var() / 4 + np.mean([group.var() / 40 for group in groups]) / 4
    assert (high - low) == pytest.approx(2 * 1.96 * variance**0.5, rel=0.08)
    assert low < means.mean() < high


def test_subjects_widen_the_interval(rng):
    """Subjects that differ make a wider interval than their stimuli pooled; one subject makes none."""
    values = np.concatenate([rng.normal(mean, 0.1, 30) for mean in (0, 1, 2)])
    pooled = statistics.estimate(values, 0)
    by_subject = statistics.estimate(values, 0, subjects=np.repeat([1, 2, 3], 30))
    assert by_subject.value == pytest.approx(pooled.value)
    assert by_subject.high - by_subject.low > 2 * (pooled.high - pooled.low)
    assert statistics.estimate(values, 0, subjects=np.ones(90)) == pooled

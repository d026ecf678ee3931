"""Ridge regression against scikit-learn, and its leave-one-out errors against refitting."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge as SklearnRidge
from sklearn.linear_model import RidgeCV

from mindvis.common.errors import InputError
from mindvis.common.ridge import ALPHAS, fit_ridge
from mindvis.decoding.categories import class_scores


def trials(rng, n=20, v=50, d=3):
    """More voxels than trials, linear with noise, one voxel constant."""
    fmri = rng.standard_normal((n, v)) * rng.uniform(0.5, 2, v) + 1
    fmri[:, 0] = 4.0
    return fmri, fmri @ rng.standard_normal((v, d)) + rng.standard_normal((n, d)) + 5


def standardised(fmri):
    scale = fmri.std(axis=0)
    return (fmri - fmri.mean(axis=0)) / np.where(scale == 0, 1, scale)


def test_predictions_are_scikit_learns(rng):
    """One penalty, standardised voxels, a free intercept."""
    fmri, targets = trials(rng)
    wanted = SklearnRidge(alpha=10.0).fit(standardised(fmri), targets).predict(standardised(fmri))
    np.testing.assert_allclose(fit_ridge(fmri, targets, [10.0]).predict(fmri), wanted, rtol=1e-8)


@pytest.mark.parametrize("alpha", [1.0, 100.0])
def test_errors_are_those_of_refitting(rng, alpha):
    """The closed form equals leaving out every row in turn (with the standardisation of all rows)."""
    fmri, targets = trials(rng)
    x, rows = standardised(fmri), np.arange(len(fmri))
    residuals = [
        SklearnRidge(alpha=alpha).fit(x[rows != i], targets[rows != i]).predict(x[[i]])[0] - targets[i] for i in rows
    ]
    assert fit_ridge(fmri, targets, [alpha]).errors[alpha] == pytest.approx(np.mean(np.square(residuals)), rel=1e-6)


def test_choice_and_errors_are_those_of_ridge_cv(rng):
    """One penalty for all targets, by the mean leave-one-out error, with more voxels than trials and with fewer."""
    for n, v in ((20, 50), (50, 20)):
        fmri, targets = trials(rng, n, v)
        wanted = RidgeCV(ALPHAS, store_cv_results=True).fit(standardised(fmri), targets)
        found = fit_ridge(fmri, targets)
        assert found.alpha == wanted.alpha_
        np.testing.assert_allclose(list(found.errors.values()), wanted.cv_results_.mean(axis=(0, 1)), rtol=1e-8)
        np.testing.assert_allclose(found.predict(fmri), wanted.predict(standardised(fmri)), rtol=1e-8)


def test_penalty_of_least_error_is_taken(rng):
    """Pure noise wants the largest penalty, clean data a small one."""
    fmri, targets = trials(rng, n=60, v=10)
    assert fit_ridge(fmri, rng.standard_normal((60, 2)), [0.1, 1e6]).alpha == 1e6
    assert fit_ridge(fmri, targets, [0.1, 1e6]).alpha == 0.1


@pytest.mark.parametrize(
    ("fmri", "targets", "alphas", "message"),
    [
        (np.ones((4, 2)), np.ones((5, 1)), [1.0], "need .n v. and .n d."),
        (np.ones((2, 2)), np.ones((2, 1)), [1.0], "n of 3 or more"),
        (np.full((4, 2), np.nan), np.ones((4, 1)), [1.0], "NaN"),
        (np.ones((4, 2)), np.ones((4, 1)), [0.0], "above 0"),
    ],
)
def test_bad_input_gets_one_line(fmri, targets, alphas, message):
    """Shapes, too few rows, NaN, penalties."""
    with pytest.raises(InputError, match=message):
        fit_ridge(fmri, targets, alphas)


def test_classes_are_read_off_separable_rows(rng):
    """Rows that differ by class are told apart; rows of noise are at chance."""
    class_ids = np.arange(60) % 6
    patterns = 2 * rng.standard_normal((6, 40))
    fmri = patterns[class_ids] + rng.standard_normal((60, 40))
    test_fmri = patterns[class_ids[:12]] + rng.standard_normal((12, 40))
    assert (class_scores(fmri, class_ids, test_fmri, 6).argmax(axis=1) == class_ids[:12]).mean() > 0.9
    noise = rng.standard_normal((600, 40))
    assert (class_scores(fmri, class_ids, noise, 6).argmax(axis=1) == np.arange(600) % 6).mean() < 0.25

"""Ridge reference."""

import numpy as np
import pytest

from mindvis.errors import InputError
from mindvis.evaluation.ridge import _leave_one_out, ridge_probabilities


def separable(rng, n=60, noise=0.3):
    class_ids = np.arange(n) % 3
    return (3 * np.eye(3)[class_ids] @ rng.standard_normal((3, 8)) + noise * rng.standard_normal((n, 8))), class_ids


def test_classes_apart_are_told_apart(rng):
    """Held-out rows of separable classes are all recognised; probabilities sum to 1."""
    fmri, class_ids = separable(rng)
    probabilities = ridge_probabilities(fmri[:40], class_ids[:40], fmri[40:], 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    np.testing.assert_array_equal(probabilities.argmax(axis=1), class_ids[40:])


def test_closed_form_equals_leaving_each_row_out(rng):
    """The leave-one-out error is that of n fits without the row, each with its own constant."""
    x, y = rng.standard_normal((12, 4)), rng.standard_normal((12, 2))
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    u, s, _ = np.linalg.svd(x, full_matrices=False)
    found = _leave_one_out(u, s, u.T @ y, y, 0.7)
    ones, penalty = np.ones((12, 1)), np.diag([0.0] + 4 * [0.7])
    errors = []
    for row in range(12):
        rest = np.delete(np.arange(12), row)
        full = np.hstack([ones, x])
        weights = np.linalg.solve(full[rest].T @ full[rest] + penalty, full[rest].T @ y[rest])
        errors.append((y[row] - full[row] @ weights) ** 2)
    assert found == pytest.approx(np.mean(errors), rel=1e-8)


def test_pure_noise_gives_chance(rng):
    """Without information the probabilities stay near uniform."""
    fmri = rng.standard_normal((200, 20))
    probabilities = ridge_probabilities(fmri[:150], rng.integers(0, 4, 150), fmri[150:], 4)
    assert np.abs(probabilities - 0.25).max() < 0.25


def test_mismatched_rows_are_named(rng):
    """Counts of rows and voxels are given in the error."""
    fmri, class_ids = separable(rng)
    with pytest.raises(InputError, match="60 training rows, 59"):
        ridge_probabilities(fmri, class_ids[:59], fmri, 3)
    with pytest.raises(InputError, match="8 training voxels, 7"):
        ridge_probabilities(fmri, class_ids, fmri[:, :7], 3)

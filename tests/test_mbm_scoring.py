"""Hidden-voxel scores: the nearest visible patch, and a model that knows the answer."""

import numpy as np
import torch
from sklearn.linear_model import Ridge

from mindvis.sc_mbm import MaskedBrainModel, scoring
from mindvis.sc_mbm.scoring import (
    Products,
    VisibleRidge,
    fit_visible_ridge,
    nearest_visible,
    score_hidden_voxels,
)


def test_nearest_visible_patch_against_a_loop(rng):
    """A hidden patch becomes the nearest visible one, the left one of two as near; visible ones stay."""
    patches = torch.from_numpy(rng.standard_normal((4, 9, 3)).astype(np.float32))
    mask = torch.from_numpy((rng.random((4, 9)) < 0.7).astype(np.float32))
    mask[:, 4] = 0
    filled = nearest_visible(patches, mask)
    for b in range(4):
        visible = [i for i in range(9) if mask[b, i] == 0]
        for i in range(9):
            nearest = min(visible, key=lambda j: (abs(i - j), j))
            assert torch.equal(filled[b, i], patches[b, nearest])


def test_voxel_mean_scores_what_every_row_shares(rng):
    """Rows that are all one pattern are predicted by their mean; an untrained model knows nothing."""
    pattern = rng.standard_normal(96)
    rows = pattern + 0.1 * rng.standard_normal((30, 96))
    torch.manual_seed(0)
    network = MaskedBrainModel(num_voxels=96, patch_size=8, embed_dim=16, depth=1, num_heads=2, decoder_embed_dim=16,
                               decoder_depth=1, decoder_num_heads=2)  # fmt: skip
    score = score_hidden_voxels(network.eval(), rows[:20], rows[20:])
    assert score.voxel_mean > 0.98
    assert abs(score.model) < 0.3
    assert abs(score.nearest_patch) < 0.5


def test_ridge_on_visible_voxels_is_scikit_learns(rng):
    """With more rows than visible voxels and with fewer, for a mask of its own in every row; a constant voxel stays."""
    for num_rows in (60, 9):
        train = rng.standard_normal((num_rows, 32)) @ rng.standard_normal((32, 32)) + 3
        train[:, 5] = 2.0
        scale = np.where(train.std(axis=0) == 0, 1, train.std(axis=0))
        x = (train - train.mean(axis=0)) / scale
        row, hidden = rng.standard_normal(32) + 3, rng.random(32) < 0.6
        fitted = Ridge(alpha=10.0).fit(x[:, ~hidden], x[:, hidden])
        wanted = fitted.predict(((row - train.mean(axis=0)) / scale)[None, ~hidden])[0]
        found = VisibleRidge(Products.of(train, train.mean(axis=0)), 10.0).predict(row, hidden)
        np.testing.assert_allclose(found, wanted * scale[hidden] + train.mean(axis=0)[hidden], rtol=1e-6, atol=1e-9)


def test_penalty_suits_the_rows(rng):
    """Rows of a few sources without noise want a small penalty, rows of noise a large one; it never sees other rows."""
    sources = rng.standard_normal((120, 3)) @ rng.standard_normal((3, 64))
    penalties = [0.1, 1e5]
    assert fit_visible_ridge(sources + 0.01 * rng.standard_normal((120, 64)), 8, 0.75, 0, penalties).penalty == 0.1
    shared = rng.standard_normal(64) + 2 * rng.standard_normal((40, 64))  # a mean, and noise that predicts nothing
    assert fit_visible_ridge(shared, 8, 0.75, 0, penalties).penalty == 1e5


def test_ridge_is_reported_beside_the_others(rng):
    """Rows of three sources: the regression finds hidden voxels, an untrained model does not."""
    rows = rng.standard_normal((60, 3)) @ rng.standard_normal((3, 96)) + 0.1 * rng.standard_normal((60, 96))
    torch.manual_seed(0)
    network = MaskedBrainModel(num_voxels=96, patch_size=8, embed_dim=16, depth=1, num_heads=2, decoder_embed_dim=16,
                               decoder_depth=1, decoder_num_heads=2)  # fmt: skip
    score = score_hidden_voxels(network.eval(), rows[:50], rows[50:], num_masks=4)
    assert score.ridge > 0.95 > 0.5 > abs(score.model)
    assert score.ridge_penalty == fit_visible_ridge(rows[:50], 8, 0.75, 0).penalty


def test_products_are_summed_in_blocks_and_taken_apart_again(rng, monkeypatch):
    """Folds add up to all rows, and all rows without a fold are the others; a constant voxel stays one, far from 0."""
    monkeypatch.setattr(scoring, "BLOCK", 7)
    rows = (1e4 + rng.standard_normal((40, 12))).astype(np.float32)
    rows[:, 3] = 12345.678
    centre = rows.mean(axis=0, dtype=np.float64)
    some, others = Products.of(rows[:15], centre), Products.of(rows[15:], centre)
    ridge = VisibleRidge(some + others - some, 1.0)
    wanted = rows[15:].astype(np.float64)
    np.testing.assert_allclose(ridge.mean, wanted.mean(axis=0), rtol=1e-12)
    changing = np.arange(12) != 3
    np.testing.assert_allclose(ridge.scale[changing], wanted.std(axis=0)[changing], rtol=1e-9)
    assert ridge.scale[3] == 1.0
    between = np.corrcoef(wanted[:, changing].T) * len(wanted)
    np.testing.assert_allclose(ridge.products[np.ix_(changing, changing)], between, atol=1e-8)


def test_penalty_of_many_rows_costs_no_more_than_voxels(rng, monkeypatch):
    """Nothing of the size rows by rows is ever made: a resting data set has 100 000 rows."""
    monkeypatch.setattr(scoring, "MOST_PREDICTED", 5)
    shapes, whole = [], scoring.eigh
    monkeypatch.setattr(scoring, "eigh", lambda matrix: shapes.append(matrix.shape) or whole(matrix))
    predicted = []
    correlate = scoring._row_correlation
    monkeypatch.setattr(scoring, "_row_correlation", lambda *a: predicted.append(len(a[0])) or correlate(*a))
    fit_visible_ridge(rng.standard_normal((503, 32)), 8, 0.75, 0, [1.0])
    assert set(shapes) == {(8, 8)} and max(predicted) == 5

"""Hidden-voxel scores: the nearest visible patch, and a model that knows the answer."""

import numpy as np
import torch

from mindvis.sc_mbm import MaskedBrainModel
from mindvis.sc_mbm.scoring import nearest_visible, score_hidden_voxels


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

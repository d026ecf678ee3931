"""Focused masking: a draw without replacement made of the same uniform noise."""

import pytest
import torch

from mindvis.common.errors import InputError
from mindvis.sc_mbm.masking import choose_visible, focus_noise, focus_weights


def test_equal_weights_leave_the_ranking_alone():
    """A focus rate of one half is plain masking of the same noise."""
    noise = torch.rand(5, 12, generator=torch.Generator().manual_seed(0))
    weights = focus_weights(48, 4, (8, 24), 0.5)
    assert torch.equal(choose_visible(focus_noise(noise, weights), 0.5)[1], choose_visible(noise, 0.5)[1])


def test_focus_equals_torch_multinomial():
    """Shares of hidden patches are those of a multinomial draw without replacement with the same weights."""
    noise = torch.rand(20000, 12, generator=torch.Generator().manual_seed(0))
    weights = focus_weights(48, 4, (8, 24), 0.8)
    _, mask = choose_visible(focus_noise(noise, weights), 0.5)
    drawn = weights.expand(20000, -1).multinomial(6, generator=torch.Generator().manual_seed(1))
    expected = torch.zeros(20000, 12).scatter_(1, drawn, 1.0).mean(dim=0)
    torch.testing.assert_close(mask.mean(dim=0), expected, atol=0.02, rtol=0)
    assert mask[:, 2:6].mean() > 0.7 > 0.5 > mask[:, 6:].mean()


def test_full_focus_hides_the_range_first():
    """At rate 1 the range is hidden in every sample, and the rest of the count is drawn outside it."""
    noise = torch.rand(50, 12, generator=torch.Generator().manual_seed(0))
    _, mask = choose_visible(focus_noise(noise, focus_weights(48, 4, (8, 24), 1.0)), 0.5)
    assert mask[:, 2:6].eq(1).all() and mask.sum(dim=1).eq(6).all()
    assert mask.mean(dim=0)[[0, 1, 6, 7]].gt(0).all()


@pytest.mark.parametrize(
    ("focus_range", "rate", "words"),
    [((8, 52), 0.8, r"\[8, 52\).*48"), ((24, 8), 0.8, "focus_range"), ((9, 11), 0.8, "patch"), ((8, 24), 2, "rate")],
)
def test_focus_is_checked(focus_range, rate, words):
    """A range outside the voxels, turned round or within one patch, and a rate above 1."""
    with pytest.raises(InputError, match=words):
        focus_weights(48, 4, focus_range, rate)

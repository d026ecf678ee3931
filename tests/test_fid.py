"""FID against its closed form, and what it refuses."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from mindvis.common.errors import InputError
from mindvis.evaluation.networks import frechet_distance, load_inception, small_sample_caveat


def closed_form(x, y):
    """|mu_x - mu_y|^2 + tr(S_x + S_y - 2 (S_x S_y)^(1/2))."""
    covariances = [np.cov(z, rowvar=False) for z in (x, y)]
    root = sqrtm(covariances[0] @ covariances[1])
    return ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(covariances[0] + covariances[1] - 2 * root.real)


def test_fid_is_the_closed_form(rng):
    """More pictures than features, sets of other sizes and moments."""
    x, y = rng.standard_normal((60, 5)), 2 * rng.standard_normal((50, 5)) + 1
    assert frechet_distance(x, y) == pytest.approx(closed_form(x, y), rel=1e-6)


def test_fid_of_few_pictures_in_many_dimensions(rng):
    """Unchanged by the turn into the span of the pictures: padding with turned zeros gives the same value."""
    x, y = rng.standard_normal((6, 20)), rng.standard_normal((6, 20)) + 0.3
    turn, _ = np.linalg.qr(rng.standard_normal((200, 200)))
    padded = [np.pad(z, ((0, 0), (0, 180))) @ turn + 5 for z in (x, y)]
    small = frechet_distance(x, y)
    assert frechet_distance(*padded) == pytest.approx(small, rel=1e-6)
    gram = (x - x.mean(0)) @ (y - y.mean(0)).T / 5  # its nuclear norm is the trace of the root
    traces = sum(z.var(axis=0, ddof=1).sum() for z in (x, y))
    wanted = ((x.mean(0) - y.mean(0)) ** 2).sum() + traces - 2 * np.linalg.norm(gram, "nuc")
    assert small == pytest.approx(wanted, rel=1e-5)


def test_fid_of_a_set_with_itself_is_zero(rng):
    """And grows with distance."""
    x = rng.standard_normal((40, 8))
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(x + 1, x) == pytest.approx(8, abs=1e-6)


@pytest.mark.parametrize("bad", [np.full((3, 2), np.nan), np.ones((1, 2)), np.ones((3, 4)), np.ones(3)])
def test_fid_refuses_bad_features(bad):
    """NaN, one picture, other widths, other shapes."""
    with pytest.raises(InputError):
        frechet_distance(bad, np.ones((3, 2)))


def test_caveat_names_the_numbers():
    """The reader sees how few pictures there were."""
    assert "50 decoded and 50 true pictures in 2048 dimensions" in small_sample_caveat(50, 2048)


def test_inception_without_weights_is_one_line(tmp_path):
    """Either the package or the file is missing; nothing is downloaded."""
    with pytest.raises(InputError, match="FID with Inception features"):
        load_inception(tmp_path / "absent.pth", 64)

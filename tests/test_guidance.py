"""Guidance away from what the mean fMRI shows."""

import ldm_cases
import numpy as np
import pytest

from mindvis.common.errors import InputError
from mindvis.decoding.decode import decode


@pytest.fixture
def ldm(golden):
    return ldm_cases.build(golden("dc_ldm"))


@pytest.fixture
def fmri(ldm, rng):
    return rng.standard_normal((3, ldm.conditioner.encoder.num_voxels), dtype="float32")


OPTIONS = {"num_samples": 2, "sampler": "unipc", "num_steps": 3, "seed": 5}


def test_without_weight_only_the_mean_is_seen(ldm, fmri):
    """Guidance 0 decodes the mean fMRI, whatever was shown."""
    mean = fmri.mean(axis=0)
    guided = decode(ldm, fmri, range(3), guidance=0.0, mean_fmri=mean, **OPTIONS)
    assert np.array_equal(guided, decode(ldm, np.tile(mean, (3, 1)), range(3), **OPTIONS))


def test_weight_one_is_the_published_way(ldm, fmri):
    """The mean then plays no part, and is not needed."""
    with_mean = decode(ldm, fmri, range(3), guidance=1.0, mean_fmri=fmri[0], **OPTIONS)
    assert np.array_equal(with_mean, decode(ldm, fmri, range(3), **OPTIONS))


def test_one_step_leads_away_from_the_mean(ldm, fmri):
    """The noise that is followed lies beyond the one under the fMRI, seen from the one under the mean."""
    seen = {}

    def follow(name, guidance, rows):
        def sampler(eps_model, noise, alphas_cumprod, num_steps):
            seen[name] = eps_model(noise, noise.new_full((len(noise),), 500).long())
            return noise

        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(decode.__globals__["SAMPLERS"], "unipc", sampler)
            decode(ldm, rows, range(3), guidance=guidance, mean_fmri=fmri.mean(axis=0), **OPTIONS)

    follow("plain", 1.0, fmri)
    follow("mean", 1.0, np.tile(fmri.mean(axis=0), (3, 1)))
    follow("guided", 2.5, fmri)
    expected = seen["mean"] + 2.5 * (seen["plain"] - seen["mean"])
    assert not np.allclose(seen["plain"], seen["mean"])
    assert np.allclose(seen["guided"], expected, atol=1e-5)


def test_a_guided_picture_does_not_depend_on_its_batch(ldm, fmri):
    """One at a time or all at once: at most a rounding of the last bit apart."""
    mean = fmri.mean(axis=0)
    together, alone = (
        decode(ldm, fmri, range(3), guidance=2.0, mean_fmri=mean, batch_size=size, **OPTIONS).astype(int)
        for size in (6, 1)
    )
    assert np.abs(together - alone).max() <= 1


def test_negative_guidance_is_refused(ldm, fmri):
    """One line that names the setting."""
    with pytest.raises(InputError, match="setting guidance is -1"):
        decode(ldm, fmri, range(3), guidance=-1.0, mean_fmri=fmri[0], **OPTIONS)


def test_guidance_without_a_mean_is_refused(ldm, fmri):
    """There is nothing to lead away from."""
    with pytest.raises(InputError, match="guidance is 2.0, but no mean fMRI is given"):
        decode(ldm, fmri, range(3), guidance=2.0, **OPTIONS)

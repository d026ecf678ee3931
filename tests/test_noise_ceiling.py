"""Noise ceilings from repeats, against data whose signal and noise are known."""

import numpy as np
import pytest

from mindvis.common.errors import InputError
from mindvis.evaluation.noise_ceiling import half_identification, voxel_noise_ceiling


def repeated(rng, signal_variance, *, stimuli=300, repeats=4, voxels=40):
    """Trials [r v] of unit noise, and the stimulus of each."""
    stimulus = np.tile(np.arange(stimuli), repeats)
    signal = rng.standard_normal((stimuli, voxels)) * np.sqrt(signal_variance)
    return signal[stimulus] + rng.standard_normal((len(stimulus), voxels)), stimulus, signal


@pytest.mark.parametrize("signal_variance", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("averaged", [1, 4, None])
def test_ceiling_is_the_share_of_signal(rng, signal_variance, averaged):
    """Signal over signal plus noise by the number of trials averaged, on average over voxels."""
    trials, stimulus, _ = repeated(rng, signal_variance)
    found = voxel_noise_ceiling(trials, stimulus, averaged)
    wanted = signal_variance / (signal_variance + 1 / (averaged or 4))
    assert found.shape == (40,) and found.mean() == pytest.approx(wanted, abs=0.05)


def test_its_root_bounds_the_correlation(rng):
    """The pure signal correlates with the averages as much as the ceiling says."""
    trials, stimulus, signal = repeated(rng, 0.2)
    means = trials.reshape(4, 300, 40).mean(axis=0)
    found = [np.corrcoef(signal[:, v], means[:, v])[0, 1] for v in range(40)]
    assert np.mean(found) == pytest.approx(np.sqrt(voxel_noise_ceiling(trials, stimulus)).mean(), abs=0.02)


def test_repeats_may_differ_in_number(rng):
    """Stimuli shown once count for nothing, others by what they have; the estimate stays near the truth."""
    trials, stimulus, _ = repeated(rng, 0.5)
    kept = rng.random(len(stimulus)) < 0.7
    found = voxel_noise_ceiling(trials[kept], stimulus[kept], averaged=1)
    assert found.mean() == pytest.approx(1 / 3, abs=0.04)


def test_halves_identify_each_other(rng):
    """An area near 1 for a strong signal, a half for none."""
    assert half_identification(*repeated(rng, 1.0)[:2], 0).value > 0.99
    assert half_identification(*repeated(rng, 0.0)[:2], 0).value == pytest.approx(0.5, abs=0.05)


def test_repeats_are_needed(rng):
    """The line counts the stimuli that have them."""
    with pytest.raises(InputError, match="0 of 5 stimuli are repeated"):
        voxel_noise_ceiling(rng.standard_normal((5, 3)), np.arange(5))
    with pytest.raises(InputError, match=r"need \[r v\]"):
        half_identification(rng.standard_normal((5, 3)), np.arange(4), 0)

"""Noise schedule: published numbers, their relations, noising."""

import numpy as np
import pytest
import torch

from mindvis.common.errors import InputError
from mindvis.dc_ldm import NoiseSchedule


@pytest.mark.parametrize("name", ["dc_ldm_schedule", "dc_ldm_pooled_crossattn_only_schedule"])
def test_arrays_are_the_published_ones(golden, name):
    """Every array of the file that training or sampling uses, to the last bit of float32."""
    schedule = NoiseSchedule().buffers_published()
    wanted = {key: value for key, value in golden(name).tensors("out").items() if key != "lvlb_weights"}
    assert len(wanted) == 6
    for key, value in wanted.items():
        assert torch.equal(schedule[key], value), key


def test_published_buffers_are_those_of_a_checkpoint(golden):
    """Names, order and values are those at the head of a published state dict."""
    state = {name: value for name, value in golden("dc_ldm").tensors("state").items() if "." not in name}
    found = NoiseSchedule().buffers_published()
    assert list(found) == list(state)
    assert all(torch.equal(found[name], state[name]) for name in state)


def test_the_schedule_is_not_part_of_a_state_dict():
    """Its buffers are computed again wherever it is built."""
    assert NoiseSchedule().state_dict() == {}


def test_noise_levels_follow_from_the_betas():
    """alphas_cumprod is the running product of 1 - beta, by a plain loop."""
    schedule, product = NoiseSchedule(num_timesteps=50), 1.0
    for beta, alpha in zip(schedule.betas.tolist(), schedule.alphas_cumprod.tolist(), strict=True):
        product *= 1 - beta
        assert abs(alpha - product) < 1e-6


def test_adding_noise_keeps_the_variance():
    """Signal and noise of variance 1 give x_t of variance 1 at every step."""
    schedule = NoiseSchedule()
    total = schedule.sqrt_alphas_cumprod**2 + schedule.sqrt_one_minus_alphas_cumprod**2
    np.testing.assert_allclose(total, 1.0, atol=1e-6)


def test_adding_noise_agrees_with_the_published_code(golden):
    """x_t of the parity file."""
    case = golden("dc_ldm")
    x_t = NoiseSchedule().add_noise(case.tensor("in/z"), case.tensor("in/noise"), case.tensor("in/t"))
    torch.testing.assert_close(x_t, case.tensor("out/x_t"), atol=1e-6, rtol=0)


def test_level_weights_raise_the_high_noise_levels():
    """Mean 1, never falling towards high t, bounded."""
    weights = NoiseSchedule().level_weights()
    assert weights.mean().item() == pytest.approx(1.0, rel=1e-5)
    assert (weights.diff() >= 0).all()
    assert weights[-1] / weights[0] == pytest.approx(305 / 5, rel=0.01)


@pytest.mark.parametrize("ends", [{"linear_end": 1e30}, {"linear_start": 0.0}, {"linear_end": float("nan")}])
def test_variances_lie_between_0_and_1(ends):
    """Others leave no signal, or none that has a root."""
    with pytest.raises(InputError, match="needed: variances between 0 and 1"):
        NoiseSchedule(**ends)

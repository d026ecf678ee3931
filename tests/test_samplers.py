"""Samplers: published results, exact solutions of a Gaussian, orders of convergence, starting noise."""

import math

import ldm_cases
import pytest
import torch

from mindvis.common.errors import InputError
from mindvis.dc_ldm import NoiseSchedule, noise_for, sample_ddim, sample_plms
from mindvis.dc_ldm.samplers import SAMPLERS
from mindvis.dc_ldm.timesteps import even_timesteps, solver_timesteps

MEAN, DEVIATION = 0.7, 0.5


@pytest.fixture(params=SAMPLERS.values(), ids=SAMPLERS)
def sampler(request):
    return request.param


def gaussian(alphas_cumprod):
    """Exact noise predictor of data ~ N(MEAN, DEVIATION^2), and the exact solution of its diffusion ODE."""

    def eps_model(x, t):
        alpha = alphas_cumprod[t][:, None, None, None]
        return (1 - alpha).sqrt() * (x - alpha.sqrt() * MEAN) / (alpha * DEVIATION**2 + 1 - alpha)

    def solution(x):
        (first, last), variance = alphas_cumprod[[-1, 0]], alphas_cumprod * DEVIATION**2 + 1 - alphas_cumprod
        return last.sqrt() * MEAN + (x - first.sqrt() * MEAN) * (variance[0] / variance[-1]).sqrt()

    return eps_model, solution


def fine_schedule(factor: int) -> torch.Tensor:
    """The schedule with `factor` times as many steps, so that rounding steps to whole ones does not blur the order."""
    ends = {"linear_start": 0.0015 / factor, "linear_end": 0.0195 / factor}
    return NoiseSchedule(**ends, num_timesteps=1000 * factor).alphas_cumprod.double()


@pytest.mark.parametrize(("name", "method", "num_steps"), [
    ("dc_ldm", "plms", 10), ("dc_ldm", "ddim", 10), ("dc_ldm", "plms", 50), ("dc_ldm", "ddim", 50),
    ("dc_ldm_pooled_crossattn_only", "plms", 10), ("dc_ldm_pooled_crossattn_only", "ddim", 10),
])  # fmt: skip
@torch.no_grad()
def test_samples_agree_with_the_published_samplers(golden, name, method, num_steps):
    """Within 1e-5 of the largest value, with a prepared context."""
    case = golden(name)
    ldm = ldm_cases.build(case)
    prepared = ldm.unet.prepare_context(case.tensor("out/context"))
    x0 = SAMPLERS[method](
        lambda x, t: ldm.unet(x, t, prepared), case.tensor("in/x_T"), ldm.schedule.alphas_cumprod, num_steps
    )
    wanted = case.tensor(f"out/{method}_{num_steps}")
    torch.testing.assert_close(x0, wanted, atol=1e-5 * wanted.abs().max().item(), rtol=0)


@pytest.mark.parametrize(("method", "bound"), [("dpm_solver", 5e-3), ("unipc", 1e-3), ("unipc_averaged", 1e-3)])
def test_solvers_are_near_the_exact_solution_in_20_steps(method, bound):
    """On the published schedule, where PLMS and DDIM are at least twice as far off."""
    alphas_cumprod = NoiseSchedule().alphas_cumprod.double()
    eps_model, solution = gaussian(alphas_cumprod)
    noise = noise_for(0, 0, 0, (3, 4, 4)).double()

    def error(function):
        x0 = function(eps_model, noise, alphas_cumprod, 20)
        return ((x0 - solution(noise)).norm() / solution(noise).norm()).item()

    assert error(SAMPLERS[method]) < bound
    assert error(SAMPLERS[method]) < 0.5 * min(error(sample_ddim), error(sample_plms))


@pytest.mark.parametrize(("method", "order", "counts"), [
    ("dpm_solver", 2, (32, 64)), ("unipc", 3, (16, 32)), ("unipc_averaged", 4, (16, 32)),
])  # fmt: skip
def test_solvers_converge_at_their_order(method, order, counts):
    """Twice the steps divide the error by 2^order, give or take a fifth of an order."""
    alphas_cumprod = fine_schedule(20)
    eps_model, solution = gaussian(alphas_cumprod)
    noise = noise_for(0, 0, 0, (3, 4, 4)).double()
    coarse, fine = (
        (SAMPLERS[method](eps_model, noise, alphas_cumprod, count) - solution(noise)).norm().item() for count in counts
    )
    assert math.log2(coarse / fine) > order - 0.2


def test_a_constant_image_is_found_whatever_the_steps(sampler):
    """Where the data is one point, every estimate of x_0 is exact and one step from any noise reaches it."""
    alphas_cumprod = NoiseSchedule().alphas_cumprod.double()
    noise = noise_for(0, 0, 0, (1, 2, 2)).double()

    def eps_model(x, t):
        alpha = alphas_cumprod[t][:, None, None, None]
        return (x - alpha.sqrt() * MEAN) / (1 - alpha).sqrt()

    for num_steps in (4, 7):
        x0 = sampler(eps_model, noise, alphas_cumprod, num_steps)
        left = x0 - alphas_cumprod[0].sqrt() * MEAN  # the noise that remains at step 0
        assert left.abs().max() < 4 * (1 - alphas_cumprod[0]).sqrt()


@torch.no_grad()
def test_a_picture_is_the_same_in_any_batch(golden, sampler):
    """Alone or beside another one: 1e-5 of the largest value after 4 steps of the network."""
    case = golden("dc_ldm_pooled_crossattn_only")
    ldm, context = ldm_cases.build(case), case.tensor("out/context")
    noise = torch.cat([noise_for(0, stimulus, 0, (3, 8, 8)) for stimulus in range(2)])

    def draw(rows):
        return sampler(lambda x, t: ldm.unet(x, t, context[rows]), noise[rows], ldm.schedule.alphas_cumprod, 4)

    together = draw([0, 1])
    torch.testing.assert_close(draw([1])[0], together[1], atol=1e-5 * together.abs().max().item(), rtol=0)


@pytest.mark.parametrize(("method", "extra"), [(name, int(name == "plms")) for name in SAMPLERS])
def test_evaluations_and_progress_are_counted(method, extra):
    """One evaluation a step (PLMS one more), and the bar sees every step."""
    calls, seen = [], []

    def eps_model(x, t):
        assert t.dtype == torch.long and t.shape == (len(x),)
        calls.append(int(t[0]))
        return torch.zeros_like(x)

    def progress(steps):
        for step in steps:
            seen.append(step)
            yield step

    SAMPLERS[method](eps_model, torch.zeros(2, 1, 1, 1), NoiseSchedule().alphas_cumprod, 8, progress=progress)
    assert len(calls) == 8 + extra
    assert len(seen) == 8
    assert max(calls) == calls[0] < 1000


@pytest.mark.parametrize("num_steps", [0, -3, 1001])
def test_impossible_numbers_of_steps_are_refused(sampler, num_steps):
    """The error names the setting and what was found."""
    with pytest.raises(InputError, match=f"num_steps.*{num_steps}"):
        sampler(lambda x, t: x, torch.zeros(1, 1, 1, 1), NoiseSchedule().alphas_cumprod, num_steps)


@pytest.mark.parametrize("num_steps", [1, 3, 7, 333, 600, 1000])
def test_any_number_of_steps_stays_within_the_schedule(num_steps):
    """Steps that the schedule does not have are dropped; solver steps are distinct and go down to 0."""
    even = even_timesteps(1000, num_steps)
    assert even[0] == 1 and even[-1] <= 999
    times = solver_timesteps(NoiseSchedule().alphas_cumprod, num_steps)
    assert times[0] == 999 and times[-1] == 0 and len(times) == min(num_steps, 999) + 1
    assert all(before > after for before, after in zip(times, times[1:], strict=False))


def test_starting_noise_depends_on_seed_stimulus_and_sample_alone():
    """The same three numbers give the same noise; any other number another one."""
    noise = noise_for(1, 2, 3, (3, 8, 8))
    assert noise.shape == (1, 3, 8, 8)
    assert torch.equal(noise, noise_for(1, 2, 3, (3, 8, 8)))
    others = [noise_for(*key, (3, 8, 8)) for key in [(0, 2, 3), (1, 0, 3), (1, 2, 0), (2, 1, 3)]]
    assert not any(torch.equal(noise, other) for other in others)

"""Predictions of eps, v and the velocity of straight lines: targets, conversions, losses, and samples under them."""

import ldm_cases
import pytest
import torch

from mindvis.common.errors import InputError
from mindvis.dc_ldm import LatentDiffusion, LDMModule, NoiseSchedule, noise_for
from mindvis.dc_ldm.samplers import SAMPLERS
from mindvis.dc_ldm.schedule import PARAMETERIZATIONS
from mindvis.dc_ldm.timesteps import even_timesteps, noise_shares

MEAN, DEVIATION = 0.7, 0.5
SCHEDULES = {
    "published": NoiseSchedule(),
    "evenly spaced": NoiseSchedule(linear_start=1e-4, linear_end=0.02, beta_schedule="sqrt_linear"),
    "zero terminal": NoiseSchedule(linear_start=0.00085, linear_end=0.012, zero_terminal_snr=True),
    "straight lines": NoiseSchedule(flow=True),
}


@pytest.fixture(params=SCHEDULES.values(), ids=SCHEDULES)
def schedule(request):
    return request.param


def gaussian(alphas_cumprod):
    """Exact predictor of v for data ~ N(MEAN, DEVIATION^2), and the exact solution of its diffusion ODE."""

    def v_model(x, t):
        alpha, sigma = (
            values[t][:, None, None, None] for values in (alphas_cumprod.sqrt(), (1 - alphas_cumprod).sqrt())
        )
        variance = (alpha * DEVIATION) ** 2 + sigma**2
        x0 = MEAN + alpha * DEVIATION**2 * (x - alpha * MEAN) / variance
        eps = sigma * (x - alpha * MEAN) / variance
        return alpha * eps - sigma * x0

    def solution(x, last):
        first, variance = alphas_cumprod[-1], alphas_cumprod[-1] * DEVIATION**2 + 1 - alphas_cumprod[-1]
        return last.sqrt() * MEAN + (x - first.sqrt() * MEAN) * ((last * DEVIATION**2 + 1 - last) / variance).sqrt()

    return v_model, solution


BOUNDS = {"ddim": 0.06, "plms": 0.03, "dpm_solver": 0.01, "unipc": 0.005, "unipc_averaged": 0.005, "euler": 0.03}


@pytest.mark.parametrize("method", SAMPLERS)
def test_samples_from_v_are_near_the_exact_solution(schedule, method):
    """In 50 steps, on every schedule, those without signal in the last step among them."""
    alphas_cumprod = schedule.alphas_cumprod.double()
    v_model, solution = gaussian(alphas_cumprod)
    noise = noise_for(0, 0, 0, (3, 4, 4)).double()
    found = SAMPLERS[method](v_model, noise, alphas_cumprod, 50, prediction="v")
    wanted = solution(noise, torch.ones(()).double() if method == "euler" else alphas_cumprod[0])
    assert (found - wanted).norm() / wanted.norm() < BOUNDS[method]


@pytest.mark.parametrize("method", SAMPLERS)
def test_v_and_eps_are_sampled_alike(method):
    """Two forms of one network give the same picture on a schedule that keeps some signal."""
    schedule = NoiseSchedule().double()
    noise = noise_for(0, 1, 0, (2, 3, 3)).double()

    def eps_model(x, t):
        return torch.sin(x + t[:, None, None, None] / 1000)

    def v_model(x, t):
        return schedule.convert(eps_model(x, t), x, t, "eps", "v")

    arguments = (noise, schedule.alphas_cumprod, 9)
    wanted = SAMPLERS[method](eps_model, *arguments)
    torch.testing.assert_close(SAMPLERS[method](v_model, *arguments, prediction="v"), wanted, atol=1e-5, rtol=1e-5)


def test_euler_halves_its_error_with_twice_the_steps():
    """It is of order 1, along straight lines."""
    alphas_cumprod = NoiseSchedule(flow=True).alphas_cumprod.double()
    v_model, solution = gaussian(alphas_cumprod)
    noise = noise_for(0, 0, 0, (3, 4, 4)).double()
    wanted = solution(noise, torch.ones(()).double())
    errors = [
        (SAMPLERS["euler"](v_model, noise, alphas_cumprod, count, prediction="v") - wanted).norm() for count in (25, 50)
    ]
    assert 1.7 < errors[0] / errors[1] < 2.3


def test_zero_terminal_schedule_keeps_its_first_step_and_ends_in_noise():
    """Lin et al., algorithm 1, by a loop: square roots shifted to 0 at the end, scaled to stay at the start."""
    options = {"linear_start": 0.00085, "linear_end": 0.012}
    roots = NoiseSchedule(**options).sqrt_alphas_cumprod.double().tolist()
    found = NoiseSchedule(**options, zero_terminal_snr=True).sqrt_alphas_cumprod
    wanted = [(root - roots[-1]) * roots[0] / (roots[0] - roots[-1]) for root in roots]
    torch.testing.assert_close(found, torch.tensor(wanted), atol=1e-6, rtol=1e-5)
    assert found[-1] == 0


def test_straight_lines_pass_even_shares_of_noise():
    """Step t has (t + 1) / 1000 of the noise."""
    shares = torch.from_numpy(noise_shares(NoiseSchedule(flow=True).alphas_cumprod))
    torch.testing.assert_close(shares, torch.arange(1, 1001).double() / 1000, atol=1e-5, rtol=1e-5)


def test_trailing_steps_begin_with_the_last_one():
    """And are as many as asked for."""
    assert even_timesteps(1000, 4, trailing=True) == [249, 499, 749, 999]
    assert even_timesteps(1000, 7, trailing=True)[-1] == 999


@pytest.mark.parametrize("given", PARAMETERIZATIONS)
@pytest.mark.parametrize("wanted", PARAMETERIZATIONS)
def test_conversions_take_targets_to_targets(given, wanted):
    """What is right in one form is right in every other."""
    schedule = NoiseSchedule()
    x0, eps = torch.randn(2, 3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0, 400, 999])
    x_t = schedule.add_noise(x0, eps, t)
    found = schedule.convert(schedule.target(x0, eps, t, given), x_t, t, given, wanted)
    torch.testing.assert_close(found, schedule.target(x0, eps, t, wanted), atol=1e-4, rtol=1e-4)


def test_noise_alone_says_nothing_where_there_is_no_signal():
    """Refused in conversions and in samplers, with what is needed."""
    schedule = SCHEDULES["zero terminal"]
    x = torch.zeros(1, 1, 2, 2)
    with pytest.raises(InputError, match="needed: v"):
        schedule.convert(x, x, torch.tensor([5]), "eps", "v")
    for sampler in SAMPLERS.values():
        with pytest.raises(InputError, match="needed v"):
            sampler(lambda x, t: x, x, schedule.alphas_cumprod, 4)


class Oracle(torch.nn.Module):
    """A UNet that knows the answer."""

    def __init__(self, answer):
        super().__init__()
        self.answer, self.seen = answer, []

    def forward(self, x, t, context):
        self.seen.append((x, t))
        return self.answer


def with_oracle(answer, schedule, **options) -> LatentDiffusion:
    parts = {"autoencoder": torch.nn.Identity(), "conditioner": torch.nn.Identity()}
    return LatentDiffusion(unet=Oracle(answer), schedule=schedule, **parts, **options)


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
def test_loss_is_zero_for_the_right_prediction_only(parameterization):
    """Native losses, each on a schedule of its own."""
    schedule = SCHEDULES["straight lines" if parameterization == "flow" else "published"]
    x0, eps = torch.randn(2, 2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    t = torch.tensor([10, 998])
    wanted = schedule.target(x0, eps, t, parameterization)
    loss = with_oracle(wanted, schedule, parameterization=parameterization).loss(x0, None, t, eps)
    assert loss.item() == pytest.approx(0, abs=1e-10)
    off = with_oracle(wanted + 1, schedule, parameterization=parameterization).loss(x0, None, t, eps)
    assert off.item() == pytest.approx(1, rel=1e-4)


def test_a_network_of_straight_lines_sees_them():
    """x_s = (1 - s) x0 + s eps at the place 1000 s, as the library's schedulers of flow matching give it."""
    x0, eps = torch.randn(2, 2, 3, 4, 4, generator=torch.Generator().manual_seed(2))
    t = torch.tensor([249, 999])
    ldm = with_oracle(x0, SCHEDULES["straight lines"], parameterization="flow")
    ldm.loss(x0, None, t, eps)
    ((x, place),) = ldm.unet.seen
    s = torch.tensor([0.25, 1.0])[:, None, None, None]
    torch.testing.assert_close(x, (1 - s) * x0 + s * eps, atol=1e-5, rtol=1e-5)
    assert place.tolist() == [250, 1000]


def test_another_objective_weighs_the_levels():
    """The error on v of a network that predicts eps is its error on eps over alpha^2; that on the velocity likewise."""
    schedule = SCHEDULES["published"]
    x0, eps, output = torch.randn(3, 1, 3, 4, 4, generator=torch.Generator().manual_seed(3))
    t = torch.tensor([700])
    alpha, sigma = schedule.levels(t)
    plain = with_oracle(output, schedule).loss(x0, None, t, eps)
    for objective, factor in {"v": 1 / alpha**2, "flow": (alpha + sigma) ** 2 / alpha**2}.items():
        found = with_oracle(output, schedule, objective=objective).loss(x0, None, t, eps)
        torch.testing.assert_close(found, plain * factor.squeeze(), rtol=1e-4, atol=1e-5)


def test_steps_of_the_flow_objective_are_even_in_the_share_of_noise(golden):
    """On the published schedule, whose steps are not; the other objectives draw as published."""
    module = LDMModule(ldm_cases.build(golden("dc_ldm")), objective="flow")
    keys = torch.tensor([(0, 0, index) for index in range(2000)])
    batch = {"key": keys, "latent": torch.zeros(2000, 1, 1, 1)}
    shares = module.draw.noise_shares
    drawn = shares[module.draw(batch)["t"]]
    edges = torch.linspace(shares[0], shares[-1], 6)
    counts = torch.histogram(drawn.float(), edges.float()).hist
    assert counts.min() > 330 and counts.max() < 470
    plain = LDMModule(ldm_cases.build(golden("dc_ldm")), objective="v")
    assert plain.draw(batch)["t"].float().mean().item() == pytest.approx(500, abs=30)


def test_impossible_objectives_are_refused(golden):
    """Unknown ones, and a weighting that would be counted twice."""
    ldm = ldm_cases.build(golden("dc_ldm"))
    with pytest.raises(InputError, match=r"objective is 'x'; needed: one of eps, v, flow"):
        LDMModule(ldm, objective="x")
    with pytest.raises(InputError, match="weighting is 'levels'"):
        LDMModule(ldm, objective="v", weighting="levels")

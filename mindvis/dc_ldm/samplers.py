"""Deterministic samplers: pure functions from noise to a latent, which know nothing of the network they call.

All have the signature that `sampler` gives them. `eps_model(x_t, t)` predicts the noise in x_t [b c h w] at steps t
(long [b]); `noise` is the start x_T [b c h w]; `alphas_cumprod` [num_timesteps] is the noise schedule; `num_steps`
counts the steps; `progress` wraps the sequence of steps (tqdm, say); with `prediction="v"` the model predicts v = alpha
eps - sigma x_0 instead, which a schedule needs whose last step has no signal left. With `start`, one of
`starting_steps`, the steps before that one are left out and `noise` is the x_t that they would have led to. They return
x_0 [b c h w] and raise InputError for a number of steps outside 1..num_timesteps and for such a schedule without v.
Coefficients are computed in float64.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from mindvis.common import draws
from mindvis.common.errors import InputError
from mindvis.dc_ldm.timesteps import Level, averaged_levels, euler_levels, even_levels, solver_levels

EpsModel = Callable[[Tensor, Tensor], Tensor]
Progress = Callable[[list], Iterable]
Predict = Callable[[Tensor, Level], tuple[Tensor, Tensor]]  # (x_t, its level) -> x_0 and eps
Solve = Callable[[Predict, Tensor, list[Level], Progress], Tensor]  # (predict, x_T, levels, progress) -> x_0
# (alphas_cumprod, num_steps, start) -> where it evaluates the network, and where it ends
Levels = Callable[[Tensor, int, int | None], list[Level]]
Sample = Callable[..., Tensor]  # of the signature that `sampler` gives

# Adams-Bashforth coefficients of order 1 to 4, the newest value first
ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)
UNIPC_ORDER = 3
AVERAGED_ORDER = 4  # of `sample_unipc_averaged`
SAMPLERS: dict[str, Sample] = {}
LEVELS: dict[str, Levels] = {}


def noise_for(seed: int, stimulus: int, sample: int, shape: Sequence[int]) -> Tensor:
    """Starting noise float32 [1 *shape] of one sample of one stimulus: a function of these three numbers alone."""
    return draws.normal(torch.tensor([[seed, stimulus, sample]]), "x_T", shape)


def sampler(name: str, levels_of: Levels) -> Callable[[Solve], Sample]:
    """Give a solver the signature of all samplers, and its name among `SAMPLERS`."""

    def with_signature(solve: Solve) -> Sample:
        def sample(
            eps_model: EpsModel,
            noise: Tensor,
            alphas_cumprod: Tensor,
            num_steps: int,
            progress: Progress | None = None,
            *,
            prediction: str = "eps",
            start: int | None = None,
        ) -> Tensor:
            if prediction not in ("eps", "v"):
                raise InputError(f"prediction: found {prediction!r}, needed eps or v")
            if prediction == "eps" and alphas_cumprod[-1] == 0:
                found = "a noise schedule without signal in its last step: found prediction 'eps'"
                raise InputError(f"{found}, needed v")
            predict = partial(_predict, eps_model, prediction)
            return solve(predict, noise, levels_of(alphas_cumprod, num_steps, start), progress or list)

        sample.__name__, sample.__doc__ = f"sample_{name}", solve.__doc__
        SAMPLERS[name], LEVELS[name] = sample, levels_of
        return sample

    return with_signature


def starting_steps(name: str, alphas_cumprod: Tensor, num_steps: int) -> list[int]:
    """The diffusion steps that a sampler can start at, descending: all it takes; PLMS begins by looking one ahead."""
    times = [level.t for level in LEVELS[name](alphas_cumprod, num_steps, None)[:-1]]
    return times[: max(1, len(times) - 1)] if name == "plms" else times


def nearest_start(name: str, alphas_cumprod: Tensor, num_steps: int, strength: float) -> int:
    """The starting step that is nearest to `strength` (above 0, at most 1) times the number of diffusion steps."""
    wanted = strength * len(alphas_cumprod)
    return min(starting_steps(name, alphas_cumprod, num_steps), key=lambda t: abs(t - wanted))


@sampler("plms", even_levels)
def sample_plms(predict: Predict, x: Tensor, levels: list[Level], progress: Progress) -> Tensor:
    """Pseudo linear multistep sampler, one evaluation a step and one more: Liu et al. 2022 (arXiv 2202.09778).

    The first step is an improved Euler step, the following ones are Adams-Bashforth of order 2, 3 and then 4. Where no
    signal is left in x_T, a DDIM step comes before them: a slope says nothing about x_0 there.
    """
    history: list[Tensor] = []
    for now, after in progress(list(pairwise(levels))):
        x0, eps = predict(x, now)
        if now.alpha == 0:
            x = after.alpha * x0 + after.sigma * eps
            continue
        history = [eps, *history[:3]]
        if len(history) == 1:
            following = now if after is levels[-1] else after  # nothing is evaluated at the end
            _, ahead = predict(after.alpha * x0 + after.sigma * eps, following)
            slope = (eps + ahead) / 2
        else:
            slope = _combine(ADAMS_BASHFORTH[len(history) - 1], history)
        x = after.alpha * ((x - now.sigma * slope) / now.alpha) + after.sigma * slope
    return x


@sampler("ddim", even_levels)
def sample_ddim(predict: Predict, x: Tensor, levels: list[Level], progress: Progress) -> Tensor:
    """DDIM without noise (eta = 0): Song et al. 2021 (arXiv 2010.02502), equation 12."""
    for now, after in progress(list(pairwise(levels))):
        x0, eps = predict(x, now)
        x = after.alpha * x0 + after.sigma * eps
    return x


@sampler("dpm_solver", solver_levels)
def sample_dpm_solver(predict: Predict, x: Tensor, levels: list[Level], progress: Progress) -> Tensor:
    """DPM-Solver++ (2M), one evaluation a step: Lu et al. 2022 (arXiv 2211.01095), algorithm 2."""
    previous, previous_h = None, math.nan
    for now, after in progress(list(pairwise(levels))):
        x0, _ = predict(x, now)
        h = after.half_logsnr - now.half_logsnr
        estimate = x0
        if previous is not None:
            estimate = x0 + h / (2 * previous_h) * (x0 - previous)
        x = after.sigma / now.sigma * x - after.alpha * math.expm1(-h) * estimate
        previous, previous_h = x0, h
    return x


@sampler("unipc", solver_levels)
def sample_unipc(predict: Predict, x: Tensor, levels: list[Level], progress: Progress) -> Tensor:
    """UniPC of order 3, one evaluation a step: Zhao et al. 2023 (arXiv 2302.04867), algorithms 5 and 6.

    A step predicts with the last three estimates of x_0; the estimate made at its end corrects it and serves the next
    step. The weights meet the order conditions exactly from order 3 on, so the paper's B(h) cancels; a slope through
    two estimates counts one half, as in the paper and in the library diffusers.
    """
    return _unipc(predict, x, levels, progress, order=UNIPC_ORDER, halved=True)


@sampler("unipc_averaged", averaged_levels)
def sample_unipc_averaged(predict: Predict, x: Tensor, levels: list[Level], progress: Progress) -> Tensor:
    """UniPC of order 4 on `averaged_timesteps`, for an `eps_model` that does not ripple from one step to the next.

    `averaged_embeddings` take the ripple out of a UNet, and what is left is smooth enough for the order.
    """
    return _unipc(predict, x, levels, progress, order=AVERAGED_ORDER, halved=False)


@sampler("euler", euler_levels)
def sample_euler(predict: Predict, x: Tensor, levels: list[Level], progress: Progress) -> Tensor:
    """Euler's method on dx/ds = eps - x_0, steps even in s: Liu et al. 2023 (arXiv 2209.03003), section 2.1.

    s is the share of the noise in x_s = (1 - s) x_0 + s eps, which is x_t / (alpha + sigma), and ends at 0.
    """
    x = x / (levels[0].alpha + levels[0].sigma)
    for now, after in progress(list(pairwise(levels))):
        x0, eps = predict(x * (now.alpha + now.sigma), now)
        x = x + (after.noise_share - now.noise_share) * (eps - x0)
    return x


def _predict(eps_model: EpsModel, prediction: str, x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
    """x_0 and eps that a prediction (eps or v) from x means."""
    output = eps_model(x, torch.full((len(x),), level.t, dtype=torch.long, device=x.device))
    if prediction == "v":
        return level.alpha * x - level.sigma * output, level.sigma * x + level.alpha * output
    return (x - level.sigma * output) / level.alpha, output


def _unipc(predict: Predict, x: Tensor, levels: list[Level], progress: Progress, *, order: int, halved: bool) -> Tensor:
    history = [(levels[0], predict(x, levels[0])[0])]
    for after in progress(levels[1:]):
        now, points = history[-1][0], history
        predicted = _exponential_step(x, now, after, points, halved)
        if after is not levels[-1]:
            points = [*history, (after, predict(predicted, after)[0])]
            predicted = _exponential_step(x, now, after, points, halved)
            history = points[-order:]
        x = predicted
    return x


def _exponential_step(
    x: Tensor, now: Level, after: Level, points: list[tuple[Level, Tensor]], halved: bool = False
) -> Tensor:
    """Integrate the diffusion ODE from `now` to `after`, x_0 being the polynomial in log(alpha / sigma) through points.

    x_after = sigma_after / sigma_now x_now + alpha_after sum_k w_k x0_k, where the weights w integrate the polynomials
    1, tau, tau^2 ... times h exp(h (tau - 1)) over tau in [0, 1] exactly; with `halved` the slope through two points
    counts one half, which is its weight for small h.
    """
    h = after.half_logsnr - now.half_logsnr
    nodes = [(level.half_logsnr - now.half_logsnr) / h for level, _ in points]
    moments = [-math.expm1(-h)]
    for power in range(1, len(points)):
        moments.append(1 - power / h * moments[-1])
    if halved and len(points) == 2:
        moments[1] = moments[0] / 2
    weights = np.linalg.solve(np.vander(nodes, increasing=True).T, moments)
    return after.sigma / now.sigma * x + after.alpha * _combine(weights.tolist(), [x0 for _, x0 in points])


def _combine(weights: Sequence[float], values: Sequence[Tensor]) -> Tensor:
    terms = [weight * value for weight, value in zip(weights, values, strict=True)]
    return sum(terms[1:], start=terms[0])

"""Deterministic samplers: pure functions from noise to a latent, which know nothing of the network they call.

All share one signature. `eps_model(x_t, t)` predicts the noise in x_t [b c h w] at steps t (long [b]); `noise` is the
start x_T [b c h w]; `alphas_cumprod` [num_timesteps] is the noise schedule; `num_steps` counts the steps; `progress`
wraps the sequence of steps (tqdm, say); with `prediction="v"` the model predicts v = alpha eps - sigma x_0 instead,
which a schedule needs whose last step has no signal left. With `start`, one of `starting_steps`, the steps before that
one are left out and `noise` is the x_t that they would have led to. They return x_0 [b c h w] and raise InputError for
a number of steps outside 1..num_timesteps and for such a schedule without v. Coefficients are computed in float64.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from mindvis.common import draws
from mindvis.common.errors import InputError
from mindvis.dc_ldm.timesteps import (
    AVERAGED_EVEN_IN_T,
    Level,
    descending_even_timesteps,
    euler_timesteps,
    from_step,
    noise_levels,
    noise_shares,
)

EpsModel = Callable[[Tensor, Tensor], Tensor]
Progress = Callable[[Iterable], Iterable]

# Adams-Bashforth coefficients of order 1 to 4, the newest value first
ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)
UNIPC_ORDER = 3
AVERAGED_ORDER = 4  # of `sample_unipc_averaged`


def noise_for(seed: int, stimulus: int, sample: int, shape: Sequence[int]) -> Tensor:
    """Starting noise float32 [1 *shape] of one sample of one stimulus: a function of these three numbers alone."""
    return draws.normal(torch.tensor([[seed, stimulus, sample]]), "x_T", shape)


def sample_ddim(
    eps_model: EpsModel,
    noise: Tensor,
    alphas_cumprod: Tensor,
    num_steps: int,
    progress: Progress | None = None,
    *,
    prediction: str = "eps",
    start: int | None = None,
) -> Tensor:
    """DDIM without noise (eta = 0): Song et al. 2021 (arXiv 2010.02502), equation 12."""
    _check_prediction(alphas_cumprod, prediction)
    x = noise
    for t, alpha, alpha_prev in _even_steps(alphas_cumprod, num_steps, progress, start):
        x0, eps = _x0_and_eps(eps_model(x, _batch_of(t, x)), x, alpha, prediction)
        x = _noised(x0, eps, alpha_prev)
    return x


def sample_plms(
    eps_model: EpsModel,
    noise: Tensor,
    alphas_cumprod: Tensor,
    num_steps: int,
    progress: Progress | None = None,
    *,
    prediction: str = "eps",
    start: int | None = None,
) -> Tensor:
    """Pseudo linear multistep sampler, one evaluation a step and one more: Liu et al. 2022 (arXiv 2202.09778).

    The first step is an improved Euler step, the following ones are Adams-Bashforth of order 2, 3 and then 4. Where no
    signal is left in x_T, a DDIM step comes before them: a slope says nothing about x_0 there.
    """
    _check_prediction(alphas_cumprod, prediction)
    steps = list(_even_steps(alphas_cumprod, num_steps, progress=None, start=start))
    x = noise
    history: list[Tensor] = []
    for index, (t, alpha, alpha_prev) in enumerate(_wrap(steps, progress)):
        x0, eps = _x0_and_eps(eps_model(x, _batch_of(t, x)), x, alpha, prediction)
        if alpha == 0:
            x = _noised(x0, eps, alpha_prev)
            continue
        history = [eps, *history[:3]]
        if len(history) == 1:
            t_next, alpha_next, _ = steps[min(index + 1, len(steps) - 1)]
            x_next = _noised(x0, eps, alpha_prev)
            _, ahead = _x0_and_eps(eps_model(x_next, _batch_of(t_next, x)), x_next, alpha_next, prediction)
            slope = (eps + ahead) / 2
        else:
            slope = _combine(ADAMS_BASHFORTH[len(history) - 1], history)
        x0, slope = _x0_and_eps(slope, x, alpha, "eps")
        x = _noised(x0, slope, alpha_prev)
    return x


def sample_dpm_solver(
    eps_model: EpsModel,
    noise: Tensor,
    alphas_cumprod: Tensor,
    num_steps: int,
    progress: Progress | None = None,
    *,
    prediction: str = "eps",
    start: int | None = None,
) -> Tensor:
    """DPM-Solver++ (2M), one evaluation a step: Lu et al. 2022 (arXiv 2211.01095), algorithm 2."""
    _check_prediction(alphas_cumprod, prediction)
    levels = noise_levels(alphas_cumprod, num_steps, start=start)
    x, previous, previous_h = noise, None, math.nan
    for now, after in _wrap(list(zip(levels[:-1], levels[1:], strict=True)), progress):
        x0 = _predict_x0(eps_model, x, now, prediction)
        h = after.half_logsnr - now.half_logsnr
        estimate = x0
        if previous is not None:
            estimate = x0 + h / (2 * previous_h) * (x0 - previous)
        x = after.sigma / now.sigma * x - after.alpha * math.expm1(-h) * estimate
        previous, previous_h = x0, h
    return x


def sample_unipc(
    eps_model: EpsModel,
    noise: Tensor,
    alphas_cumprod: Tensor,
    num_steps: int,
    progress: Progress | None = None,
    *,
    prediction: str = "eps",
    start: int | None = None,
) -> Tensor:
    """UniPC of order 3, one evaluation a step: Zhao et al. 2023 (arXiv 2302.04867), algorithms 5 and 6.

    A step predicts with the last three estimates of x_0; the estimate made at its end corrects it and serves the next
    step. The weights meet the order conditions exactly from order 3 on, so the paper's B(h) cancels; a slope through
    two estimates counts one half, as in the paper and in the library diffusers.
    """
    _check_prediction(alphas_cumprod, prediction)
    levels = noise_levels(alphas_cumprod, num_steps, start=start)
    return _unipc(partial(_predict_x0, eps_model, prediction=prediction), noise, levels, UNIPC_ORDER, progress, True)


def sample_unipc_averaged(
    eps_model: EpsModel,
    noise: Tensor,
    alphas_cumprod: Tensor,
    num_steps: int,
    progress: Progress | None = None,
    *,
    prediction: str = "eps",
    start: int | None = None,
) -> Tensor:
    """UniPC of order 4 on `averaged_timesteps`, for an `eps_model` that does not ripple from one step to the next.

    `averaged_embeddings` take the ripple out of a UNet, and what is left is smooth enough for the order.
    """
    _check_prediction(alphas_cumprod, prediction)
    levels = noise_levels(alphas_cumprod, num_steps, AVERAGED_EVEN_IN_T, start)
    return _unipc(partial(_predict_x0, eps_model, prediction=prediction), noise, levels, AVERAGED_ORDER, progress)


def sample_euler(
    eps_model: EpsModel,
    noise: Tensor,
    alphas_cumprod: Tensor,
    num_steps: int,
    progress: Progress | None = None,
    *,
    prediction: str = "eps",
    start: int | None = None,
) -> Tensor:
    """Euler's method on dx/ds = eps - x_0, steps even in s: Liu et al. 2023 (arXiv 2209.03003), section 2.1.

    s is the share of the noise in x_s = (1 - s) x_0 + s eps, which is x_t / (alpha + sigma), and ends at 0.
    """
    _check_prediction(alphas_cumprod, prediction)
    alphas, shares = alphas_cumprod.double().tolist(), noise_shares(alphas_cumprod)
    times = from_step(euler_timesteps(alphas_cumprod, num_steps), start)
    ends = [*(float(shares[t]) for t in times[1:]), 0.0]
    x = noise / _scale(alphas[times[0]])
    for t, end in _wrap(list(zip(times, ends, strict=True)), progress):
        x_t = x * _scale(alphas[t])
        x0, eps = _x0_and_eps(eps_model(x_t, _batch_of(t, x)), x_t, alphas[t], prediction)
        x = x + (end - float(shares[t])) * (eps - x0)
    return x


SAMPLERS: dict[str, Callable] = {
    "plms": sample_plms,
    "ddim": sample_ddim,
    "dpm_solver": sample_dpm_solver,
    "unipc": sample_unipc,
    "unipc_averaged": sample_unipc_averaged,
    "euler": sample_euler,
}


def _even_steps(
    alphas_cumprod: Tensor, num_steps: int, progress: Progress | None, start: int | None
) -> Iterable[tuple[int, float, float]]:
    """(t, alphas_cumprod at t, alphas_cumprod at the step that follows), from the last step or `start` to the first."""
    values = alphas_cumprod.double().tolist()
    times = from_step(descending_even_timesteps(alphas_cumprod, num_steps), start)
    after = [*(values[t] for t in times[1:]), values[0]]
    steps = [(t, values[t], alpha_prev) for t, alpha_prev in zip(times, after, strict=True)]
    return _wrap(steps, progress)


def _x0_and_eps(output: Tensor, x: Tensor, alpha: float, prediction: str) -> tuple[Tensor, Tensor]:
    """x_0 and eps that a prediction (eps or v) from x means; `alpha` is alphas_cumprod at its step."""
    signal, sigma = math.sqrt(alpha), math.sqrt(1 - alpha)
    if prediction == "v":
        return signal * x - sigma * output, sigma * x + signal * output
    return (x - sigma * output) / signal, output


def _noised(x0: Tensor, eps: Tensor, alpha: float) -> Tensor:
    return math.sqrt(alpha) * x0 + math.sqrt(1 - alpha) * eps


def _scale(alpha: float) -> float:
    return math.sqrt(alpha) + math.sqrt(1 - alpha)


def _unipc(
    predict_x0: Callable[[Tensor, Level], Tensor],
    noise: Tensor,
    levels: list[Level],
    order: int,
    progress: Progress | None,
    halved: bool = False,
) -> Tensor:
    x, history = noise, [(levels[0], predict_x0(noise, levels[0]))]
    for index, after in enumerate(_wrap(levels[1:], progress), start=1):
        now, points = history[-1][0], history
        predicted = _exponential_step(x, now, after, points, halved)
        if index < len(levels) - 1:
            points = [*history, (after, predict_x0(predicted, after))]
            predicted = _exponential_step(x, now, after, points, halved)
            history = points[-order:]
        x = predicted
    return x


def _predict_x0(eps_model: EpsModel, x: Tensor, level: Level, prediction: str) -> Tensor:
    output = eps_model(x, _batch_of(level.t, x))
    if prediction == "v":
        return level.alpha * x - level.sigma * output
    return (x - level.sigma * output) / level.alpha


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


def _batch_of(t: int, x: Tensor) -> Tensor:
    return torch.full((len(x),), t, dtype=torch.long, device=x.device)


def _check_prediction(alphas_cumprod: Tensor, prediction: str) -> None:
    if prediction not in ("eps", "v"):
        raise InputError(f"prediction: found {prediction!r}, needed eps or v")
    if prediction == "eps" and alphas_cumprod[-1] == 0:
        raise InputError("a noise schedule without signal in its last step: found prediction 'eps', needed v")


def _wrap(steps: list, progress: Progress | None) -> Iterable:
    return steps if progress is None else progress(steps)

"""Deterministic samplers: pure functions from noise to a latent, which know nothing of the network they call.

All share one signature. `eps_model(x_t, t)` predicts the noise in x_t [b c h w] at steps t (long [b]); `noise` is the
start x_T [b c h w]; `alphas_cumprod` [num_timesteps] is the noise schedule; `num_steps` counts the steps; `progress`
wraps the sequence of steps (tqdm, say). They return x_0 [b c h w] and raise InputError for a number of steps outside
1..num_timesteps. Coefficients are computed in float64.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mindvis.common import draws
from mindvis.common.errors import InputError

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
AVERAGED_ORDER, AVERAGED_EVEN_IN_T = 4, 0.25  # of `sample_unipc_averaged`; measured on the demo's model


class Level(NamedTuple):
    """A step t of the schedule: x_t = alpha x_0 + sigma eps, and log(alpha / sigma), in which the solvers integrate."""

    t: int
    alpha: float
    sigma: float
    half_logsnr: float


def noise_for(seed: int, stimulus: int, sample: int, shape: Sequence[int]) -> Tensor:
    """Starting noise float32 [1 *shape] of one sample of one stimulus: a function of these three numbers alone."""
    return draws.normal(torch.tensor([[seed, stimulus, sample]]), "x_T", shape)


def sample_ddim(
    eps_model: EpsModel, noise: Tensor, alphas_cumprod: Tensor, num_steps: int, progress: Progress | None = None
) -> Tensor:
    """DDIM without noise (eta = 0): Song et al. 2021 (arXiv 2010.02502), equation 12."""
    x = noise
    for t, alpha, alpha_prev in _even_steps(alphas_cumprod, num_steps, progress):
        x = _ddim_step(x, eps_model(x, _batch_of(t, x)), alpha, alpha_prev)
    return x


def sample_plms(
    eps_model: EpsModel, noise: Tensor, alphas_cumprod: Tensor, num_steps: int, progress: Progress | None = None
) -> Tensor:
    """Pseudo linear multistep sampler, one evaluation a step and one more: Liu et al. 2022 (arXiv 2202.09778).

    The first step is an improved Euler step, the following ones are Adams-Bashforth of order 2, 3 and then 4.
    """
    times = even_timesteps(len(alphas_cumprod), num_steps)[::-1]
    x = noise
    history: list[Tensor] = []
    for t, alpha, alpha_prev in _even_steps(alphas_cumprod, num_steps, progress):
        eps = eps_model(x, _batch_of(t, x))
        history = [eps, *history[:3]]
        if len(history) == 1:
            ahead = eps_model(_ddim_step(x, eps, alpha, alpha_prev), _batch_of(times[min(1, len(times) - 1)], x))
            slope = (eps + ahead) / 2
        else:
            slope = _combine(ADAMS_BASHFORTH[len(history) - 1], history)
        x = _ddim_step(x, slope, alpha, alpha_prev)
    return x


def sample_dpm_solver(
    eps_model: EpsModel, noise: Tensor, alphas_cumprod: Tensor, num_steps: int, progress: Progress | None = None
) -> Tensor:
    """DPM-Solver++ (2M), one evaluation a step: Lu et al. 2022 (arXiv 2211.01095), algorithm 2."""
    levels = _noise_levels(alphas_cumprod, num_steps)
    x, previous, previous_h = noise, None, math.nan
    for now, after in _wrap(list(zip(levels[:-1], levels[1:], strict=True)), progress):
        x0 = _predict_x0(eps_model, x, now)
        h = after.half_logsnr - now.half_logsnr
        estimate = x0
        if previous is not None:
            estimate = x0 + h / (2 * previous_h) * (x0 - previous)
        x = after.sigma / now.sigma * x - after.alpha * math.expm1(-h) * estimate
        previous, previous_h = x0, h
    return x


def sample_unipc(
    eps_model: EpsModel, noise: Tensor, alphas_cumprod: Tensor, num_steps: int, progress: Progress | None = None
) -> Tensor:
    """UniPC of order 3, one evaluation a step: Zhao et al. 2023 (arXiv 2302.04867), algorithms 5 and 6.

    A step predicts with the last three estimates of x_0; the estimate made at its end corrects it and serves the next
    step. The weights meet the order conditions exactly at every order, so the paper's B(h) cancels.
    """
    return _unipc(eps_model, noise, _noise_levels(alphas_cumprod, num_steps), UNIPC_ORDER, progress)


def sample_unipc_averaged(
    eps_model: EpsModel, noise: Tensor, alphas_cumprod: Tensor, num_steps: int, progress: Progress | None = None
) -> Tensor:
    """UniPC of order 4 on `averaged_timesteps`, for an `eps_model` that does not ripple from one step to the next.

    `averaged_embeddings` take the ripple out of a UNet, and what is left is smooth enough for the order.
    """
    levels = _noise_levels(alphas_cumprod, num_steps, AVERAGED_EVEN_IN_T)
    return _unipc(eps_model, noise, levels, AVERAGED_ORDER, progress)


SAMPLERS: dict[str, Callable] = {
    "plms": sample_plms,
    "ddim": sample_ddim,
    "dpm_solver": sample_dpm_solver,
    "unipc": sample_unipc,
    "unipc_averaged": sample_unipc_averaged,
}


def even_timesteps(num_timesteps: int, num_steps: int) -> list[int]:
    """Diffusion steps of PLMS and DDIM, ascending; one that the schedule does not have is dropped."""
    _check_num_steps(num_timesteps, num_steps)
    steps = (t + 1 for t in range(0, num_timesteps, num_timesteps // num_steps))
    return [t for t in steps if t < num_timesteps]


def solver_timesteps(alphas_cumprod: Tensor, num_steps: int, even_in_t: float = 0.0) -> list[int]:
    """The `num_steps` + 1 diffusion steps of DPM-Solver++ and UniPC, descending from the last one to 0.

    They are spaced evenly in log(alpha / sigma), as far as whole steps allow: Lu et al. 2022, section 5. With
    `even_in_t` (0 to 1) they are spaced evenly in a mixture of that and of t.
    """
    _check_num_steps(len(alphas_cumprod), num_steps)
    last = len(alphas_cumprod) - 1
    num_steps = min(num_steps, last)
    logsnr = _half_logsnr(alphas_cumprod)
    share_of_t = 1 - np.arange(last + 1) / last
    place = (1 - even_in_t) * logsnr + even_in_t * (logsnr[0] - logsnr[last]) * share_of_t
    wanted = np.interp(np.linspace(place[last], place[0], num_steps + 1), place[::-1], np.arange(last, -1, -1.0))
    times = [last]
    for index in range(1, num_steps + 1):
        step = max(round(wanted[index]), num_steps - index)  # leave a step of its own to each that follows
        times.append(min(step, times[-1] - 1))
    return times


def averaged_timesteps(alphas_cumprod: Tensor, num_steps: int) -> list[int]:
    """The diffusion steps of `sample_unipc_averaged`: a quarter of the way from even in log(alpha / sigma) to in t."""
    return solver_timesteps(alphas_cumprod, num_steps, AVERAGED_EVEN_IN_T)


def _even_steps(
    alphas_cumprod: Tensor, num_steps: int, progress: Progress | None
) -> Iterable[tuple[int, float, float]]:
    """(t, alphas_cumprod at t, alphas_cumprod at the step that follows) from the last step to the first."""
    times = even_timesteps(len(alphas_cumprod), num_steps)
    values = alphas_cumprod.double().tolist()
    before = [values[0], *(values[t] for t in times[:-1])]
    steps = [(t, values[t], alpha_prev) for t, alpha_prev in zip(times, before, strict=True)]
    return _wrap(steps[::-1], progress)


def _ddim_step(x: Tensor, eps: Tensor, alpha: float, alpha_prev: float) -> Tensor:
    x0 = (x - math.sqrt(1 - alpha) * eps) / math.sqrt(alpha)
    return math.sqrt(alpha_prev) * x0 + math.sqrt(1 - alpha_prev) * eps


def _unipc(eps_model: EpsModel, noise: Tensor, levels: list[Level], order: int, progress: Progress | None) -> Tensor:
    x, history = noise, [(levels[0], _predict_x0(eps_model, noise, levels[0]))]
    for index, after in enumerate(_wrap(levels[1:], progress), start=1):
        now, points = history[-1][0], history
        predicted = _exponential_step(x, now, after, points)
        if index < len(levels) - 1:
            points = [*history, (after, _predict_x0(eps_model, predicted, after))]
            predicted = _exponential_step(x, now, after, points)
            history = points[-order:]
        x = predicted
    return x


def _noise_levels(alphas_cumprod: Tensor, num_steps: int, even_in_t: float = 0.0) -> list[Level]:
    logsnr = _half_logsnr(alphas_cumprod)
    values = alphas_cumprod.double().tolist()
    times = solver_timesteps(alphas_cumprod, num_steps, even_in_t)
    return [Level(t, math.sqrt(values[t]), math.sqrt(1 - values[t]), float(logsnr[t])) for t in times]


def _half_logsnr(alphas_cumprod: Tensor) -> np.ndarray:
    values = alphas_cumprod.double().cpu().numpy()
    return 0.5 * np.log(values / (1 - values))


def _predict_x0(eps_model: EpsModel, x: Tensor, level: Level) -> Tensor:
    return (x - level.sigma * eps_model(x, _batch_of(level.t, x))) / level.alpha


def _exponential_step(x: Tensor, now: Level, after: Level, points: list[tuple[Level, Tensor]]) -> Tensor:
    """Integrate the diffusion ODE from `now` to `after`, x_0 being the polynomial in log(alpha / sigma) through points.

    x_after = sigma_after / sigma_now x_now + alpha_after sum_k w_k x0_k, where the weights w integrate the polynomials
    1, tau, tau^2 ... times h exp(h (tau - 1)) over tau in [0, 1] exactly.
    """
    h = after.half_logsnr - now.half_logsnr
    nodes = [(level.half_logsnr - now.half_logsnr) / h for level, _ in points]
    moments = [-math.expm1(-h)]
    for power in range(1, len(points)):
        moments.append(1 - power / h * moments[-1])
    weights = np.linalg.solve(np.vander(nodes, increasing=True).T, moments)
    return after.sigma / now.sigma * x + after.alpha * _combine(weights.tolist(), [x0 for _, x0 in points])


def _combine(weights: Sequence[float], values: Sequence[Tensor]) -> Tensor:
    terms = [weight * value for weight, value in zip(weights, values, strict=True)]
    return sum(terms[1:], start=terms[0])


def _batch_of(t: int, x: Tensor) -> Tensor:
    return torch.full((len(x),), t, dtype=torch.long, device=x.device)


def _check_num_steps(num_timesteps: int, num_steps: int) -> None:
    if not 1 <= num_steps <= num_timesteps:
        raise InputError(f"num_steps: found {num_steps}, needed 1 to {num_timesteps}, the steps of the noise schedule")


def _wrap(steps: list, progress: Progress | None) -> Iterable:
    return steps if progress is None else progress(steps)

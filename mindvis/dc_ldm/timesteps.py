"""Which diffusion steps a sampler takes, and the noise levels there; everything is computed in float64."""

import math
from typing import NamedTuple

import numpy as np
from torch import Tensor

from mindvis.common.errors import InputError

AVERAGED_EVEN_IN_T = 0.25  # of `averaged_timesteps`; measured on the demo's model
LEAST_SIGNAL = 2.0**-24  # of alphas_cumprod, where a logarithm is needed; that of the library diffusers


class Level(NamedTuple):
    """A step t of the schedule: x_t = alpha x_0 + sigma eps, and log(alpha / sigma), in which the solvers integrate."""

    t: int
    alpha: float
    sigma: float
    half_logsnr: float


def even_timesteps(num_timesteps: int, num_steps: int, *, trailing: bool = False) -> list[int]:
    """Diffusion steps of PLMS and DDIM, ascending; one that the schedule does not have is dropped.

    `trailing` counts from the last step down, so that it is among them: a schedule needs it in whose last step no
    signal is left (Lin et al. 2023, arXiv 2305.08891, section 3.3).
    """
    _check_num_steps(num_timesteps, num_steps)
    if trailing:
        return [round(num_timesteps * (index + 1) / num_steps) - 1 for index in range(num_steps)]
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


def euler_timesteps(alphas_cumprod: Tensor, num_steps: int) -> list[int]:
    """Diffusion steps, descending from the last one, whose shares of noise are nearest to even steps down to 0."""
    _check_num_steps(len(alphas_cumprod), num_steps)
    shares = noise_shares(alphas_cumprod)
    last = len(shares) - 1
    wanted = np.interp(shares[last] * np.arange(1, num_steps) / num_steps, shares, np.arange(last + 1.0))
    return sorted({last, *(int(t) for t in wanted.round())}, reverse=True)


def noise_shares(alphas_cumprod: Tensor) -> np.ndarray:
    """Share of the noise, sigma / (alpha + sigma), at each step: float64 [num_timesteps]."""
    values = alphas_cumprod.double().cpu().numpy()
    return np.sqrt(1 - values) / (np.sqrt(values) + np.sqrt(1 - values))


def averaged_timesteps(alphas_cumprod: Tensor, num_steps: int) -> list[int]:
    """The diffusion steps of `sample_unipc_averaged`: a quarter of the way from even in log(alpha / sigma) to in t."""
    return solver_timesteps(alphas_cumprod, num_steps, AVERAGED_EVEN_IN_T)


def noise_levels(
    alphas_cumprod: Tensor, num_steps: int, even_in_t: float = 0.0, start: int | None = None
) -> list[Level]:
    """The levels that DPM-Solver++ and UniPC step through, the noisiest first; with `start` from that step on."""
    logsnr = _half_logsnr(alphas_cumprod)
    values = alphas_cumprod.double().clamp(min=LEAST_SIGNAL).tolist()
    times = from_step(solver_timesteps(alphas_cumprod, num_steps, even_in_t), start)
    return [Level(t, math.sqrt(values[t]), math.sqrt(1 - values[t]), float(logsnr[t])) for t in times]


def starting_steps(sampler: str, alphas_cumprod: Tensor, num_steps: int) -> list[int]:
    """The diffusion steps that a sampler can start at, descending: all it takes; PLMS begins by looking one ahead."""
    if sampler in ("plms", "ddim"):
        times = descending_even_timesteps(alphas_cumprod, num_steps)
        return times[: max(1, len(times) - 1)] if sampler == "plms" else times
    if sampler == "euler":
        return euler_timesteps(alphas_cumprod, num_steps)
    even_in_t = AVERAGED_EVEN_IN_T if sampler == "unipc_averaged" else 0.0
    return solver_timesteps(alphas_cumprod, num_steps, even_in_t)[:-1]


def nearest_start(sampler: str, alphas_cumprod: Tensor, num_steps: int, strength: float) -> int:
    """The starting step that is nearest to `strength` (above 0, at most 1) times the number of diffusion steps."""
    wanted = strength * len(alphas_cumprod)
    return min(starting_steps(sampler, alphas_cumprod, num_steps), key=lambda t: abs(t - wanted))


def descending_even_timesteps(alphas_cumprod: Tensor, num_steps: int) -> list[int]:
    """Those of PLMS and DDIM, from the last; of a schedule that ends without signal the trailing ones."""
    trailing = float(alphas_cumprod[-1]) == 0
    return even_timesteps(len(alphas_cumprod), num_steps, trailing=trailing)[::-1]


def from_step(times: list[int], start: int | None) -> list[int]:
    """Those of descending steps that are left when sampling starts at one of them; None: all."""
    return times if start is None else times[times.index(start) :]


def _half_logsnr(alphas_cumprod: Tensor) -> np.ndarray:
    values = alphas_cumprod.double().clamp(min=LEAST_SIGNAL).cpu().numpy()
    return 0.5 * np.log(values / (1 - values))


def _check_num_steps(num_timesteps: int, num_steps: int) -> None:
    if not 1 <= num_steps <= num_timesteps:
        raise InputError(f"num_steps: found {num_steps}, needed 1 to {num_timesteps}, the steps of the noise schedule")

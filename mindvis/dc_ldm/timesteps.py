"""Which diffusion steps a sampler takes, the noise levels there (in float64), and averages of time embeddings."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mindvis.common.errors import InputError
from mindvis.dc_ldm.unet import UNet

AVERAGED_EVEN_IN_T = 0.25  # of `averaged_timesteps`; measured on the demo's model
LEAST_SIGNAL = 2.0**-24  # of alphas_cumprod, where a logarithm is needed; that of the library diffusers


class Level(NamedTuple):
    """A step t of the schedule: x_t = alpha x_0 + sigma eps, and log(alpha / sigma), in which the solvers integrate."""

    t: int
    alpha: float
    sigma: float
    half_logsnr: float

    @property
    def noise_share(self) -> float:
        return self.sigma / (self.alpha + self.sigma)


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


def averaged_embeddings(unet: UNet, times: Sequence[int], num_timesteps: int) -> Tensor:
    """Time embeddings [num_timesteps e], those at `times` (descending) averaged halfway to the neighbours of each.

    The sinusoidal embedding tells each diffusion step from the next, and what a UNet predicts ripples with it: the
    demo's by .002 at a period of twelve steps. A thousand evaluations average the ripple out. Thirty meet it at chance
    places, and no order of the solver mends that. The embeddings of all steps cost next to nothing, so the average is
    taken there. It is the value at t of a line fitted to the embeddings, as the steps may lie unevenly about t.
    """
    device = next(unet.parameters()).device
    embeddings = unet.embed_times(torch.arange(num_timesteps, device=device))
    table = embeddings.clone()
    for index, t in enumerate(times[:-1]):
        earlier = times[index + 1]
        later = times[index - 1] if index else 2 * t - earlier
        first, last = t - (t - earlier) // 2, min(t + (later - t) // 2, num_timesteps - 1)
        places = np.arange(first, last + 1) - t
        values = np.linalg.pinv(np.stack([np.ones(len(places)), places], axis=1))[0]  # weights that give that value
        weights = torch.tensor(values, device=device, dtype=torch.float32)
        # not a product of matrices, which autocast would make in bfloat16
        table[t] = (weights[:, None] * embeddings[first : last + 1].float()).sum(dim=0)
    return table


# The levels of the samplers: where each evaluates the network, the noisiest first or from `start` on, and the end.


def even_levels(alphas_cumprod: Tensor, num_steps: int, start: int | None) -> list[Level]:
    """Levels of PLMS and DDIM, which end at the first step; trailing ones if the schedule ends without signal."""
    trailing = float(alphas_cumprod[-1]) == 0
    times = even_timesteps(len(alphas_cumprod), num_steps, trailing=trailing)[::-1]
    return _levels(alphas_cumprod, [*_from_step(times, start), 0])


def solver_levels(alphas_cumprod: Tensor, num_steps: int, start: int | None, even_in_t: float = 0.0) -> list[Level]:
    """Levels of DPM-Solver++ and UniPC, which take logarithms: a little signal is always left."""
    times = _from_step(solver_timesteps(alphas_cumprod, num_steps, even_in_t), start)
    return _levels(alphas_cumprod.double().clamp(min=LEAST_SIGNAL), times)


def averaged_levels(alphas_cumprod: Tensor, num_steps: int, start: int | None) -> list[Level]:
    """Levels at `averaged_timesteps`."""
    return solver_levels(alphas_cumprod, num_steps, start, AVERAGED_EVEN_IN_T)


def euler_levels(alphas_cumprod: Tensor, num_steps: int, start: int | None) -> list[Level]:
    """Levels of Euler's method, which ends without noise."""
    times = _from_step(euler_timesteps(alphas_cumprod, num_steps), start)
    return [*_levels(alphas_cumprod, times), Level(0, 1.0, 0.0, math.inf)]


def _levels(alphas_cumprod: Tensor, times: list[int]) -> list[Level]:
    values, logsnr = alphas_cumprod.double().tolist(), _half_logsnr(alphas_cumprod)
    return [Level(t, math.sqrt(values[t]), math.sqrt(1 - values[t]), float(logsnr[t])) for t in times]


def _from_step(times: list[int], start: int | None) -> list[int]:
    """The steps from `start` on, of descending ones; None: all."""
    return times if start is None else times[times.index(start) :]


def _half_logsnr(alphas_cumprod: Tensor) -> np.ndarray:
    values = alphas_cumprod.double().clamp(min=LEAST_SIGNAL).cpu().numpy()
    return 0.5 * np.log(values / (1 - values))


def _check_num_steps(num_timesteps: int, num_steps: int) -> None:
    if not 1 <= num_steps <= num_timesteps:
        raise InputError(f"num_steps: found {num_steps}, needed 1 to {num_timesteps}, the steps of the noise schedule")

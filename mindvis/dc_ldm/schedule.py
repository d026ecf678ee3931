"""Noise schedule of the diffusion: a fixed variance per step, computed in float64 and kept in float32.

Source: Ho et al. 2020 (arXiv 2006.11239), equations 4, 6 and 7; the betas are spaced as by Rombach et al. 2022.
"""

import torch
from torch import Tensor, nn

from mindvis.common.errors import InputError

MIN_VARIANCE = 1e-20  # the posterior variance of step 0 is 0, which has no logarithm
BETA_SCHEDULES = ("linear", "sqrt_linear")  # evenly spaced in their square roots, or in themselves: published names
PARAMETERIZATIONS = ("eps", "v", "flow")  # what a UNet predicts


class NoiseSchedule(nn.Module):
    """Variances `betas` [num_timesteps] and what follows from them.

    `beta_schedule` spaces them evenly in their square roots ("linear", the published name) or in themselves
    ("sqrt_linear"). `zero_terminal_snr` rescales them so that nothing of the signal is left in the last step: Lin et
    al. 2023 (arXiv 2305.08891), algorithm 1. `flow` replaces them by straight lines from data to noise, in the
    coordinates of this schedule: with s = (t + 1) / num_timesteps, x_t is (1 - s) x_0 + s eps over sqrt((1-s)^2 + s^2).
    The buffers move with the module and stay out of its state_dict: they are computed again wherever it is built.
    """

    alphas_cumprod: Tensor
    sqrt_alphas_cumprod: Tensor
    sqrt_one_minus_alphas_cumprod: Tensor

    def __init__(
        self,
        *,
        linear_start: float = 0.0015,
        linear_end: float = 0.0195,
        num_timesteps: int = 1000,
        beta_schedule: str = "linear",
        zero_terminal_snr: bool = False,
        flow: bool = False,
    ):
        super().__init__()
        self.num_timesteps = num_timesteps
        self.flow = flow
        betas = _betas(beta_schedule, linear_start, linear_end, num_timesteps)
        if flow:
            s = torch.arange(1, num_timesteps + 1, dtype=torch.float64, device="cpu") / num_timesteps
            betas = _betas_of((1 - s) ** 2 / ((1 - s) ** 2 + s**2))
        elif zero_terminal_snr:  # shift and scale the roots so that the last one is 0 and the first one stays
            roots = torch.cumprod(1.0 - betas, dim=0).sqrt()
            betas = _betas_of(((roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])) ** 2)
        self.ends_in_noise = flow or zero_terminal_snr  # no signal is left in the last step
        self._names = []
        for name, values in schedule_arrays(betas).items():
            self.register_buffer(name, values.float(), persistent=False)
            self._names.append(name)

    def level_weights(self, low: float = 5.0, high: float = 300.0) -> Tensor:
        """Weights [num_timesteps], mean 1, under which all noise levels count about alike in the loss.

        The error that is left falls with the signal-to-noise ratio towards high t, so the plain mean hardly sees the
        steps that decide on the layout. Inverse ratio, bounded by `high`, plus `low`; compare Hang et al. 2023
        (arXiv 2303.09556), section 3.
        """
        alpha = self.alphas_cumprod.double()
        weights = ((1 - alpha) / alpha).clamp(max=high) + low
        return (weights / weights.mean()).float()

    def add_noise(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """Noised latent x_t [b c h w] of x0 and eps [b c h w] at steps t (long [b]); Ho et al., equation 4."""
        alpha, sigma = self.levels(t)
        return alpha * x0 + sigma * eps

    def target(self, x0: Tensor, eps: Tensor, t: Tensor, objective: str) -> Tensor:
        """What a network of this kind predicts from x_t, all [b c h w]: eps, v or the velocity eps - x0.

        v = alpha eps - sigma x0: Salimans & Ho 2022 (arXiv 2202.00512), appendix D. The velocity is that of the
        straight line from x0 to eps: Liu et al. 2023 (arXiv 2209.03003), equation 1.
        """
        if objective == "eps":
            return eps
        alpha, sigma = self.levels(t)
        return alpha * eps - sigma * x0 if objective == "v" else eps - x0

    def convert(self, output: Tensor, x_t: Tensor, t: Tensor, given: str, wanted: str) -> Tensor:
        """The prediction `wanted` that the prediction `given` from x_t [b c h w] amounts to: each "eps", "v" or "flow".

        Raises InputError where `given` is "eps" and a step has no signal left: nothing else follows from it there.
        """
        if given == wanted:
            return output
        alpha, sigma = self.levels(t)
        v = output
        if given == "eps":
            if self.ends_in_noise:
                found = "a prediction of the noise says nothing about a step without signal"
                raise InputError(f"{found}; needed: v or flow")
            v = (output - sigma * x_t) / alpha
        if given == "flow":
            v = (output - (sigma - alpha) * x_t) / (alpha + sigma)
        if wanted == "eps":
            return sigma * x_t + alpha * v
        return v if wanted == "v" else (sigma - alpha) * x_t + (alpha + sigma) * v

    def levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and sigma [b 1 1 1] at steps t (long [b]): x_t = alpha x0 + sigma eps."""
        shape = (-1, 1, 1, 1)
        return self.sqrt_alphas_cumprod[t].view(shape), self.sqrt_one_minus_alphas_cumprod[t].view(shape)

    def buffers_published(self) -> dict[str, Tensor]:
        """The schedule arrays, float32 [num_timesteps], under the names they have in published checkpoints."""
        return {name: getattr(self, name) for name in self._names}


def _betas(beta_schedule: str, start: float, end: float, num_timesteps: int) -> Tensor:
    if not (0 < start < 1 and 0 < end < 1):
        raise InputError(f"linear_start is {start:g}, linear_end {end:g}; needed: variances between 0 and 1")
    if beta_schedule == "linear":
        return torch.linspace(start**0.5, end**0.5, num_timesteps, dtype=torch.float64, device="cpu") ** 2
    if beta_schedule == "sqrt_linear":
        return torch.linspace(start, end, num_timesteps, dtype=torch.float64, device="cpu")
    raise InputError(f"beta_schedule: found {beta_schedule!r}, needed one of {', '.join(BETA_SCHEDULES)}")


def _betas_of(alphas_cumprod: Tensor) -> Tensor:
    """The variances whose complements have these products."""
    return 1.0 - alphas_cumprod / torch.cat([torch.ones_like(alphas_cumprod[:1]), alphas_cumprod[:-1]])


def schedule_arrays(betas: Tensor) -> dict[str, Tensor]:
    """Everything that follows from the variances (float64 [num_timesteps]), under the published names."""
    alphas_cumprod = torch.cumprod(1.0 - betas, dim=0)
    previous = torch.cat([torch.ones_like(betas[:1]), alphas_cumprod[:-1]])
    remaining = 1.0 - alphas_cumprod
    variance = betas * (1.0 - previous) / remaining  # of x_{t-1} given x_t and x_0
    return {
        "betas": betas,
        "alphas_cumprod": alphas_cumprod,
        "alphas_cumprod_prev": previous,
        "sqrt_alphas_cumprod": alphas_cumprod.sqrt(),
        "sqrt_one_minus_alphas_cumprod": remaining.sqrt(),
        "log_one_minus_alphas_cumprod": remaining.log(),
        "sqrt_recip_alphas_cumprod": alphas_cumprod.rsqrt(),
        "sqrt_recipm1_alphas_cumprod": (1.0 / alphas_cumprod - 1.0).sqrt(),
        "posterior_variance": variance,
        "posterior_log_variance_clipped": variance.clamp(min=MIN_VARIANCE).log(),
        "posterior_mean_coef1": betas * previous.sqrt() / remaining,
        "posterior_mean_coef2": (1.0 - previous) * (1.0 - betas).sqrt() / remaining,
    }

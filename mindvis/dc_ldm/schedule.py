"""Noise schedule of the diffusion: a fixed variance per step, computed in float64 and kept in float32.

Source: Ho et al. 2020 (arXiv 2006.11239), equations 4, 6 and 7; the betas are spaced as by Rombach et al. 2022.
"""

import torch
from torch import Tensor, nn

MIN_VARIANCE = 1e-20  # the posterior variance of step 0 is 0, which has no logarithm


class NoiseSchedule(nn.Module):
    """Variances `betas` [num_timesteps], evenly spaced in their square roots, and what follows from them.

    The buffers move with the module and stay out of its state_dict: they are computed again wherever it is built.
    """

    alphas_cumprod: Tensor
    sqrt_alphas_cumprod: Tensor
    sqrt_one_minus_alphas_cumprod: Tensor

    def __init__(self, *, linear_start: float = 0.0015, linear_end: float = 0.0195, num_timesteps: int = 1000):
        super().__init__()
        self.num_timesteps = num_timesteps
        roots = torch.linspace(linear_start**0.5, linear_end**0.5, num_timesteps, dtype=torch.float64, device="cpu")
        self._names = []
        for name, values in schedule_arrays(roots**2).items():
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
        signal = self.sqrt_alphas_cumprod[t][:, None, None, None]
        noise = self.sqrt_one_minus_alphas_cumprod[t][:, None, None, None]
        return signal * x0 + noise * eps

    def buffers_published(self) -> dict[str, Tensor]:
        """The schedule arrays, float32 [num_timesteps], under the names they have in published checkpoints."""
        return {name: getattr(self, name) for name in self._names}


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

"""Time embeddings averaged over the diffusion steps that one evaluation of the UNet stands for.

The sinusoidal embedding tells each diffusion step from the next, and what a UNet predicts ripples with it: the demo's
by .002 at a period of twelve steps. A thousand evaluations average the ripple out. Thirty meet it at chance places, and
no order of the solver mends that. The embeddings of all steps cost next to nothing, so the average is taken there.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mindvis.dc_ldm.unet import UNet


def averaged_embeddings(unet: UNet, times: Sequence[int], num_timesteps: int) -> Tensor:
    """Time embeddings [num_timesteps e], those at `times` (descending) averaged halfway to the neighbours of each.

    The average is the value at t of a line fitted to the embeddings, as the steps may lie unevenly about t.
    """
    device = next(unet.parameters()).device
    embeddings = unet.embed_times(torch.arange(num_timesteps, device=device))
    table = embeddings.clone()
    for index, t in enumerate(times[:-1]):
        earlier = times[index + 1]
        later = times[index - 1] if index else 2 * t - earlier
        first, last = t - (t - earlier) // 2, min(t + (later - t) // 2, num_timesteps - 1)
        values = _value_of_line(np.arange(first, last + 1) - t)
        weights = torch.tensor(values, device=device, dtype=torch.float32)
        # not a product of matrices, which autocast would make in bfloat16
        table[t] = (weights[:, None] * embeddings[first : last + 1].float()).sum(dim=0)
    return table


def _value_of_line(places: np.ndarray) -> np.ndarray:
    """Weights of values at integer `places` [n], 0 among them, that give the value at 0 of the line nearest to them."""
    return np.linalg.pinv(np.stack([np.ones(len(places)), places], axis=1))[0]

"""Losses on the context beside the diffusion loss: towards the class or the latent, and between repeats.

Not published. The diffusion loss reaches the conditioner through the UNet and its noise; these reach it directly.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ContextLosses(nn.Module):
    """Weighted sum of a regression and a consistency loss of contexts [b m c], each 1 where nothing is learned.

    Regression: squared error of the mean token, relative to the variance of the targets: the embedding of the class of
    each training row, `class_targets` [n c], or, without them, through a linear layer the latent of the picture [d].
    Consistency: how far the mean tokens of two rows of one stimulus are apart, relative to any two rows of the batch.
    """

    def __init__(
        self,
        *,
        regression: float = 0.0,
        consistency: float = 0.0,
        class_targets: Tensor | None = None,
        context_dim: int = 1,
        latent_dim: int = 1,
    ):
        super().__init__()
        self.regression, self.consistency = regression, consistency
        self.class_targets: Tensor | None
        self.register_buffer("class_targets", class_targets, persistent=False)
        to_latent = regression > 0 and class_targets is None
        self.head = nn.Linear(context_dim, latent_dim) if to_latent else None

    def forward(self, context: Tensor, other: Tensor | None, rows: Tensor, latent: Tensor) -> Tensor:
        """Loss (scalar) of contexts [b m c], those of other rows of the same stimuli, and row numbers [b]."""
        token = context.mean(dim=1)  # [b c]
        loss = token.new_zeros(())
        if self.head is not None:
            wanted = latent.flatten(1)
            loss = loss + self.regression * relative_error(self.head(token), wanted, wanted)
        elif self.regression and self.class_targets is not None:
            wanted = self.class_targets[rows.to(token.device)]
            loss = loss + self.regression * relative_error(token, wanted, self.class_targets)
        if self.consistency and other is not None:
            loss = loss + self.consistency * distance_of_repeats(token, other.mean(dim=1))
        return loss


def relative_error(found: Tensor, wanted: Tensor, population: Tensor) -> Tensor:
    """Mean squared error relative to the variance of a population [n d] about its mean."""
    return F.mse_loss(found, wanted.to(found.dtype)) / population.var(dim=0, unbiased=False).mean()


def distance_of_repeats(first: Tensor, second: Tensor) -> Tensor:
    """Squared distance of each pair of rows [b c], relative to that of any two rows: shrinking does not lower it."""
    both = torch.cat([first, second])
    return F.mse_loss(first, second) / (2 * both.var(dim=0, unbiased=False).mean())

"""The map from one subject's voxels into another's, trained further from where ridge regression left it.

Ridge regression brings rows near to those of the other subject. What decoding needs is that the row of a picture can be
told from those of other pictures: the map is trained to that, for as many steps as help with pictures left out.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mindvis.data.row_format import Adapter

TEMPERATURE = 0.1  # of the correlations of rows
RATE = 0.01  # of the mean size of a matrix, a step
HELD_OUT = 5  # every fifth picture says when to stop
STEPS = 2  # between two looks at these
PATIENCE = 25  # looks without a gain after which no more is hoped for

Fit = Callable[[np.ndarray, np.ndarray], Adapter]  # rows [n v], targets [n w] of the same pictures


def train_further(fit: Fit, rows: np.ndarray, targets: np.ndarray, num_steps: int) -> tuple[Adapter, int]:
    """The map that `fit` begins, after so many of `num_steps` gradient steps as suit pictures left out; that number.

    rows [n v] and targets [n w] are of the same n pictures. No draw is made: the same data gives the same map.
    """
    held = np.arange(len(rows)) % HELD_OUT == HELD_OUT - 1
    known, left_out = (rows[~held], targets[~held]), _tensors(rows[held], targets[held])
    losses: list[float] = []
    for adapter in _trained(fit(*known), *known, num_steps):
        mapped = _mapped(left_out[0], *_tensors(*vars(adapter).values()))
        losses.append(float(_contrast(mapped, left_out[1])))
        if len(losses) > int(np.argmin(losses)) + PATIENCE:
            break
    steps = STEPS * int(np.argmin(losses))
    *_, last = _trained(fit(rows, targets), rows, targets, steps)
    return last, steps


def _trained(adapter: Adapter, rows: np.ndarray, targets: np.ndarray, num_steps: int) -> Iterator[Adapter]:
    """The map at the beginning and after every `STEPS` steps of Adam on all pictures at once."""
    yield adapter
    given, wanted = _tensors(rows, targets)
    down, up, bias = (tensor.requires_grad_() for tensor in _tensors(*vars(adapter).values()))
    groups = [{"params": [one], "lr": RATE * float(one.detach().abs().mean())} for one in (down, up, bias)]
    optimizer = torch.optim.Adam(groups, lr=RATE)
    for step in range(1, num_steps - num_steps % STEPS + 1):
        mapped = _mapped(given, down, up, bias)
        loss = _contrast(mapped, wanted) + F.mse_loss(mapped, wanted) / wanted.var()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % STEPS == 0:
            yield Adapter(*(one.detach().numpy().copy() for one in (down, up, bias)))


def _mapped(rows: Tensor, down: Tensor, up: Tensor, bias: Tensor) -> Tensor:
    return rows @ down @ up + bias


def _contrast(mapped: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of finding the own picture of each row, and the own row of each picture, among all of them.

    InfoNCE (van den Oord et al. 2018, arXiv 1807.03748) on the correlations of rows.
    """
    correlations = _unit(mapped) @ _unit(targets).T  # [n n]
    own = torch.arange(len(mapped))
    logits = correlations / TEMPERATURE
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def _unit(rows: Tensor) -> Tensor:
    return F.normalize(rows - rows.mean(dim=1, keepdim=True), dim=1)


def _tensors(*arrays: np.ndarray) -> list[Tensor]:
    return [torch.from_numpy(np.array(array, np.float32)) for array in arrays]

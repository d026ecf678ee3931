"""The one training loop of the demo's models."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from mindvis.common.progress import Progress
from mindvis.training.optim import warmup_cosine


def minimise(
    loss_of: Callable[[int, Tensor], Tensor],
    parameters: Iterable[nn.Parameter],
    *,
    batches: Sequence[Tensor],
    lr: float,
    label: str,
    after_step: Callable[[int], None] | None = None,
) -> None:
    """AdamW with warm-up over a twentieth of the steps, cosine decay and clipping, one step a batch.

    `loss_of` takes the step and the sample indices [b] of its batch; `after_step` is called with the number of steps
    done, say for a moving average.
    """
    parameters = list(parameters)
    optimizer = torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.99), weight_decay=1e-3)
    progress = Progress(batches, desc=label, mininterval=1.0)
    for step, indices in enumerate(progress):
        for group in optimizer.param_groups:
            group["lr"] = _learning_rate(step, len(batches), lr)
        loss = loss_of(step, indices)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        progress.set_postfix_str(f"loss {loss.item():.4f}", refresh=False)
        if after_step is not None:
            after_step(step + 1)


def random_batches(num_items: int, *, batch_size: int, num_steps: int, seed: int) -> list[Tensor]:
    """Indices [b] of `num_steps` batches, from one random order of all items after another."""
    generator = torch.Generator().manual_seed(seed)
    num_orders = -(-num_steps * batch_size // num_items)
    orders = [torch.randperm(num_items, generator=generator) for _ in range(num_orders)]
    return list(torch.cat(orders)[: num_steps * batch_size].split(batch_size))


def _learning_rate(step: int, num_steps: int, lr: float) -> float:
    warmup = max(1.0, num_steps / 20)
    return warmup_cosine(step + 1, lr=lr, min_lr=0.01 * lr, warmup_epochs=warmup, num_epochs=num_steps + 1)

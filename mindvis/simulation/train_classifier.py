"""Training of the classifier that judges the demo's decoded pictures."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mindvis.data.images import to_float
from mindvis.evaluation.classifiers import DemoClassifier
from mindvis.simulation.minimise import minimise, random_batches

LABEL_SMOOTHING = 0.05  # keeps the probabilities of wrong classes apart, which n-way identification ranks by


def train_classifier(
    model: DemoClassifier,
    images: np.ndarray,
    decoded: np.ndarray,
    class_ids: Tensor,
    *,
    num_steps: int,
    batch_size: int,
    lr: float,
    seed: int,
) -> None:
    """Train in place on uint8 images [n h w 3] of classes [n] and on their reconstructions by the autoencoder.

    `decoded` are the reconstructions of the first images, uint8 [m h w 3], m <= n: half of every batch is drawn from
    them, so that what the autoencoder loses does not count as an error of decoding.
    """
    model.to(memory_format=torch.channels_last).train()
    generator = torch.Generator().manual_seed(seed)

    def loss_of(step: int, indices: Tensor) -> Tensor:
        half = len(indices) // 2
        copies = indices[:half] % len(decoded)
        chosen = torch.cat([copies, indices[half:]])
        image = to_float(np.concatenate([decoded[copies.numpy()], images[indices[half:].numpy()]]))  # [b 3 h w]
        image = degrade(image, generator).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(image)
        return F.cross_entropy(logits.float(), class_ids[chosen], label_smoothing=LABEL_SMOOTHING)

    batches = random_batches(len(images), batch_size=batch_size, num_steps=num_steps, seed=seed)
    minimise(loss_of, model.parameters(), batches=batches, lr=lr, label="classifier")
    model.eval()


def degrade(image: Tensor, generator: torch.Generator) -> Tensor:
    """Blur and noise, each with probability one half per image: [b 3 h w] -> [b 3 h w]."""
    chosen = torch.rand(2, len(image), 1, 1, 1, generator=generator) < 0.5
    coarse = F.interpolate(F.avg_pool2d(image, 2), scale_factor=2, mode="bilinear")
    image = torch.where(chosen[0], coarse, image)
    strength = 0.15 * torch.rand(len(image), 1, 1, 1, generator=generator)
    return image + chosen[1] * strength * torch.randn(image.shape, generator=generator)


@torch.no_grad()
def accuracy(model: DemoClassifier, images: Tensor, class_ids: Tensor, batch_size: int = 128) -> float:
    """Share of float images [n 3 h w] that are classified as what they are."""
    found = torch.cat([model(batch).argmax(dim=1) for batch in images.split(batch_size)])
    return float((found == class_ids).float().mean())

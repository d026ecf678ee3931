"""The one training loop of the demo's models, and the models that see pictures: autoencoder and classifier.

The autoencoder is the vector-quantised first stage of the demo's latent diffusion model. Latents start as a thumbnail
of the image and are then set free. The first part of the steps runs without the codebook; the codes then start at the
cluster centres of the latents and are learned together with the rest (van den Oord et al. 2017, arXiv 1711.00937,
section 3.2). Most steps see crops of half the side, at a quarter of the cost. The published recipe adds a perceptual
and an adversarial loss; flat drawings need neither.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from einops import rearrange
from scipy.cluster.vq import kmeans2
from torch import Tensor, nn
from torch.nn import functional as F

from mindvis.common.progress import Progress
from mindvis.data.images import to_float
from mindvis.dc_ldm.autoencoder import Autoencoder, VQAutoencoder
from mindvis.dc_ldm.layers import zero_init
from mindvis.evaluation.classifiers import DemoClassifier
from mindvis.training.optim import warmup_cosine

NUM_SURVEYED = 512  # images whose latents give the moments and the first codes
QUANTISED_FROM, WHOLE_FROM = 0.7, 0.9  # shares of the steps
THUMBNAIL_UNTIL = 0.1  # share of the steps over which the pull towards a thumbnail fades
THUMBNAIL_SCALE = 2.0  # brings a thumbnail in [-1, 1] to about unit variance
NUM_CLUSTERED = 20_000  # latent vectors that the first codes are the cluster centres of
LABEL_SMOOTHING = 0.05  # keeps the probabilities of wrong classes apart, which n-way identification ranks by


@dataclass(frozen=True)
class Fit:
    """Length of a training in steps, samples a step, peak learning rate, and the seed of its order."""

    num_steps: int
    batch_size: int
    lr: float
    seed: int


def minimise(
    loss_of: Callable[[int, Tensor], Tensor],
    parameters: Iterable[nn.Parameter],
    *,
    num_items: int,
    fit: Fit,
    label: str,
    after_step: Callable[[int], None] | None = None,
) -> None:
    """AdamW with warm-up over a twentieth of the steps, cosine decay and clipping, on random batches of `num_items`.

    `loss_of` takes the step and the sample indices [b] of its batch; `after_step` is called with the number of steps
    done, say for a moving average.
    """
    parameters = list(parameters)
    optimizer = torch.optim.AdamW(parameters, lr=fit.lr, betas=(0.9, 0.99), weight_decay=1e-3)
    progress = Progress(random_batches(num_items, fit), desc=label, mininterval=1.0)
    rates = {"lr": fit.lr, "min_lr": 0.01 * fit.lr, "warmup_epochs": max(1.0, fit.num_steps / 20)}
    for step, indices in enumerate(progress):
        lr = warmup_cosine(step + 1, **rates, num_epochs=fit.num_steps + 1)
        for group in optimizer.param_groups:
            group["lr"] = lr
        loss = loss_of(step, indices)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        progress.set_postfix_str(f"loss {loss.item():.4f}", refresh=False)
        if after_step is not None:
            after_step(step + 1)


def random_batches(num_items: int, fit: Fit) -> list[Tensor]:
    """Indices [b] of every batch of a training, from one random order of all items after another."""
    generator = torch.Generator().manual_seed(fit.seed)
    num_drawn = fit.num_steps * fit.batch_size
    orders = [torch.randperm(num_items, generator=generator) for _ in range(-(-num_drawn // num_items))]
    return list(torch.cat(orders)[:num_drawn].split(fit.batch_size))


def train_autoencoder(autoencoder: VQAutoencoder, images: np.ndarray, fit: Fit) -> None:
    """Train in place on uint8 images [n h w 3]; at the end latents have mean 0 and variance 1."""
    start_as_identity(autoencoder.train())
    survey = images[:NUM_SURVEYED]
    settled, whole = int(QUANTISED_FROM * fit.num_steps), int(WHOLE_FROM * fit.num_steps)
    generator = torch.Generator().manual_seed(fit.seed)

    def loss_of(step: int, indices: Tensor) -> Tensor:
        image = to_float(images[indices.numpy()])  # [b 3 h w]
        image = image if step >= whole else _random_crop(image, generator)
        pull = max(0.0, 1 - step / (THUMBNAIL_UNTIL * fit.num_steps))
        return reconstruction_loss(autoencoder, image, quantize=step >= settled, thumbnail_pull=pull)

    def after_step(step: int) -> None:
        if step == settled:
            normalise_latents(autoencoder, encode_all(autoencoder, survey), per_channel=True)
            start_codes(autoencoder, encode_all(autoencoder, survey), seed=fit.seed)

    parameters = autoencoder.parameters()
    minimise(loss_of, parameters, num_items=len(images), fit=fit, label="autoencoder", after_step=after_step)
    autoencoder.eval()
    normalise_latents(autoencoder, encode_all(autoencoder, survey))


def reconstruction_loss(
    autoencoder: VQAutoencoder, image: Tensor, *, quantize: bool, thumbnail_pull: float = 0.0
) -> Tensor:
    """Absolute plus squared error of the reconstruction of [b 3 h w], and the loss of the codes if quantised.

    `thumbnail_pull` weighs the squared distance of the latent from a thumbnail of the image.
    """
    with torch.autocast("cpu", torch.bfloat16):
        latent = autoencoder.encode(image).float()  # [b c h/4 w/4]
        passed, _, code_loss = autoencoder.quantize(latent) if quantize else (latent, None, 0.0)
        decoded = autoencoder.decode(passed, quantize=False).float()
    loss = F.l1_loss(decoded, image) + F.mse_loss(decoded, image) + code_loss
    if thumbnail_pull:
        thumbnail = F.adaptive_avg_pool2d(image, (latent.shape[-2], latent.shape[-1]))
        loss = loss + thumbnail_pull * F.mse_loss(latent, THUMBNAIL_SCALE * thumbnail)
    return loss


def start_as_identity(autoencoder: VQAutoencoder) -> None:
    """Set the last layer of every residual branch to 0, which speeds up the first steps."""
    for name, module in autoencoder.named_modules():
        if name.endswith((".conv2", ".proj_out")):
            zero_init(module)


def polish_decoder(autoencoder: VQAutoencoder, images: np.ndarray, fit: Fit) -> None:
    """Train the decoder alone in place, on whole uint8 images [n h w 3] behind the fixed encoder and codebook.

    Latents stay as they are, so this may come after, or run beside, the training of the diffusion model.
    """
    decoder = nn.ModuleList([autoencoder.post_quant_conv, autoencoder.decoder])

    def loss_of(step: int, indices: Tensor) -> Tensor:
        image = to_float(images[indices.numpy()])  # [b 3 h w]
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                codes = autoencoder.quantize(autoencoder.encode(image).float()).latent
            decoded = autoencoder.decode(codes, quantize=False).float()
        return F.l1_loss(decoded, image) + F.mse_loss(decoded, image)

    other_order = replace(fit, seed=fit.seed + 1)
    minimise(loss_of, decoder.parameters(), num_items=len(images), fit=other_order, label="decoder")


@torch.no_grad()
def encode_all(autoencoder: Autoencoder, images: np.ndarray, batch_size: int = 64) -> Tensor:
    """Latents [n c h/4 w/4] of uint8 images [n h w 3], in full precision."""
    batches = range(0, len(images), batch_size)
    return torch.cat([autoencoder.encode(to_float(images[start : start + batch_size])) for start in batches])


@torch.no_grad()
def normalise_latents(autoencoder: VQAutoencoder, latents: Tensor, *, per_channel: bool = False) -> None:
    """Fold mean and scale of the latents [n c h w] into the layers around them: what is decoded stays the same.

    The published diffusion does not rescale latents (scale factor 1), so they must come with unit variance. Once there
    is a codebook all channels need one scale: with one each, other codes would become the nearest.
    """
    mean, variance = latents.mean(dim=(0, 2, 3)), latents.var(dim=(0, 2, 3))  # [c]
    scale = (variance if per_channel else variance.mean().expand_as(variance)).sqrt()
    before, after, codes = autoencoder.quant_conv, autoencoder.post_quant_conv, autoencoder.quantize.embedding.weight
    assert before.bias is not None and after.bias is not None
    before.weight.div_(scale[:, None, None, None])
    before.bias.sub_(mean).div_(scale)
    codes.sub_(mean).div_(scale)
    after.bias.add_(after.weight[:, :, 0, 0] @ mean)
    after.weight.mul_(scale[None, :, None, None])


@torch.no_grad()
def start_codes(autoencoder: VQAutoencoder, latents: Tensor, *, seed: int) -> None:
    """Set the codes to k-means centres of the vectors in latents [n c h w], so that none starts unused."""
    vectors = rearrange(latents, "n c h w -> (n h w) c").numpy()
    chosen = np.random.default_rng(seed).choice(len(vectors), min(NUM_CLUSTERED, len(vectors)), replace=False)
    codes = autoencoder.quantize.embedding.weight
    centres, _ = kmeans2(vectors[chosen].astype(np.float64), len(codes), iter=15, minit="points", rng=seed)
    codes.copy_(torch.from_numpy(centres))


@torch.no_grad()
def reconstruct(autoencoder: Autoencoder, images: np.ndarray, batch_size: int = 64) -> Tensor:
    """Images through the autoencoder and its codebook: uint8 [n h w 3] -> float [n 3 h w]."""
    latents = encode_all(autoencoder, images, batch_size)
    return torch.cat([autoencoder.decode(latent) for latent in latents.split(batch_size)])


def peak_signal_to_noise(decoded: Tensor, images: np.ndarray) -> float:
    """Mean PSNR in decibels of float [n 3 h w] against uint8 [n h w 3], by the range of -1 to 1."""
    error = (decoded.clamp(-1, 1) - to_float(images)).square().mean(dim=(1, 2, 3))
    return float((10 * torch.log10(4 / error)).mean())


def train_classifier(
    model: DemoClassifier, images: np.ndarray, decoded: np.ndarray, class_ids: Tensor, fit: Fit
) -> None:
    """Train in place on uint8 images [n h w 3] of classes [n] and on their reconstructions by the autoencoder.

    `decoded` are the reconstructions of the first images, uint8 [m h w 3], m <= n: half of every batch is drawn from
    them, so that what the autoencoder loses does not count as an error of decoding.
    """
    model.to(memory_format=torch.channels_last).train()
    generator = torch.Generator().manual_seed(fit.seed)

    def loss_of(step: int, indices: Tensor) -> Tensor:
        half = len(indices) // 2
        copies = indices[:half] % len(decoded)
        chosen = torch.cat([copies, indices[half:]])
        image = to_float(np.concatenate([decoded[copies.numpy()], images[indices[half:].numpy()]]))  # [b 3 h w]
        image = degrade(image, generator).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(image)
        return F.cross_entropy(logits.float(), class_ids[chosen], label_smoothing=LABEL_SMOOTHING)

    minimise(loss_of, model.parameters(), num_items=len(images), fit=fit, label="classifier")
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


def _random_crop(image: Tensor, generator: torch.Generator) -> Tensor:
    """One place for the whole batch: [b 3 h w] -> [b 3 h/2 w/2]."""
    side = image.shape[-1] // 2
    top, left = torch.randint(side + 1, (2,), generator=generator).tolist()
    return image[..., top : top + side, left : left + side]

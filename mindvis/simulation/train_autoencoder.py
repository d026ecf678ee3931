"""Training of a small vector-quantised autoencoder, the first stage of the demo's latent diffusion model.

Latents start as a thumbnail of the image and are then set free. The first part of the steps runs without the codebook;
the codes then start at the cluster centres of the latents and are learned together with the rest (van den Oord et al.
2017, arXiv 1711.00937, section 3.2). Most steps see crops of half the side, at a quarter of the cost.
The published recipe adds a perceptual and an adversarial loss; flat drawings need neither.
"""

import numpy as np
import torch
from einops import rearrange
from scipy.cluster.vq import kmeans2
from torch import Tensor, nn
from torch.nn import functional as F

from mindvis.data.images import to_float
from mindvis.dc_ldm.autoencoder import VQAutoencoder
from mindvis.dc_ldm.layers import zero_init
from mindvis.simulation.minimise import minimise, random_batches

NUM_SURVEYED = 512  # images whose latents give the moments and the first codes
QUANTISED_FROM, WHOLE_FROM = 0.7, 0.9  # shares of the steps
THUMBNAIL_UNTIL = 0.1  # share of the steps over which the pull towards a thumbnail fades
THUMBNAIL_SCALE = 2.0  # brings a thumbnail in [-1, 1] to about unit variance
NUM_CLUSTERED = 20_000  # latent vectors that the first codes are the cluster centres of


def train_autoencoder(
    autoencoder: VQAutoencoder, images: np.ndarray, *, num_steps: int, batch_size: int, lr: float, seed: int
) -> None:
    """Train in place on uint8 images [n h w 3]; at the end latents have mean 0 and variance 1."""
    start_as_identity(autoencoder.train())
    survey = images[:NUM_SURVEYED]
    settled, whole = int(QUANTISED_FROM * num_steps), int(WHOLE_FROM * num_steps)
    generator = torch.Generator().manual_seed(seed)

    def loss_of(step: int, indices: Tensor) -> Tensor:
        image = to_float(images[indices.numpy()])  # [b 3 h w]
        image = image if step >= whole else _random_crop(image, generator)
        pull = max(0.0, 1 - step / (THUMBNAIL_UNTIL * num_steps))
        return reconstruction_loss(autoencoder, image, quantize=step >= settled, thumbnail_pull=pull)

    def after_step(step: int) -> None:
        if step == settled:
            normalise_latents(autoencoder, encode_all(autoencoder, survey), per_channel=True)
            start_codes(autoencoder, encode_all(autoencoder, survey), seed=seed)

    batches = random_batches(len(images), batch_size=batch_size, num_steps=num_steps, seed=seed)
    minimise(loss_of, autoencoder.parameters(), batches=batches, lr=lr, label="autoencoder", after_step=after_step)
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
        thumbnail = F.adaptive_avg_pool2d(image, latent.shape[-2:])
        loss = loss + thumbnail_pull * F.mse_loss(latent, THUMBNAIL_SCALE * thumbnail)
    return loss


def start_as_identity(autoencoder: VQAutoencoder) -> None:
    """Set the last layer of every residual branch to 0, which speeds up the first steps."""
    for name, module in autoencoder.named_modules():
        if name.endswith((".conv2", ".proj_out")):
            zero_init(module)


def polish_decoder(
    autoencoder: VQAutoencoder, images: np.ndarray, *, num_steps: int, batch_size: int, lr: float, seed: int
) -> None:
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

    batches = random_batches(len(images), batch_size=batch_size, num_steps=num_steps, seed=seed + 1)
    minimise(loss_of, decoder.parameters(), batches=batches, lr=lr, label="decoder")


@torch.no_grad()
def encode_all(autoencoder: VQAutoencoder, images: np.ndarray, batch_size: int = 64) -> Tensor:
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
def reconstruct(autoencoder: VQAutoencoder, images: np.ndarray, batch_size: int = 64) -> Tensor:
    """Images through the autoencoder and its codebook: uint8 [n h w 3] -> float [n 3 h w]."""
    latents = encode_all(autoencoder, images, batch_size)
    return torch.cat([autoencoder.decode(latent) for latent in latents.split(batch_size)])


def peak_signal_to_noise(decoded: Tensor, images: np.ndarray) -> float:
    """Mean PSNR in decibels of float [n 3 h w] against uint8 [n h w 3], by the range of -1 to 1."""
    error = (decoded.clamp(-1, 1) - to_float(images)).square().mean(dim=(1, 2, 3))
    return float((10 * torch.log10(4 / error)).mean())


def _random_crop(image: Tensor, generator: torch.Generator) -> Tensor:
    """One place for the whole batch: [b 3 h w] -> [b 3 h/2 w/2]."""
    side = image.shape[-1] // 2
    top, left = torch.randint(side + 1, (2,), generator=generator).tolist()
    return image[..., top : top + side, left : left + side]

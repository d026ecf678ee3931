"""Latents of whole images, encoded once and kept in a mapped file: Stage B need not encode them in every step."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from mindvis.common.draws import generator
from mindvis.common.files import write_atomic
from mindvis.common.progress import Progress
from mindvis.data.images import random_crop, to_float
from mindvis.dc_ldm.autoencoder import Autoencoder
from mindvis.training.runs import global_rank


def kept_latents(
    autoencoder: Autoencoder,
    images: np.ndarray,
    folder: Path,
    *,
    bfloat16: bool = False,
    batch_size: int = 16,
    device: torch.device | None = None,
) -> np.ndarray:
    """Latents float32 [m c h w] of uint8 images [m h w 3], mapped from `folder`; made there when they are not yet.

    They are made on `device`, by default where the autoencoder is. `bfloat16` encodes under autocast, as a training in
    bf16-mixed would in every step. The file is named by a hash of the images, of the autoencoder (weights, scale) and
    of this choice, so a changed one is never taken. Of several processes that find none, each encodes for itself and
    the first one alone writes: no two share a temporary file. When a signal ends the program, the batches encoded so
    far are kept in a file of their own and taken next time.
    """
    path = folder / f"latents-{_fingerprint(autoencoder, images)}{'-bf16' if bfloat16 else ''}.npy"
    if not path.is_file():
        begun = path.with_suffix(".part.npy")
        latents = _encode_all(autoencoder, images, batch_size, bfloat16, begun=begun, device=device)
        if global_rank() > 0:
            return latents
        write_atomic(path, lambda file: np.save(file, latents))
        path.with_suffix(".part.npy").unlink(missing_ok=True)
    return np.load(path, mmap_mode="r")


def kept_crops(
    autoencoder: Autoencoder,
    images: np.ndarray,
    folder: Path,
    *,
    crops_per_image: int,
    crop_ratio: float,
    seed: int,
    bfloat16: bool = False,
    device: torch.device | None = None,
) -> list[np.ndarray]:
    """Latents [m c h w] of `crops_per_image` crops of each image [m h w 3], kept as those of whole images are.

    With k of them training encodes nothing, but sees an image in these k crops alone; the published augmentation draws
    another crop whenever the image is shown.
    """
    banks = []
    for number in range(crops_per_image):
        keys = [(seed, number, index) for index in range(len(images))]
        crops = [random_crop(images[key[2]], crop_ratio, 1.0, generator(key, "kept crops")) for key in keys]
        banks.append(kept_latents(autoencoder, np.stack(crops), folder, bfloat16=bfloat16, device=device))
    return banks


def _encode_all(
    autoencoder: Autoencoder,
    images: np.ndarray,
    batch_size: int,
    bfloat16: bool,
    *,
    begun: Path,
    device: torch.device | None,
) -> np.ndarray:
    """All latents, from those in the file `begun` on if it is there; it is written when the program is told to stop."""
    latents = [np.load(begun)] if begun.is_file() else []
    begun.parent.mkdir(parents=True, exist_ok=True)
    try:
        for batch in encode_batches(autoencoder, images[sum(map(len, latents)) :], batch_size, bfloat16, device):
            latents.append(batch)
    except (SystemExit, KeyboardInterrupt):
        if latents and global_rank() == 0:
            write_atomic(begun, lambda file: np.save(file, np.concatenate(latents)))
        raise
    return np.concatenate(latents)


@torch.no_grad()
def encode_batches(
    autoencoder: Autoencoder, images: np.ndarray, batch_size: int, bfloat16: bool, device: torch.device | None = None
) -> Iterator[np.ndarray]:
    """Latents float32 [b c h w] of uint8 images [m h w 3], made on `device`; None: where the autoencoder is."""
    home = next(autoencoder.parameters()).device
    device = device or home
    autoencoder.to(device)
    try:
        for start in Progress(range(0, len(images), batch_size), desc="latents", unit="batch", leave=False):
            batch = to_float(np.asarray(images[start : start + batch_size]))
            with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
                latents = autoencoder.encode(batch.to(device))
            yield latents.float().cpu().numpy()
    finally:
        autoencoder.to(home)


def _fingerprint(autoencoder: Autoencoder, images: np.ndarray) -> str:
    digest = hashlib.sha256(f"{images.shape} {autoencoder.scale_factor}".encode())
    for start in range(0, len(images), 256):
        digest.update(np.ascontiguousarray(images[start : start + 256]).tobytes())
    for name, tensor in autoencoder.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]

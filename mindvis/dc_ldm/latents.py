"""Latents of whole images, encoded once and kept in a mapped file: Stage B need not encode them in every step."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from mindvis.common.draws import generator
from mindvis.common.errors import InputError
from mindvis.common.files import digest, sync
from mindvis.common.launched import global_rank
from mindvis.common.progress import Progress
from mindvis.data.images import LazyImages, random_crop, to_float
from mindvis.dc_ldm.autoencoder import Autoencoder


def kept_latents(
    autoencoder: Autoencoder,
    images: np.ndarray | LazyImages,
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
    the first one alone writes: no two share a temporary file. It writes batch by batch, so memory stays flat; what is
    there when the program ends early is taken next time. Of `LazyImages` the files are hashed by name, size and time
    of change, not by their content.
    """
    path = folder / f"latents-{_fingerprint(autoencoder, images)}{'-bf16' if bfloat16 else ''}.npy"
    if not path.is_file():
        begun = path.with_suffix(".part.npy")
        done = 0 if global_rank() > 0 else _rows_in(begun, len(images))
        batches = encode_batches(autoencoder, images, batch_size, bfloat16, device, start=done)
        if global_rank() > 0:
            return np.concatenate(list(batches))
        _append(begun, batches, len(images))
        begun.replace(path)
    return np.load(path, mmap_mode="r")


def kept_crops(
    autoencoder: Autoencoder,
    images: np.ndarray | LazyImages,
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
        crops = _Crops(images, crop_ratio, seed, number)
        shown = LazyImages(crops) if isinstance(images, LazyImages) else np.stack([crops[i] for i in range(len(crops))])
        banks.append(kept_latents(autoencoder, shown, folder, bfloat16=bfloat16, device=device))
    return banks


class _Crops:
    """A crop of each image, uint8 [m h w 3], made when it is indexed."""

    def __init__(self, images: np.ndarray | LazyImages, ratio: float, seed: int, number: int):
        self.images, self.ratio, self.key, self.shape = images, ratio, (seed, number), images.shape

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> np.ndarray:
        return random_crop(self.images[index], self.ratio, 1.0, generator((*self.key, index), "kept crops"))

    @property
    def identity(self) -> str:
        return f"{self.images.identity} {self.ratio} {self.key}"  # type: ignore[union-attr]


def _append(begun: Path, batches: Iterator[np.ndarray], num_images: int) -> None:
    """Write latents [b c h w] behind those that are in a file, which begins with the header of all of them."""
    begun.parent.mkdir(parents=True, exist_ok=True)
    try:
        with begun.open("ab") as file:
            for batch in batches:
                if not file.tell():
                    header = {"descr": "<f4", "fortran_order": False, "shape": (num_images, *batch.shape[1:])}
                    np.lib.format.write_array_header_1_0(file, header)
                file.write(np.ascontiguousarray(batch, "<f4").data)
        sync(begun)
    except OSError as error:
        raise InputError(f"{begun}: cannot be written ({error.strerror}); what is there is taken next time") from error


def _rows_in(begun: Path, num_images: int) -> int:
    """Number of whole latents in an unfinished file, which is cut to these; 0 for a file of another kind."""
    if not begun.is_file():
        return 0
    with begun.open("r+b") as file:
        try:
            np.lib.format.read_magic(file)
            shape, _, _ = np.lib.format.read_array_header_1_0(file)
        except ValueError:
            shape = (0,)
        begins, num_bytes = file.tell(), 4 * math.prod(shape[1:])
        done = (begun.stat().st_size - begins) // num_bytes if shape[0] == num_images else 0
        file.truncate(begins + done * num_bytes if done else 0)
    return done


@torch.no_grad()
def encode_batches(
    autoencoder: Autoencoder,
    images: np.ndarray | LazyImages,
    batch_size: int,
    bfloat16: bool,
    device: torch.device | None = None,
    *,
    start: int = 0,
) -> Iterator[np.ndarray]:
    """Latents float32 [b c h w] of uint8 images [m h w 3] from `start` on, made on `device`; None: where it is."""
    home = next(autoencoder.parameters()).device
    device = device or home
    autoencoder.to(device)
    try:
        for first in Progress(range(start, len(images), batch_size), desc="latents", unit="batch", leave=False):
            batch = to_float(np.asarray(images[first : first + batch_size]))
            with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
                latents = autoencoder.encode(batch.to(device))
            yield latents.float().cpu().numpy()
    finally:
        autoencoder.to(home)


def _fingerprint(autoencoder: Autoencoder, images: np.ndarray | LazyImages) -> str:
    content = images.identity if isinstance(images, LazyImages) else images
    weights = autoencoder.state_dict().items()
    state = [part for name, tensor in weights for part in (name, tensor.numpy(force=True))]
    return digest([f"{images.shape} {autoencoder.scale_factor}", content, *state])[:16]

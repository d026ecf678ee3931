"""Images: uint8 [h w 3] on disk, float32 [3 h w] in [-1, 1] inside; picture files, resizing, the crop of Stage B.

`LazyImages` stay where they are: read, squared and resized when they are indexed, so memory stays flat.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from mindvis.common.errors import InputError, unreadable
from mindvis.common.files import digest
from mindvis.data.reading import require_file
from mindvis.data.rows import LazyRows

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".gif", ".webp"})
MODES = frozenset({"RGB", "L", "1", "P", "RGBA", "LA", "CMYK", "YCbCr"})
MAX_PIXELS = 100_000_000

Size = int | Sequence[int]  # a side, or [height, width]


def is_picture(path: Path) -> bool:
    """Whether the name is that of a picture (hidden files of file managers are not)."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def read_picture(path: str | Path) -> Image.Image:
    """A picture file, decoded, upright as its EXIF orientation says, in the mode it was saved in.

    Raises InputError for a file that is missing, damaged, too large or of more than 8 bits a channel.
    """
    require_file(path)
    # its decoders fail in ways of their own, from SyntaxError to struct.error
    with unreadable(f"{path}: not a readable picture", (Exception,)), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(path) as picture:
            width, height = picture.size
            if width * height > MAX_PIXELS:
                raise InputError(f"{path}: {width} x {height} pixels; needs at most {MAX_PIXELS} in all")
            if picture.mode not in MODES:
                needed = "8 bits a channel (RGB, grey, palette, CMYK)"
                raise InputError(f"{path}: pixels of mode {picture.mode!r}; needs {needed}")
            picture.load()
            return ImageOps.exif_transpose(picture)


def read_square(path: str | Path, size: int) -> np.ndarray:
    """A picture file as RGB, its shorter side resized to `size`, cut at the centre: uint8 [size size 3].

    Grey, palette, transparent and CMYK pictures are converted. Raises InputError as `read_picture`.
    """
    check_side(size)
    picture = read_picture(path).convert("RGB")
    return np.asarray(ImageOps.fit(picture, (size, size), Image.Resampling.LANCZOS))


def check_side(size: int) -> None:
    """Raise InputError for a side that no picture can have."""
    if not 1 <= size <= MAX_PIXELS**0.5:
        raise InputError(f"size: {size}; needs the side of the pictures in pixels, e.g. 256")


def to_float(images: np.ndarray) -> Tensor:
    """uint8 [.. h w 3] -> float32 [.. 3 h w] in [-1, 1]. Raises InputError for any other kind of array."""
    if images.dtype != np.uint8 or images.ndim < 3 or images.shape[-1] != 3:
        raise InputError(f"images are {images.dtype} {list(images.shape)}, needs uint8 [.. h w 3]")
    channels_first = np.ascontiguousarray(np.moveaxis(images, -1, -3))  # [.. 3 h w]
    return torch.from_numpy(channels_first).float().div_(127.5).sub_(1)


def to_uint8(images: Tensor | np.ndarray) -> np.ndarray:
    """float [.. 3 h w] in [-1, 1] (values beyond are clipped) -> uint8 [.. h w 3]; undoes `to_float` exactly."""
    images = torch.as_tensor(images).detach().float().cpu()
    if images.ndim < 3 or images.shape[-3] != 3:
        raise InputError(f"images have shape {list(images.shape)}, needs [.. 3 h w]")
    return ((images + 1) * 127.5).round().clamp(0, 255).byte().movedim(-3, -1).contiguous().numpy()


def resize(image: np.ndarray, size: Size) -> np.ndarray:
    """Bring an image uint8 [h w 3] to a side, or to a height and width, bicubic with anti-aliasing."""
    height, width = height_and_width(size)
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


def center_crop(image: np.ndarray, aspect: float = 1.0) -> np.ndarray:
    """The largest centred square of an image [h w 3], or the largest part whose width is `aspect` times its height."""
    height, width = image.shape[:2]
    rows, columns = max(1, min(height, round(width / aspect))), max(1, min(width, round(height * aspect)))
    top, left = (height - rows) // 2, (width - columns) // 2
    return image[top : top + rows, left : left + columns]


def resize_all(images: np.ndarray, size: Size) -> np.ndarray:
    """Crop and resize every image of uint8 [n h w 3] to a side, or to a height and width; as they are if they fit."""
    height, width = height_and_width(size)
    if images.shape[1:3] == (height, width):
        return images
    return np.stack([crop_and_resize(image, size) for image in images])


def crop_and_resize(image: np.ndarray, size: Size) -> np.ndarray:
    """Crop an image uint8 [h w 3] around its centre to the shape of a side, or of a height and width, and resize it."""
    height, width = height_and_width(size)
    return resize(center_crop(image, width / height), size)


def height_and_width(size: Size) -> tuple[int, int]:
    """Of a side, or of [height, width]."""
    height, width = (size, size) if isinstance(size, int) else size
    return height, width


def is_cropped(ratio: float, probability: float, rng: np.random.Generator) -> bool:
    """Whether `random_crop` crops with a generator in the same state, known without reading the image."""
    return ratio > 0 and rng.random(3)[0] < probability


def random_crop(image: np.ndarray, ratio: float, probability: float, rng: np.random.Generator) -> np.ndarray:
    """With `probability`, a crop of `1 - ratio` of each side at a random place, resized back to [h w 3].

    The augmentation of Stage B (paper: ratio .2 of the side, every other time). Bilinear, as published.
    """
    chance, vertical, horizontal = rng.random(3)
    if ratio <= 0 or chance >= probability:
        return image
    height, width = image.shape[:2]
    crop_height, crop_width = (max(1, round(side * (1 - ratio))) for side in (height, width))
    top = int(vertical * (height - crop_height + 1))
    left = int(horizontal * (width - crop_width + 1))
    box = (left, top, left + crop_width, top + crop_height)
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR, box=box))


class PictureFiles:
    """Picture files of any size, as RGB; each is opened when it is indexed. Raises InputError for a damaged one."""

    def __init__(self, paths: Sequence[Path]):
        self.paths = [str(path) for path in paths]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray:
        return np.asarray(read_picture(self.paths[index]).convert("RGB"))


class LazyImages(LazyRows):
    """Pictures uint8 [m h w 3] that stay where they are until they are indexed.

    `source[i]` is one picture uint8 [h w 3]; `index` [m] names those of the source that are taken (all unless given).
    `size` crops and resizes them as `resize_all` does, and must be given where they differ in size.
    """

    dtype, ndim = np.dtype(np.uint8), 4

    def __init__(self, source: Any, index: np.ndarray | None = None, size: Size | None = None):
        self.source, self.size = source, size
        self.index = np.arange(len(source)) if index is None else np.asarray(index, np.int64)

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        side = self.source.shape[1:3] if self.size is None else height_and_width(self.size)
        return len(self.index), *side, 3

    @property
    def identity(self) -> str:
        """A text that changes when the pictures may have changed, without reading them."""
        own = getattr(self.source, "identity", None)
        if own is not None:
            return f"{own} {self.shape} {digest([self.index])}"
        files = getattr(self.source, "paths", None) or [self.source.path]
        parts = [f"{self.shape} {getattr(self.source, 'offset', 0)}"]
        for path in [files[i] for i in self.index] if len(files) > 1 else files:
            status = Path(path).stat()
            parts.append(f"{Path(path).name} {status.st_size} {status.st_mtime_ns} ")
        return digest([*parts, self.index])

    def __len__(self) -> int:
        return len(self.index)

    def _read(self, index: int) -> np.ndarray:
        picture = self.source[int(self.index[index])]
        return picture if self.size is None else crop_and_resize(picture, self.size)

    def resized(self, size: Size) -> "LazyImages":
        """The same pictures at another size."""
        same = self.size is None and self.shape[1:3] == height_and_width(size)
        return self if same else LazyImages(self.source, self.index, size)


def chosen_images(images: np.ndarray | LazyImages, index: Sequence[int] | np.ndarray) -> np.ndarray | LazyImages:
    """Some pictures of an array, in memory, or of lazy ones, still not read."""
    if isinstance(images, LazyImages):
        return LazyImages(images.source, images.index[np.asarray(index)], images.size)
    return images[np.asarray(index)]

"""Stimulus pictures of any size to square RGB arrays."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from mindvis.common.errors import InputError
from mindvis.prepare.files import one_line

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".gif", ".webp"})
MODES = frozenset({"RGB", "L", "1", "P", "RGBA", "LA", "CMYK", "YCbCr"})
MAX_PIXELS = 100_000_000


def is_picture(path: Path) -> bool:
    """Whether the name is that of a picture (hidden files of file managers are not)."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def read_square(path: Path, size: int) -> np.ndarray:
    """RGB picture, its shorter side resized to `size`, cut at the centre: uint8 [size size 3].

    Grey, palette, transparent and CMYK pictures are converted. Raises InputError for a file that is damaged, too large
    or of more than 8 bits a channel.
    """
    check_side(size)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as picture:
                _check(path, picture)
                return np.asarray(ImageOps.fit(picture.convert("RGB"), (size, size), Image.Resampling.LANCZOS))
    except InputError:
        raise
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: not a readable picture ({one_line(error)})") from None


def check_side(size: int) -> None:
    """Raise InputError for a side that no picture can have."""
    if size < 1:
        raise InputError(f"size: {size}; needs the side of the pictures in pixels, e.g. 256")


def _check(path: Path, picture: Image.Image) -> None:
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise InputError(f"{path}: {width} x {height} pixels; needs at most {MAX_PIXELS} in all")
    if picture.mode not in MODES:
        raise InputError(f"{path}: pixels of mode {picture.mode!r}; needs 8 bits a channel (RGB, grey, palette, CMYK)")

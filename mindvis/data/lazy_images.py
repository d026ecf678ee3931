"""Pictures that stay where they are: read, squared and resized when they are indexed, so memory stays flat."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mindvis.data.images import Size, fit, height_and_width, read_picture


class ImageRows(Protocol):
    """What pictures are read from: uint8 [h w 3] by index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> np.ndarray: ...


class PictureFiles:
    """Picture files of any size, as RGB; each is opened when it is indexed. Raises InputError for a damaged one."""

    def __init__(self, paths: Sequence[Path]):
        self.paths = [str(path) for path in paths]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray:
        return np.asarray(read_picture(self.paths[index]).convert("RGB"))


class LazyImages:
    """uint8 [m h w 3], of which nothing is in memory: an index, a slice or an array of indices reads what it names.

    `index` [m] names pictures of `source` (all unless given); `size` crops and resizes them, as
    `images.resize_all` does, and must be given where the pictures of the source differ in size.
    """

    dtype, ndim = np.dtype(np.uint8), 4

    def __init__(self, source: ImageRows, index: np.ndarray | None = None, size: Size | None = None):
        self.source, self.size = source, size
        self.index = np.arange(len(source)) if index is None else np.asarray(index, np.int64)

    @property
    def shape(self) -> tuple[int, ...]:
        side = self.source.shape[1:3] if self.size is None else height_and_width(self.size)  # type: ignore[attr-defined]
        return len(self.index), *side, 3

    @property
    def identity(self) -> str:
        """A text that changes when the pictures may have changed, without reading them."""
        own = getattr(self.source, "identity", None)
        if own is not None:
            return f"{own} {self.shape} {hashlib.sha256(self.index.tobytes()).hexdigest()}"
        files = getattr(self.source, "paths", None) or [self.source.path]  # type: ignore[attr-defined]
        digest = hashlib.sha256(f"{self.shape} {getattr(self.source, 'offset', 0)}".encode())
        for path in [files[i] for i in self.index] if len(files) > 1 else files:
            status = Path(path).stat()
            digest.update(f"{Path(path).name} {status.st_size} {status.st_mtime_ns} ".encode())
        digest.update(self.index.tobytes())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: Any) -> np.ndarray:
        """One picture [h w 3], or those of a slice or an array [k h w 3]."""
        if isinstance(index, (int, np.integer)):
            picture = self.source[int(self.index[index])]
            return picture if self.size is None else fit(picture, self.size)
        chosen = np.arange(len(self))[index]
        return np.stack([self[i] for i in chosen]) if len(chosen) else np.empty((0, *self.shape[1:]), np.uint8)

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or np.uint8, copy=False)

    def resized(self, size: Size) -> "LazyImages":
        """The same pictures at another size."""
        same = self.size is None and self.shape[1:3] == height_and_width(size)
        return self if same else LazyImages(self.source, self.index, size)


def chosen_images(images: np.ndarray | LazyImages, index: Sequence[int] | np.ndarray) -> np.ndarray | LazyImages:
    """Some pictures of an array, in memory, or of lazy ones, still not read."""
    if isinstance(images, LazyImages):
        return LazyImages(images.source, images.index[np.asarray(index)], images.size)
    return images[np.asarray(index)]

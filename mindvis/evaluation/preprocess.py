"""From decoded pictures to what a network expects."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms.functional import center_crop, normalize

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocess:
    """Resize the shorter side to `resize`, cut out the central square of `size`, normalise, as in training."""

    size: int
    resize: int
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: str = "bicubic"

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 [b h w 3] -> float32 [b 3 size size]."""
        pictures = resize_shorter(images.permute(0, 3, 1, 2).float() / 255, self.resize, self.interpolation)
        return normalize(center_crop(pictures, [self.size, self.size]), self.mean, self.std)


def resize_shorter(pictures: Tensor, side: int, interpolation: str = "bicubic") -> Tensor:
    """Resize so that the shorter side has `side` pixels, anti-aliased: float [b c h w] in [0, 1] -> the same range."""
    height, width = pictures.shape[-2:]
    scale = side / min(height, width)
    size = [max(side, int(height * scale)), max(side, int(width * scale))]
    if size == [height, width]:
        return pictures
    # bicubic overshoots at edges; 8-bit resizing, which the networks were trained with, cuts it off
    return interpolate(pictures, size, mode=interpolation, antialias=True, align_corners=False).clamp(0, 1)

"""Similarities and distances of decoded and true pictures, mostly between all of them, vectorised over pairs.

`mse`: mean squared difference of the 0..255 values. `pcc`: Pearson correlation of all values; 0 where a picture is
flat, since it has none. `ssim` (Wang et al. 2004): scikit-image's defaults, a 7 x 7 uniform window, sample covariance,
mean over channels, borders left out. `lpips` (Zhang et al. 2018): AlexNet, lower is closer.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate
from torchvision.models import AlexNet, alexnet

from mindvis.common.errors import InputError
from mindvis.evaluation.networks import find_weights, load_into, read_tensors
from mindvis.evaluation.pictures import Array, as_images, check_same_size

MIN_LPIPS_SIDE = 31  # pixels: of less, nothing is left for the last layers of AlexNet
LARGER_IS_CLOSER = {"mse": False, "pcc": True, "ssim": True, "lpips": False}
BLOCK = 64  # pictures a side in memory as float64: 100 MB at 256 x 256

WINDOW = 7
PIXELS = WINDOW**2
C1 = (0.01 * 255) ** 2 * PIXELS**2
C2 = (0.03 * 255) ** 2 * PIXELS * (PIXELS - 1)

ALEXNET_FILE = "alexnet-owt-7be5be79.pth"
TAPS = (1, 4, 7, 9, 11)  # the five ReLUs of AlexNet's features
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)

GREY = (0.2125, 0.7154, 0.0721)  # luminance of linear sRGB primaries, as in scikit-image
NSD_SIDE = 425  # the side at which the Natural Scenes Dataset showed its pictures


def similarity_matrix(
    predictions: Array,
    targets: Array,
    metric: str = "ssim",
    *,
    device: str | torch.device = "cpu",
    lpips_weights: str | Path | None = None,
) -> np.ndarray:
    """Similarity (pcc, ssim) or distance (mse, lpips) of every pair: uint8 [n h w 3], [m h w 3] -> float64 [n m].

    Raises InputError for an unknown metric, arrays of another kind or size, and where the weights of lpips are absent.
    """
    if metric not in LARGER_IS_CLOSER:
        raise InputError(f"metric: found {metric!r}, need one of {', '.join(LARGER_IS_CLOSER)}")
    predictions, targets = as_images(predictions, "predictions"), as_images(targets, "targets")
    check_same_size(predictions, targets)
    device = torch.device(device)
    if metric == "ssim":
        matrix = ssim_matrix(predictions, targets, device)
    elif metric == "lpips":
        matrix = _lpips_matrix(predictions, targets, lpips_weights, device)
    else:
        matrix = _by_blocks(predictions, targets, {"mse": _mse, "pcc": _pcc}[metric], device)
    return matrix.numpy()


def _by_blocks(
    predictions: Tensor, targets: Tensor, compare: Callable[[Tensor, Tensor], Tensor], device: torch.device
) -> Tensor:
    """Apply compare([n d], [m d]) -> [n m], float64, to blocks of flattened pictures."""
    rows = []
    for some in predictions.flatten(1).split(BLOCK):
        some = some.to(device, torch.float64)
        parts = [compare(some, part.to(device, torch.float64)).cpu() for part in targets.flatten(1).split(BLOCK)]
        rows.append(torch.cat(parts, dim=1))
    return torch.cat(rows)


def _mse(x: Tensor, y: Tensor) -> Tensor:
    """Exact for uint8 values: every sum is an integer below 2^53."""
    return squared_distances(x, y) / x.shape[1]


def _pcc(x: Tensor, y: Tensor) -> Tensor:
    """Pearson correlation from sums, all multiplied by d so that they stay integers."""
    d = x.shape[1]
    covariance = d * (x @ y.T) - x.sum(1)[:, None] * y.sum(1)
    variance_x, variance_y = [d * z.square().sum(1) - z.sum(1).square() for z in (x, y)]
    scale = (variance_x[:, None] * variance_y).sqrt()
    return torch.where(scale > 0, covariance / scale, 0.0)


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Squared Euclidean distances: [n d], [m d] -> [n m]."""
    distances = x.square().sum(1)[:, None] + y.square().sum(1) - 2 * (x @ y.T)
    return distances.clamp(min=0)


@torch.no_grad()
def _lpips_matrix(predictions: Tensor, targets: Tensor, weights: str | Path | None, device: torch.device) -> Tensor:
    network = load_lpips(weights).to(device)
    height, width = predictions.shape[1:3]
    if min(height, width) < MIN_LPIPS_SIDE:
        raise InputError(f"lpips: pictures of {height} x {width} pixels; needed: {MIN_LPIPS_SIDE} a side or more")
    embedded = [(images, [network(part.to(device)) for part in images.split(16)]) for images in (predictions, targets)]
    (_, rows), (_, columns) = embedded
    return torch.cat([torch.cat([squared_distances(x, y) for y in columns], 1) for x in rows]).cpu().double()


def between_sample_ssim(decoded: Array, device: str | torch.device = "cpu") -> np.ndarray:
    """Mean SSIM of the pairs of samples of each stimulus: uint8 [n k h w 3], k >= 2, -> float64 [n]."""
    matrices = [similarity_matrix(samples, samples, "ssim", device=device) for samples in decoded]
    return np.array([mean_of_pairs(matrix) for matrix in matrices])


def mean_of_pairs(matrix: np.ndarray) -> float:
    """Mean over the pairs of different items of a symmetric matrix [k k]."""
    return float(matrix[np.triu_indices(len(matrix), 1)].mean())


def pixel_correlation(decoded: Array, true: Array) -> np.ndarray:
    """Pearson correlation of each pair of pictures at 425 pixels: uint8 [n h w 3] twice -> float64 [n]."""
    x, y = [_at_nsd_size(images).flatten(1) for images in (decoded, true)]
    x, y = [nn.functional.normalize(z - z.mean(dim=1, keepdim=True)) for z in (x, y)]
    return (x * y).sum(dim=1).numpy()


def grey_ssim(decoded: Array, true: Array) -> np.ndarray:
    """SSIM of each pair in grey at 425 pixels: Gaussian window of deviation 1.5, uint8 [n h w 3] twice -> [n].

    By hand, because torchmetrics counts the borders that the measure leaves out, and takes five times as long.
    """
    weights = torch.tensor(GREY, dtype=torch.float64)[:, None, None]
    x, y = [(_at_nsd_size(images) * weights).sum(dim=1, keepdim=True) for images in (decoded, true)]
    mean_x, mean_y = _blur(x), _blur(y)
    variance_x, variance_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    above = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    below = (mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2)
    return (above / below).mean(dim=(1, 2, 3)).numpy()


def _at_nsd_size(images: Array) -> Tensor:
    """uint8 [n h w 3] -> float64 [n 3 425 425] in [0, 1]."""
    pictures = as_images(images, "images").permute(0, 3, 1, 2).double() / 255
    return interpolate(pictures, (NSD_SIDE, NSD_SIDE), mode="bilinear", antialias=True, align_corners=False)


def _blur(pictures: Tensor) -> Tensor:
    """Gaussian of deviation 1.5 cut at 3.5 deviations, where it lies inside: [n 1 h w] -> [n 1 h-10 w-10]."""
    offsets = torch.arange(-5, 6, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (offsets / 1.5) ** 2)
    kernel /= kernel.sum()
    return conv2d(conv2d(pictures, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))


# SSIM of many pairs. All window sums of uint8 pictures are integers below 2^31, so they are exact in int32; float32
# enters only at the last ratio, whose error (below 1e-6 at any pixel) averages out. What concerns one picture is
# computed once, not once a pair.
# With W = 49 pixels a window, S its sums and D = W * S_xy - S_x * S_y (W * (W - 1) times the sample covariance):
# ssim = 4 (S_x S_y + c1 / 2) (D + c2 / 2) / ((S_x^2 + S_y^2 + c1) (V_x + V_y + c2)), constants scaled to match.


@dataclass
class WindowStatistics:
    """What SSIM needs of each picture: flattened pixels, window sums, their squares, scaled variances: each [m l]."""

    pixels: Tensor
    sums: Tensor
    squares: Tensor
    variances: Tensor

    @classmethod
    def of(cls, images: Tensor, device: torch.device) -> "WindowStatistics":
        """Statistics of uint8 [m h w 3]."""
        width = images.shape[2]
        pixels = images.to(device).permute(0, 3, 1, 2).reshape(len(images), -1).int()  # [m 3hw]
        sums = _window_sums(pixels, width, [torch.empty_like(pixels) for _ in range(3)]).clone()
        of_squares = _window_sums(pixels**2, width, [torch.empty_like(pixels) for _ in range(3)])
        return cls(pixels, sums, (sums**2).float(), (PIXELS * of_squares - sums**2).float())


class PairwiseSSIM:
    """SSIM of one picture with `chunk` others at a time, in buffers that are allocated once and stay in the cache."""

    def __init__(self, height: int, width: int, chunk: int, device: torch.device):
        if min(height, width) < WINDOW:
            raise InputError(f"ssim: found pictures of {height} x {width}, need at least {WINDOW} x {WINDOW} pixels")
        self.shape, self.length = (height, width), 3 * height * width - (WINDOW - 1) * (width + 1)
        self.integers = [torch.empty(chunk, 3 * height * width, dtype=torch.int32, device=device) for _ in range(4)]
        self.floats = [torch.zeros(chunk, 3 * height * width, device=device) for _ in range(3)]

    def __call__(self, one: WindowStatistics, many: WindowStatistics) -> Tensor:
        """Sets of 1 and of m <= chunk pictures -> float64 [m]."""
        m, (height, width) = len(many.pixels), self.shape
        products, *others = [buffer[:m] for buffer in self.integers]
        ratio, left, right = [buffer[:m, : self.length] for buffer in self.floats]
        torch.mul(one.pixels, many.pixels, out=products)
        covariance = _window_sums(products, width, others)
        of_sums = torch.mul(one.sums, many.sums, out=products[:, : self.length])
        covariance.mul_(PIXELS).sub_(of_sums)
        torch.add(of_sums, C1 / 2, out=ratio)
        ratio.mul_(torch.add(covariance, C2 / 2, out=left))
        torch.add(one.squares, many.squares, out=left).add_(C1)
        torch.add(one.variances, many.variances, out=right).add_(C2)
        ratio.div_(left.mul_(right))
        valid = self.floats[0][:m].view(m, 3, height, width)[:, :, : 1 - WINDOW, : 1 - WINDOW]
        return 4 * valid.mean(dim=(1, 2, 3)).double()


def ssim_matrix(predictions: Tensor, targets: Tensor, device: torch.device) -> Tensor:
    """SSIM of every pair: uint8 [n h w 3], [m h w 3] -> float64 [n m]. Raises InputError below 7 x 7 pixels."""
    # one pair at a time keeps the buffers in a CPU's cache; a GPU wants many
    chunk = 1 if device.type == "cpu" else 32
    height, width = predictions.shape[1:3]
    compare = PairwiseSSIM(height, width, chunk, device)
    matrix = torch.empty(len(predictions), len(targets), dtype=torch.float64)
    for start in range(0, len(targets), 128):
        blocks = [WindowStatistics.of(part, device) for part in targets[start : start + 128].split(chunk)]
        for i, prediction in enumerate(predictions):
            one = WindowStatistics.of(prediction[None], device)
            matrix[i, start : start + 128] = torch.cat([compare(one, block) for block in blocks]).cpu()
    return matrix


def _window_sums(values: Tensor, width: int, buffers: list[Tensor]) -> Tensor:
    """Sums over windows whose top left pixel is at each place of flattened pictures: int32 [m l] -> [m l'].

    Windows that would leave the picture at the right or between channels hold garbage, to be cut off by the caller.
    """
    across = _sums_of_seven(values, 1, buffers[0], buffers[1])
    return _sums_of_seven(across, width, buffers[2], buffers[1])


def _sums_of_seven(values: Tensor, step: int, out: Tensor, scratch: Tensor) -> Tensor:
    """values[i] + values[i + step] + ... + values[i + 6 step], in four additions."""
    length = values.shape[-1]
    pairs = torch.add(values[:, :-step], values[:, step:], out=scratch[:, : length - step])
    fours = torch.add(pairs[:, : -2 * step], pairs[:, 2 * step :], out=out[:, : length - 3 * step])
    length -= 6 * step
    sevens = torch.add(fours[:, :length], pairs[:, 4 * step : 4 * step + length], out=out[:, :length])
    return torch.add(sevens, values[:, 6 * step :], out=sevens)


class PerceptualEmbedding(nn.Module):
    """uint8 [n h w 3] -> float32 [n d] whose squared Euclidean distances are LPIPS.

    Every picture goes through the network once, and n x m pairs cost one matrix product. The linear heads are those
    that torchmetrics ships; the AlexNet backbone is torchvision's and comes from a weights file.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, backbone: AlexNet, heads: list[Tensor]):
        super().__init__()
        self.features = backbone.features
        self.heads = nn.ParameterList([nn.Parameter(head.flatten(), requires_grad=False) for head in heads])
        self.register_buffer("shift", torch.tensor(SHIFT)[:, None, None])
        self.register_buffer("scale", torch.tensor(SCALE)[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        images = images.permute(0, 3, 1, 2).float() / 127.5 - 1  # [n 3 h w] in [-1, 1]
        pairs = zip(self.heads, self._taps((images - self.shift) / self.scale), strict=True)
        return torch.cat([_embed(head, features) for head, features in pairs], dim=1)

    def _taps(self, x: Tensor) -> Iterator[Tensor]:
        for index, layer in enumerate(self.features[: max(TAPS) + 1]):  # the last pooling has no tap
            x = layer(x)
            if index in TAPS:
                yield x


@cache
def lpips_heads() -> list[Tensor]:
    """The five linear heads for AlexNet that ship with torchmetrics, each [1 c 1 1]."""
    state = read_tensors(Path(str(files("torchmetrics.functional.image") / "lpips_models" / "alex.pth")))
    return [state[key] for key in sorted(state)]


def load_lpips(weights: str | Path | None = None) -> PerceptualEmbedding:
    """LPIPS with torchvision's AlexNet weights, from a file or the torch cache; raises InputError without."""
    path = find_weights(weights, cached_name=ALEXNET_FILE, purpose="lpips (AlexNet)")
    return PerceptualEmbedding(load_into(alexnet(weights=None), path), lpips_heads()).eval()


def _embed(head: Tensor, features: Tensor) -> Tensor:
    """Unit-normalised features [n c h w], weighted so that squared distances are means over places -> [n chw]."""
    features = features / (features.square().sum(dim=1, keepdim=True) + 1e-8).sqrt()
    weights = (head / features[0, 0].numel()).sqrt()
    return (features * weights[:, None, None]).flatten(1)

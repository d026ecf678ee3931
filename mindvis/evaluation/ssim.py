"""Structural similarity of many pairs of uint8 pictures (Wang et al. 2004; scikit-image's defaults).

7 x 7 uniform window, sample covariance, data range 255, borders left out, mean over channels. All window sums of uint8
pictures are integers below 2^31, so they are exact in int32; float32 enters only at the last ratio, whose error (below
1e-6 at any pixel) averages out. Everything that concerns one picture is computed once, not once a pair.

With W = 49 pixels a window, S its sums and D = W * S_xy - S_x * S_y (W * (W - 1) times the sample covariance):
ssim = 4 (S_x S_y + c1 / 2) (D + c2 / 2) / ((S_x^2 + S_y^2 + c1) (V_x + V_y + c2)), constants scaled to match.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mindvis.common.errors import InputError

WINDOW = 7
PIXELS = WINDOW**2
C1 = (0.01 * 255) ** 2 * PIXELS**2
C2 = (0.03 * 255) ** 2 * PIXELS * (PIXELS - 1)


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
        sums = _window_sums(pixels, width, _buffers(pixels, 3)).clone()
        of_squares = _window_sums(pixels**2, width, _buffers(pixels, 3))
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
    compare = PairwiseSSIM(*predictions.shape[1:3], chunk, device)
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


def _buffers(like: Tensor, count: int) -> list[Tensor]:
    return [torch.empty_like(like) for _ in range(count)]

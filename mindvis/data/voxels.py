"""Voxel vectors: padding to patches, scaling, window averages, augmentation, noise ceilings. Numpy in, numpy out."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from mindvis.common.errors import InputError

log = logging.getLogger(__name__)

PAD_MODES = ("wrap", "constant", "cut")
OUTLIER = 1e4  # times the spread of the middle half: far beyond what motion or veins do
AGREEMENT = 1e-4  # of a deviation: what float32 may be off by
ABSURD = 1e10  # no signal, z-scored or as the scanner gives it, comes near
SAMPLE = 100_000  # values by which that spread is judged


def pad_to_patches(fmri: np.ndarray, patch_size: int, mode: str = "wrap") -> np.ndarray:
    """Bring fmri [.. v] to `patched_length` voxels. Raises InputError as `pad_to`."""
    return pad_to(fmri, patched_length(fmri.shape[-1], patch_size, mode), mode)


def patched_length(num_voxels: int, patch_size: int, mode: str = "wrap") -> int:
    """Length of `num_voxels` in whole patches: the next larger one, or with "cut" the last that fits.

    The next larger one also where the length is divisible already: published weights were trained on data padded so.
    """
    if patch_size < 1:
        raise InputError(f"patch_size is {patch_size}, needs a positive number of voxels")
    rest = num_voxels % patch_size
    return num_voxels - rest if mode == "cut" else num_voxels + patch_size - rest


def pad_to(fmri: np.ndarray, num_voxels: int, mode: str = "wrap") -> np.ndarray:
    """Bring fmri [.. v] to `num_voxels`: "wrap" repeats it from its start, "constant" adds zeros, "cut" drops the end.

    The three ways are the paper's ablation of unequal lengths; wrapping is its choice, because zeros would look like
    silent voxels. Raises InputError for an unknown mode, and when a mode would have to work in the other direction.
    """
    found = fmri.shape[-1]
    if mode not in PAD_MODES:
        raise InputError(f"pad_mode is {mode!r}, needs one of {', '.join(PAD_MODES)}")
    if found == num_voxels:
        return fmri
    if (found > num_voxels) != (mode == "cut") or num_voxels < 1:
        raise InputError(f"fmri has {found} voxels, which pad_mode {mode!r} cannot bring to {num_voxels}")
    if mode == "constant":
        return np.pad(fmri, [(0, 0)] * (fmri.ndim - 1) + [(0, num_voxels - found)])
    return fmri[..., :num_voxels] if mode == "cut" else fmri[..., np.arange(num_voxels) % found]


def fit_length(fmri: np.ndarray, num_voxels: int, mode: str = "wrap") -> np.ndarray:
    """Fit fmri [n v] to a model of `num_voxels` trained on other data: shorter rows are padded, longer ones cut.

    Raises InputError as `pad_to`, so for mode "cut" when it would have to pad.
    """
    return pad_to(fmri, num_voxels, "cut" if fmri.shape[-1] > num_voxels else mode)


def common_length(lengths: list[int], mode: str = "wrap") -> int:
    """Length that rows of several sources are brought to: the longest, or with "cut" the shortest."""
    return min(lengths) if mode == "cut" else max(lengths)


def moments(fmri: np.ndarray, label: str = "fmri") -> tuple[float, float]:
    """One mean and one deviation over all rows and voxels of fmri [n v], in float64 whatever its type.

    Of float32 arrays they are those in float32, as published, where these agree with float64. A value so far from the
    others that scaling leaves little of them is named in the log. Raises InputError for constant fMRI; `label` is what
    messages call it.
    """
    mean, deviation = fmri.mean(dtype=np.float64), fmri.std(dtype=np.float64)
    if not deviation > 0:
        raise InputError(f"{label} of shape {list(fmri.shape)} is constant ({mean:g}), it cannot be scaled")
    outlier = find_outlier(fmri)
    if outlier:
        log.warning("%s %s: scaling leaves little of the others", label, outlier)
    if fmri.dtype == np.float32:
        with np.errstate(over="ignore", invalid="ignore"):
            published = fmri.mean(), fmri.std()
        if max(abs(published[0] - mean), abs(published[1] - deviation)) < AGREEMENT * deviation:
            mean, deviation = published
    return float(mean), float(deviation)


def find_outlier(fmri: np.ndarray) -> str | None:
    """`has a value of 1e+20, half of them lie between -0.7 and 0.7`, or None where no value lies that far out."""
    return outlier_of(fmri.reshape(-1)[:: max(1, fmri.size // SAMPLE)], float(fmri.min()), float(fmri.max()))


def outlier_of(sample: np.ndarray, lowest: float, highest: float) -> str | None:
    """As `find_outlier`, from a sample of all values and the ends of their range."""
    low, middle, high = np.quantile(sample.astype(np.float64), (0.25, 0.5, 0.75))
    farthest = max((lowest, highest), key=lambda value: abs(value - middle))
    if abs(farthest - middle) <= min(OUTLIER * (high - low) or ABSURD, ABSURD):
        return None
    return f"has a value of {farthest:.3g}, half of them lie between {low:.3g} and {high:.3g}"


def normalise(fmri: np.ndarray, mean: float | None = None, deviation: float | None = None) -> np.ndarray:
    """Scale fmri [n v] by one mean and one deviation, its own unless given (so voxels keep their relative strength)."""
    if mean is None or deviation is None:
        mean, deviation = moments(fmri)
    return ((at_least_float32(fmri) - mean) / deviation).astype(np.float32, copy=False)


def at_least_float32(fmri: np.ndarray) -> np.ndarray:
    """float16 as float32, in which sums do not overflow; other types as they are."""
    return fmri.astype(np.float32) if fmri.dtype == np.float16 else fmri


def window_average(frames: np.ndarray, frames_per_window: int = 10) -> np.ndarray:
    """Average frames [f v] over `f // frames_per_window` consecutive windows -> [w v].

    Left-over frames lengthen the first windows by one each, as `np.array_split` does; 10 frames of HCP are 7.2 s.
    Raises InputError when there are fewer frames than a window has.
    """
    frames = at_least_float32(frames)
    num_windows = len(frames) // frames_per_window
    if num_windows < 1:
        raise InputError(f"{len(frames)} frames, needs at least one window of {frames_per_window}")
    length, num_longer = divmod(len(frames), num_windows)
    longer, others = np.split(frames, [num_longer * (length + 1)])
    windows = [part.reshape(-1, size, frames.shape[1]) for part, size in ((longer, length + 1), (others, length))]
    return np.concatenate([part.mean(axis=1) for part in windows])  # [w f v] -> [w v]


def sparsify(fmri: np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray:
    """Set `fraction` of the voxels of every row of fmri [.. v] to 0, at random places.

    The augmentation the paper describes; the published code draws from the wrong axis and hides nothing.
    """
    num_hidden = round(fraction * fmri.shape[-1])
    if num_hidden == 0:
        return fmri
    noise = rng.random(fmri.shape, dtype=np.float32)
    hidden = np.argpartition(noise, num_hidden - 1, axis=-1)[..., :num_hidden]  # [.. h]
    sparse = fmri.copy()
    np.put_along_axis(sparse, hidden, 0, axis=-1)
    return sparse


def interpolate(x: np.ndarray, y: np.ndarray, ratio: float = 0.5) -> np.ndarray:
    """Point between two samples (or rows of samples) x, y [.. v]: x at ratio 0, y at ratio 1."""
    return (1 - ratio) * x + ratio * y


def noise_ceiling(rows: Any, groups: Sequence[Sequence[int]], averaged: float | None = None) -> np.ndarray:
    """Share of each voxel's variance that the stimulus explains in a mean of `averaged` trials, float64 [v].

    `rows` [n v] are indexed one at a time; `groups` are those of one stimulus, of which the ones with two or more
    count. Analysis of variance: noise is the variance among repeats, signal the variance of the means beyond what
    noise explains (Allen et al. 2022, Natural Scenes Dataset, "noise ceiling"). `averaged`: by default the mean number
    of repeats. Raises InputError where fewer than two stimuli are repeated.
    """
    repeated = [list(group) for group in groups if len(group) > 1]
    if len(repeated) < 2:
        raise InputError(f"noise ceiling: {len(repeated)} of {len(groups)} stimuli are repeated, need two or more")
    within: Any = 0.0
    mean: Any = 0.0
    between: Any = 0.0
    for k, group in enumerate(repeated, start=1):
        trials = np.stack([np.asarray(rows[row], np.float64) for row in group])  # [r v]
        own = trials.mean(axis=0)
        within = within + ((trials - own) ** 2).sum(axis=0)
        shift = own - mean
        mean = mean + shift / k
        between = between + shift * (own - mean)
    counts = np.array([len(group) for group in repeated])
    noise = within / (counts.sum() - len(counts))
    signal = np.maximum(between / (len(counts) - 1) - noise * (1 / counts).mean(), 0)
    total = signal + noise / (averaged or counts.mean())
    return np.divide(signal, total, out=np.zeros_like(signal), where=total > 0)

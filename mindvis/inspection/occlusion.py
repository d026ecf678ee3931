"""What a score loses when the voxels of one region are silenced: set to 0, the mean of z-scored data."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from mindvis.common.progress import Progress
from mindvis.config.tools import LookInsideConfig
from mindvis.decoding.decode import decode
from mindvis.evaluation import Protocol, load_classifier
from mindvis.evaluation.measures import Judge
from mindvis.evaluation.pictures import DecodedSet
from mindvis.evaluation.statistics import paired_difference
from mindvis.inspection.inputs import Opened, Regions
from mindvis.sc_mbm import MaskedBrainModel

HIDDEN = "hidden_voxel_correlation"
MASK_RATIO = 0.75  # where the training names none
ALL = "all"  # every voxel: what is left without any fMRI

RowScores = dict[str, np.ndarray]  # name of a score -> its value for every row [n]


@dataclass(frozen=True)
class Drop:
    """A score with the whole fMRI and without one region, means over rows, and the drop with its 95 % interval.

    `p`: two-sided, of no difference, by flipping the signs of the differences of the `n` rows.
    """

    roi: str
    num_voxels: int
    score: str
    whole: float
    occluded: float
    drop: float
    low: float
    high: float
    p: float
    n: int


def occlusion(
    fmri: np.ndarray,
    regions: Regions,
    score: Callable[[np.ndarray], RowScores],
    *,
    seed: int,
    num_bootstrap: int = 10_000,
) -> list[Drop]:
    """Drop of every score without each region in turn, and without all: fmri [n v], `score` of such rows.

    A region is hidden together with the padding that repeats it. Higher scores are better ones.
    """
    hidden = {name: regions.with_copies(name) for name in regions.masks} | {ALL: np.ones(fmri.shape[1], bool)}
    whole, drops = score(fmri), []
    for roi, mask in Progress(hidden.items(), desc="occlusion"):
        occluded = score(np.where(mask, np.float32(0), fmri))
        size = int((mask & ~regions.padding).sum())
        for name, values in whole.items():
            difference = paired_difference(values, occluded[name], seed, num_bootstrap)
            drops.append(Drop(roi, size, name, values.mean(), occluded[name].mean(), *difference, len(values)))
    return drops


def make_score(opened: Opened, config: LookInsideConfig) -> Callable[[np.ndarray], RowScores]:
    """The scores of rows [n v], the main one first; the rows are those of `opened`, changed by an occlusion.

    Raises InputError for a classifier without weights.
    """
    if opened.stage == "B":
        return _score_pictures(opened, config)
    # how well hidden voxels are predicted from rows in which a region is silent
    options = {name: getattr(config, name) for name in ("num_masks", "seed", "batch_size")}
    options["mask_ratio"] = opened.settings.get("mask", {}).get("mask_ratio", MASK_RATIO)
    true, padding = opened.fmri, opened.regions.padding
    return lambda shown: {HIDDEN: hidden_voxel_correlation(opened.model, shown, true, padding, **options)}


def _score_pictures(opened: Opened, config: LookInsideConfig) -> Callable[[np.ndarray], RowScores]:
    """Stage B: the scores of `evaluate` for single pictures, means over samples; the noise is always the same."""
    device = next(opened.model.parameters()).device
    classifier = load_classifier(config.classifier, config.classifier_weights, device)
    protocol = Protocol(num_ways=[config.num_ways], top_k=[1], metrics=["pcc"], fid=[], nsd_suite=False)
    judge = Judge(classifier, protocol)
    stimuli = opened.dataset.stimuli[opened.dataset.stimulus[opened.rows]]  # [n h w 3]
    true = judge.classify(stimuli)
    names = ("num_samples", "sampler", "num_steps", "batch_size", "seed")
    options = {name: getattr(config, name) for name in names}

    def score(fmri: np.ndarray) -> RowScores:
        decoded = decode(opened.model, fmri, opened.rows, **options)  # [n k h w 3]
        pictures = DecodedSet(Path(config.run), decoded, stimuli, [str(row) for row in opened.rows])
        measured = judge.score(pictures, true, is_control=True)
        return {measure.name: measure.values.mean(axis=1) for measure in measured}

    return score


@torch.no_grad()
def hidden_voxel_correlation(
    network: MaskedBrainModel,
    shown: np.ndarray,
    true: np.ndarray,
    padding: np.ndarray,
    *,
    mask_ratio: float = 0.75,
    num_masks: int = 20,
    seed: int = 0,
    batch_size: int = 16,
) -> np.ndarray:
    """Correlation of hidden voxels with their prediction from rows `shown` [n v]: [n], mean over masks.

    It is taken with the `true` rows [n v], over the hidden voxels that are no padding; the masks follow from `seed`.
    """
    generator = torch.Generator().manual_seed(seed)
    inputs, targets = (torch.from_numpy(np.asarray(rows, np.float32)) for rows in (shown, true))
    total = torch.zeros(len(inputs), dtype=torch.float64)
    for _ in range(num_masks):
        noise = torch.rand(len(inputs), network.num_patches, generator=generator)  # [n l]
        predicted, mask = _reconstruct(network, inputs, noise, mask_ratio, batch_size)
        hidden = mask.repeat_interleave(network.patch_size, dim=1).bool() & torch.from_numpy(~padding)  # [n v]
        total += _correlation_over(hidden, predicted, targets)
    return (total / num_masks).numpy()


def _reconstruct(
    network: MaskedBrainModel, fmri: Tensor, noise: Tensor, mask_ratio: float, batch_size: int
) -> tuple[Tensor, Tensor]:
    """Reconstruction [n v] and mask [n l] of rows, some at a time."""
    device, parts = network.pos_embed.device, []
    for rows, draw in zip(fmri.split(batch_size), noise.split(batch_size), strict=True):
        out = network(rows[:, None].to(device), mask_ratio, draw.to(device))
        parts.append((network.unpatchify(out.reconstruction).cpu(), out.mask.cpu()))
    predicted, mask = zip(*parts, strict=True)
    return torch.cat(predicted), torch.cat(mask)


def _correlation_over(chosen: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Correlation of each row of x with that of y [n v] over its chosen voxels: [n]; 0 where one is constant."""
    weight = chosen.double()
    count = weight.sum(dim=1, keepdim=True)
    x, y = (part.double() for part in (x, y))
    x, y = ((part - (part * weight).sum(dim=1, keepdim=True) / count) * weight for part in (x, y))
    return cosine_similarity(x, y)

"""Scores of rows of fMRI by the model that is looked into, for occlusion."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from mindvis.config.tools import LookInsideConfig
from mindvis.decoding.decode import decode
from mindvis.evaluation import Protocol, load_classifier
from mindvis.evaluation.measures import Judge
from mindvis.evaluation.pictures import DecodedSet
from mindvis.inspection.occlusion import RowScores, hidden_voxel_correlation
from mindvis.inspection.opening import Opened

HIDDEN = "hidden_voxel_correlation"
MASK_RATIO = 0.75  # where the training names none


def make_score(opened: Opened, config: LookInsideConfig) -> Callable[[np.ndarray], RowScores]:
    """The scores of rows [n v], the main one first; the rows are those of `opened`, changed by an occlusion.

    Raises InputError for a classifier without weights.
    """
    return _score_hidden_voxels(opened, config) if opened.stage == "A" else _score_pictures(opened, config)


def _score_hidden_voxels(opened: Opened, config: LookInsideConfig) -> Callable[[np.ndarray], RowScores]:
    """Stage A: how well hidden voxels are predicted from rows in which a region is silent."""
    ratio = opened.settings.get("mask", {}).get("mask_ratio", MASK_RATIO)
    options = {"mask_ratio": ratio, "num_masks": config.num_masks, "seed": config.seed}
    options |= {"batch_size": config.batch_size}
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

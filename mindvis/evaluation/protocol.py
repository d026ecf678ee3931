"""What an evaluation measures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Protocol:
    """What is measured. Weights are paths; a measure without its weights is skipped with a line in the report."""

    num_ways: Sequence[int] = (50, 100)
    top_k: Sequence[int] = (1, 5)
    num_trials: int = 0  # also the sampled n-way protocol with so many trials (the paper: 1000)
    metrics: Sequence[str] = ("mse", "pcc", "ssim")
    lpips_weights: str | Path | None = None
    fid: Sequence[str] = ("classifier",)  # "classifier", "64", "2048" (Inception)
    fid_weights: str | Path | None = None
    features: Mapping[str, str] | None = field(default_factory=dict)  # network -> weights; None leaves the suite out
    num_bootstrap: int = 10_000
    seed: int = 2022
    batch_size: int = 16

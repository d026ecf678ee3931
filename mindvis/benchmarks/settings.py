"""Settings of the benchmark: which parts, at which sizes."""

from dataclasses import dataclass, field

from mindvis.config.schemas import ModelConfig


@dataclass
class BenchmarkConfig:
    """Sizes are the published ones by default; Stage A, Stage B and sampling then take up to 20 GB and 20 minutes."""

    parts: list[str] = field(
        default_factory=lambda: ["evaluation"]
    )  # of stage_a, stage_b, sampling, evaluation, data (timed beside plain versions), solvers, growth
    precisions: list[str] = field(
        default_factory=lambda: ["32-true", "bf16-mixed"]
    )  # stages and sampling: ours in each; the plain version is always in 32-true
    repetitions: int = 3  # timed calls, plain and ours by turns; the median is reported
    device: str = "cpu"  # cpu | cuda
    num_threads: int | None = None  # CPU threads of torch
    seed: int = 0  # random weights and inputs
    output: str | None = None  # folder for benchmark.json, solvers.md, growth.png ...
    num_voxels: int = 4656  # stage_a, stage_b, sampling: length of the fMRI, a multiple of model.patch_size
    model: ModelConfig = field(default_factory=ModelConfig)  # stage_a, stage_b, sampling: the masked brain model
    ldm: str = "published"  # stage_b, sampling: published | demo | path of a config.yaml; weights are random
    stage_a_batch: int = 8  # stage_a: rows a step
    stage_b_batch: int = 1  # stage_b: pairs a step
    crops_per_image: int = 0  # stage_b: crops of each image kept as latents; 0: every crop is encoded when drawn
    sampling_batch: int = 5  # sampling: pictures at once
    num_pictures: int = 0  # sampling: pictures decoded whole, plain by 250 PLMS steps one by one; 0: none (takes long)
    num_steps: int = 30  # sampling: steps of averaged UniPC for those pictures
    num_stimuli: int = 113  # evaluation: true images
    num_samples: int = 5  # evaluation: decoded images a stimulus
    size: int = 256  # evaluation: pixels a side
    num_subjects: int = 1000  # data: resting subjects
    num_frames: int = 60  # data: frames of each
    region_voxels: int = 250  # data: voxels of each of the four regions
    solver_steps: list[int] = field(
        default_factory=lambda: [5, 10, 15, 20, 25, 30, 50, 100, 250]
    )  # solvers: numbers of steps
    solver_pictures: int = 24  # solvers: pictures of the demo model, one a class

"""How near each sampler comes to the solution of the diffusion ODE, on the demo's label-to-image model.

The reference is DDIM with 1000 steps from the same noise, which takes every step of the schedule.
"""

import functools
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from mindvis.benchmarks.table import line
from mindvis.checkpoints import DEMO_LDM
from mindvis.common.files import write_json, write_text
from mindvis.common.progress import Progress
from mindvis.config.tools import BenchmarkConfig
from mindvis.dc_ldm import LatentDiffusion, noise_for, sample_ddim
from mindvis.dc_ldm.samplers import SAMPLERS
from mindvis.decoding.baselines import load_class_ldm
from mindvis.decoding.decode import time_embeddings
from mindvis.evaluation.classifiers import DemoClassifier, load_demo_classifier

REFERENCE_STEPS = 1000
COLUMNS = ("sampler", "steps", "UNet evaluations", "latent, RMS", "pixels, RMS of 255", "recognised")


@dataclass(frozen=True)
class SolverRow:
    """Distance of one sampler with a number of steps to the reference, root of the mean square over all pictures."""

    sampler: str
    num_steps: int
    evaluations: int
    latent: float  # in latents of about unit variance
    pixels: float  # grey levels of 255
    recognised: float  # share of pictures the demo's classifier takes for their class

    def as_line(self) -> str:
        figures = (f"{self.latent:.4f}", f"{self.pixels:.2f}", f"{self.recognised:.0%}")
        return line([self.sampler, str(self.num_steps), str(self.evaluations), *figures])


@torch.no_grad()
def benchmark_solvers(config: BenchmarkConfig) -> list[str]:
    """Lines of a markdown table, and of what it says; also solvers.md and solvers.json in `config.output`."""
    ldm, classifier = load_class_ldm(DEMO_LDM).eval(), load_demo_classifier()
    num_classes = len(classifier.class_names)
    class_ids = torch.arange(config.solver_pictures) % num_classes
    noise = torch.cat([noise_for(config.seed, row, 0, ldm.latent_shape) for row in range(config.solver_pictures)])
    judge = functools.partial(_compare, ldm, classifier, class_ids)
    eps_model = CountedModel(ldm, class_ids)
    reference = sample_ddim(eps_model, noise, ldm.schedule.alphas_cumprod, REFERENCE_STEPS, _progress("ddim"))
    rows = [judge("ddim", REFERENCE_STEPS, eps_model.calls, reference, reference)]
    for name, sampler in SAMPLERS.items():
        for num_steps in config.solver_steps:
            eps_model = CountedModel(ldm, class_ids, time_embeddings(ldm, name, num_steps))
            latent = sampler(eps_model, noise, ldm.schedule.alphas_cumprod, num_steps, _progress(name))
            rows.append(judge(name, num_steps, eps_model.calls, latent, reference))
    lines = [line(COLUMNS), line(["---"] * len(COLUMNS)), *(row.as_line() for row in rows)]
    lines += ["", suggestion(rows)]
    if config.output:
        write_text(Path(config.output) / "solvers.md", "\n".join(lines) + "\n")
        write_json(Path(config.output) / "solvers.json", {"rows": [asdict(row) for row in rows]})
    return lines


def suggestion(rows: list[SolverRow]) -> str:
    """The fewest evaluations that come as near as PLMS with its largest number of steps does, as a sentence."""
    plms = max((row for row in rows if row.sampler == "plms"), key=lambda row: row.num_steps)
    as_near = [row for row in rows if row.latent <= plms.latent and row.num_steps < plms.num_steps]
    bound = f"PLMS {plms.num_steps} ({plms.evaluations} evaluations) is {plms.latent:.4f} from the reference"
    if not as_near:
        return f"{bound}; no sampler is as near with fewer steps."
    best = min(as_near, key=lambda row: row.evaluations)
    near = f"{best.sampler} {best.num_steps} is as near ({best.latent:.4f})"
    return f"{bound}; {near} with {best.evaluations} evaluations."


class CountedModel:
    """Noise prediction of a class-conditional model for the classes [b], counting its evaluations."""

    def __init__(self, ldm: LatentDiffusion, class_ids: Tensor, times: Tensor | None = None):
        self.unet, self.calls = ldm.unet, 0
        self.context = ldm.unet.prepare_context(ldm.conditioner(class_ids), times)

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        self.calls += 1
        return self.unet(x_t, t, self.context)


def _compare(
    ldm: LatentDiffusion,
    classifier: DemoClassifier,
    class_ids: Tensor,
    sampler: str,
    num_steps: int,
    evaluations: int,
    latent: Tensor,
    reference: Tensor,
) -> SolverRow:
    images, wanted = (ldm.autoencoder.decode(x).clamp(-1, 1) for x in (latent, reference))
    recognised = (classifier(images).argmax(dim=1) == class_ids).float().mean()
    of_latents = (latent - reference).square().mean().sqrt()
    of_pixels = 127.5 * (images - wanted).square().mean().sqrt()
    return SolverRow(sampler, num_steps, evaluations, float(of_latents), float(of_pixels), float(recognised))


def _progress(label: str) -> Callable:
    return functools.partial(Progress, desc=label, unit="step", leave=False)

"""Everything the demo ships, trained from nothing: autoencoder, classifier, and the label-to-image model between them.

A part is kept as soon as it is trained, so that an interrupted training goes on after the last whole part. The
label-to-image model is that of Rombach et al. 2022 (arXiv 2112.10752), section 3.3 and appendix E.1: class-conditional
denoising in latent space, the class entering by cross-attention as one learned token.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mindvis.checkpoints import export_ldm
from mindvis.checkpoints.published import SCHEDULE
from mindvis.common.devices import use_threads
from mindvis.common.errors import InputError
from mindvis.common.files import write_atomic, write_json, write_text
from mindvis.common.progress import Progress
from mindvis.common.tensor_files import load_tensors, save_tensors
from mindvis.config.loading import read_yaml
from mindvis.config.tools import DemoRecipe
from mindvis.data.images import to_float, to_uint8
from mindvis.dc_ldm import LatentDiffusion, build_class_ldm, sample_ddim
from mindvis.dc_ldm.attention import TransformerBlock
from mindvis.dc_ldm.autoencoder import VQAutoencoder
from mindvis.evaluation.classifiers import CLASSIFIER_FILE, DemoClassifier, save_demo_classifier
from mindvis.simulation import train_image_models as image_models
from mindvis.simulation.stimuli import CLASS_NAMES, draw_stimuli
from mindvis.simulation.train_image_models import Fit, accuracy, reconstruct
from mindvis.training import on_cpu

CONFIG_FILE, WEIGHTS_FILE, REPORT_FILE = "config.yaml", "model.ckpt", "report.json"
# far from the seeds of experiments: no picture of an experiment was trained on
TRAINING_PICTURES, FRESH_PICTURES = 7_000_000, 7_000_001
DRAWN_AT_ONCE = 240
NUM_RECONSTRUCTED = 6000  # pictures that the classifier also sees through the autoencoder
EMA_DECAY = 0.998  # an average over about the last 500 steps
NUM_LEVELS = 20  # ranges of t whose typical loss is followed
LEVEL_DECAY = 0.9


@dataclass(frozen=True)
class Drawings:
    """Drawings uint8 [n h w 3] and their classes, long [n], in turn."""

    images: np.ndarray
    class_ids: Tensor


def train_demo(recipe: DemoRecipe) -> dict[str, float]:
    """Train all three models and write them to `recipe.out`; returns the figures of report.json.

    Figures: PSNR of fresh drawings through the autoencoder; share of fresh drawings, as they are and through the
    autoencoder, and of class-conditional samples that the classifier recognises. Raises InputError for a missing
    config file.
    """
    use_threads(recipe.num_threads)
    out = Path(recipe.out)
    out.mkdir(parents=True, exist_ok=True)
    if not Path(recipe.ldm_config).is_file():
        needed = "needed: the config.yaml of a label-to-image model"
        raise InputError(f"{recipe.ldm_config}: no such file; {needed}")
    config = read_yaml(Path(recipe.ldm_config))
    torch.manual_seed(recipe.seed)
    ldm, classifier = build_class_ldm(config), DemoClassifier(CLASS_NAMES)
    pictures = draw_pictures(TRAINING_PICTURES + recipe.seed, recipe.pictures_per_class)
    images, autoencoder = pictures.images, ldm.autoencoder
    if not isinstance(autoencoder, VQAutoencoder):
        raise InputError("setting ldm_config: its autoencoder has no codebook; needed: a vector-quantised one")
    fit = Fit(recipe.autoencoder_steps, recipe.autoencoder_batch, recipe.autoencoder_lr, recipe.seed)
    _train_once(out / "autoencoder.part", autoencoder, lambda: image_models.train_autoencoder(autoencoder, images, fit))
    _train_once(out / "classifier.part", classifier, lambda: _fit_classifier(classifier, ldm, pictures, recipe))
    denoiser = nn.ModuleList([ldm.unet, ldm.conditioner])
    _train_once(out / "denoiser.part", denoiser, lambda: _fit_denoiser(ldm, pictures, recipe))
    decoder = nn.ModuleList([autoencoder.post_quant_conv, autoencoder.decoder])
    polish = replace(fit, num_steps=recipe.decoder_steps, lr=recipe.decoder_lr)
    _train_once(out / "decoder.part", decoder, lambda: image_models.polish_decoder(autoencoder, images, polish))
    write_text(out / CONFIG_FILE, Path(recipe.ldm_config).read_text(encoding="utf-8"))
    halves = {name: x.half().contiguous() for name, x in export_ldm(ldm.state_dict()).items() if name not in SCHEDULE}
    write_atomic(out / WEIGHTS_FILE, lambda file: torch.save({"state_dict": halves}, file))
    save_demo_classifier(classifier, out / CLASSIFIER_FILE)
    figures = judge(ldm, classifier, recipe)
    write_json(out / REPORT_FILE, figures)
    return figures


def draw_pictures(seed: int, per_class: int) -> Drawings:
    """`per_class` drawings of each class, the classes in turn."""
    index, class_ids = np.divmod(np.arange(per_class * len(CLASS_NAMES)), len(CLASS_NAMES))
    parts = np.array_split(np.arange(len(index)), -(-len(index) // DRAWN_AT_ONCE))
    bar = Progress(parts, desc="drawings")
    images = np.concatenate([draw_stimuli(seed, class_ids[part], index[part]) for part in bar])
    return Drawings(images, torch.from_numpy(class_ids))


def _train_once(path: Path, model: nn.Module, train: Callable[[], None]) -> None:
    """Train `model` and keep its weights at `path`, or take them from there."""
    if path.is_file():
        model.load_state_dict(load_tensors(path))
    else:
        train()
        save_tensors(model.state_dict(), path)
    model.eval()


@torch.no_grad()
def judge(ldm: LatentDiffusion, classifier: DemoClassifier, recipe: DemoRecipe) -> dict[str, float]:
    """The figures of `train_demo`, on drawings that nothing was trained on and samples of every class."""
    fresh = draw_pictures(FRESH_PICTURES + recipe.seed, recipe.fresh_per_class)
    decoded = reconstruct(ldm.autoencoder, fresh.images)
    samples = sample_classes(ldm, fresh.class_ids, seed=recipe.seed, num_steps=recipe.sampling_steps)
    return {
        "autoencoder_psnr_db": image_models.peak_signal_to_noise(decoded, fresh.images),
        "classifier_fresh": accuracy(classifier, to_float(fresh.images), fresh.class_ids),
        "classifier_reconstructed": accuracy(classifier, decoded, fresh.class_ids),
        "samples_recognised": accuracy(classifier, samples, fresh.class_ids),
        "num_judged": len(fresh.images),
    }


def _fit_classifier(classifier: DemoClassifier, ldm: LatentDiffusion, pictures: Drawings, recipe: DemoRecipe) -> None:
    fit = Fit(recipe.classifier_steps, recipe.classifier_batch, recipe.classifier_lr, recipe.seed)
    decoded = to_uint8(reconstruct(ldm.autoencoder, pictures.images[:NUM_RECONSTRUCTED]))
    image_models.train_classifier(classifier, pictures.images, decoded, pictures.class_ids, fit)


def _fit_denoiser(ldm: LatentDiffusion, pictures: Drawings, recipe: DemoRecipe) -> None:
    fit = Fit(recipe.denoiser_steps, recipe.denoiser_batch, recipe.denoiser_lr, recipe.seed)
    with torch.autocast("cpu", torch.bfloat16):  # half the time for an error far below the noise of any step
        latents = image_models.encode_all(ldm.autoencoder, pictures.images).float()
    train_denoiser(ldm, latents, pictures.class_ids, fit)
    scale_context(ldm, recipe.context_scale)


def train_denoiser(ldm: LatentDiffusion, latents: Tensor, class_ids: Tensor, fit: Fit) -> None:
    """Train a `build_class_ldm` model in place on latents [n c h w] of classes [n]: UNet and class embedding.

    What the UNet learns to predict is the model's `parameterization`. They end as the moving average of their weights.
    """
    trained = nn.ModuleList([ldm.unet, ldm.conditioner])
    average = deepcopy(trained)
    on_cpu.attach(trained, mixed=True)
    generator = torch.Generator().manual_seed(fit.seed)
    levels = LevelLoss(ldm.schedule.num_timesteps)

    def loss_of(step: int, indices: Tensor) -> Tensor:
        t = torch.randint(ldm.schedule.num_timesteps, indices.shape, generator=generator)
        eps = torch.randn(latents[indices].shape, generator=generator)
        x_t = ldm.schedule.add_noise(latents[indices], eps, t)
        with torch.autocast("cpu", torch.bfloat16):
            found = ldm.predict(x_t, t, ldm.conditioner(class_ids[indices])).float()
        wanted = ldm.schedule.target(latents[indices], eps, t, ldm.parameterization)
        return levels((found - wanted).square().mean(dim=(1, 2, 3)), t)

    image_models.minimise(
        loss_of,
        trained.parameters(),
        num_items=len(latents),
        fit=fit,
        label="label-to-image",
        after_step=lambda step: move_average(average, trained, step),
    )
    trained.load_state_dict(average.state_dict())
    trained.eval()


@torch.no_grad()
def scale_context(ldm: LatentDiffusion, factor: float) -> None:
    """Multiply the class embedding by `factor` and divide keys and values by it: the same model, for Stage B's sake.

    Its conditioner begins with contexts far smaller than trained class embeddings, and would first have to grow.
    """
    ldm.conditioner.embedding.weight.mul_(factor)
    for head in (module for module in ldm.unet.modules() if isinstance(module, TransformerBlock)):
        head.attn2.to_k.weight.div_(factor)
        head.attn2.to_v.weight.div_(factor)


class LevelLoss:
    """Mean of losses [b] at steps t [b], each over the typical loss at such steps: all noise levels count alike.

    Noise is predicted far better at high t than at low t, and the first steps of sampling, which decide on layout and
    colour, need it to be: the plain mean hardly sees them. After Karras et al. 2024 (arXiv 2312.02696), section 2.1,
    with a running mean in place of their learned one.
    """

    def __init__(self, num_timesteps: int):
        self.width = -(-num_timesteps // NUM_LEVELS)
        self.typical = torch.full((NUM_LEVELS,), torch.nan)

    def __call__(self, losses: Tensor, t: Tensor) -> Tensor:
        """[b], [b] -> scalar."""
        level = t // self.width
        for one, value in zip(level.tolist(), losses.tolist(), strict=True):
            before = self.typical[one]
            self.typical[one] = value if before.isnan() else before.lerp(torch.tensor(value), 1 - LEVEL_DECAY)
        return (losses / self.typical[level].clamp(min=1e-5)).mean()


@torch.no_grad()
def move_average(average: nn.Module, current: nn.Module, step: int) -> None:
    """Move the average towards the current weights; early on by larger steps, as there is little to average yet."""
    decay = min(EMA_DECAY, step / (step + 10))
    for mean, weight in zip(average.parameters(), current.parameters(), strict=True):
        mean.lerp_(weight, 1 - decay)


@torch.no_grad()
def sample_classes(ldm: LatentDiffusion, class_ids: Tensor, *, seed: int, num_steps: int = 50) -> Tensor:
    """Images [b 3 h w] of classes [b] by DDIM, without guidance."""
    noise = torch.randn(len(class_ids), *ldm.latent_shape, generator=torch.Generator().manual_seed(seed))
    context = ldm.unet.prepare_context(ldm.conditioner(class_ids))
    latent = sample_ddim(
        lambda x, t: ldm.for_sampler(ldm.predict(x, t, context), x, t),
        noise,
        ldm.schedule.alphas_cumprod,
        num_steps,
        prediction=ldm.sampled_prediction,
    )
    return ldm.autoencoder.decode(latent)

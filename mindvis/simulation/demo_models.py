"""Everything the demo ships, trained from nothing: autoencoder, classifier, label-to-image model.

A part is kept as soon as it is trained, so that an interrupted training goes on after the last whole part.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mindvis.common.devices import use_threads
from mindvis.common.errors import InputError
from mindvis.common.files import write_atomic, write_json, write_text
from mindvis.common.progress import Progress
from mindvis.common.tensor_files import load_tensors, save_tensors
from mindvis.config.loading import read_yaml
from mindvis.config.tools import DemoRecipe
from mindvis.data.images import to_float, to_uint8
from mindvis.dc_ldm import LatentDiffusion, build_class_ldm
from mindvis.evaluation.classifiers import CLASSIFIER_FILE, DemoClassifier, save_demo_classifier
from mindvis.simulation.stimuli import CLASS_NAMES, draw_stimuli
from mindvis.simulation.train_denoiser import published_state, sample_classes, scale_context, train_denoiser
from mindvis.simulation.train_image_models import (
    Fit,
    accuracy,
    encode_all,
    peak_signal_to_noise,
    polish_decoder,
    reconstruct,
    train_autoencoder,
    train_classifier,
)

CONFIG_FILE, WEIGHTS_FILE, REPORT_FILE = "config.yaml", "model.ckpt", "report.json"
# far from the seeds of experiments: no picture of an experiment was trained on
TRAINING_PICTURES, FRESH_PICTURES = 7_000_000, 7_000_001
DRAWN_AT_ONCE = 240
NUM_RECONSTRUCTED = 6000  # pictures that the classifier also sees through the autoencoder


@dataclass(frozen=True)
class Pictures:
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
    config = _read_config(Path(recipe.ldm_config))
    torch.manual_seed(recipe.seed)
    ldm, classifier = build_class_ldm(config), DemoClassifier(CLASS_NAMES)
    pictures = draw_pictures(TRAINING_PICTURES + recipe.seed, recipe.pictures_per_class)
    once(out / "autoencoder.part", ldm.autoencoder, lambda: _fit_autoencoder(ldm, pictures, recipe))
    once(out / "classifier.part", classifier, lambda: _fit_classifier(classifier, ldm, pictures, recipe))
    denoiser = nn.ModuleList([ldm.unet, ldm.conditioner])
    once(out / "denoiser.part", denoiser, lambda: _fit_denoiser(ldm, pictures, recipe))
    decoder = nn.ModuleList([ldm.autoencoder.post_quant_conv, ldm.autoencoder.decoder])
    once(out / "decoder.part", decoder, lambda: _polish_decoder(ldm, pictures, recipe))
    write_text(out / CONFIG_FILE, Path(recipe.ldm_config).read_text(encoding="utf-8"))
    write_atomic(out / WEIGHTS_FILE, lambda file: torch.save({"state_dict": published_state(ldm)}, file))
    save_demo_classifier(classifier, out / CLASSIFIER_FILE)
    figures = judge(ldm, classifier, recipe)
    write_json(out / REPORT_FILE, figures)
    return figures


def draw_pictures(seed: int, per_class: int) -> Pictures:
    """`per_class` drawings of each class, the classes in turn."""
    index, class_ids = np.divmod(np.arange(per_class * len(CLASS_NAMES)), len(CLASS_NAMES))
    parts = np.array_split(np.arange(len(index)), -(-len(index) // DRAWN_AT_ONCE))
    bar = Progress(parts, desc="drawings")
    images = np.concatenate([draw_stimuli(seed, class_ids[part], index[part]) for part in bar])
    return Pictures(images, torch.from_numpy(class_ids))


def once(path: Path, model: nn.Module, train: Callable[[], None]) -> None:
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
        "autoencoder_psnr_db": peak_signal_to_noise(decoded, fresh.images),
        "classifier_fresh": accuracy(classifier, to_float(fresh.images), fresh.class_ids),
        "classifier_reconstructed": accuracy(classifier, decoded, fresh.class_ids),
        "samples_recognised": accuracy(classifier, samples, fresh.class_ids),
        "num_judged": len(fresh.images),
    }


def _fit_autoencoder(ldm: LatentDiffusion, pictures: Pictures, recipe: DemoRecipe) -> None:
    fit = Fit(recipe.autoencoder_steps, recipe.autoencoder_batch, recipe.autoencoder_lr, recipe.seed)
    train_autoencoder(ldm.autoencoder, pictures.images, fit)


def _polish_decoder(ldm: LatentDiffusion, pictures: Pictures, recipe: DemoRecipe) -> None:
    fit = Fit(recipe.decoder_steps, recipe.autoencoder_batch, recipe.decoder_lr, recipe.seed)
    polish_decoder(ldm.autoencoder, pictures.images, fit)


def _fit_classifier(classifier: DemoClassifier, ldm: LatentDiffusion, pictures: Pictures, recipe: DemoRecipe) -> None:
    fit = Fit(recipe.classifier_steps, recipe.classifier_batch, recipe.classifier_lr, recipe.seed)
    decoded = to_uint8(reconstruct(ldm.autoencoder, pictures.images[:NUM_RECONSTRUCTED]))
    train_classifier(classifier, pictures.images, decoded, pictures.class_ids, fit)


def _fit_denoiser(ldm: LatentDiffusion, pictures: Pictures, recipe: DemoRecipe) -> None:
    fit = Fit(recipe.denoiser_steps, recipe.denoiser_batch, recipe.denoiser_lr, recipe.seed)
    with torch.autocast("cpu", torch.bfloat16):  # half the time for an error far below the noise of any step
        latents = encode_all(ldm.autoencoder, pictures.images).float()
    train_denoiser(ldm, latents, pictures.class_ids, fit)
    scale_context(ldm, recipe.context_scale)


def _read_config(path: Path) -> dict:
    if not path.is_file():
        raise InputError(f"{path}: no such file; needed: the config.yaml of a label-to-image model")
    return read_yaml(path)

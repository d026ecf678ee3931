"""The files the demo ships: small, readable, and as good as docs/results.md says."""

import numpy as np
import pytest
import torch
import yaml

from mindvis.checkpoints import load_published
from mindvis.common.errors import InputError
from mindvis.config.tools import DemoRecipe
from mindvis.data.images import to_float
from mindvis.decoding.baselines import load_class_ldm
from mindvis.evaluation.classifiers import DEMO_ASSETS, load_demo_classifier
from mindvis.simulation.demo_models import draw_pictures, judge, sample_classes
from mindvis.simulation.stimuli import CLASS_NAMES
from mindvis.simulation.train_image_models import accuracy, encode_all, peak_signal_to_noise, reconstruct

FRESH_SEED = 123_456  # neither an experiment's nor a training's


@pytest.fixture(scope="module")
def classifier():
    return load_demo_classifier()


@pytest.fixture(scope="module")
def ldm():
    return load_class_ldm(DEMO_ASSETS / "model.ckpt")


@pytest.fixture(scope="module")
def fresh():
    return draw_pictures(FRESH_SEED, 10)


def test_assets_are_small():
    """All files together stay under 13 MB, the classifier under half a megabyte."""
    files = [path for path in DEMO_ASSETS.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 13e6
    assert (DEMO_ASSETS / "classifier.safetensors").stat().st_size < 0.5e6


def test_weights_are_in_the_published_format():
    """The loader of published files takes them for a label-to-image model of as many classes as there are."""
    published = load_published(DEMO_ASSETS / "model.ckpt")
    assert published.kind == "label2img"
    params = yaml.safe_load((DEMO_ASSETS / "config.yaml").read_text())["model"]["params"]
    assert params["cond_stage_config"]["params"]["n_classes"] == len(CLASS_NAMES)


def test_classifier_names_fresh_drawings(classifier, fresh):
    """At least 99 % of drawings it never saw."""
    assert classifier.class_names == CLASS_NAMES
    assert accuracy(classifier, to_float(fresh.images), fresh.class_ids) >= 0.99


def test_autoencoder_keeps_what_is_seen(ldm, classifier, fresh):
    """Latents of unit variance; reconstructions close in pixels and recognised."""
    few = fresh.images[:96]
    latents = encode_all(ldm.autoencoder, few)
    assert latents.var().item() == pytest.approx(1, abs=0.15)
    decoded = reconstruct(ldm.autoencoder, few)
    assert peak_signal_to_noise(decoded, few) > 28
    assert accuracy(classifier, decoded, fresh.class_ids[:96]) >= 0.97


def test_samples_of_a_class_are_of_that_class(ldm, classifier):
    """Two samples a class in 20 steps: most recognised, and no two alike."""
    class_ids = torch.arange(2 * len(CLASS_NAMES)) % len(CLASS_NAMES)
    samples = sample_classes(ldm, class_ids, seed=1, num_steps=20)
    assert accuracy(classifier, samples, class_ids) >= 0.8
    first, second = samples[: len(CLASS_NAMES)], samples[len(CLASS_NAMES) :]
    assert (first - second).abs().mean(dim=(1, 2, 3)).min() > 0.05


@pytest.mark.slow
def test_nine_samples_in_ten_are_recognised(ldm, classifier):
    """480 class-conditional samples of 50 DDIM steps, without guidance."""
    figures = judge(ldm, classifier, DemoRecipe(seed=5))
    assert figures["samples_recognised"] >= 0.9
    assert figures["classifier_fresh"] >= 0.99


def test_a_file_that_is_no_classifier_is_named(tmp_path):
    """Missing and foreign files give one line with the path."""
    with pytest.raises(InputError, match="none.safetensors: no such file"):
        load_demo_classifier(tmp_path / "none.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(np.arange(20).tobytes())
    with pytest.raises(InputError, match="bad.safetensors: is no demo classifier"):
        load_demo_classifier(tmp_path / "bad.safetensors")

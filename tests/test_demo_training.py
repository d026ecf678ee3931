"""Training of the demo's models, at toy size."""

import numpy as np
import pytest
import torch
import yaml

from mindvis.config.tools import DemoRecipe
from mindvis.dc_ldm import build_class_ldm
from mindvis.dc_ldm.attention import TransformerBlock
from mindvis.evaluation.classifiers import DEMO_ASSETS, load_demo_classifier
from mindvis.simulation.demo_models import (
    LevelLoss,
    draw_pictures,
    move_average,
    sample_classes,
    scale_context,
    train_demo,
    train_denoiser,
)
from mindvis.simulation.stimuli import CLASS_NAMES
from mindvis.simulation.train_image_models import (
    Fit,
    degrade,
    encode_all,
    minimise,
    normalise_latents,
    peak_signal_to_noise,
    random_batches,
    start_codes,
)
from scripts.train_demo_ldm import main


@pytest.fixture(scope="module")
def tiny_config(tmp_path_factory):
    """The demo's config with the smallest networks of the same form."""
    config = yaml.safe_load((DEMO_ASSETS / "config.yaml").read_text())
    params = config["model"]["params"]
    params["unet_config"]["params"] |= {"model_channels": 32, "channel_mult": [1, 1], "attention_resolutions": [2]}
    params["first_stage_config"]["params"]["n_embed"] = 32
    params["first_stage_config"]["params"]["ddconfig"] |= {"ch_mult": [1, 1, 1]}
    path = tmp_path_factory.mktemp("config") / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture
def ldm(tiny_config):
    torch.manual_seed(0)
    return build_class_ldm(yaml.safe_load(tiny_config.read_text())).eval()


def tiny_arguments(out, config) -> list[str]:
    lengths = {
        "autoencoder_steps": 10,
        "decoder_steps": 1,
        "classifier_steps": 2,
        "denoiser_steps": 2,
        "sampling_steps": 2,
    }
    sizes = {"pictures_per_class": 1, "fresh_per_class": 1, "autoencoder_batch": 2, "classifier_batch": 4}
    settings = lengths | sizes | {"denoiser_batch": 2, "out": out, "ldm_config": config, "num_threads": 1}
    return [f"{key}={value}" for key, value in settings.items()]


def test_the_script_writes_the_published_format(tiny_config, tmp_path, capsys):
    """One command makes config, weights under published names, classifier and report, and prints the figures."""
    out = tmp_path / "demo"
    assert main(tiny_arguments(out, tiny_config)) == 0
    assert "recognised" in capsys.readouterr().out
    state = torch.load(out / "model.ckpt", weights_only=True)["state_dict"]
    prefixes = ("model.diffusion_model.", "first_stage_model.", "cond_stage_model.embedding.weight")
    assert all(name.startswith(prefixes) for name in state)
    assert all(any(name.startswith(prefix) for name in state) for prefix in prefixes)
    assert {x.dtype for x in state.values()} == {torch.float16}
    assert load_demo_classifier(out / "classifier.safetensors").class_names == CLASS_NAMES
    assert (out / "config.yaml").read_text() == tiny_config.read_text()


def test_training_goes_on_after_the_last_whole_part(tiny_config, tmp_path):
    """Parts that are there are taken as they are, and the end result is the same."""
    arguments = dict(item.split("=", 1) for item in tiny_arguments(tmp_path / "demo", tiny_config))
    recipe = DemoRecipe(**{k: int(v) if v.isdecimal() else v for k, v in arguments.items()})
    train_demo(recipe)
    first = torch.load(tmp_path / "demo" / "model.ckpt", weights_only=True)["state_dict"]
    autoencoder_time = (tmp_path / "demo" / "autoencoder.part").stat().st_mtime_ns
    (tmp_path / "demo" / "denoiser.part").unlink()
    train_demo(recipe)
    again = torch.load(tmp_path / "demo" / "model.ckpt", weights_only=True)["state_dict"]
    assert (tmp_path / "demo" / "autoencoder.part").stat().st_mtime_ns == autoencoder_time
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_unknown_settings_are_refused(capsys):
    """Exit status 2 and the nearest setting."""
    assert main(["denoiser_step=3"]) == 2
    assert "denoiser_steps" in capsys.readouterr().err


def test_missing_config_file_is_refused(tmp_path, capsys):
    """Exit status 2 and one line that names the file; nothing is trained."""
    assert main([f"out={tmp_path / 'o'}", f"ldm_config={tmp_path / 'none.yaml'}"]) == 2
    assert "none.yaml: no such file" in capsys.readouterr().err


@pytest.mark.parametrize("per_channel", [False, True])
@torch.no_grad()
def test_normalising_latents_changes_no_decoded_picture(ldm, per_channel):
    """Latents get mean 0 and variance 1; decoding stays the same, through the codebook too with a common scale."""
    images = draw_pictures(1, 1).images
    autoencoder = ldm.autoencoder
    autoencoder.quantize.embedding.weight.normal_()
    before = encode_all(autoencoder, images)
    wanted = [autoencoder.decode(before, quantize=q) for q in (False, True)]
    normalise_latents(autoencoder, before, per_channel=per_channel)
    after = encode_all(autoencoder, images)
    torch.testing.assert_close(after.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    spread = after.var(dim=(0, 2, 3))
    for variance in spread if per_channel else [spread.mean()]:
        assert variance.item() == pytest.approx(1, abs=1e-3)
    torch.testing.assert_close(autoencoder.decode(after, quantize=False), wanted[0], atol=1e-3, rtol=0)
    if not per_channel:
        torch.testing.assert_close(autoencoder.decode(after, quantize=True), wanted[1], atol=1e-3, rtol=0)


def test_codes_start_where_the_latents_are(ldm):
    """Every code is the nearest one of some latent vector."""
    latents = torch.randn(20, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    start_codes(ldm.autoencoder, latents, seed=0)
    used = ldm.autoencoder.quantize.nearest(latents).unique()
    assert len(used) == len(ldm.autoencoder.quantize.embedding.weight)


@pytest.mark.parametrize(("parameterization", "num_steps"), [("eps", 30), ("v", 150), ("flow", 150)])
def test_denoiser_learns_and_leaves_the_autoencoder_alone(tiny_config, parameterization, num_steps):
    """On two latents the loss falls, whatever is predicted; the autoencoder's weights stay as they were.

    Noise is in the input; a latent, of which v and flow are made, has to be learned by heart, which takes longer.
    """
    torch.manual_seed(0)
    config = yaml.safe_load(tiny_config.read_text())
    config["model"]["params"]["parameterization"] = parameterization
    ldm = build_class_ldm(config).eval()
    latents, class_ids = torch.randn(2, 3, 16, 16), torch.tensor([0, 1])
    frozen = {name: x.clone() for name, x in ldm.autoencoder.state_dict().items()}
    t, eps = torch.tensor([500, 900]), torch.randn(2, 3, 16, 16)
    before = ldm.loss(latents, ldm.conditioner(class_ids), t, eps)
    train_denoiser(ldm, latents, class_ids, Fit(num_steps=num_steps, batch_size=2, lr=2e-3, seed=0))
    assert ldm.loss(latents, ldm.conditioner(class_ids), t, eps) < 0.8 * before
    assert all(torch.equal(x, frozen[name]) for name, x in ldm.autoencoder.state_dict().items())
    assert torch.isfinite(sample_classes(ldm, class_ids, seed=0, num_steps=3)).all()


def test_scaled_context_is_the_same_model(ldm):
    """Smaller class embeddings with larger keys and values predict the same noise."""
    x, t, class_ids = torch.randn(2, 3, 16, 16), torch.tensor([100, 800]), torch.tensor([0, 5])
    for head in (module for module in ldm.modules() if isinstance(module, TransformerBlock)):
        torch.nn.init.normal_(head.attn2.to_out[0].weight)
    torch.nn.init.normal_(ldm.unet.out[2].weight)
    deviation = ldm.conditioner.embedding.weight.std().item()
    with torch.no_grad():
        before = ldm.unet(x, t, ldm.conditioner(class_ids))
        scale_context(ldm, 0.125)
        torch.testing.assert_close(ldm.unet(x, t, ldm.conditioner(class_ids)), before, rtol=1e-4, atol=1e-5)
    assert ldm.conditioner.embedding.weight.std().item() == pytest.approx(deviation / 8)


def test_all_noise_levels_count_alike():
    """Losses a thousand times apart end up with the same weight; the scale follows the training."""
    levels = LevelLoss(1000)
    t = torch.tensor([20, 980])
    for _ in range(3):
        assert levels(torch.tensor([0.5, 0.0005]), t).item() == pytest.approx(1)
    losses = torch.tensor([0.5, 0.0005], requires_grad=True)
    levels(losses, t).backward()
    assert (losses.grad * losses.detach()).tolist() == pytest.approx([0.5, 0.5])
    assert levels(torch.tensor([0.25, 0.0005]), t).item() < 1


def test_moving_average_starts_at_the_weights():
    """Early steps follow the weights closely, later ones hardly."""
    average, current = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    torch.nn.init.zeros_(average.weight)
    torch.nn.init.ones_(current.weight)
    move_average(average, current, 1)
    assert average.weight.item() > 0.5
    torch.nn.init.zeros_(average.weight)
    move_average(average, current, 10**6)
    assert average.weight.item() == pytest.approx(0.002, rel=1e-3)


def test_batches_visit_everything_equally_often():
    """Five orders of eight items in batches of four."""
    batches = random_batches(8, Fit(num_steps=10, batch_size=4, lr=0.1, seed=0))
    assert all(len(batch) == 4 for batch in batches)
    assert torch.cat(batches).bincount().tolist() == 8 * [5]


def test_minimise_finds_the_minimum():
    """A quadratic ends at its minimum."""
    x = torch.nn.Parameter(torch.zeros(2))
    fit = Fit(num_steps=300, batch_size=2, lr=0.1, seed=0)
    minimise(lambda step, indices: (x - torch.tensor([1.0, -2.0])).square().sum(), [x], num_items=4, fit=fit, label="x")
    torch.testing.assert_close(x.detach(), torch.tensor([1.0, -2.0]), atol=0.02, rtol=0)


def test_psnr_of_a_known_error():
    """An error of a tenth of the range is 20 dB."""
    images = np.full((1, 8, 8, 3), 127, np.uint8)
    decoded = torch.full((1, 3, 8, 8), 127 / 127.5 - 1 + 0.2)
    assert peak_signal_to_noise(decoded, images) == pytest.approx(20, abs=0.01)


def test_degrading_changes_some_pictures_and_keeps_the_size():
    """About a quarter is left alone; the same generator degrades alike."""
    image = torch.rand(64, 3, 16, 16)
    degraded = [degrade(image, torch.Generator().manual_seed(1)) for _ in range(2)]
    assert degraded[0].shape == image.shape and torch.equal(*degraded)
    same = (degraded[0] == image).flatten(1).all(dim=1).sum()
    assert 4 < same < 32

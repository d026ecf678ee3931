"""Sampling that starts from a ridge regression's picture: inner steps of every sampler, strength 0 and 1, the file."""

import json

import ldm_cases
import numpy as np
import pytest
import torch

from mindvis.common.errors import InputError
from mindvis.common.launched import Process
from mindvis.common.ridge import fit_ridge
from mindvis.config.decoding import GenerateConfig
from mindvis.data import PairedDataset
from mindvis.data.images import to_float
from mindvis.dc_ldm import NoiseSchedule, noise_for
from mindvis.dc_ldm.samplers import SAMPLERS, nearest_start, starting_steps
from mindvis.decoding.baselines import decode_latents
from mindvis.decoding.decode import decode
from mindvis.decoding.ridge import fit_latent, predict_rows, read_ridge, save_ridge
from mindvis.decoding.settle import GUIDANCES, STRENGTHS, choose_by, how_decoded, once

ALPHAS_CUMPROD = NoiseSchedule().alphas_cumprod.double()
MEAN, NUM_STEPS = 0.7, 12


@pytest.fixture(params=SAMPLERS)
def name(request):
    return request.param


def one_point(seen):
    """Exact noise predictor where all data is one point; it remembers the steps and the x_t it was asked about."""

    def eps_model(x, t):
        seen.append((int(t[0]), x.clone()))
        alpha = ALPHAS_CUMPROD[t][:, None, None, None]
        return (x - alpha.sqrt() * MEAN) / (1 - alpha).sqrt()

    return eps_model


def test_every_sampler_starts_at_an_inner_step_as_it_would_pass_it(name):
    """From the x_t that the whole run passes, the steps that are left are the same, and so is x_0."""
    whole, noise = [], noise_for(0, 0, 0, (1, 2, 2)).double()
    x0 = SAMPLERS[name](one_point(whole), noise, ALPHAS_CUMPROD, NUM_STEPS)
    steps = starting_steps(name, ALPHAS_CUMPROD, NUM_STEPS)
    assert steps == sorted(steps, reverse=True) and steps[0] == whole[0][0]
    for start in steps:
        # PLMS asks about its second step twice: the last time is when it is there
        passed = [x for t, x in whole if t == start][-1]
        tail = []
        found = SAMPLERS[name](one_point(tail), passed, ALPHAS_CUMPROD, NUM_STEPS, start=start)
        torch.testing.assert_close(found, x0, atol=1e-9, rtol=0)
        assert {t for t, _ in tail} == {t for t, _ in whole if t <= start}


def test_ddim_passes_an_inner_step_to_the_bit(golden):
    """DDIM has no memory, so a start inside is the rest of the whole run, with the network of a decoder too."""
    ldm = ldm_cases.build(golden("dc_ldm"))
    context = golden("dc_ldm").tensor("out/context")
    noise = torch.cat([noise_for(0, row, 0, ldm.latent_shape) for row in range(len(context))])
    seen = {}

    def eps_model(x, t):
        seen[int(t[0])] = x
        return ldm.unet(x, t, context)

    with torch.no_grad():
        x0 = SAMPLERS["ddim"](eps_model, noise, ldm.schedule.alphas_cumprod, 5)
        start = sorted(seen)[2]
        again = SAMPLERS["ddim"](eps_model, seen[start], ldm.schedule.alphas_cumprod, 5, start=start)
    assert torch.equal(again, x0)


@pytest.mark.parametrize("strength", [0.05, 0.4, 0.77, 1.0])
def test_the_nearest_step_is_taken(name, strength):
    """No other step of the sampler is nearer to that share of the diffusion steps; strength 1 is the first."""
    start = nearest_start(name, ALPHAS_CUMPROD, NUM_STEPS, strength)
    steps = starting_steps(name, ALPHAS_CUMPROD, NUM_STEPS)
    assert all(abs(start - 1000 * strength) <= abs(step - 1000 * strength) for step in steps)
    if strength == 1:
        assert start == steps[0]


@pytest.fixture
def decoder(golden):
    """A decoder, three rows of fMRI, and latents of a ridge regression for them."""
    rng = np.random.default_rng(3)
    ldm = ldm_cases.build(golden("dc_ldm"))
    fmri = rng.standard_normal((9, ldm.conditioner.encoder.num_voxels), dtype="float32")
    latents = rng.standard_normal((9, int(np.prod(ldm.latent_shape))))
    ridge = fit_ridge(fmri, latents, [10.0]).rounded()
    return ldm, fmri[:3], ridge.predict(fmri)[:3]


def pictures(decoder, sampler="dpm_solver", **options):
    ldm, fmri, latents = decoder
    options = {"initial": lambda _: latents, "num_samples": 2, "num_steps": 4, "seed": 5, **options}
    return decode(ldm, fmri, range(3), sampler=sampler, **options)


def test_strength_one_is_the_picture_without_a_ridge(decoder, name):
    """To the bit, with every sampler, and with guidance."""
    for more in ({}, {"guidance": 2.0, "mean_fmri": decoder[1].mean(axis=0)}):
        without = pictures(decoder, name, initial=None, **more)
        assert np.array_equal(pictures(decoder, name, strength=1.0, **more), without)


def test_strength_zero_is_the_ridges_own_picture(decoder, name):
    """To the bit, whatever the sampler; every sample is the same."""
    found = pictures(decoder, name, strength=0.0)
    own = decode_latents(decoder[0], decoder[2])  # [n 1 h w 3]
    assert np.array_equal(found, np.repeat(own, 2, axis=1))


def test_between_them_the_ridge_and_the_noise_both_count(decoder, name):
    """Other latents, or another sample of the noise, give another picture; the batch does not matter."""
    found = pictures(decoder, name, strength=0.5)
    assert not np.array_equal(found, pictures(decoder, name, strength=0.5, initial=lambda _: decoder[2][::-1]))
    assert not np.array_equal(found[:, 0], found[:, 1])
    alone = pictures(decoder, name, strength=0.5, batch_size=1)
    assert np.abs(found.astype(int) - alone.astype(int)).max() <= 1


def test_pictures_of_another_size_start_from_the_resized_latent(decoder, rng):
    """Twice the height: each picture of one colour stays nearest to itself."""
    channels, height, width = decoder[0].latent_shape
    plain = np.repeat(2 * rng.standard_normal((3, channels)), height * width, axis=1)
    side = decoder[0].autoencoder.encoder.resolution
    options = {"strength": 0.0, "initial": lambda _: plain}
    own, tall = (pictures(decoder, image_size=size, **options)[:, 0].astype(float) for size in (None, (2 * side, side)))
    assert tall.shape == (3, 2 * side, side, 3)
    halved = tall.reshape(3, side, 2, side, 3).mean(axis=2)
    distance = np.abs(halved[:, None] - own).mean(axis=(2, 3, 4))
    assert distance.argmin(axis=1).tolist() == [0, 1, 2]


def test_strengths_outside_are_refused(decoder):
    """One line that names the setting."""
    with pytest.raises(InputError, match="setting strength is 1.5; needed: 0 to 1"):
        pictures(decoder, strength=1.5)


def test_the_file_keeps_the_regression_to_the_bit(rng, tmp_path):
    """With its penalty, the errors of all of them, and what it was fitted to."""
    fmri = rng.standard_normal((9, 20))
    ridge = fit_ridge(fmri, rng.standard_normal((9, 4)), [1.0, 10.0]).rounded()
    save_ridge(tmp_path / "ridge.safetensors", ridge, {"data": {"name": "npz"}})
    kept, origin = read_ridge(tmp_path / "ridge.safetensors")
    assert np.array_equal(predict_rows(kept, fmri), predict_rows(ridge, fmri))
    assert np.array_equal(predict_rows(kept, fmri[3:4]), predict_rows(kept, fmri)[3:4])
    assert (kept.alpha, kept.errors, origin) == (ridge.alpha, ridge.errors, {"data": {"name": "npz"}})


def test_each_setting_that_is_auto_is_chosen_in_turn():
    """The strength with the guidance at 1, then the guidance at that strength; a number stays as it is."""
    asked = []

    def score(config):
        asked.append((config.strength, config.guidance))
        return -abs(config.strength - 0.5) - abs(config.guidance - 2.0)

    both = choose_by(score, GenerateConfig(run="run", strength="auto", guidance="auto"))
    assert (both["strength"], both["guidance"]) == (0.5, 2.0)
    assert asked == [(value, 1.0) for value in STRENGTHS] + [(0.5, value) for value in GUIDANCES]
    assert set(both["scores"]["strength"]) == {str(value) for value in STRENGTHS}
    one = choose_by(score, GenerateConfig(run="run", strength="auto", guidance=3.0))
    assert one["strength"] == 0.5 and "guidance" not in one


def test_a_choice_is_made_once_by_the_first_process(tmp_path):
    """Others read it, under its key alone; where nobody chooses, one line says who is missing."""
    file, calls = tmp_path / "chosen.json", []

    def compute():
        calls.append(1)
        return {"strength": 0.3}

    with pytest.raises(InputError, match="nothing chosen .* process 0 of 2"):
        once(file, "a", Process(1, 2), 0.0, compute)
    for process in (Process(0, 2), Process(1, 2), Process()):
        assert once(file, "a", process, 0.0, compute) == {"strength": 0.3}
    once(file, "b", Process(), 0.0, compute)
    assert len(calls) == 2 and set(json.loads(file.read_text())) == {"a", "b"}


def test_kept_latents_give_the_same_regression(golden, rng):
    """Those of Stage B in the place of encoding the training pictures again."""
    ldm = ldm_cases.build(golden("dc_ldm"))
    side = ldm.autoencoder.encoder.resolution
    images = rng.integers(0, 256, (6, side, side, 3), dtype=np.uint8)
    train = PairedDataset(rng.standard_normal((6, 32)).astype(np.float32), images)
    kept = ldm.encode(to_float(images)).numpy()
    found, wanted = (fit_latent(ldm, train, [1.0], kept=latents) for latents in (kept, None))
    np.testing.assert_allclose(found.weights, wanted.weights, atol=1e-5)


@pytest.mark.parametrize(
    ("generated", "words"),
    [
        ({"settings": {"guidance": 1.0}}, "MinD-Vis, alone (guidance 1)"),
        (
            {"settings": {"init": "ridge", "strength": 0.4, "guidance": 2.0}, "ridge_context": True},
            "MinD-Vis, its context begun as a ridge regression, from a ridge regression's picture on "
            "(strength 0.4, guidance 2)",
        ),
    ],
)
def test_what_is_told_of_the_decoder(generated, words):
    """Nothing that a ridge regression has done goes unsaid."""
    assert how_decoded(generated) == words

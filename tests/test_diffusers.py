"""Diffusers folders: the same numbers as the library, its coefficients and trajectories, and folders it opens again."""

import diffusers
import diffusers_models
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)

from mindvis.checkpoints import read_diffusers, write_diffusers
from mindvis.checkpoints.diffusers_scheduler import FLOW_SCHEDULER, SCHEDULERS
from mindvis.checkpoints.diffusers_scheduler import schedule as read_schedule
from mindvis.dc_ldm import NoiseSchedule, noise_for
from mindvis.dc_ldm.published import build_schedule
from mindvis.dc_ldm.samplers import SAMPLERS
from mindvis.dc_ldm.timesteps import solver_timesteps


@pytest.fixture(scope="module", params=diffusers_models.MODELS)
def case(request, tmp_path_factory):
    """The parts as the library has them, their folder, and the model we read from it."""
    parts = diffusers_models.library_model(request.param)
    folder = diffusers_models.save(parts, tmp_path_factory.mktemp(request.param))
    return parts, folder, diffusers_models.ours(folder)


def autoencoder_of(parts):
    return parts.get("vae", parts.get("vqvae"))


def inputs(ldm, batch=2):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(batch, *ldm.latent_shape, generator=generator)
    context = torch.randn(batch, 5, ldm.unet.context_dim, generator=generator)
    return x, torch.tensor([1, 981])[:batch], context


@torch.no_grad()
def test_unet_predicts_the_same(case):
    """Within 1e-5."""
    parts, _, ldm = case
    x, t, context = inputs(ldm)
    torch.testing.assert_close(ldm.unet(x, t, context), parts["unet"](x, t, context).sample, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("sides", [(9, 7), (8, 11)])
@torch.no_grad()
def test_unet_predicts_the_same_on_odd_sides(case, sides):
    """What is rounded up on the way down is cut off before the convolution of the way up, as in the library."""
    parts, _, ldm = case
    _, t, context = inputs(ldm)
    x = torch.randn(2, ldm.unet.in_channels, *sides, generator=torch.manual_seed(4))
    torch.testing.assert_close(ldm.unet(x, t, context), parts["unet"](x, t, context).sample, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_autoencoder_encodes_and_decodes_the_same(case):
    """Within 1e-4: the mean of the posterior, scaled; of VQ before the codebook, quantised on its way."""
    parts, _, ldm = case
    theirs = autoencoder_of(parts)
    factor = theirs.config.scaling_factor
    image = torch.randn(1, 3, ldm.autoencoder.encoder.resolution, ldm.autoencoder.encoder.resolution).clamp(-1, 1)
    encoded = theirs.encode(image)
    wanted = encoded.latent_dist.mean if hasattr(encoded, "latent_dist") else encoded.latents
    latent = ldm.encode(image)
    assert latent.shape[1:] == ldm.latent_shape
    torch.testing.assert_close(latent, wanted * factor, atol=1e-4, rtol=1e-4)
    decoded = theirs.decode(latent / factor).sample
    torch.testing.assert_close(ldm.autoencoder.decode(latent), decoded, atol=1e-4, rtol=1e-4)


def test_scheduler_coefficients_are_the_same(case):
    """Betas and the products of their complements within 1e-4 of the library's float32 numbers."""
    parts, _, ldm = case
    theirs = parts["scheduler"]
    assert len(theirs.betas) == ldm.schedule.num_timesteps
    torch.testing.assert_close(ldm.schedule.betas, theirs.betas, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(ldm.schedule.alphas_cumprod, theirs.alphas_cumprod, atol=1e-4, rtol=1e-4)
    wanted = {"epsilon": "eps", "v_prediction": "v"}[theirs.config.prediction_type]
    assert ldm.parameterization == wanted


@pytest.mark.parametrize("kind", [name for name in SCHEDULERS if name in dir(diffusers) and name != FLOW_SCHEDULER])
def test_what_a_scheduler_leaves_out_is_at_its_own_default(kind, caplog):
    """The betas and the prediction of each class, whose defaults differ, from a file without any setting."""
    if kind == "DPMSolverSDEScheduler":
        pytest.importorskip("torchsde")
    theirs = getattr(diffusers, kind)()
    schedule = build_schedule({"model": {"params": read_schedule({"_class_name": kind}, "scheduler_config.json")}})
    torch.testing.assert_close(schedule.alphas_cumprod, theirs.alphas_cumprod, atol=1e-6, rtol=1e-4)
    clips = bool(theirs.config.get("clip_sample"))
    assert ("scheduler_config.json: clip_sample is true" in caplog.text) == clips


def run_library(scheduler, unet, x, context):
    for t in scheduler.timesteps:
        x = scheduler.step(unet(x, t, context).sample, t, x).prev_sample
    return x


def steps_of(method, ldm, config):
    """The library's scheduler on the steps of our sampler."""
    if method == "ddim":
        spacing = "trailing" if config.rescale_betas_zero_snr else "leading"
        scheduler = DDIMScheduler.from_config(config, timestep_spacing=spacing)
        scheduler.set_timesteps(10)
        return scheduler
    times = solver_timesteps(ldm.schedule.alphas_cumprod, 10)
    kind = {"dpm_solver": DPMSolverMultistepScheduler, "unipc": UniPCMultistepScheduler}[method]
    options = {"solver_order": {"dpm_solver": 2, "unipc": 3}[method], "lower_order_final": False}
    scheduler = kind.from_config(config, final_sigmas_type="sigma_min", **options)
    scheduler.set_timesteps(10)
    alphas = scheduler.alphas_cumprod[times].double()
    scheduler.timesteps = torch.tensor(times[:-1])
    scheduler.sigmas = ((1 - alphas) / alphas).sqrt().float()
    return scheduler


@pytest.mark.parametrize("method", ["ddim", "dpm_solver", "unipc"])
@torch.no_grad()
def test_trajectories_are_the_same(case, method):
    """Ten steps of the network: within 1e-4 of the largest value."""
    parts, _, ldm = case
    x, _, context = inputs(ldm)
    wanted = run_library(steps_of(method, ldm, parts["scheduler"].config), parts["unet"], x, context)
    arguments = (x, ldm.schedule.alphas_cumprod, 10)
    found = SAMPLERS[method](lambda x, t: ldm.predict(x, t, context), *arguments, prediction=ldm.sampled_prediction)
    torch.testing.assert_close(found, wanted, atol=1e-4 * wanted.abs().max().item(), rtol=0)


@torch.no_grad()
def test_euler_steps_of_a_flow_are_the_same():
    """Along straight lines, on the same ten steps, as the library's scheduler of flow matching."""
    schedule = NoiseSchedule(flow=True)
    noise = noise_for(0, 0, 0, (3, 4, 4))
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=[1 - index / 10 for index in range(10)])

    def velocity(x, place):
        return torch.sin(x * 3) + place / 1000

    wanted = noise
    for t in scheduler.timesteps:
        wanted = scheduler.step(velocity(wanted, t), t, wanted).prev_sample

    def v_model(x_t, t):
        alpha, sigma = schedule.levels(t)
        return schedule.convert(velocity(x_t / (alpha + sigma), t[0] + 1), x_t, t, "flow", "v")

    found = SAMPLERS["euler"](v_model, noise, schedule.alphas_cumprod, 10, prediction="v")
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


def compared(part) -> dict:
    """Settings of a part, without those that say how to sample and a default that is told in full."""
    names = ("timestep_spacing", "steps_offset", "vq_embed_dim")
    return {name: value for name, value in part.config.items() if name not in names and name[0] != "_"}


@torch.no_grad()
def test_a_folder_of_ours_is_opened_by_the_library(case, tmp_path):
    """The same configs where they matter, the same weights to the bit, the same predictions."""
    parts, _, ldm = case
    write_diffusers(ldm, tmp_path)
    for place, theirs in parts.items():
        again = type(theirs).from_pretrained(tmp_path / place)
        settings = compared(theirs)
        assert {name: again.config[name] for name in settings} == settings
        if place != "scheduler":
            wanted = theirs.state_dict()
            assert all(torch.equal(tensor, wanted[name]) for name, tensor in again.state_dict().items())
    x, t, context = inputs(ldm)
    unet = type(parts["unet"]).from_pretrained(tmp_path / "unet").eval()
    torch.testing.assert_close(unet(x, t, context).sample, ldm.unet(x, t, context), atol=1e-5, rtol=1e-5)


def test_reading_what_was_written_gives_the_same_again(case, tmp_path):
    """Config and weights, bit for bit."""
    _, folder, ldm = case
    config, state = read_diffusers(folder)
    write_diffusers(ldm, tmp_path)
    config_again, state_again = read_diffusers(tmp_path)
    assert config_again == config
    assert state.keys() == state_again.keys()
    assert all(torch.equal(state[name], state_again[name]) for name in state)

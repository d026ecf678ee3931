"""Time embeddings averaged over the diffusion steps that an evaluation stands for."""

import ldm_cases
import numpy as np
import pytest
import torch

from mindvis.benchmarks.solvers import CountedModel
from mindvis.checkpoints import DEMO_LDM
from mindvis.dc_ldm import averaged_embeddings, averaged_timesteps, noise_for, sample_unipc, sample_unipc_averaged
from mindvis.decoding.baselines import load_class_ldm
from mindvis.decoding.decode import SAMPLERS, decode, time_embeddings

TIMES = (29, 20, 16, 15, 3, 0)
CELLS = {29: range(25, 30), 20: range(18, 25), 16: range(16, 19), 15: range(9, 16), 3: range(2, 10)}


class Embedding(torch.nn.Module):
    """Stands for a UNet whose embeddings are given."""

    def __init__(self, table: torch.Tensor):
        super().__init__()
        self.table = torch.nn.Parameter(table)

    def embed_times(self, t: torch.Tensor) -> torch.Tensor:
        return self.table[t].detach()


@pytest.fixture
def ldm(golden):
    return ldm_cases.build(golden("dc_ldm_pooled_crossattn_only")).eval()


def test_each_is_the_value_of_a_line_through_what_lies_nearer_to_it_than_to_its_neighbours():
    """Steps halfway belong to both; beyond the last step there is nothing; other embeddings stay as they are."""
    rows = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    table = averaged_embeddings(Embedding(rows), TIMES, 30)
    for t, cell in CELLS.items():
        line = np.polynomial.Polynomial.fit
        wanted = [line(np.array(cell), rows[list(cell), k].numpy(), 1)(t) for k in range(4)]
        np.testing.assert_allclose(table[t], wanted, atol=1e-5)
    others = [t for t in range(30) if t not in CELLS]
    assert torch.equal(table[others], rows[others])


def test_a_ripple_goes_and_a_slope_stays():
    """Steps 24 apart, a ripple of period 8: less than a tenth of it is left, and the slope is met exactly."""
    t = torch.arange(1000.0)
    slope, ripple = t / 100, torch.sin(2 * torch.pi * t / 8)
    times = list(range(984, -1, -24))
    table = averaged_embeddings(Embedding(torch.stack([slope, ripple], dim=1)), times, 1000)
    torch.testing.assert_close(table[times, 0], slope[times], atol=1e-4, rtol=0)
    assert table[times[1:-1], 1].abs().max() < 0.1


def test_given_embeddings_take_the_place_of_the_unets(ldm):
    """Its own change nothing; others do."""
    x, t = noise_for(0, 0, 0, ldm.latent_shape), torch.tensor([500])
    context = ldm.conditioner(torch.zeros(1, 1, ldm.conditioner.encoder.num_voxels))
    own = ldm.unet.embed_times(torch.arange(1000))
    with torch.no_grad():
        plain = ldm.unet(x, t, context)
        torch.testing.assert_close(ldm.unet(x, t, ldm.unet.prepare_context(context, own)), plain)
        assert not torch.allclose(ldm.unet(x, t, ldm.unet.prepare_context(context, own + 1)), plain)


def test_only_one_sampler_wants_them(ldm):
    """Those of its own steps are averaged, and as many others are not."""
    table, own = time_embeddings(ldm, "unipc_averaged", 10), ldm.unet.embed_times(torch.arange(1000))
    changed = set((table != own).any(dim=1).nonzero().flatten().tolist())
    assert set(averaged_timesteps(ldm.schedule.alphas_cumprod, 10)[:8]) <= changed
    assert len(changed) <= 10
    assert time_embeddings(ldm, "unipc", 10) is None


def test_decoding_follows_the_averaged_model(ldm, rng, monkeypatch):
    """What the sampler is given predicts with the averaged embeddings."""
    fmri = rng.standard_normal((1, ldm.conditioner.encoder.num_voxels), dtype="float32")
    t, seen = torch.tensor([999]), []

    def sampler(eps_model, noise, *_):
        seen.append((noise, eps_model(noise, t)))
        return noise

    monkeypatch.setitem(SAMPLERS, "unipc_averaged", sampler)
    decode(ldm, fmri, [0], num_samples=1, sampler="unipc_averaged", num_steps=3)
    ((noise, eps),) = seen
    with torch.no_grad():
        context = ldm.conditioner(torch.from_numpy(fmri)[None])
        table = time_embeddings(ldm, "unipc_averaged", 3)
        torch.testing.assert_close(eps, ldm.unet(noise, t, ldm.unet.prepare_context(context, table)))
        assert not torch.equal(eps, ldm.unet(noise, t, context))


def test_a_picture_does_not_depend_on_its_batch(ldm, rng):
    """One at a time or all at once: at most a rounding of the last bit apart."""
    fmri = rng.standard_normal((3, ldm.conditioner.encoder.num_voxels), dtype="float32")
    options = {"num_samples": 1, "sampler": "unipc_averaged", "num_steps": 3}
    together, one_by_one = (decode(ldm, fmri, range(3), batch_size=size, **options) for size in (3, 1))
    assert np.abs(together.astype(int) - one_by_one).max() <= 1


@torch.no_grad()
def test_few_steps_come_nearer_on_the_demo_model():
    """25 evaluations against 250 of the same ODE: less than half as far off as UniPC."""
    ldm, class_ids = load_class_ldm(DEMO_LDM).eval(), torch.arange(4)
    noise = torch.cat([noise_for(1, row, 0, ldm.latent_shape) for row in range(4)])
    alphas_cumprod = ldm.schedule.alphas_cumprod
    averaged = CountedModel(ldm, class_ids, time_embeddings(ldm, "unipc_averaged", 25))
    near = sample_unipc_averaged(averaged, noise, alphas_cumprod, 25)
    far = sample_unipc(CountedModel(ldm, class_ids), noise, alphas_cumprod, 25)
    wanted = sample_unipc(CountedModel(ldm, class_ids), noise, alphas_cumprod, 250)
    assert averaged.calls == 25
    assert (near - wanted).norm() < 0.5 * (far - wanted).norm()

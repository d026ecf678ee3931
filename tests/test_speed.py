"""What makes the networks faster leaves their results as they were; bfloat16 stays within a stated tolerance."""

import copy

import ldm_cases
import pytest
import torch

from mindvis.dc_ldm import sample_plms
from mindvis.dc_ldm.frozen import FrozenLayer
from mindvis.dc_ldm.speed import channels_last, keep_casts
from mindvis.decoding.decode import make_ready
from mindvis.sc_mbm.attention import fused_pays

BF16_LATENT = 0.03  # of the largest value, after 10 PLMS steps
BF16_EPS = 0.02  # of the largest value


@pytest.fixture
def case(golden):
    return golden("dc_ldm")


@pytest.fixture
def ldm(case):
    return ldm_cases.build(case)


def largest_difference(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return ((found.float() - wanted).abs().max() / wanted.abs().max()).item()


@torch.no_grad()
def eps_of(ldm, case) -> torch.Tensor:
    return ldm.unet(case.tensor("in/x_T"), torch.tensor([500] * len(case.tensor("in/x_T"))), case.tensor("out/context"))


def test_kept_casts_change_no_bit(ldm, case):
    """A cast that is kept is the cast that autocast makes in every call."""
    with torch.autocast("cpu", torch.bfloat16):
        wanted = eps_of(ldm, case)
        keep_casts(ldm)
        assert torch.equal(eps_of(ldm, case), wanted) and torch.equal(eps_of(ldm, case), wanted)
    assert torch.equal(ldm.unet.out[2].forward.kept[0], ldm.unet.out[2].weight.bfloat16())


def test_kept_casts_follow_their_weights():
    """New values, and another copy of the module, are cast anew."""
    layer = torch.nn.Linear(3, 2)
    keep_casts(layer)
    x = torch.ones(1, 3)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        layer(x)
        layer.load_state_dict({"weight": torch.ones(2, 3), "bias": torch.zeros(2)})
        assert layer(x).tolist() == [[3.0, 3.0]]
        other = copy.deepcopy(layer)
        other.weight.zero_()
        assert (other(x).tolist(), layer(x).tolist()) == ([[0.0, 0.0]], [[3.0, 3.0]])


def test_tuned_weights_keep_their_gradient():
    """Casts are kept of what is frozen alone, and are no part of the state."""
    layer = torch.nn.Linear(3, 2)
    names = set(layer.state_dict())
    keep_casts(layer)
    with torch.autocast("cpu", torch.bfloat16):
        layer(torch.ones(1, 3)).sum().backward()
    assert layer.weight.grad is not None and layer.forward.kept is None
    assert isinstance(layer.forward, FrozenLayer) and set(layer.state_dict()) == names


@torch.no_grad()
def test_channels_last_changes_layout_and_not_results(ldm, case):
    """Convolutions keep their weights channels last; noise and latent agree within round-off. Narrow models stay."""
    image = ldm_cases.image(case)
    wanted = eps_of(ldm, case), ldm.autoencoder.encode(image)
    channels_last(ldm)
    assert ldm.unet.input_blocks[0][0].weight.is_contiguous()  # too narrow
    ldm.unet.to(memory_format=torch.channels_last)
    ldm.autoencoder.to(memory_format=torch.channels_last)
    for found, before in zip((eps_of(ldm, case), ldm.autoencoder.encode(image)), wanted, strict=True):
        assert found.is_contiguous(memory_format=torch.channels_last)
        assert largest_difference(found, before) < 1e-5


def test_attention_is_chosen_by_type():
    """On the CPU the fused kernel is left out in bfloat16, whether by tensor or by autocast, but for long sequences."""
    x = torch.zeros(1)
    assert fused_pays(x, 74, 74) and not fused_pays(x.bfloat16(), 74, 74)
    assert fused_pays(x.bfloat16(), 8192, 8192) and fused_pays(torch.zeros(1, device="meta").bfloat16(), 74, 74)
    with torch.autocast("cpu", torch.bfloat16):
        assert not fused_pays(x, 74, 74)


@torch.no_grad()
def test_bfloat16_noise_stays_near_the_published_one(ldm, case):
    """One evaluation of the UNet with everything that mixed precision switches on."""
    wanted = eps_of(ldm, case)
    make_ready(ldm, "bf16-mixed")
    with torch.autocast("cpu", torch.bfloat16):
        found = eps_of(ldm, case)
    assert 0 < largest_difference(found, wanted) < BF16_EPS


@torch.no_grad()
def test_bfloat16_samples_stay_near_the_published_ones(ldm, case):
    """Context and 10 PLMS steps in mixed precision, against the parity file."""
    make_ready(ldm, "bf16-mixed")
    with torch.autocast("cpu", torch.bfloat16):
        prepared = ldm.unet.prepare_context(case.tensor("out/context"))
        model = lambda x, t: ldm.unet(x, t, prepared).float()  # noqa: E731
        found = sample_plms(model, case.tensor("in/x_T"), ldm.schedule.alphas_cumprod, 10)
    assert 0 < largest_difference(found, case.tensor("out/plms_10")) < BF16_LATENT

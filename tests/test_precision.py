"""Types and layout of weights leave results as they were; bfloat16 stays within a stated tolerance."""

import copy

import ldm_cases
import pytest
import torch

from mindvis.dc_ldm import LDMModule, sample_plms
from mindvis.dc_ldm.precision import cast_frozen, channels_last, with_dtype
from mindvis.decoding.decode import make_ready

BF16_LATENT = 0.03  # of the largest value, after 10 PLMS steps
BF16_EPS = 0.02  # of the largest value


@pytest.fixture
def case(golden):
    return golden("dc_ldm")


@pytest.fixture
def ldm(case):
    return ldm_cases.build(case)


@pytest.fixture
def batch(case, ldm):
    latent = torch.randn(2, *ldm.latent_shape, generator=torch.Generator().manual_seed(1))
    fmri = torch.randn(2, 1, case.meta["num_voxels"], generator=torch.Generator().manual_seed(2))
    return {"latent": latent, "fmri": fmri, "key": torch.tensor([[0, 0, 0], [0, 0, 1]])}


def largest_difference(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return ((found.float() - wanted).abs().max() / wanted.abs().max()).item()


@torch.no_grad()
def eps_of(ldm, case) -> torch.Tensor:
    x_t, dtype = case.tensor("in/x_T"), ldm.unet.out[2].weight.dtype
    return ldm.unet(x_t.to(dtype), torch.tensor([500] * len(x_t)), case.tensor("out/context").to(dtype))


def loss_and_gradients(module, batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    module.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        loss = module.loss(batch)
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def test_cast_frozen_weights_change_no_bit_of_a_training_step(ldm, batch):
    """A cast that is kept is the cast that autocast makes in every call; what is tuned, and norms, stay float32."""
    module = LDMModule(ldm)
    loss, wanted = loss_and_gradients(module, batch)
    cast_frozen(ldm)
    found_loss, found = loss_and_gradients(module, batch)
    assert torch.equal(loss, found_loss) and found.keys() == wanted.keys()
    assert all(torch.equal(found[name], gradient) for name, gradient in wanted.items())
    assert {p.dtype for p in ldm.parameters() if p.requires_grad} == {torch.float32}
    assert ldm.unet.out[2].weight.dtype == torch.bfloat16 and ldm.unet.out[0].weight.dtype == torch.float32


def test_a_state_with_cast_weights_loads_into_either_model(ldm, case):
    """A checkpoint of bf16-mixed holds everything: a model in float32 takes the rounded values, a cast one the same."""
    half, whole = copy.deepcopy(ldm), copy.deepcopy(ldm)
    cast_frozen(half)
    state = {name: value.clone() for name, value in half.state_dict().items()}
    assert state.keys() == whole.state_dict().keys()
    whole.load_state_dict(state)
    assert torch.equal(whole.unet.out[2].weight, ldm.unet.out[2].weight.bfloat16().float())
    half.load_state_dict(whole.state_dict())
    assert all(torch.equal(value, state[name]) for name, value in half.state_dict().items())


def test_the_type_of_a_model_is_changed_in_a_copy(ldm):
    """UNet and autoencoder are cast, conditioner and codebook are not; the model itself stays, and is its own copy."""
    half = with_dtype(ldm, torch.bfloat16)
    assert {p.dtype for p in half.unet.parameters()} == {torch.bfloat16}
    assert half.autoencoder.quantize.embedding.weight.dtype == torch.float32
    assert half.conditioner is ldm.conditioner and half.unet is not ldm.unet
    assert {p.dtype for p in ldm.parameters()} == {torch.float32}
    assert with_dtype(ldm, torch.float32) is ldm and with_dtype(half, torch.bfloat16) is half
    assert {p.dtype for p in with_dtype(half, torch.float32).unet.parameters()} == {torch.float32}


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


@torch.no_grad()
def test_bfloat16_noise_stays_near_the_published_one(ldm, case):
    """One evaluation of the UNet as decoding in mixed precision makes it."""
    wanted = eps_of(ldm, case)
    found = eps_of(make_ready(ldm, "bf16-mixed"), case)
    assert found.dtype == torch.bfloat16 and 0 < largest_difference(found, wanted) < BF16_EPS


@torch.no_grad()
def test_bfloat16_samples_stay_near_the_published_ones(ldm, case):
    """10 PLMS steps in mixed precision, against the parity file."""
    unet = make_ready(ldm, "bf16-mixed").unet
    prepared = unet.prepare_context(case.tensor("out/context").bfloat16())
    model = lambda x, t: unet(x.bfloat16(), t, prepared).float()  # noqa: E731
    found = sample_plms(model, case.tensor("in/x_T"), ldm.schedule.alphas_cumprod, 10)
    assert 0 < largest_difference(found, case.tensor("out/plms_10")) < BF16_LATENT

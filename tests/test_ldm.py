"""Stage B model: loss, what is tuned, what stays frozen, building from the published config, sizes."""

import copy

import ldm_cases
import pytest
import torch

from mindvis.common.errors import InputError
from mindvis.dc_ldm import build_class_ldm, build_ldm
from mindvis.sc_mbm import FMRIEncoder


@pytest.fixture(params=ldm_cases.CASES)
def case(request, golden):
    return golden(request.param)


def changed(golden, **params) -> dict:
    config = copy.deepcopy(golden("dc_ldm").meta["ldm"])
    config["model"]["params"].update(params)
    return config


def encoder() -> FMRIEncoder:
    return FMRIEncoder(num_voxels=96, patch_size=8, embed_dim=32, depth=1, num_heads=4)


@torch.no_grad()
def test_absolute_loss_where_the_file_asks_for_it(golden):
    """`loss_type: l1` is the mean absolute error on the noise, each sample's weighted where weights are given."""
    ldm = build_ldm(changed(golden, loss_type="l1"), encoder())
    torch.manual_seed(0)
    latent, eps = torch.randn(2, 2, *ldm.latent_shape)
    inputs = (torch.randn(2, 77, ldm.unet.context_dim), torch.tensor([3, 700]))
    found = ldm.unet(ldm.schedule.add_noise(latent, eps, inputs[1]), *reversed(inputs))
    errors = (found - eps).abs().mean(dim=(1, 2, 3))
    torch.testing.assert_close(ldm.loss(latent, *inputs, eps), errors.mean())
    weights = torch.tensor([0.5, 3.0])
    torch.testing.assert_close(ldm.loss(latent, *inputs, eps, weights), (weights * errors).mean())


@torch.no_grad()
def test_loss_agrees_with_the_published_one(case):
    """Within 1e-5."""
    ldm = ldm_cases.build(case)
    loss = ldm.loss(case.tensor("out/latent"), case.tensor("out/context"), case.tensor("in/t"), case.tensor("in/noise"))
    assert abs(loss.item() - float(case["out/loss"])) < 1e-5


def test_three_training_steps_agree_with_the_published_ones(case):
    """Losses within 1e-5; each tensor afterwards within a mean absolute difference of 1e-7."""
    ldm = ldm_cases.build(case).train()
    tuned = list(ldm.trainable_parameters().values())
    optimiser = torch.optim.AdamW(tuned, lr=case.meta["lr"], weight_decay=0.01)
    latent = ldm.encode(ldm_cases.image(case))
    for index, wanted in enumerate(case["out/train_losses"]):
        context = ldm.conditioner(case.tensor("in/fmri"))
        loss = ldm.loss(latent, context, case.tensor("in/train_t")[index], case.tensor("in/train_noise")[index])
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(tuned, case.meta["clip"])
        optimiser.step()
        assert abs(loss.item() - float(wanted)) < 1e-5
    state = ldm.state_dict()
    for name, wanted in case.tensors("after").items():
        assert (state[ldm_cases.our_name(name)] - wanted).abs().mean() < 1e-7, name


def test_tuned_parameters_are_the_published_ones_each_once(case):
    """By module: every parameter of `meta.trainable`, none twice."""
    tuned = ldm_cases.build(case).trainable_parameters()
    assert set(tuned) == {ldm_cases.our_name(name) for name in case.meta["trainable"]}
    assert len({id(p) for p in tuned.values()}) == len(tuned) == len(case.meta["trainable"])


def test_only_what_is_tuned_gets_a_gradient(golden):
    """No gradient is computed for a frozen weight, and none for the autoencoder."""
    case = golden("dc_ldm")
    ldm = ldm_cases.build(case)
    ldm.loss(
        case.tensor("in/z"), ldm.conditioner(case.tensor("in/fmri")), case.tensor("in/t"), case.tensor("in/noise")
    ).backward()
    with_gradient = {name for name, p in ldm.named_parameters() if p.grad is not None}
    unused = {"conditioner.encoder.cls_token", "conditioner.encoder.mask_token"}
    assert with_gradient == set(ldm.trainable_parameters()) - unused


def test_the_autoencoder_stays_in_evaluation_mode_and_out_of_autograd(golden):
    """train() reaches everything but the autoencoder; encode records nothing."""
    case = golden("dc_ldm")
    ldm = ldm_cases.build(case).train()
    assert ldm.unet.training and ldm.conditioner.training
    assert not any(module.training for module in ldm.autoencoder.modules())
    assert not ldm.encode(ldm_cases.image(case).requires_grad_()).requires_grad


def test_arguments_win_over_the_file(golden):
    """The file asks for a time condition; the argument says no."""
    ldm = build_ldm(golden("dc_ldm").meta["ldm"], encoder(), use_time_condition=False)
    assert ldm.unet.time_embed_condtion is None
    assert not any("time_embed_condtion" in name for name in ldm.trainable_parameters())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("scale_factor", 0),
        ("scale_factor", "0.2"),
        ("scale_by_std", True),
        ("beta_schedule", "cosine"),
        ("parameterization", "x0"),
        ("loss_type", "huber"),
        ("conditioning_key", "concat"),
        ("use_ema", True),
        ("use_scheduler", True),
        ("learn_logvar", True),
    ],
)
def test_options_that_would_change_results_are_refused(golden, name, value):
    """The error names the option and its place in the file."""
    with pytest.raises(InputError, match=rf"model\.params\.{name}"):
        build_ldm(changed(golden, **{name: value}), encoder())


def test_a_config_without_a_section_is_refused(golden):
    """The error names the section."""
    with pytest.raises(InputError, match="unet_config"):
        build_ldm(changed(golden, unet_config=None), encoder())
    with pytest.raises(InputError, match="model"):
        build_ldm({"data": {}}, encoder())


def test_class_conditional_model_trains_as_a_whole(golden):
    """Label to image: a context of one token, no time condition, a gradient for every UNet weight and the classes."""
    torch.manual_seed(0)
    ldm = build_class_ldm(golden("dc_ldm").meta["ldm"])
    context = ldm.conditioner(torch.tensor([1, 4]))
    latent, eps = torch.randn(2, 2, *ldm.latent_shape)
    for module in ldm.unet.modules():  # layers that start at 0 would stop the gradient
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.normal_(module.weight, std=0.05)
    ldm.loss(latent, context, torch.tensor([3, 700]), eps).backward()
    assert all(p.grad is not None for p in ldm.unet.parameters())
    touched = ldm.conditioner.embedding.weight.grad.abs().sum(dim=1).nonzero().flatten()
    assert all(p.requires_grad for p in ldm.unet.parameters())
    assert set(touched.tolist()) <= {1, 4}


def test_published_size(shared):
    """401.3 M in the UNet, 55.3 M in the autoencoder, 179.2 M tuned, and every published key and shape."""
    with torch.device("meta"):
        ldm = build_ldm(ldm_cases.full_size_config(), FMRIEncoder())

    def millions(parameters):
        return round(sum(p.numel() for p in parameters) / 1e6, 1)

    assert millions(ldm.unet.parameters()) == 401.3
    assert millions(ldm.autoencoder.parameters()) == 55.3
    assert millions(ldm.conditioner.parameters()) == 152.1
    assert millions(ldm.trainable_parameters().values()) == 179.2
    rows = (line.split("\t") for line in (shared / "parity/keys/finetuned_god_sbj_3.tsv").read_text().splitlines())
    wanted = {ldm_cases.our_name(name): shape for name, shape, _ in rows if ldm_cases.our_name(name)}
    assert {name: "x".join(map(str, value.shape)) for name, value in ldm.state_dict().items()} == wanted

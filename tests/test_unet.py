"""UNet: agreement with the published one, contexts prepared once, independence within a batch, options."""

import copy
import math

import ldm_cases
import pytest
import torch

from mindvis.common.errors import InputError
from mindvis.dc_ldm import build_unet
from mindvis.dc_ldm.layers import ResidualBlock, time_embedding


@pytest.fixture(params=ldm_cases.CASES)
def case(request, golden):
    return golden(request.param)


def options(golden) -> dict:
    return copy.deepcopy(golden("dc_ldm").meta["ldm"]["model"]["params"]["unet_config"]["params"])


@torch.no_grad()
def test_eps_agrees_with_the_published_unet(case):
    """Predicted noise within 2e-5."""
    unet = ldm_cases.build(case).unet
    eps = unet(case.tensor("in/z"), case.tensor("in/t"), case.tensor("out/context"))
    torch.testing.assert_close(eps, case.tensor("out/eps"), atol=2e-5, rtol=0)


def test_weights_have_the_published_names_in_their_order(case):
    """The state dict is the published one but for its prefix."""
    prefix = "model.diffusion_model."
    names = [name.removeprefix(prefix) for name in case.tensors("state") if name.startswith(prefix)]
    assert list(ldm_cases.build(case).unet.state_dict()) == names


@torch.no_grad()
def test_prepared_context_gives_the_same(case):
    """Keys, values and time condition computed ahead: not a bit differs."""
    unet, context = ldm_cases.build(case).unet, case.tensor("out/context")
    z, t = case.tensor("in/z"), case.tensor("in/t")
    assert torch.equal(unet(z, t, unet.prepare_context(context)), unet(z, t, context))


@torch.no_grad()
def test_prepared_context_spares_the_key_layers(case):
    """A step with a prepared context does not run a single key projection of the cross-attention."""
    unet = ldm_cases.build(case).unet
    prepared = unet.prepare_context(case.tensor("out/context"))
    calls = []
    for name, module in unet.named_modules():
        if name.endswith("attn2.to_k"):
            module.register_forward_hook(lambda *_: calls.append(1))
    unet(case.tensor("in/z"), case.tensor("in/t"), prepared)
    assert not calls


@torch.no_grad()
def test_a_row_does_not_depend_on_its_batch(golden):
    """The noise predicted for one latent is the same alone and among others, within 1e-5."""
    case = golden("dc_ldm")
    unet = ldm_cases.build(case).unet
    z, t, context = case.tensor("in/z"), case.tensor("in/t"), case.tensor("out/context")
    alone = torch.cat([unet(z[i : i + 1], t[i : i + 1], context[i : i + 1]) for i in range(len(z))])
    torch.testing.assert_close(unet(z, t, context), alone, atol=1e-5, rtol=0)


def test_checkpointing_changes_no_gradient(golden):
    """Activations computed twice give the gradients of activations kept."""
    case = golden("dc_ldm")
    ldm = ldm_cases.build(case)
    grads = []
    for use_checkpoint in (False, True):
        ldm.zero_grad()
        ldm.unet.use_checkpoint = use_checkpoint
        ldm.unet(case.tensor("in/z"), case.tensor("in/t"), case.tensor("out/context")).square().sum().backward()
        grads.append([p.grad for p in ldm.trainable_parameters().values() if p.grad is not None])
    assert len(grads[0]) == len(grads[1]) > 0
    for kept, computed in zip(*grads, strict=True):
        torch.testing.assert_close(computed, kept, atol=1e-6, rtol=1e-5)


def test_group_norm_in_residual_blocks_uses_1e_5():
    """Small activations tell 1e-5 from the 1e-6 before transformers."""
    torch.manual_seed(0)
    x = 1e-3 * torch.randn(1, 32, 4, 4)
    variance = x.var(dim=(2, 3), unbiased=False, keepdim=True)  # one channel a group
    expected = (x - x.mean(dim=(2, 3), keepdim=True)) / (variance + 1e-5).sqrt()
    block = ResidualBlock(32, 32, embedding_dim=8)
    for norm in (block.in_layers[0], block.out_layers[0]):
        torch.testing.assert_close(norm(x), expected, atol=1e-5, rtol=0)


def test_time_embedding_has_cosines_first():
    """Step 0: ones, then zeros; the first frequency is 1."""
    embedding = time_embedding(torch.tensor([0, 3]), 8)
    assert embedding[0].tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    torch.testing.assert_close(embedding[1, [0, 4]], torch.tensor([math.cos(3), math.sin(3)]))


def test_head_channels_set_the_number_of_heads(golden):
    """num_head_channels wins over num_heads, as in the published UNet."""
    unet = build_unet(options(golden) | {"num_head_channels": 16})
    assert unet.middle_block[1].transformer_blocks[0].attn2.num_heads == 4  # 64 channels


@pytest.mark.parametrize(
    ("name", "value"),
    [("conv_resample", False), ("use_scale_shift_norm", True), ("use_spatial_transformer", False), ("cond_scale", 0.5)],
)
def test_options_that_would_change_results_are_refused(golden, name, value):
    """The error names the option and what is supported."""
    with pytest.raises(InputError, match=name):
        build_unet(options(golden) | {name: value})


def test_unknown_and_missing_options_are_refused(golden):
    """Neither a typing error nor a gap passes in silence."""
    with pytest.raises(InputError, match="num_resblocks"):
        build_unet(options(golden) | {"num_resblocks": 2})
    with pytest.raises(InputError, match="context_dim"):
        build_unet({name: value for name, value in options(golden).items() if name != "context_dim"})


def test_dropout_is_honoured(golden):
    """The option reaches the residual blocks."""
    assert build_unet(options(golden) | {"dropout": 0.25}).middle_block[0].out_layers[2].p == 0.25


@pytest.mark.parametrize(("name", "value"), [
    ("num_heads", [1, 2, 4]), ("num_res_blocks", [1, 0]), ("transformer_depth", [1]), ("num_heads", 0),
])  # fmt: skip
def test_lists_have_a_positive_number_for_each_level(golden, name, value):
    """The golden model has two levels; the message says what was found."""
    with pytest.raises(InputError, match=f"{name}: found .*each of the 2 levels"):
        build_unet(options(golden) | {name: value})


def test_levels_have_their_own_widths_heads_and_depths(golden):
    """A list is laid over the levels from the full resolution down; the middle is as the last one."""
    own = {"channel_mult": [1, 1.5], "model_channels": 64, "attention_resolutions": [1, 2]}
    unet = build_unet(options(golden) | own | {"num_heads": [2, 4], "transformer_depth": [1, 3]})
    first, last, middle = unet.input_blocks[1][1], unet.output_blocks[0][1], unet.middle_block[1]
    assert [len(each.transformer_blocks) for each in (first, last, middle)] == [1, 3, 3]
    assert [each.transformer_blocks[0].attn1.num_heads for each in (first, last, middle)] == [2, 4, 4]
    assert [each.norm.num_channels for each in (first, last, middle)] == [64, 96, 96]


def test_linear_projections_are_the_convolutions_of_width_one(golden):
    """Stable Diffusion 2 has them: the same map from the same numbers."""
    plain = build_unet(options(golden))
    linear = build_unet(options(golden) | {"use_linear_in_transformer": True})
    state = {name: value.clone() for name, value in plain.state_dict().items()}
    for name, value in linear.state_dict().items():
        torch.nn.init.normal_(state[name], std=0.1) if value.ndim > 1 else None
    plain.load_state_dict(state)
    linear.load_state_dict({name: value.reshape_as(linear.state_dict()[name]) for name, value in state.items()})
    x, t = torch.randn(1, 3, 8, 8), torch.tensor([5])
    context = torch.randn(1, 77, plain.context_dim)
    with torch.no_grad():
        torch.testing.assert_close(linear(x, t, context), plain(x, t, context), atol=1e-4, rtol=1e-4)

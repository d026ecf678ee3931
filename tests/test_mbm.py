"""Stage A networks: agreement with the published code, masking, loading, edge values."""

import inspect
from dataclasses import asdict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mindvis.common.errors import InputError
from mindvis.config.schemas import ModelConfig
from mindvis.sc_mbm import FMRIEncoder, MaskedBrainModel
from mindvis.sc_mbm.masking import choose_visible
from mindvis.sc_mbm.model import masked_error

SMALL = {"num_voxels": 48, "patch_size": 4, "embed_dim": 8, "depth": 1, "num_heads": 2}
SMALL_DECODER = {"decoder_embed_dim": 8, "decoder_depth": 1, "decoder_num_heads": 2}


@pytest.fixture
def published(golden):
    """The parity file of one forward pass and the model with its weights."""
    file = golden("mbm_forward")
    model = MaskedBrainModel(**file.meta["kwargs"])
    model.load_state_dict(file.tensors("state"))
    return file, model


@pytest.mark.parametrize("network", [MaskedBrainModel, FMRIEncoder])
def test_sizes_are_those_of_the_settings(network):
    """A network built without arguments and one from the default settings are the same."""
    sizes = asdict(ModelConfig())
    own = {name: argument.default for name, argument in inspect.signature(network).parameters.items() if name in sizes}
    assert own == {name: sizes[name] for name in own}
    assert len(own) == (len(sizes) if network is MaskedBrainModel else 5)


def small_model() -> MaskedBrainModel:
    torch.manual_seed(0)
    return MaskedBrainModel(**SMALL, **SMALL_DECODER)


def small_fmri(batch: int = 3) -> torch.Tensor:
    return torch.randn(batch, 1, 48, generator=torch.Generator().manual_seed(1))


# agreement with the published code


def test_forward_equals_the_published_one(published):
    """Mask, reconstruction and loss of the parity file."""
    file, model = published
    out = model(file.tensor("in/fmri"), file.meta["mask_ratio"], file.tensor("in/noise"))
    assert torch.equal(out.mask, file.tensor("out/mask"))
    torch.testing.assert_close(out.reconstruction, file.tensor("out/pred"), atol=2e-6, rtol=0)
    torch.testing.assert_close(out.loss, file.tensor("out/loss"), atol=1e-5, rtol=0)


def test_latent_equals_the_published_one(published):
    """Class token first, then the visible patches in the order of their noise."""
    file, model = published
    visible, _ = choose_visible(file.tensor("in/noise"), file.meta["mask_ratio"])
    assert torch.equal(visible, file.tensor("out/ids_restore").argsort(dim=1)[:, : visible.shape[1]])
    latent = model.encode(model.patchify(file.tensor("in/fmri")), visible)
    torch.testing.assert_close(latent, file.tensor("out/latent"), atol=2e-6, rtol=0)


def test_gradients_equal_the_published_ones(published):
    """Gradients of the tokens, the embedding, one block of each half and the prediction."""
    file, model = published
    model(file.tensor("in/fmri"), file.meta["mask_ratio"], file.tensor("in/noise")).loss.backward()
    parameters = dict(model.named_parameters())
    for key, grad in file.tensors("grad").items():
        torch.testing.assert_close(parameters[key].grad, grad, atol=1e-5, rtol=0, msg=key)


@pytest.mark.parametrize("name", ["encoder_tokens", "encoder_pooled_resized"])
def test_encoder_equals_the_published_one(golden, name):
    """Tokens of both parity files, from the state the published encoder has."""
    file = golden(name)
    encoder = FMRIEncoder(**file.meta["kwargs"])
    encoder.load_state_dict(file.tensors("state"))
    torch.testing.assert_close(encoder(file.tensor("in/fmri")), file.tensor("out/tokens"), atol=2e-6, rtol=0)


def test_parameter_names_and_shapes_are_the_published_ones(shared):
    """Key list of the published file at full size, on the meta device."""
    rows = (shared / "parity/keys/fmri_encoder_god.tsv").read_text().split("\n")
    published = {row.split("\t")[0]: row.split("\t")[1] for row in rows if row}
    with torch.device("meta"):
        model = MaskedBrainModel()
    assert {key: "x".join(map(str, t.shape)) for key, t in model.state_dict().items()} == published


@pytest.mark.slow
def test_published_size():
    """164.9 M parameters, 151.6 M of them in the encoder (counted on the published model)."""
    with torch.device("meta"):
        model, encoder = MaskedBrainModel(), FMRIEncoder()
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(164.9, abs=0.06)
    assert sum(p.numel() for p in encoder.parameters()) / 1e6 == pytest.approx(151.6, abs=0.06)


def test_bfloat16_stays_near_float32(published):
    """Under autocast the loss keeps 1 % and the reconstruction 5 % of its largest value."""
    file, model = published
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(file.tensor("in/fmri"), file.meta["mask_ratio"], file.tensor("in/noise"))
    wanted = file.tensor("out/pred")
    assert out.loss.dtype == torch.float32
    torch.testing.assert_close(out.loss, file.tensor("out/loss"), atol=0, rtol=0.01)
    assert (out.reconstruction.float() - wanted).abs().max() < 0.05 * wanted.abs().max()


# masking


@settings(max_examples=30, deadline=None)
@given(length=st.integers(1, 40), ratio=st.floats(0, 1), seed=st.integers(0, 99))
def test_exactly_the_stated_number_is_hidden(length, ratio, seed):
    """int(l * (1 - ratio)) patches stay visible in every sample, and the mask is 0 exactly there."""
    noise = torch.rand(3, length, generator=torch.Generator().manual_seed(seed))
    visible, mask = choose_visible(noise, ratio)
    assert visible.shape == (3, int(length * (1 - ratio)))
    for row, shown in zip(mask, visible, strict=True):
        assert sorted(shown.tolist()) == [i for i, hidden in enumerate(row.tolist()) if not hidden]


def test_visible_patches_have_the_smallest_noise():
    """No hidden patch has a smaller noise than a visible one."""
    noise = torch.rand(4, 16, generator=torch.Generator().manual_seed(0))
    _, mask = choose_visible(noise, 0.75)
    for row, hidden in zip(noise, mask.bool(), strict=True):
        assert row[~hidden].max() < row[hidden].min()


def test_mask_moves_with_the_noise():
    """Permuting the noise of the patches permutes the mask."""
    noise = torch.rand(4, 16, generator=torch.Generator().manual_seed(0))
    order = torch.randperm(16, generator=torch.Generator().manual_seed(1))
    assert torch.equal(choose_visible(noise[:, order], 0.5)[1], choose_visible(noise, 0.5)[1][:, order])


def test_equal_noise_hides_the_last_patches():
    """Ties are broken by position, so that a mask is the same on every device."""
    assert choose_visible(torch.zeros(1, 8), 0.5)[1].tolist() == [[0, 0, 0, 0, 1, 1, 1, 1]]


def test_hidden_voxels_do_not_reach_the_reconstruction():
    """Changing the voxels of hidden patches changes the loss alone."""
    model, fmri = small_model(), small_fmri()
    noise = torch.rand(3, 12, generator=torch.Generator().manual_seed(2))
    out = model(fmri, noise=noise)
    hidden = out.mask.repeat_interleave(4, dim=1)[:, None].bool()
    other = model(torch.where(hidden, fmri + 1, fmri), noise=noise)
    assert torch.equal(out.reconstruction, other.reconstruction) and out.loss != other.loss


def test_loss_equals_a_naive_loop():
    """The mean over the voxels of a patch, then over the hidden patches of the batch."""
    model, fmri = small_model(), small_fmri()
    out = model(fmri, noise=torch.rand(3, 12, generator=torch.Generator().manual_seed(2)))
    errors = []
    for sample in range(3):
        for patch in range(12):
            if out.mask[sample, patch]:
                target = fmri[sample, 0, 4 * patch : 4 * patch + 4]
                errors.append(sum((out.reconstruction[sample, patch, i] - target[i]) ** 2 for i in range(4)) / 4)
    torch.testing.assert_close(out.loss, sum(errors) / len(errors))


def test_masked_error_ignores_visible_patches():
    """A wrong visible patch costs nothing."""
    patches, mask = torch.zeros(1, 2, 4), torch.tensor([[1.0, 0.0]])
    wrong = torch.tensor([[[1.0] * 4, [9.0] * 4]])
    assert masked_error(wrong, patches, mask) == 1.0


@pytest.mark.parametrize(("ratio", "num_hidden"), [(0.0, 0), (1.0, 12), (0.75, 9)])
def test_extreme_mask_ratios_stay_finite(ratio, num_hidden):
    """Nothing hidden costs nothing; everything hidden is predicted from the class token alone."""
    out = small_model()(small_fmri(), mask_ratio=ratio)
    assert out.mask.sum(dim=1).tolist() == [num_hidden] * 3
    assert out.loss.isfinite() and (out.loss > 0) == (num_hidden > 0)
    assert out.reconstruction.isfinite().all()


def test_patches_return_to_voxel_order():
    """unpatchify undoes patchify."""
    model, fmri = small_model(), small_fmri()
    assert torch.equal(model.unpatchify(model.patchify(fmri)), fmri[:, 0])


def test_stage_a_positions_are_fixed():
    """Positions are not trained in Stage A; the encoder handed to Stage B trains everything."""
    fixed = [name for name, p in small_model().named_parameters() if not p.requires_grad]
    assert sorted(fixed) == ["decoder_pos_embed", "pos_embed"]
    assert all(p.requires_grad for p in FMRIEncoder(**SMALL).parameters())


# loading


def test_loading_takes_the_encoder_part(golden):
    """Every weight but the mask token equals the published loader's; the decoder is ignored."""
    file = golden("encoder_tokens")
    encoder = FMRIEncoder(**file.meta["kwargs"])
    report = encoder.load_pretrained(file.tensors("pretrain"))
    state = file.tensors("state")
    assert all(torch.equal(tensor, state[key]) for key, tensor in encoder.state_dict().items() if key != "mask_token")
    assert (len(report.matched), report.resized, len(report.dropped)) == (30, [], 20)


def test_loading_resizes_positions_and_takes_the_norms(golden):
    """An encoder of 15 patches from a model of 12; unlike the published loader, the norms come along with pooling."""
    file = golden("encoder_pooled_resized")
    encoder = FMRIEncoder(**file.meta["kwargs"])
    report = encoder.load_pretrained(file.tensors("pretrain"))
    assert report.resized == ["pos_embed"]
    assert torch.equal(encoder.pos_embed, file.tensor("state/pos_embed"))
    assert torch.equal(encoder.norm.weight, file.tensor("pretrain/norm.weight"))


def test_encoder_is_the_model_without_class_token_and_mask():
    """Its tokens are those of the model's own layers run on every patch alone."""
    model, encoder, fmri = small_model(), FMRIEncoder(**SMALL), small_fmri()
    encoder.load_pretrained(model.state_dict())
    tokens = model.norm(model.blocks[0](model.patch_embed(model.patchify(fmri)) + model.pos_embed[:, 1:]))
    assert torch.equal(encoder(fmri), tokens)


def test_patch_embedding_is_a_strided_convolution():
    """The product a patch equals the Conv1d whose weights it uses."""
    model, fmri = small_model(), small_fmri()
    convolved = model.patch_embed.proj(fmri).transpose(1, 2)
    torch.testing.assert_close(model.patch_embed(model.patchify(fmri)), convolved, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("norm.weight"), "norm.weight"),
        (lambda state: state.update({"blocks.1.norm1.weight": torch.ones(8)}), "blocks.1.norm1.weight"),
        (lambda state: state.update({"norm.bias": torch.ones(9)}), r"\[9\].*\[8\]"),
    ],
)
def test_loading_refuses_what_does_not_fit(change, words):
    """A missing key, a block too many and another shape are named."""
    state = small_model().state_dict()
    change(state)
    with pytest.raises(InputError, match=words):
        FMRIEncoder(**SMALL).load_pretrained(state)


# bad arguments


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_voxels": 50}, "50.*patch_size = 4"),
        ({"num_voxels": 0}, "num_voxels is 0"),
        ({"num_heads": 3}, "8.*num_heads = 3"),
        ({"embed_dim": 9, "num_heads": 3}, "9"),
    ],
)
def test_constructor_states_both_sides(change, words):
    """Voxels that are no whole patches and widths that do not divide among the heads."""
    with pytest.raises(InputError, match=words):
        MaskedBrainModel(**{**SMALL, **change}, **SMALL_DECODER)


@pytest.mark.parametrize("network", [small_model(), FMRIEncoder(**SMALL)], ids=["model", "encoder"])
@pytest.mark.parametrize("shape", [(2, 1, 44), (2, 48), (2, 2, 48)])
def test_fmri_of_another_shape_is_refused(network, shape):
    """The message holds the shape found and the length needed."""
    with pytest.raises(InputError, match=rf"{list(shape)[-1]}\].*48"):
        network(torch.zeros(shape))


def test_noise_and_ratio_are_checked():
    """Noise of another shape, and a ratio that is a percentage."""
    with pytest.raises(InputError, match=r"\[3, 11\].*\[3, 12\]"):
        small_model()(small_fmri(), noise=torch.rand(3, 11))
    with pytest.raises(InputError, match="mask_ratio is 75"):
        small_model()(small_fmri(), mask_ratio=75)

"""The image-feature pretext of Stage A: agreement with the published code, its data, its training."""

import numpy as np
import pytest
import tiny_stages
import torch
from script_runner import run
from torchvision.models import resnet50

from mindvis.checkpoints import build_mbm, export_mbm, import_mbm, load_published
from mindvis.common.errors import InputError
from mindvis.config.schemas import DataConfig, PretextConfig
from mindvis.data.open import open_pretext
from mindvis.sc_mbm import FMRIEncoder, MaskedBrainModel
from mindvis.sc_mbm.pretext import FEATURE_SHAPE, find_resnet, image_error, kept_features, load_resnet

SMALL = {"num_voxels": 48, "patch_size": 4, "embed_dim": 8, "depth": 1, "num_heads": 2}
SMALL |= {"decoder_embed_dim": 8, "decoder_depth": 1, "decoder_num_heads": 2}


@pytest.fixture
def published(golden):
    """The parity file and the model with its weights."""
    file = golden("mbm_pretext")
    model = MaskedBrainModel(
        **file.meta["kwargs"], image_features=FEATURE_SHAPE, image_weight=file.meta["img_recon_weight"]
    )
    model.load_state_dict(import_mbm(file.tensors("state")))
    return file, model


def features_of(shared) -> torch.Tensor:
    """The image features of the parity file, which are too large to come with the tests."""
    return torch.from_numpy(np.load(shared / "parity" / "mbm_pretext.npz")["in/image_features"]).float()


def test_image_features_are_decoded_as_in_the_published_code(published):
    """Of the samples that have a picture: means over places, and one corner of every channel."""
    file, model = published
    inputs = (file.tensor("in/fmri"), file.meta["mask_ratio"], file.tensor("in/noise"))
    nothing = torch.zeros(2, *FEATURE_SHAPE)
    out = model(*inputs, image_features=nothing, rows=torch.tensor(file.meta["valid"]))
    decoded = out.image_reconstruction
    torch.testing.assert_close(
        decoded.mean(dim=(2, 3)), file.tensor("out/image_reconstruction_mean"), atol=2e-5, rtol=0
    )
    corner = file.tensor("out/image_reconstruction_corner")
    torch.testing.assert_close(decoded[:, :, : corner.shape[2], : corner.shape[3]], corner, atol=2e-5, rtol=0)
    torch.testing.assert_close(model(*inputs).loss, file.tensor("out/loss_without_images"), atol=1e-5, rtol=0)


def test_loss_and_gradients_equal_the_published_ones(published, shared):
    """Half of the squared difference after tanh is added to the loss of the hidden patches."""
    file, model = published
    rows = torch.tensor(file.meta["valid"])
    out = model(
        file.tensor("in/fmri"),
        file.meta["mask_ratio"],
        file.tensor("in/noise"),
        image_features=features_of(shared),
        rows=rows,
    )
    torch.testing.assert_close(out.loss, file.tensor("out/loss"), atol=1e-5, rtol=0)
    out.loss.backward()
    whole = np.load(shared / "parity" / "mbm_pretext.npz")
    grads = {key.removeprefix("grad/"): torch.from_numpy(whole[key]) for key in whole.files if key.startswith("grad/")}
    named = dict(model.named_parameters())
    for key, grad in import_mbm(grads).items():
        torch.testing.assert_close(named[key].grad, grad, atol=1e-5, rtol=0, msg=key)


def test_names_go_to_the_published_ones_and_back(published):
    """A file of the published code with this pretext is read, its settings too."""
    file, model = published
    state = model.state_dict()
    assert set(export_mbm(state)) == set(file.tensors("state"))
    assert import_mbm(export_mbm(state)).keys() == state.keys()


def test_a_published_file_with_the_pretext_is_read_and_its_decoder_left_out(published, tmp_path):
    """Tuning and Stage B go on without it."""
    file, _ = published
    config = {name: file.meta["kwargs"][name] for name in ("num_heads", "decoder_num_heads")}
    torch.save({"model": file.tensors("state"), "config": config}, tmp_path / "fmri_encoder.pth")
    assert load_published(tmp_path / "fmri_encoder.pth").settings["image_features"] == list(FEATURE_SHAPE)
    model, report = build_mbm(tmp_path / "fmri_encoder.pth")
    assert model.image_decoder is None and len(report.dropped) == 34
    encoder = FMRIEncoder(**{key: value for key, value in file.meta["kwargs"].items() if "decoder" not in key})
    assert set(report.dropped) < set(encoder.load_pretrained(import_mbm(file.tensors("state"))).dropped)


def test_the_error_is_the_mean_squared_difference_after_tanh():
    """Written out in numpy."""
    decoded, features = torch.randn(2, 2, 3, 2, 2, generator=torch.Generator().manual_seed(0)).unbind()
    expected = np.mean((np.tanh(features.numpy()) - np.tanh(decoded.numpy())) ** 2)
    assert np.isclose(image_error(decoded, features), expected)


def test_without_pictures_it_is_the_model_without_the_pretext():
    """A batch of resting state alone has the loss of the hidden voxels; a model without the pretext says so."""
    torch.manual_seed(0)
    fmri, noise = torch.randn(3, 1, 48), torch.rand(3, 12)
    torch.manual_seed(1)
    plain = MaskedBrainModel(**SMALL)
    torch.manual_seed(1)
    model = MaskedBrainModel(**SMALL, image_features=(2, 3, 3))
    model.load_state_dict(plain.state_dict(), strict=False)
    assert torch.equal(model(fmri, 0.75, noise).loss, plain(fmri, 0.75, noise).loss)
    assert model.decode_images(model.encode(*visible(model, fmri)), visible(model, fmri)[1]).shape == (3, 2, 3, 3)
    with pytest.raises(InputError, match="image_features is not set"):
        plain(fmri, 0.75, noise, image_features=torch.zeros(3, 2, 3, 3))


def visible(model: MaskedBrainModel, fmri: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Patches, and the first three of each sample as the visible ones."""
    return model.patchify(fmri), torch.arange(3).expand(len(fmri), -1)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """A tiny simulated experiment and a ResNet-50 that nobody trained."""
    folder = tmp_path_factory.mktemp("pretext")
    tiny_stages.simulate_experiment(folder)
    torch.manual_seed(0)
    torch.save(resnet50(weights=None).state_dict(), folder / "resnet50.pth")
    return folder


def test_rows_of_resting_state_have_no_picture(experiment):
    """The pictures are those of the viewing rows, each beside its own fMRI."""
    hcp = DataConfig(name="hcp", root=str(experiment / "data" / "HCP" / "npz"))
    god = DataConfig(root=str(experiment / "data" / "Kamitani" / "npz"), subjects=["sbj_1"])
    data, pictures = open_pretext(hcp, god, 16, PretextConfig(weight=0.5))
    viewing = open_pretext(god, None, 16, PretextConfig(weight=0.5))[0]
    resting = data.num_rows - viewing.num_rows
    assert (data.seen[:resting] == -1).all() and np.array_equal(data.seen[resting:], viewing.seen)
    assert len(pictures) == 72 and data[0]["seen"] == -1 and data[data.num_rows - 1]["seen"] >= 0
    assert data.with_interpolated(2)[len(data)]["seen"] == -1
    with pytest.raises(InputError, match="no data shows pictures"):
        open_pretext(hcp, None, 16, PretextConfig(weight=0.5))


def test_features_are_kept_and_are_those_of_the_network(experiment, tmp_path):
    """Computed once, of other pictures anew."""
    pictures = np.random.default_rng(0).integers(0, 256, (3, 40, 40, 3), np.uint8)
    file = find_resnet(str(experiment / "resnet50.pth"))
    kept = kept_features(pictures, file, tmp_path, batch_size=2)
    assert kept.shape == (3, *FEATURE_SHAPE) and kept.dtype == np.float16
    resized = torch.rand(1, 3, 224, 224)
    assert load_resnet(file)(resized).shape == (1, *FEATURE_SHAPE)
    made = next(tmp_path.glob("image-features-*.npy")).stat().st_mtime_ns
    assert np.array_equal(kept_features(pictures, file, tmp_path), kept)
    assert next(tmp_path.glob("image-features-*.npy")).stat().st_mtime_ns == made
    kept_features(pictures[:1], file, tmp_path)
    assert len(list(tmp_path.glob("image-features-*.npy"))) == 2


def test_stage_a_is_trained_with_it_and_goes_on_without_it(experiment, tmp_path):
    """Its loss is logged; the tuning takes the run; absent weights are one line before anything is made."""
    god = [f"extra_data.root={experiment / 'data' / 'Kamitani' / 'npz'}", "extra_data.subjects=[sbj_1]"]
    command = tiny_stages.command("pretrain_mbm", experiment, tmp_path / "run", *god, "pretext.weight=0.5")
    steps = ["trainer.max_epochs=1", "trainer.max_steps=8", "trainer.batch_size=16"]
    refused = run("pretrain_mbm", *command[2:], *steps, "pretext.resnet=nowhere.pth")
    assert refused.status == 2 and "there is no nowhere.pth" in refused.err and not (tmp_path / "run").exists()
    told = run("pretrain_mbm", *command[2:], *steps, f"pretext.resnet={experiment / 'resnet50.pth'}")
    assert told.status == 0, told.err
    assert "train/image_loss" in (tmp_path / "run" / "metrics.csv").read_text().splitlines()[0]
    assert build_mbm(tmp_path / "run")[0].image_decoder is None

"""The ridge baseline through its script, on the small published label-to-image model."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

from mindvis.common.errors import InputError
from mindvis.common.ridge import fit_ridge
from mindvis.config.decoding import TARGETS
from mindvis.data import load_npz
from mindvis.decoding.baselines import RidgeConditioner, fit_class, load_class_ldm, usable_targets
from mindvis.decoding.categories import predict_classes
from mindvis.evaluation.pictures import read_decoded

SCRIPT = Path(__file__).parents[1] / "scripts" / "baseline_ridge.py"


@pytest.fixture
def data(rng, tmp_path):
    """12 training and 3 test rows of 3 classes; the fMRI is a linear code of the class."""
    classes = np.arange(15) % 3
    code = rng.normal(0, 1, (3, 32))
    np.savez(
        tmp_path / "own.npz",
        fmri=code[classes] + rng.normal(0, 0.05, (15, 32)),
        images=rng.integers(0, 256, (15, 16, 16, 3), dtype=np.uint8),
        split=np.array(["train"] * 12 + ["test"] * 3),
        stimulus=np.arange(15),
        class_ids=classes,
    )
    return tmp_path / "own.npz"


@pytest.fixture
def label2img(shared):
    return shared / "parity" / "checkpoints" / "model.ckpt"


def run(*arguments):
    return runpy.run_path(str(SCRIPT))["main"]([str(a) for a in arguments])


def test_script_writes_what_evaluate_reads(data, label2img, tmp_path):
    """Both targets, from own data to two folders of pictures; a second run does not replace them."""
    options = [f"data.root={data}", "data.name=npz", "data.roi=all", f"ldm={label2img}", f"output={tmp_path / 'out'}"]
    options += ["data.subjects=[]", "num_samples=2", "num_steps=4", "sampler=ddim"]
    assert run(*options) == 0
    assert read_decoded(tmp_path / "out" / "latent").decoded.shape == (3, 1, 16, 16, 3)
    of_class = read_decoded(tmp_path / "out" / "class")
    assert of_class.decoded.shape == (3, 2, 16, 16, 3) and of_class.settings["alpha"] > 0
    assert run(*options) == 2


def test_class_embedding_is_recovered(data, label2img):
    """With a linear code the predicted context is nearest to the embedding of the right class."""
    ldm = load_class_ldm(label2img)
    train, test, _ = load_npz(data, roi="all")
    predicted = fit_class(ldm, train, [0.1, 1.0, 10.0]).predict(np.asarray(test.fmri))
    table = ldm.conditioner.embedding.weight[:3].detach().numpy()
    nearest = ((predicted[:, None] - table) ** 2).sum(-1).argmin(axis=1)
    assert nearest.tolist() == list(test.class_ids)


def test_conditioner_is_the_regression(rng):
    """The linear layer in the LDM gives what the fitted ridge predicts."""
    fmri, targets = rng.normal(3, 2, (10, 6)), rng.standard_normal((10, 4))
    ridge = fit_ridge(fmri, targets, [1.0])
    found = RidgeConditioner(ridge)(torch.from_numpy(fmri[:, None]).float())
    np.testing.assert_allclose(found[:, 0], ridge.predict(fmri), atol=1e-5)


@pytest.fixture
def bare(data, tmp_path):
    """The same data without class ids."""
    with np.load(data) as file:
        np.savez(tmp_path / "bare.npz", **{k: file[k] for k in file.files if k != "class_ids"})
    return tmp_path / "bare.npz"


def test_without_class_ids_the_class_baseline_is_skipped(bare, label2img, tmp_path, capsys):
    """`latent` is decoded, `class` left out with a note; asked for alone, it is refused before anything is written."""
    options = [f"data.root={bare}", "data.name=npz", "data.roi=all", f"ldm={label2img}", f"output={tmp_path / 'out'}"]
    options += ["data.subjects=[]", "num_samples=1", "num_steps=2", "sampler=ddim"]
    assert run(*options, "targets=[class]") == 2 and not (tmp_path / "out").exists()
    assert run(*options) == 0
    assert "class skipped: the class baseline needs class ids" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["latent"]


def test_targets_are_checked_before_any_is_decoded(data, label2img, tmp_path):
    """A class that the LDM does not know is refused before anything is decoded."""
    with np.load(data) as file:
        np.savez(tmp_path / "odd.npz", **{k: file[k] for k in file.files} | {"class_ids": file["class_ids"] + 5000})
    ldm = load_class_ldm(label2img)
    with pytest.raises(InputError, match="the LDM knows 0 to"):
        usable_targets(ldm, load_npz(tmp_path / "odd.npz", roi="all")[0], ["latent", "class"])


def test_data_without_classes_is_one_line(bare, label2img):
    """The class baseline needs class ids."""
    train, _, _ = load_npz(bare, roi="all")
    with pytest.raises(InputError, match="needs class ids"):
        fit_class(load_class_ldm(label2img), train, [1.0])


def test_every_baseline_and_ceiling_is_a_folder(data, tmp_path):
    """Each says which data it is of; the demo's model draws 64 pixels; retrieval shows training pictures only."""
    options = [f"data.root={data}", "data.name=npz", "data.roi=all", "ldm=demo", f"output={tmp_path / 'out'}"]
    options += ["data.subjects=[]", "num_samples=1", "num_steps=2", "sampler=ddim", f"targets=[{','.join(TARGETS)}]"]
    assert run(*options) == 0
    found = {target: read_decoded(tmp_path / "out" / target) for target in TARGETS}
    for target, folder in found.items():
        assert folder.decoded.shape == (3, 1, 64, 64, 3), target
        assert folder.settings["data"]["settings"]["name"] == "npz" and folder.class_ids == [0, 1, 2]
    train = load_npz(data, roi="all")[0].with_image_size(64)
    shown = {picture.tobytes() for picture in train.stimuli[train.stimulus]}
    assert {picture.tobytes() for picture in found["retrieval"].decoded[:, 0]} <= shown
    assert len(np.unique(found["mean"].decoded.reshape(3, -1), axis=0)) == 1
    true = found["autoencoder"].stimuli.astype(float)
    errors = {name: np.abs(found[name].decoded[:, 0] - true).mean() for name in ("autoencoder", "noise", "true_class")}
    assert errors["autoencoder"] < min(errors["noise"], errors["true_class"])


def test_predicted_classes_are_read_off_the_fmri(data):
    """With a linear code ridge finds the class of every test row; the generator is given it."""
    train, test, _ = load_npz(data, roi="all")
    assert predict_classes(train, test).tolist() == list(test.class_ids)

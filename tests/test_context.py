"""Settings of the context that are not published: number of tokens, a start from ridge regression, losses on it."""

import runpy
from pathlib import Path

import ldm_cases
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mindvis.checkpoints import export_model, read_weights, write_weights
from mindvis.common.errors import InputError
from mindvis.config.schemas import ContextConfig, FinetuneLDMConfig
from mindvis.data import PairedDataset
from mindvis.dc_ldm import FMRIConditioner, LDMModule, build_ldm
from mindvis.dc_ldm.context_losses import ContextLosses, distance_of_repeats
from mindvis.decoding.baselines import RidgeConditioner, fit_class, load_class_ldm
from mindvis.decoding.decoder import load
from mindvis.decoding.ridge_context import start_context
from mindvis.sc_mbm import FMRIEncoder

SCRIPT = Path(__file__).parents[1] / "scripts" / "finetune_ldm.py"
SHAPE = {"patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}


def pairs(rng, num_rows=12, repeats=1) -> PairedDataset:
    """Rows of three classes; `repeats` rows of each stimulus."""
    stimulus = np.arange(num_rows) // repeats
    classes = stimulus % 3
    fmri = rng.normal(0, 1, (3, 32))[classes] + rng.normal(0, 0.3, (num_rows, 32))
    images = rng.integers(0, 256, (stimulus.max() + 1, 16, 16, 3), dtype=np.uint8)
    return PairedDataset(fmri.astype(np.float32), images, classes.tolist(), stimulus=stimulus)


@pytest.fixture
def label2img(shared):
    return shared / "parity" / "checkpoints" / "model.ckpt"


@pytest.mark.parametrize("tokens", [1, 2, 8])
def test_number_of_tokens(golden, tokens):
    """The context has so many tokens, and cross-attention and time condition take them; others are refused."""
    case = golden("dc_ldm")
    encoder = FMRIEncoder(num_voxels=case.meta["num_voxels"], **case.meta["mbm"])
    ldm = build_ldm(case.meta["ldm"], encoder, context_tokens=tokens)
    context = ldm.conditioner(case.tensor("in/fmri"))
    assert context.shape[1] == tokens
    latent = torch.zeros(len(context), *ldm.latent_shape)
    assert ldm.unet(latent, torch.zeros(len(context), dtype=torch.long), context).shape == latent.shape
    with pytest.raises(InputError, match="context_tokens is 78"):
        FMRIConditioner(encoder, context_dim=8, context_tokens=78)


@torch.no_grad()
def test_begins_as_ridge_to_the_class(rng, label2img):
    """Every token is the ridge's prediction, and the UNet predicts what the untuned class model predicts from it."""
    plain, train = load_class_ldm(label2img), pairs(rng)
    config = FinetuneLDMConfig(ldm=str(label2img), context=ContextConfig(ridge="linear", tokens=3))
    ldm = build_ldm(plain.config, FMRIEncoder(num_voxels=32, **SHAPE), context_tokens=3, ridge="linear")
    ldm.unet.load_state_dict(plain.unet.state_dict(), strict=False)
    targets = start_context(ldm, config, train)
    fmri = torch.from_numpy(np.asarray(train.fmri))[:, None]
    ridge = RidgeConditioner(fit_class(plain, train, [10.0**power for power in range(-1, 8)]))(fmri)  # [b 1 c]
    context = ldm.conditioner(fmri)  # [b 3 c]
    torch.testing.assert_close(context, ridge.expand(-1, 3, -1), atol=1e-6, rtol=1e-5)
    assert F.mse_loss(ridge[:, 0], targets) < targets.var()
    x_t, t = torch.randn(len(fmri), *ldm.latent_shape), torch.arange(len(fmri)) * 50
    torch.testing.assert_close(ldm.unet(x_t, t, context), plain.unet(x_t, t, ridge), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_begins_with_the_class_that_ridge_reads(rng, label2img):
    """Tokens are the embedding of the row's class; a row between two classes gets a mixture; the fit is not tuned."""
    plain, train = load_class_ldm(label2img), pairs(rng, num_rows=60)
    config = FinetuneLDMConfig(ldm=str(label2img), context=ContextConfig(ridge="classes"))
    ldm = build_ldm(plain.config, FMRIEncoder(num_voxels=32, **SHAPE), ridge="classes")
    targets = start_context(ldm, config, train)
    fmri = torch.from_numpy(np.asarray(train.fmri))[:, None]
    context = ldm.conditioner(fmri)  # [b 77 c]
    torch.testing.assert_close(context[:, 0], targets, atol=1e-3, rtol=0)
    between = ldm.conditioner.ridge((fmri[0] + fmri[1])[None] / 2)[0, 0]
    assert not any(torch.allclose(between, target, atol=1e-3) for target in targets[2:3])
    assert not [name for name in ldm.trainable_parameters() if ".ridge." in name]
    with pytest.raises(InputError, match="context.ridge is 'class'; needed: none, linear or classes"):
        build_ldm(plain.config, FMRIEncoder(num_voxels=32, **SHAPE), ridge="class")


def test_targets_need_classes_and_a_known_name(rng, label2img):
    """Without classes, or with an unknown target, one line; nothing is needed where nothing is asked for."""
    train = pairs(rng)
    blind = PairedDataset(train.fmri, train.stimuli)
    ldm = load_class_ldm(label2img)
    assert start_context(ldm, FinetuneLDMConfig(ldm=str(label2img)), blind) is None
    with pytest.raises(InputError, match="context.ridge=linear needs the classes"):
        start_context(ldm, FinetuneLDMConfig(ldm=str(label2img), context=ContextConfig(ridge="linear")), blind)
    with pytest.raises(InputError, match="context.target is 'words'"):
        start_context(ldm, FinetuneLDMConfig(context=ContextConfig(regression=1.0, target="words")), train)


def test_regression_to_the_class(rng):
    """1 for the mean of the targets, 0 for the targets; rows are looked up by their number."""
    targets = torch.from_numpy(rng.normal(0, 3, (10, 4))).float()
    losses = ContextLosses(regression=1.0, class_targets=targets)
    rows, latent = torch.tensor([7, 2, 2]), torch.zeros(3, 2, 1, 1)
    assert losses(targets[rows][:, None].expand(-1, 5, -1), None, rows, latent).item() == pytest.approx(0, abs=1e-6)
    everywhere = torch.arange(10)
    constant = targets.mean(dim=0).expand(10, 1, 4)
    assert losses(constant, None, everywhere, torch.zeros(10, 2, 1, 1)).item() == pytest.approx(1)


def test_regression_to_the_latent_learns_its_layer(rng):
    """Without class targets a linear layer maps the mean token to the latent, and it is trained with the rest."""
    losses = ContextLosses(regression=1.0, context_dim=6, latent_dim=8)
    context, rows = torch.from_numpy(rng.normal(0, 1, (20, 2, 6))).float(), torch.arange(20)
    latent = (context.mean(dim=1) @ torch.from_numpy(rng.normal(0, 1, (6, 8))).float()).reshape(20, 2, 2, 2)
    optimiser = torch.optim.Adam(losses.parameters(), lr=0.1)
    for _ in range(200):
        loss = losses(context, None, rows, latent)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.01


def test_consistency_is_a_ratio(rng):
    """0 for equal repeats, about 1 for unrelated ones, and the same whatever the scale."""
    first, second = torch.from_numpy(rng.normal(0, 1, (2, 400, 6))).float()
    assert distance_of_repeats(first, first).item() == 0
    assert distance_of_repeats(first, second).item() == pytest.approx(1, abs=0.05)
    torch.testing.assert_close(distance_of_repeats(first / 9, second / 9), distance_of_repeats(first, second))


def test_losses_are_trained_and_added_to_training_rows_alone(golden, monkeypatch):
    """The training loss is the diffusion loss and the weighted rest; the validation loss stays the diffusion loss."""
    case = golden("dc_ldm")
    ldm = ldm_cases.build(case)
    module = LDMModule(ldm, context_losses=ContextLosses(regression=2.0, context_dim=ldm.unet.context_dim,
                                                         latent_dim=int(np.prod(ldm.latent_shape))))  # fmt: skip
    monkeypatch.setattr(module, "log", lambda *args, **options: None)
    monkeypatch.setattr("mindvis.dc_ldm.module.learning_rate", lambda trainer: 0.0)
    fmri, images = case.tensor("in/fmri"), ldm_cases.image(case)
    module._trainer = object()
    batch = {"fmri": fmri, "image": images, "key": torch.tensor([[0, 0, i] for i in range(len(fmri))])}
    pull = module.context_losses(ldm.conditioner(fmri), None, batch["key"][:, 2], ldm.encode(images))
    torch.testing.assert_close(module.training_step(batch, 0), module.loss(batch) + pull)
    torch.testing.assert_close(module.validation_step(batch, 0), module.loss(batch))
    held = {id(p) for group in module._groups() for p in group["params"]}
    assert {id(p) for p in module.context_losses.parameters()} <= held


def test_the_other_row_is_of_the_same_stimulus(rng):
    """Another row where there is one, else the row itself; the same for the same key, also in a subset."""
    data = pairs(rng, num_rows=9, repeats=3).with_augmentation(sparsify=0.0, crop_ratio=0.0, pairs=True)
    rows = np.asarray(data.fmri)
    for index in range(9):
        seen = {tuple(data[(0, epoch, index)]["other"][0].tolist()) for epoch in range(12)}
        same = [i for i in range(9) if i // 3 == index // 3 and i != index]
        assert seen == {tuple(rows[i].tolist()) for i in same}
    alone = data.subset([1, 4, 5])
    assert torch.equal(alone[(0, 0, 0)]["other"], alone[(0, 0, 0)]["fmri"])
    assert torch.equal(alone[(0, 0, 1)]["other"], alone[(0, 0, 2)]["fmri"])
    assert "other" not in data[0]


@pytest.mark.parametrize("ridge", ["linear", "classes"])
def test_a_run_and_its_export_decode_alike(rng, label2img, tmp_path, ridge):
    """All settings at once: the run folder and the exported folder say what the context is; no consistency for rows
    without repeats."""
    data = pairs(rng, num_rows=16)
    split = np.array(["train"] * 12 + ["test"] * 4)
    np.savez(tmp_path / "own.npz", fmri=data.fmri, images=data.stimuli, split=split, class_ids=data.class_ids)
    arguments = [f"run_dir={tmp_path / 'run'}", f"ldm={label2img}", "data.name=npz", "data.roi=all", "image_size=16"]
    arguments += [f"data.root={tmp_path / 'own.npz'}", "data.subjects=[]", "watch.every_epochs=0", "num_preview=0"]
    arguments += [f"model.{name}={value}" for name, value in SHAPE.items()]
    arguments += ["trainer.batch_size=6", "trainer.max_epochs=2", "trainer.figure_every_epochs=0", "selection=last"]
    arguments += ["logging.wandb=disabled", "context.tokens=3", f"context.ridge={ridge}", "context.regression=0.5"]
    main = runpy.run_path(str(SCRIPT))["main"]
    assert main([*arguments, "context.consistency=0.5", "augment.sparsify=0"]) == 2
    assert main([*arguments, "context.consistency=0.5", "augment.sparsify=0.2"]) == 0
    weights = read_weights(tmp_path / "run")
    export_model(tmp_path / "shared", weights)
    options = {"num_samples": 1, "num_steps": 3, "sampler": "ddim"}
    fmri = np.asarray(data.fmri)[12:]
    with pytest.raises(InputError, match="context_tokens is 3; the published programs know 77 alone"):
        write_weights(tmp_path / "finetuned.pth", weights)
    run, shared_form = load(tmp_path / "run", device="cpu"), load(tmp_path / "shared", device="cpu")
    assert run.ldm.conditioner(torch.zeros(1, 1, run.ldm.conditioner.encoder.num_voxels)).shape[1] == 3
    np.testing.assert_array_equal(run.decode(fmri, **options), shared_form.decode(fmri, **options))

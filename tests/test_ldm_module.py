"""Training of Stage B: batches, draws, the optimiser, overfitting, one step through the Trainer."""

import copy

import ldm_cases
import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from mindvis.common import draws
from mindvis.common.errors import InputError
from mindvis.dc_ldm import LDMModule

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}


@pytest.fixture
def case(golden):
    return golden("dc_ldm_pooled_crossattn_only")


@pytest.fixture
def module(case) -> LDMModule:
    return LDMModule(ldm_cases.build(case), lr=case.meta["lr"])


def items(case) -> list[dict]:
    fmri, images = case.tensor("in/fmri"), ldm_cases.image(case)
    return [{"fmri": fmri[i], "image": images[i], "key": torch.tensor([0, 0, i])} for i in range(len(fmri))]


def batch(case, *rows: int) -> dict:
    return torch.utils.data.default_collate([items(case)[row] for row in rows])


def test_a_kept_latent_stands_for_its_image(module, case):
    """Encoding ahead gives the same loss, and cropped rows are encoded in spite of their kept latent."""
    full = batch(case, 0, 1)
    kept = {"fmri": full["fmri"], "key": full["key"], "latent": module.ldm.encode(full["image"])}
    loss = module.loss(full)
    torch.testing.assert_close(module.loss(kept), loss)
    stale = kept["latent"].clone()
    stale[1] = 0
    mixed = {**full, "image": full["image"][1:], "latent": stale, "cropped": torch.tensor([False, True])}
    torch.testing.assert_close(module.loss(mixed), loss, atol=1e-6, rtol=1e-6)


def test_draws_follow_the_sample_not_the_batch(module, case):
    """The loss of a batch is the mean of the losses of its rows."""
    rows = [module.loss(batch(case, row)) for row in (0, 1)]
    torch.testing.assert_close(module.loss(batch(case, 0, 1)), torch.stack(rows).mean(), atol=1e-5, rtol=0)


def test_another_epoch_draws_another_noise(module, case):
    """The same samples with another key have another loss."""
    later = batch(case, 0, 1)
    later["key"] = later["key"] + torch.tensor([0, 1, 0])
    assert module.loss(later).item() != module.loss(batch(case, 0, 1)).item()


def test_optimiser_holds_what_is_tuned_once(module, monkeypatch):
    """AdamW at a constant rate over the tuned parameters, each once, all decayed."""
    module.trainer = pl.Trainer(accelerator="cpu", **QUIET)
    monkeypatch.setattr("mindvis.dc_ldm.module.steps_per_epoch", lambda trainer: 4)
    configured = module.configure_optimizers()
    optimiser, schedule = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    held = [id(p) for group in optimiser.param_groups for p in group["params"]]
    tuned = module.ldm.trainable_parameters()
    assert sorted(held) == sorted({id(p) for p in tuned.values()})
    assert {(group["lr"], group["weight_decay"]) for group in optimiser.param_groups} == {(5.3e-5, 0.01)}
    unused = {id(p) for p in module.ldm.unused_parameters()}
    assert len(unused) == 2
    assert all(p.requires_grad == (name in tuned and id(p) not in unused) for name, p in module.ldm.named_parameters())
    assert {schedule.lr_lambdas[0](step) for step in range(12)} == {1.0}


def test_heads_may_have_a_rate_of_their_own(case, monkeypatch):
    """`head_lr` is the rate of cross-attention and its norm alone; every tuned parameter is still held once."""
    module = LDMModule(ldm_cases.build(case), lr=2e-3, head_lr=1e-4, min_lr=0.0)
    module.trainer = pl.Trainer(accelerator="cpu", **QUIET)
    monkeypatch.setattr("mindvis.dc_ldm.module.steps_per_epoch", lambda trainer: 4)
    groups = module.configure_optimizers()["optimizer"].param_groups
    names = {id(p): name for name, p in module.ldm.named_parameters()}
    rates = {names[id(p)]: group["initial_lr"] for group in groups for p in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(rates) == len(module.ldm.trainable_parameters())
    for name, rate in rates.items():
        is_head = name.startswith("unet.") and ("attn2" in name or "norm2" in name)
        assert rate == (1e-4 if is_head else 2e-3), name


def test_encoder_only_leaves_the_heads(case):
    """The ablation tunes the conditioner and the time-step condition, and no cross-attention."""
    module = LDMModule(ldm_cases.build(case), tune="encoder")
    trained = {name for name, p in module.ldm.named_parameters() if p.requires_grad}
    assert trained and trained < set(module.ldm.trainable_parameters())
    assert not [name for name in trained if "attn2" in name or "norm2" in name and name.startswith("unet.")]
    with pytest.raises(InputError, match="tune is 'heads'"):
        LDMModule(ldm_cases.build(case), tune="heads")


def test_weighting_multiplies_the_error_of_each_sample(case):
    """The weighted loss of a batch is the mean of the weighted losses of its rows; an unknown weighting is refused."""
    plain = LDMModule(ldm_cases.build(case))
    weighted = LDMModule(ldm_cases.build(case), weighting="levels")
    rows = [batch(case, row) for row in (0, 1)]
    t = [draws.integers(row["key"], "t", 1000) for row in rows]
    wanted = [weighted.level_weights[step] * plain.loss(row) for step, row in zip(t, rows, strict=True)]
    torch.testing.assert_close(weighted.loss(batch(case, 0, 1)), torch.cat(wanted).mean(), rtol=1e-5, atol=1e-6)
    with pytest.raises(InputError, match="weighting is 'some'"):
        LDMModule(ldm_cases.build(case), weighting="some")


def test_overfits_one_batch(module, case):
    """The loss of one batch with fixed draws falls by a third."""
    fixed, optimiser = batch(case, 0, 1), torch.optim.AdamW(module.ldm.trainable_parameters().values(), lr=5e-3)
    losses = []
    for _ in range(25):
        loss = module.loss(fixed)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.67 * losses[0]


def test_trains_and_validates_through_the_trainer(module, case):
    """fast_dev_run: frozen weights keep every bit, tuned ones move, and the metrics are logged."""
    before = copy.deepcopy(module.ldm.state_dict())
    loader = DataLoader(items(case), batch_size=2)
    trainer = pl.Trainer(fast_dev_run=True, accelerator="cpu", gradient_clip_val=0.5, **QUIET)
    trainer.fit(module, loader, loader)
    assert {"train/loss", "train/lr", "val/loss"} <= set(trainer.callback_metrics)
    moved = {name for name, value in module.ldm.state_dict().items() if not torch.equal(value, before[name])}
    assert moved <= set(module.ldm.trainable_parameters())
    assert "conditioner.dim_mapper.weight" in moved

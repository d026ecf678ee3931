"""The configs of GOD and BOLD5000, on files with the published numbers of rows, train what the published code trains.

Rows, steps, batch, precision, learning rates and decay groups, counted on the data sets, loaders and optimisers that
the scripts would use.
"""

from types import SimpleNamespace

import numpy as np
import published_shapes
import pytest
import pytorch_lightning as pl
import torch
from command_lines import ROOT

from mindvis.checkpoints import build_ldm_module, build_mbm_module
from mindvis.config.decoding import GenerateConfig
from mindvis.config.loading import load_config
from mindvis.config.schemas import FinetuneLDMConfig, FinetuneMBMConfig, PretrainMBMConfig
from mindvis.data.open import choose_tuning_fmri, hold_out_tail, open_pairs, open_pretraining, open_stage_b
from mindvis.dc_ldm import build_ldm
from mindvis.sc_mbm import FMRIEncoder, MaskedBrainModel
from mindvis.training.fit import Loaders

CONFIGS = ROOT / "configs"
GOD, BOLD = "god", "bold5000"
HEADS = ("attn2", "transformer_blocks.0.norm2", "time_embed_condtion")
TINY = {"embed_dim": 16, "depth": 1, "num_heads": 2}
TINY_DECODER = {"decoder_embed_dim": 16, "decoder_depth": 1, "decoder_num_heads": 2}


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """Folders of GOD subject 3 and of BOLD5000 CSI1."""
    folder, rng = tmp_path_factory.mktemp("published"), np.random.default_rng(0)
    return {
        GOD: published_shapes.write_god(folder / "god", rng),
        BOLD: published_shapes.write_bold5000(folder / "bold5000", rng),
    }


def steps_an_epoch(train_set, val_set, config) -> int:
    """Optimiser steps of the loader that `fit` would make on one device."""
    loaders = Loaders(train_set, val_set, seed=config.seed, settings=config.trainer)
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    loaders.trainer = SimpleNamespace(global_rank=0, world_size=1, fit_loop=None, strategy=strategy)
    return -(-len(loaders.train_dataloader()) // config.trainer.accumulate)


def tiny_ldm(golden_config: dict, num_voxels: int):
    """A decoder with every kind of parameter that the published one has."""
    return build_ldm(golden_config, FMRIEncoder(num_voxels=num_voxels, patch_size=16, **TINY))


def optimizer_of(module: pl.LightningModule) -> torch.optim.Optimizer:
    """What the module trains with, as if an epoch had ten steps."""
    fit_loop = SimpleNamespace(setup_data=lambda: None)
    module._trainer = SimpleNamespace(fit_loop=fit_loop, num_training_batches=10, accumulate_grad_batches=1)
    return module.configure_optimizers()["optimizer"]


@pytest.mark.parametrize(("data", "rows", "steps", "batch"), [(GOD, 1800, 1695, 16), (BOLD, 564, 2115, 4)])
def test_stage_a_is_tuned_on_the_test_fmri_with_its_single_trials(roots, data, rows, steps, batch):
    """As many rows and steps as published, none held out."""
    config = load_config(FinetuneMBMConfig, CONFIGS / f"finetune_mbm_{data}.yaml", [f"data.root={roots[data]}"])
    train, test, _ = open_pairs(config.data, patch_size=16)
    chosen = choose_tuning_fmri(config.data, config.fmri, 16, train.num_voxels, single_trials=config.single_trials)
    train_set, held_out = hold_out_tail(chosen, config.trainer.val_fraction)
    assert (chosen.num_rows, train_set.num_rows, held_out) == (rows, rows, None)
    assert (chosen.fmri[: test.num_rows] == test.fmri).all()  # the averages, then the trials
    assert steps_an_epoch(train_set, held_out, config) * config.trainer.max_epochs == steps
    assert config.trainer.batch_size * config.trainer.accumulate == batch
    assert config.trainer.precision == "bf16-mixed"  # published: float16, which is 16-mixed


@pytest.mark.parametrize("data", [GOD, BOLD])
def test_the_honest_tuning_sees_training_fmri_alone(roots, data):
    """`fmri: train` takes no test row, whatever is said of single trials."""
    config = load_config(FinetuneMBMConfig, CONFIGS / f"finetune_mbm_{data}.yaml", [f"data.root={roots[data]}"])
    train, *_ = open_pairs(config.data, patch_size=16)
    chosen = choose_tuning_fmri(config.data, "train", 16, train.num_voxels, single_trials=True)
    assert (chosen.num_rows, (chosen.fmri == train.fmri).all()) == (train.num_rows, True)


@pytest.mark.parametrize(("data", "rows", "steps", "batch"), [(GOD, 1200, 120_000, 5), (BOLD, 4803, 96_500, 25)])
def test_stage_b_trains_on_all_pairs(roots, data, rows, steps, batch):
    """As many pairs and steps as published, in float32, the last weights are taken."""
    given = [f"data.root={roots[data]}", "image_size=8"]
    config = load_config(FinetuneLDMConfig, CONFIGS / f"finetune_ldm_{data}.yaml", given)
    train_set, val_set, test_set = open_stage_b(config, patch_size=16)
    assert (train_set.num_rows, val_set, test_set.num_rows) == (rows, None, {GOD: 50, BOLD: 113}[data])
    assert steps_an_epoch(train_set, val_set, config) * config.trainer.max_epochs == steps
    assert config.trainer.batch_size * config.trainer.accumulate == batch
    assert (config.trainer.precision, config.selection) == ("32-true", "last")


def test_stage_a_pretrains_with_the_batch_of_the_paper(roots, tmp_path):
    """500 windows a step on one device, 500 epochs, bfloat16, no row held out; GOD's training rows among them."""
    hcp = ROOT / "tests" / "golden" / "raw" / "HCP" / "npz"
    given = [f"data.root={hcp}", f"data.cache_dir={tmp_path}", "data.frames_per_window=1"]
    given.append(f"extra_data.root={roots[GOD]}")
    config = load_config(PretrainMBMConfig, CONFIGS / "pretrain_hcp.yaml", given)
    data = open_pretraining(config.data, config.extra_data, 16)
    train_set, held_out = hold_out_tail(data, config.trainer.val_fraction)
    assert held_out is None and train_set.num_rows == data.num_rows > 1200
    assert config.trainer.batch_size * config.trainer.accumulate == 500
    assert steps_an_epoch(train_set, None, config) == -(-data.num_rows // 500)
    assert (config.trainer.max_epochs, config.trainer.precision) == (500, "bf16-mixed")


@pytest.mark.parametrize(
    ("schema", "name", "lr", "warmup"),
    [
        (PretrainMBMConfig, "pretrain_hcp", 2.5e-4, 40),
        (FinetuneMBMConfig, "finetune_mbm_god", 5.3e-5, 2),
        (FinetuneMBMConfig, "finetune_mbm_bold5000", 5.3e-5, 2),
    ],
)
def test_stage_a_decays_what_the_published_code_decays(schema, name, lr, warmup):
    """AdamW (.9, .95) of .05 on every tensor of two or more dimensions that is no bias; each parameter once."""
    config = load_config(schema, CONFIGS / f"{name}.yaml")
    network = MaskedBrainModel(num_voxels=64, patch_size=16, **TINY, **TINY_DECODER)
    module = build_mbm_module(network, config.mask, config.optim, config.trainer.max_epochs)
    optimizer = optimizer_of(module)
    decayed, kept = ({id(p) for p in group["params"]} for group in optimizer.param_groups)
    expected = {id(p) for key, p in network.named_parameters() if p.requires_grad and p.ndim >= 2}
    trained = {id(p) for p in network.parameters() if p.requires_grad}
    assert (decayed, kept) == (expected, trained - expected)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.05, 0.0]
    assert [group["initial_lr"] for group in optimizer.param_groups] == [lr, lr]
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.95)
    assert (config.optim.clip, config.optim.warmup_epochs, config.optim.min_lr) == (0.8, warmup, 0.0)
    assert config.mask.mask_ratio == 0.75


@pytest.mark.parametrize("data", [GOD, BOLD])
def test_stage_b_steps_what_the_published_code_steps(golden, data):
    """AdamW of .01 on the conditioner, the heads with their norms and the time condition, once; constant rate."""
    config = load_config(FinetuneLDMConfig, CONFIGS / f"finetune_ldm_{data}.yaml")
    ldm = tiny_ldm(golden("dc_ldm").meta["ldm"], 64)
    module = build_ldm_module(ldm, config)
    optimizer = optimizer_of(module)
    stepped = [id(p) for group in optimizer.param_groups for p in group["params"]]
    names = {id(p): name for name, p in ldm.named_parameters()}
    wanted = [
        key
        for key in names.values()
        if key.startswith("conditioner.") or (key.startswith("unet.") and any(part in key for part in HEADS))
    ]
    assert sorted(names[i] for i in stepped) == sorted(wanted)
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.01}
    assert {group["lr"] for group in optimizer.param_groups} == {5.3e-5}
    assert (config.optim.min_lr, config.optim.clip) == (None, 0.5)
    assert (config.augment.crop_ratio, config.augment.crop_probability) == (0.2, 0.5)


@pytest.mark.parametrize("data", [GOD, BOLD])
def test_pictures_are_sampled_as_published(data):
    """5 pictures a test stimulus by 250 PLMS steps, without guidance."""
    config = load_config(GenerateConfig, CONFIGS / f"generate_{data}.yaml")
    assert (config.num_samples, config.sampler, config.num_steps, config.guidance) == (5, "plms", 250, 1.0)
    assert (config.split, config.stimuli, config.control) == ("test", None, "none")

"""Learning rates, parameter groups, and the moving average of tuned weights: what is saved, what goes on."""

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from toy import ToyModule, contents, same, train

from mindvis.common.tensor_files import load_tensors
from mindvis.sc_mbm import MaskedBrainModel
from mindvis.training.optim import UNAVERAGED, AveragedWeights, adamw, averaging, decay_groups, warmup_cosine

RATES = {"lr": 1.0, "min_lr": 0.1, "warmup_epochs": 2, "num_epochs": 6}
DECAY = 0.9


@pytest.fixture
def model() -> MaskedBrainModel:
    decoder = {"decoder_embed_dim": 8, "decoder_depth": 1, "decoder_num_heads": 2}
    return MaskedBrainModel(num_voxels=32, patch_size=4, embed_dim=8, depth=1, num_heads=2, **decoder)


@pytest.mark.parametrize("setting", [0, 1, 2])
def test_learning_rate_equals_the_published_one(golden, setting):
    """Every step of the three settings of the parity file."""
    file = golden("learning_rate")
    meta = file.meta[setting]
    rates = {"lr": meta["lr"], "min_lr": meta["min_lr"]}
    epochs = {"warmup_epochs": meta["warmup_epochs"], "num_epochs": meta["num_epoch"]}
    wanted = file[f"out/lr_{setting}"]
    ours = [warmup_cosine(step / meta["steps_per_epoch"], **rates, **epochs) for step in range(len(wanted))]
    np.testing.assert_allclose(ours, wanted, rtol=1e-12)


def test_learning_rate_at_its_landmarks():
    """0 at the start, lr after warm-up, half way down in the middle, min_lr at the end and after it."""
    epochs = [0, 1, 2, 4, 6, 7]
    np.testing.assert_allclose([warmup_cosine(e, **RATES) for e in epochs], [0, 0.5, 1, 0.55, 0.1, 0.1])


def test_learning_rate_without_warm_up_or_without_descent():
    """No warm-up starts at lr; a run shorter than its warm-up only rises."""
    assert warmup_cosine(0, **{**RATES, "warmup_epochs": 0}) == 1.0
    assert warmup_cosine(6, **{**RATES, "warmup_epochs": 12}) == 0.5


def test_every_trainable_parameter_is_in_one_group_once(model):
    """The published code lists some twice; fixed positions are in no group."""
    groups = decay_groups(model, 0.05)
    listed = [id(p) for group in groups for p in group["params"]]
    assert len(listed) == len(set(listed))
    assert set(listed) == {id(p) for p in model.parameters() if p.requires_grad}
    assert id(model.pos_embed) not in listed and id(model.decoder_pos_embed) not in listed


def test_matrices_and_tokens_decay_biases_and_norms_do_not(model):
    """Two or more dimensions decay, whatever they are."""
    decayed, kept = decay_groups(model, 0.05)
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.05, 0.0)
    assert {id(model.cls_token), id(model.mask_token), id(model.patch_embed.proj.weight)} <= set(
        map(id, decayed["params"])
    )
    assert all(p.ndim == 1 for p in kept["params"]) and all(p.ndim >= 2 for p in decayed["params"])


def test_a_bias_of_two_dimensions_does_not_decay():
    """The name decides where the shape does not."""
    module = nn.Module()
    module.bias = nn.Parameter(torch.zeros(2, 2))
    assert [len(group["params"]) for group in decay_groups(module, 0.1)] == [0, 1]


def test_fused_step_equals_the_plain_one():
    """Ten steps of both on the same gradients stay within 1e-7, and the fused one repeats itself bit for bit."""
    results = []
    for fused in (True, True, False):
        generator = torch.Generator().manual_seed(0)
        weight = nn.Parameter(torch.randn(50, 40, generator=generator))
        groups, options = [{"params": [weight], "weight_decay": 0.05}], {"lr": 1e-3, "betas": (0.9, 0.95)}
        optimizer = adamw(groups, **options) if fused else torch.optim.AdamW(groups, **options, fused=False)
        for _ in range(10):
            weight.grad = torch.randn(50, 40, generator=generator)
            optimizer.step()
        results.append(weight.detach())
    assert torch.equal(results[0], results[1])
    torch.testing.assert_close(results[0], results[2], atol=1e-6, rtol=0)


def test_fused_step_is_left_out_where_there_is_none():
    """A parameter on another device than CPU or CUDA gets the plain step."""
    weight = nn.Parameter(torch.zeros(2, device="meta"))
    assert not adamw([{"params": [weight]}], lr=1e-3, betas=(0.9, 0.95)).defaults["fused"]


class Watch(pl.Callback):
    """Keeps the weights after every step; `stop` ends the training in the middle, as a kill does."""

    def __init__(self, stop: int | None = None):
        self.stop, self.seen = stop, []

    def on_train_batch_end(self, trainer, module, *_):
        self.seen.append({name: weight.detach().clone() for name, weight in module.named_parameters()})

    def on_train_batch_start(self, trainer, module, *_):
        if trainer.global_step == self.stop:
            raise KeyboardInterrupt


def start():
    return {name: weight.detach().clone() for name, weight in ToyModule().named_parameters()}


def test_a_checkpoint_holds_the_average_of_all_steps(tmp_path):
    """A loop over the weights of every step gives the same, and the last weights lie beside it."""
    watch = Watch()
    train(tmp_path / "run", callbacks=[AveragedWeights(DECAY), watch])
    checkpoint = load_tensors(tmp_path / "run" / "checkpoints" / "last.ckpt")
    expected = start()
    for step, weights in enumerate(watch.seen, start=1):
        decay = min(DECAY, (1 + step) / (10 + step))
        expected = {name: decay * expected[name] + (1 - decay) * weights[name] for name in expected}
    for name, average in expected.items():
        torch.testing.assert_close(checkpoint["state_dict"][name], average, rtol=1e-5, atol=1e-7)
        assert torch.equal(checkpoint[UNAVERAGED][name], watch.seen[-1][name])
        assert not torch.equal(checkpoint["state_dict"][name], watch.seen[-1][name])


def test_the_training_itself_is_as_without(tmp_path):
    """The weights go the way they would go."""
    with_average, without = Watch(), Watch()
    train(tmp_path / "a", callbacks=[AveragedWeights(DECAY), with_average])
    train(tmp_path / "b", callbacks=[without])
    assert same(with_average.seen, without.seen)


def test_without_averaging_there_is_no_callback():
    assert averaging(0.0) == []


def test_a_resumed_run_ends_where_the_whole_one_ends(tmp_path):
    """To the bit: averages, weights, optimiser and curves."""
    train(tmp_path / "whole", callbacks=[AveragedWeights(DECAY)])
    with pytest.raises(BaseException):  # noqa: B017 - Lightning turns the interruption into another error
        train(tmp_path / "parts", callbacks=[AveragedWeights(DECAY), Watch(stop=8)])
    train(tmp_path / "parts", callbacks=[AveragedWeights(DECAY)])
    whole, parts = (contents(tmp_path / name) for name in ("whole", "parts"))
    for key in ("state_dict", UNAVERAGED, "optimizer_states"):
        assert same(whole["last"][key], parts["last"][key])

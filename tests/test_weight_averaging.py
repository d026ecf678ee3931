"""Moving average of tuned weights: what is saved, what a training goes on with."""

import pytest
import pytorch_lightning as pl
import torch
from toy import ToyModule, contents, same, train

from mindvis.common.errors import InputError
from mindvis.common.tensor_files import load_tensors
from mindvis.training.averaging import UNAVERAGED, AveragedWeights, averaging

DECAY = 0.9


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


def test_selection_by_single_steps_is_refused():
    """It would keep averages that nobody judged; without averaging there is no callback."""
    with pytest.raises(InputError, match="ema is 0.9 with selection=validation"):
        averaging(0.9, "validation")
    assert averaging(0.0, "validation") == []


def test_a_resumed_run_ends_where_the_whole_one_ends(tmp_path):
    """To the bit: averages, weights, optimiser and curves."""
    train(tmp_path / "whole", callbacks=[AveragedWeights(DECAY)])
    with pytest.raises(BaseException):  # noqa: B017 - Lightning turns the interruption into another error
        train(tmp_path / "parts", callbacks=[AveragedWeights(DECAY), Watch(stop=8)])
    train(tmp_path / "parts", callbacks=[AveragedWeights(DECAY)])
    whole, parts = (contents(tmp_path / name) for name in ("whole", "parts"))
    for key in ("state_dict", UNAVERAGED, "optimizer_states"):
        assert same(whole["last"][key], parts["last"][key])

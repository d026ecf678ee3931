"""Training: exact resumption, real accumulation, precision, limits of steps, dry runs."""

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from toy import ToyModule, contents, same, train

from mindvis.common.errors import InputError
from mindvis.common.tensor_files import load_tensors


class Killed(Exception):
    """Stands for SIGKILL: nothing of ours handles it."""


def die(hook: str, count: int) -> pl.Callback:
    """A callback that stops the process at the `count`-th call of a hook."""
    callback, calls = pl.Callback(), []

    def stop(*args, **kwargs):
        calls.append(hook)
        if len(calls) == count:
            raise Killed

    setattr(callback, hook, stop)
    return callback


def weights(path) -> dict:
    return load_tensors(path / "checkpoints" / "last.ckpt")["state_dict"]


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Contents of uninterrupted runs, by accumulation."""
    folder = tmp_path_factory.mktemp("reference")
    for accumulate in (1, 2):
        train(folder / str(accumulate), accumulate=accumulate, max_epochs=2)
    return {accumulate: contents(folder / str(accumulate)) for accumulate in (1, 2)}


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize(
    ("hook", "count"),
    [
        ("on_train_batch_start", 1),
        ("on_train_batch_start", 2),
        ("on_train_batch_end", 5),
        ("on_before_optimizer_step", 3),
        ("on_train_batch_end", 6),
        ("on_validation_batch_start", 1),
        ("on_validation_end", 1),
        ("on_train_epoch_end", 1),
        ("on_train_epoch_start", 2),
        ("on_train_batch_start", 10),
        ("on_train_end", 1),
    ],
)
def test_a_killed_run_ends_bit_for_bit_where_the_uninterrupted_one_ends(tmp_path, reference, hook, count, accumulate):
    with pytest.raises(Killed):
        train(tmp_path, accumulate=accumulate, max_epochs=2, callbacks=[die(hook, count)])
    train(tmp_path, accumulate=accumulate, max_epochs=2)
    assert same(contents(tmp_path), reference[accumulate])


def test_sparse_checkpoints_and_loader_processes_resume_as_exactly(tmp_path, reference):
    with pytest.raises(Killed):
        train(tmp_path, max_epochs=2, checkpoint_every_steps=4, callbacks=[die("on_train_batch_end", 11)])
    train(tmp_path, max_epochs=2, checkpoint_every_steps=4, num_workers=1)
    got = contents(tmp_path)
    assert got["metrics.csv"] == reference[1]["metrics.csv"]
    assert same(got["last"]["state_dict"], reference[1]["last"]["state_dict"])


def test_a_finished_run_is_left_as_it_is(tmp_path):
    train(tmp_path, max_epochs=1)
    before = contents(tmp_path)
    result = train(tmp_path, max_epochs=1)
    assert same(contents(tmp_path), before)
    assert result.num_steps == 6


@pytest.mark.parametrize("samples", [64, 40])
def test_four_batches_of_eight_make_the_step_of_one_of_32(tmp_path, samples):
    for name, batch, accumulate in (("one", 32, 1), ("four", 8, 4)):
        train(tmp_path / name, batch_size=batch, accumulate=accumulate, num_samples=samples, max_epochs=2)
    one, four = weights(tmp_path / "one"), weights(tmp_path / "four")
    for name in one:
        torch.testing.assert_close(four[name], one[name], rtol=0, atol=1e-6)


def test_mixed_precision_trains_near_float32_and_resumes_exactly(tmp_path):
    options = {"max_epochs": 1, "precision": "bf16-mixed"}
    train(tmp_path / "whole", **options)
    with pytest.raises(Killed):
        train(tmp_path / "killed", callbacks=[die("on_train_batch_end", 4)], **options)
    train(tmp_path / "killed", **options)
    assert same(weights(tmp_path / "killed"), weights(tmp_path / "whole"))
    train(tmp_path / "float", max_epochs=1)
    for name, value in weights(tmp_path / "float").items():
        assert (weights(tmp_path / "whole")[name] - value).abs().max() < 0.05


def test_16_bit_floats_are_refused_on_a_cpu(tmp_path):
    """Lightning would train in bfloat16 in their place."""
    with pytest.raises(
        InputError, match="trainer.precision is 16-mixed on a CPU; needed: a GPU, bf16-mixed or 32-true"
    ):
        train(tmp_path, precision="16-mixed")


def test_max_steps_ends_the_run_and_holds_when_resumed(tmp_path):
    assert train(tmp_path, max_steps=4).num_steps == 4
    rows = (tmp_path / "metrics.csv").read_text()
    assert rows.splitlines()[-1].startswith("4,0,,")  # the last validation is there
    assert train(tmp_path, max_steps=4).num_steps == 4
    assert (tmp_path / "metrics.csv").read_text() == rows


def test_an_own_checkpoint_by_another_path_cuts_the_curves_back(tmp_path, monkeypatch, reference):
    with pytest.raises(Killed):
        train(tmp_path / "run", max_epochs=2, checkpoint_every_steps=4, callbacks=[die("on_train_batch_end", 7)])
    monkeypatch.chdir(tmp_path)
    train(
        Path("run"), max_epochs=2, checkpoint_every_steps=4, resume=str(tmp_path / "run" / "checkpoints" / "last.ckpt")
    )
    assert (tmp_path / "run" / "metrics.csv").read_bytes() == reference[1]["metrics.csv"]


def test_a_run_may_begin_with_the_checkpoint_of_another(tmp_path):
    train(tmp_path / "old", max_epochs=2, max_steps=4)
    start = tmp_path / "old" / "checkpoints" / "last.ckpt"
    train(tmp_path / "new", max_epochs=2, max_steps=7, resume=str(start), resume_override=True)
    rows = (tmp_path / "new" / "metrics.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["step", "5", "6", "7", "7"]


def test_a_checkpoint_of_another_network_is_one_line(tmp_path):
    train(tmp_path, max_epochs=1)
    wider = ToyModule()
    wider.network.append(torch.nn.Linear(4, 4))
    with pytest.raises(InputError, match=r"last.ckpt: holds another network \(Missing key.*needed: its model settings"):
        train(tmp_path, max_epochs=1, module=wider)


def test_a_fast_dev_run_keeps_nothing(tmp_path):
    result = train(tmp_path / "run", fast_dev_run=True)
    assert result.num_steps == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("setting", [{"precision": "64"}, {"batch_size": 0}, {"strategy": "dp"}, {"max_epochs": 0}])
def test_a_setting_that_cannot_be_is_named(tmp_path, setting):
    with pytest.raises(InputError, match=f"trainer.{next(iter(setting))} is "):
        train(tmp_path, **setting)


def test_sharding_is_refused_in_one_line(tmp_path):
    """A setting of earlier versions names what takes its place."""
    with pytest.raises(InputError, match="trainer.strategy is 'fsdp'; needed: one of auto, ddp"):
        train(tmp_path, strategy="fsdp")


def test_activation_checkpointing_is_refused_where_the_module_has_none(tmp_path):
    with pytest.raises(InputError, match="ToyModule does not offer it"):
        train(tmp_path, activation_checkpointing=True)


def test_clipping_bounds_the_step(tmp_path):
    """With a tiny largest norm, plain SGD moves the weights by at most lr * norm."""

    class Sgd(ToyModule):
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=1.0)

    module = Sgd()
    before = torch.nn.utils.parameters_to_vector(module.parameters()).clone()
    train(tmp_path, module=module, clip=1e-3, max_steps=1)
    moved = torch.nn.utils.parameters_to_vector(module.parameters()) - before
    assert float(moved.detach().norm()) == pytest.approx(1e-3, rel=1e-3)

"""Training of Stage A: the published steps, learning rate, resuming, focus, and what a figure gets."""

import warnings

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset

from mindvis.common import draws
from mindvis.common.errors import InputError
from mindvis.sc_mbm import MaskedBrainModel, MBMModule
from mindvis.sc_mbm.module import pearson

SIZE = {"num_voxels": 48, "patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2}
DECODER = {"decoder_embed_dim": 8, "decoder_depth": 1, "decoder_num_heads": 2}
QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


class Windows(Dataset):
    """fMRI [n 1 v] with the key (0, 0, i) of plain access."""

    def __init__(self, fmri: torch.Tensor):
        self.fmri = fmri

    def __len__(self) -> int:
        return len(self.fmri)

    def __getitem__(self, i: int) -> dict:
        return {"fmri": self.fmri[i], "key": torch.tensor([0, 0, i])}


class EpochBatches:
    """Batches of consecutive samples, the next stretch of the data in every epoch."""

    def __init__(self, batch_size: int, steps_per_epoch: int):
        self.batch_size, self.steps, self.epoch = batch_size, steps_per_epoch, 0

    def __len__(self) -> int:
        return self.steps

    def __iter__(self):
        first = self.epoch * self.steps
        self.epoch += 1
        for step in range(first, first + self.steps):
            yield list(range(step * self.batch_size, (step + 1) * self.batch_size))


class Watch(pl.Callback):
    """Metrics logged in every step."""

    def __init__(self):
        self.rows = []

    def on_train_batch_end(self, trainer, *_):
        self.rows.append({name: float(value) for name, value in trainer.callback_metrics.items()})

    def column(self, name: str) -> np.ndarray:
        return np.array([row[name] for row in self.rows])


@pytest.fixture(autouse=True)
def _one_thread():
    """Networks this small lose more to the waiting between threads than they gain."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny_module(**settings) -> MBMModule:
    torch.manual_seed(0)
    return MBMModule(MaskedBrainModel(**SIZE, **DECODER), **{"warmup_epochs": 1, "num_epochs": 4, **settings})


def tiny_loader(num: int = 8, batch_size: int = 4) -> DataLoader:
    fmri = torch.randn(num, 1, 48, generator=torch.Generator().manual_seed(1))
    return DataLoader(Windows(fmri), batch_size=batch_size)


def fit(module: MBMModule, loader: DataLoader, ckpt_path=None, **settings) -> tuple[pl.Trainer, Watch]:
    watch = Watch()
    trainer = pl.Trainer(**{**QUIET, **settings}, callbacks=[watch])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice on workers and log intervals
        trainer.fit(module, loader, loader if settings.get("fast_dev_run") else None, ckpt_path=ckpt_path)
    return trainer, watch


@pytest.fixture
def published_run(golden, monkeypatch):
    """The twelve published steps, made through the Trainer with the masks of the parity file."""
    file = golden("mbm_train")
    meta = file.meta
    network = MaskedBrainModel(**meta["kwargs"])
    network.load_state_dict(file.tensors("state"))
    names = ("lr", "min_lr", "weight_decay", "betas", "warmup_epochs", "mask_ratio")
    module = MBMModule(network, num_epochs=meta["num_epoch"], **{name: meta[name] for name in names})
    noise = file.tensor("in/noise").flatten(0, 1)  # [steps * b l]
    monkeypatch.setattr(draws, "uniform", lambda keys, stream, shape: noise[keys[:, 2]])
    batches = EpochBatches(file["in/fmri"].shape[1], meta["steps_per_epoch"])
    loader = DataLoader(Windows(file.tensor("in/fmri").flatten(0, 1)), batch_sampler=batches)
    _, watch = fit(module, loader, max_epochs=meta["num_epoch"], gradient_clip_val=meta["clip"])
    return file, network, watch


def test_training_equals_the_published_one(published_run):
    """Losses, correlations and weights after 12 steps of AdamW, clipping and warm-up."""
    file, network, watch = published_run
    np.testing.assert_allclose(watch.column("train/loss"), file["out/losses"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(watch.column("train/correlation"), file["out/correlations"], atol=1e-5, rtol=0)
    for key, wanted in file.tensors("after").items():
        difference = (network.state_dict()[key] - wanted).abs()
        if key.endswith("qkv.bias"):  # the keys' third has no exact gradient: AdamW makes whole steps of round-off
            queries, _, values = difference.chunk(3)
            difference = torch.cat([queries, values])
        assert difference.mean() < 1e-7, key


@pytest.mark.parametrize("setting", [0, 1, 2])
def test_learning_rate_equals_the_published_one(golden, setting, monkeypatch):
    """The module's schedule at every step of the three settings of the parity file."""
    file = golden("learning_rate")
    meta = file.meta[setting]
    module = tiny_module(
        **{name: meta[name] for name in ("lr", "min_lr", "warmup_epochs")}, num_epochs=meta["num_epoch"]
    )
    monkeypatch.setattr("mindvis.sc_mbm.module.steps_per_epoch", lambda trainer: meta["steps_per_epoch"])
    module.trainer = pl.Trainer(**QUIET)
    configured = module.configure_optimizers()
    optimizer, schedule = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    rates = []
    for _ in file[f"out/lr_{setting}"]:
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    np.testing.assert_allclose(rates, file[f"out/lr_{setting}"], rtol=1e-9, atol=1e-18)


def test_warm_up_starts_at_zero_and_moves_every_step():
    """The first step changes no weight; the rate rises within the first epoch."""
    module = tiny_module(lr=1e-3)
    before = {name: tensor.clone() for name, tensor in module.network.state_dict().items()}
    _, watch = fit(module, tiny_loader(), max_epochs=1, limit_train_batches=1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.network.state_dict().items())
    _, watch = fit(tiny_module(lr=1e-3), tiny_loader(16), max_epochs=1)
    np.testing.assert_allclose(watch.column("train/lr"), [0, 2.5e-4, 5e-4, 7.5e-4])


def test_accumulated_batches_count_as_one_step():
    """With accumulation an epoch has fewer steps of the schedule, and warm-up still lasts its epochs."""
    _, watch = fit(tiny_module(lr=1e-3), tiny_loader(16), max_epochs=2, accumulate_grad_batches=2)
    np.testing.assert_allclose(watch.column("train/lr")[:5], [0, 0, 5e-4, 5e-4, 1e-3])


def test_training_and_validation_run():
    """One batch of each through the Trainer, with the promised names in the log."""
    trainer, _ = fit(tiny_module(), tiny_loader(), fast_dev_run=True)
    names = {"train/loss", "train/correlation", "train/lr", "val/loss", "val/correlation"}
    assert names <= set(trainer.callback_metrics)


def test_one_batch_is_learned_by_heart():
    """300 steps on four windows bring the loss below a tenth of the variance they start from."""
    module = tiny_module(lr=1e-2, weight_decay=0.0, warmup_epochs=0.03, num_epochs=1)
    windows = ConcatDataset([tiny_loader(4).dataset] * 300)
    _, watch = fit(module, DataLoader(windows, batch_size=4), max_epochs=1, gradient_clip_val=0.8)
    losses = watch.column("train/loss")
    assert losses[0] > 0.8 and losses[-1] < 0.1
    assert watch.column("train/correlation")[-1] > watch.column("train/correlation")[0] + 0.3


def test_resumed_training_equals_the_uninterrupted_one(tmp_path):
    """Two epochs, a checkpoint and two more end bit for bit where four epochs end."""
    whole = tiny_module(lr=1e-3)
    fit(whole, tiny_loader(), max_epochs=4)
    first, second = tiny_module(lr=1e-3), tiny_module(lr=1e-3)
    trainer, _ = fit(first, tiny_loader(), max_epochs=2)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    _, watch = fit(second, tiny_loader(), max_epochs=4, ckpt_path=tmp_path / "half.ckpt")
    assert watch.column("train/lr")[0] == pytest.approx(7.5e-4)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name


def test_mask_of_a_sample_does_not_depend_on_its_batch():
    """The same key gives the same mask alone and among others; another epoch gives another."""
    module, batch = tiny_module(), next(iter(tiny_loader()))
    together = module.reconstruct(batch)
    alone = module.reconstruct({name: value[2:3] for name, value in batch.items()})
    assert torch.equal(together.mask[2:3], alone.mask)
    torch.testing.assert_close(together.reconstruction[2:3], alone.reconstruction, atol=1e-6, rtol=0)
    later = {**batch, "key": batch["key"] + torch.tensor([0, 1, 0])}
    assert not torch.equal(module.reconstruct(later).mask, together.mask)


def test_reconstruction_is_in_voxel_order():
    """A figure gets the voxels as they came, a mask of whole patches, and no gradient."""
    module, batch = tiny_module(), next(iter(tiny_loader()))
    shown = module.reconstruct(batch)
    assert torch.equal(shown.fmri, batch["fmri"][:, 0])
    assert shown.mask.shape == shown.reconstruction.shape == (4, 48) and not shown.reconstruction.requires_grad
    assert torch.equal(shown.mask.view(4, 12, 4).mean(dim=2), module(batch).mask)


def test_focus_hides_more_within_the_range():
    """Voxels 8 to 24 are hidden more often than the others, the count staying the same."""
    batch = {"fmri": torch.zeros(400, 1, 48), "key": torch.arange(400)[:, None].expand(-1, 3)}
    mask = tiny_module(focus_range=[8, 24], focus_rate=0.9, mask_ratio=0.5).reconstruct(batch).mask
    assert mask.sum(dim=1).eq(24).all()
    assert mask[:, 8:24].mean() > 0.8 > 0.5 > mask[:, 24:].mean()


def test_keys_stay_where_draws_are_made():
    """The batch moves to the device, its keys do not."""
    batch = next(iter(tiny_loader()))
    moved = tiny_module().transfer_batch_to_device(batch, torch.device("meta"), 0)
    assert moved["fmri"].is_meta and moved["key"].device.type == "cpu"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"mask_ratio": 0.0}, "mask_ratio is 0"),
        ({"mask_ratio": 75}, "mask_ratio is 75"),
        ({"focus_range": (8, 24)}, "both or neither"),
        ({"focus_rate": 0.8}, "both or neither"),
        ({"focus_range": (8, 99), "focus_rate": 0.8}, "99"),
    ],
)
def test_settings_are_checked(settings, words):
    """Training that hides nothing, a percentage, half a focus and a range beyond the voxels."""
    with pytest.raises(InputError, match=words):
        tiny_module(**settings)


def test_pearson_equals_numpy(rng):
    """Row by row against corrcoef; a constant row correlates with nothing."""
    x, y = rng.normal(size=(3, 50)), rng.normal(size=(3, 50))
    wanted = [np.corrcoef(a, b)[0, 1] for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(pearson(torch.tensor(x), torch.tensor(y)), wanted, atol=1e-6)
    assert pearson(torch.ones(1, 5), torch.rand(1, 5)).eq(0).all()

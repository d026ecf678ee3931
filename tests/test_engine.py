"""Activation checkpointing, compilation, the search for the largest batch, steps in 16-mixed."""

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.precision import MixedPrecision
from torch import nn
from toy import ToyModule, train

from mindvis.common.errors import InputError
from mindvis.dc_ldm.module import LDMModule
from mindvis.sc_mbm import MaskedBrainModel
from mindvis.sc_mbm.module import MBMModule
from mindvis.training.engine import ScaledPrecision, compile_networks, largest_batch_size
from mindvis.training.optim import adamw


def kept_bytes(module: torch.nn.Module, loss) -> tuple[int, list[torch.Tensor]]:
    """Bytes that the forward pass keeps for the backward pass, and the gradients."""
    sizes = []

    def pack(tensor):
        sizes.append(tensor.numel() * tensor.element_size())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        value = loss(module)
    value.backward()
    return sum(sizes), [p.grad.clone() for p in module.parameters() if p.grad is not None]


def check_checkpointing(make, loss) -> None:
    plain, thrifty = make(), make()
    thrifty.enable_activation_checkpointing()
    much, expected = kept_bytes(plain, loss)
    little, gradients = kept_bytes(thrifty, loss)
    assert little < 0.5 * much
    assert len(gradients) == len(expected) > 10
    for gradient, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, other)
    assert thrifty.state_dict().keys() == plain.state_dict().keys()


def test_stage_a_keeps_less_and_has_the_same_gradients():
    def make():
        torch.manual_seed(0)
        sizes = {"num_voxels": 64, "patch_size": 4, "embed_dim": 16, "depth": 4, "num_heads": 2}
        sizes |= {"decoder_embed_dim": 8, "decoder_depth": 2, "decoder_num_heads": 2}
        return MBMModule(MaskedBrainModel(**sizes))

    batch = {"fmri": torch.randn(4, 1, 64), "key": torch.tensor([[0, 0, i] for i in range(4)])}
    check_checkpointing(make, lambda module: module(batch).loss)


def test_stage_b_keeps_less_and_has_the_same_gradients(golden):
    from ldm_cases import build

    case = golden("dc_ldm")
    fmri = torch.randn(2, 1, case.meta["num_voxels"])
    batch = {"fmri": fmri, "key": torch.tensor([[0, 0, 0], [0, 0, 1]])}

    def loss(module):
        return module.loss({**batch, "latent": torch.ones(2, *module.ldm.latent_shape)})

    check_checkpointing(lambda: LDMModule(build(case)).train(), loss)


class Greedy(ToyModule):
    """Runs out of memory above four samples."""

    def training_step(self, batch, batch_idx):
        if len(batch["key"]) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().training_step(batch, batch_idx)


def test_the_largest_batch_that_fits_is_found_and_kept(tmp_path, caplog):
    module = Greedy()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    result = train(tmp_path, module=module, find_batch_size=True, batch_size=1, max_epochs=1)
    assert result.num_steps == 3  # 11 samples in batches of 4
    assert "batch size 8 does not fit in memory; using 4" in caplog.text
    assert any(not torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_the_search_ends_with_the_whole_data_set_and_passes_other_errors_on():
    tried = []
    assert largest_batch_size(ToyModule(), lambda _, size: tried.append(size), start=3, most=10) == 10
    assert tried == [3, 6, 10]
    with pytest.raises(RuntimeError, match="shapes"):
        largest_batch_size(ToyModule(), lambda *_: (_ for _ in ()).throw(RuntimeError("shapes")), start=1, most=2)


def test_the_search_is_for_one_device(tmp_path):
    with pytest.raises(InputError, match="needs trainer.devices=1"):
        train(tmp_path, find_batch_size=True, devices=2)


def test_compilation_reaches_the_outermost_networks(monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **options: compiled.append(self))
    container = torch.nn.Module()
    container.parts = torch.nn.ModuleList([torch.nn.Linear(1, 1), torch.nn.Sequential(torch.nn.GELU())])
    compile_networks(container)
    assert compiled == list(container.parts)


@pytest.mark.slow
def test_a_compiled_network_trains_to_nearly_the_same_weights(tmp_path):
    metrics = [train(tmp_path / str(on), compile=on, max_epochs=1).metrics["val/loss"] for on in (False, True)]
    assert metrics[0] == pytest.approx(metrics[1], abs=1e-4)


def weights_after_four_steps(kind):
    """A layer, clipped and tuned in 16-mixed; the third of its steps has gradients that are no numbers."""
    torch.manual_seed(0)
    layer = nn.Linear(3, 2)
    optimizer = adamw([{"params": list(layer.parameters())}], lr=0.1, betas=(0.9, 0.95))
    precision = kind("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2))
    precision._after_closure = lambda *_: torch.nn.utils.clip_grad_norm_(layer.parameters(), 0.5)
    for value in (1.0, 2.0, float("inf"), 3.0):

        def closure(value=value):
            optimizer.zero_grad()
            loss = layer(torch.full((1, 3), value)).square().sum()
            precision.scaler.scale(loss).backward()
            return loss

        precision.optimizer_step(optimizer, pl.LightningModule(), closure)
    return {**layer.state_dict(), "scale": torch.tensor(precision.scaler.get_scale())}


def test_a_scaled_step_that_waits_for_nothing_is_that_of_lightning():
    """Gradients are unscaled, then clipped; a step without numbers is left out, and the scale follows."""
    ours, theirs = (weights_after_four_steps(kind) for kind in (ScaledPrecision, MixedPrecision))
    assert all(torch.isfinite(value).all() for value in ours.values())
    assert ours["scale"] == 8.0  # doubled after two steps, halved by the third
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=0, atol=0)

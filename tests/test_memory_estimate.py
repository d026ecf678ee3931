"""The table of memory: counts of the published models, how its parts scale, and the measured truth."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import nn

from mindvis.benchmarks.memory_estimate import config_of, estimate, measure, stage_model

SCRIPT = Path(__file__).parents[1] / "scripts" / "estimate_memory.py"


@pytest.mark.parametrize(("stage", "total", "tuned"), [("A", 164.9e6, 164.4e6), ("B", 608.8e6, 179.2e6)])
def test_parameters_are_those_of_the_published_models(stage, total, tuned):
    cost = estimate(stage, 1)
    assert cost.num_parameters == pytest.approx(total, rel=1e-3)
    assert cost.num_tuned == pytest.approx(tuned, rel=1e-3)
    assert (cost.weights, cost.gradients) == (4 * cost.num_parameters, 4 * cost.num_tuned)
    assert cost.moments == 8 * cost.num_tuned


def test_activations_grow_with_the_batch_and_shrink_by_checkpointing_and_half_precision():
    small, large = estimate("A", 4).activations, estimate("A", 8).activations
    assert large == pytest.approx(2 * small, rel=0.05)
    assert estimate("A", 8, checkpointing=True).activations < 0.25 * large
    assert estimate("A", 64, precision="bf16-mixed").activations < 0.75 * estimate("A", 64).activations


def test_frozen_weights_take_half_in_mixed_precision():
    """Those of products, which are nearly all; what is tuned stays float32."""
    whole, half = estimate("B", 1), estimate("B", 1, precision="bf16-mixed")
    frozen = whole.num_parameters - whole.num_tuned
    assert half.weights == pytest.approx(4 * whole.num_tuned + 2 * frozen, rel=0.01)
    assert (half.gradients, half.moments) == (whole.gradients, whole.moments)


def test_a_frozen_weight_counts_once_in_half_precision(monkeypatch):
    """Cast once it counts as a weight; else autocast casts it in every step, and its copy counts as an activation."""
    cast = estimate("B", 1, precision="bf16-mixed", ldm="demo")
    monkeypatch.setattr("mindvis.benchmarks.memory_estimate.cast_frozen", lambda model: None)
    uncast = estimate("B", 1, precision="bf16-mixed", ldm="demo")
    ldm = stage_model("B", config_of("demo")).ldm
    layers = [each for each in ldm.unet.modules() if isinstance(each, nn.Linear | nn.Conv2d)]
    frozen = sum(p.numel() for layer in layers for p in layer.parameters() if not p.requires_grad and p.ndim > 1)
    # but for the first layers, before which nothing needs a gradient
    assert uncast.activations - cast.activations == pytest.approx(2 * frozen, rel=0.05)
    assert uncast.weights > cast.weights


def test_activations_are_what_autograd_keeps():
    """On the CPU in float32, where attention takes its fused kernel too: storages that hooks of autograd see, once."""
    model = stage_model("B", config_of("demo"))
    weights, kept = {p.data_ptr() for p in model.parameters()}, {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(2)
    found = sum(storage.nbytes() for place, storage in kept.items() if place not in weights)
    del loss
    assert estimate("B", 2, ldm="demo").activations == pytest.approx(found, rel=0.02)


@pytest.mark.parametrize("item", ["C:1", "A", "A:0"])
def test_a_wrong_measurement_is_one_line(item, capsys):
    spec = importlib.util.spec_from_file_location("estimate_memory", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.BATCHES = ()
    assert script.main(["--measure", item]) == 2
    assert "needed: A:BATCH or B:BATCH" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "batch"), [("A", 8), ("B", 2)])
def test_the_estimate_is_near_the_measured_peak(stage, batch):
    """The peak also holds what kernels need while they run."""
    ratio = measure(stage, batch) / estimate(stage, batch).total
    assert 0.85 < ratio < 1.35

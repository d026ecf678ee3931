"""scripts/benchmark.py: tables, JSON and plots. Speed itself decides no test."""

import json
from dataclasses import replace

import pytest
import torch
from script_runner import run

from mindvis.benchmarks.growth import CURVES, Point, growth_plot
from mindvis.benchmarks.measure import WORKS, Measured, Timing, Usage, count_flops, matmul_rate, peak_bytes, timed
from mindvis.benchmarks.networks import build_diffusion, stage_b
from mindvis.benchmarks.plain import CopyingModel, correlation, unfused, with_all_gradients
from mindvis.benchmarks.solvers import SolverRow, suggestion
from mindvis.benchmarks.table import benchmark
from mindvis.benchmarks.through_fit import benchmark_fit
from mindvis.benchmarks.works import DrawnPictures, Limit, Variant, batches, complete
from mindvis.config.schemas import ModelConfig
from mindvis.config.tools import BenchmarkConfig
from mindvis.dc_ldm.attention import CrossAttention
from mindvis.sc_mbm import MaskedBrainModel
from mindvis.sc_mbm.module import pearson
from mindvis.training import on_cpu

TINY_MODEL = {"embed_dim": 32, "depth": 1, "num_heads": 2, "decoder_embed_dim": 16, "decoder_depth": 1}
TINY = [f"model.{name}={value}" for name, value in TINY_MODEL.items()]
TINY += ["model.decoder_num_heads=2", "num_voxels=64", "ldm=demo", "repetitions=2", "num_threads=1"]


@pytest.fixture
def config() -> BenchmarkConfig:
    return complete(BenchmarkConfig(model=ModelConfig(**TINY_MODEL, decoder_num_heads=2), num_voxels=64, ldm="demo"))


def test_table_and_json(tmp_path):
    """A line a work and precision; ratios are those of the medians, and memory is that of processes of their own."""
    sizes = ["num_stimuli=3", "num_samples=2", "size=32"]
    outcome = run("benchmark", "parts=[stage_a,evaluation]", *TINY, *sizes, f"output={tmp_path}")
    assert outcome.status == 0
    stage_a, half, ssim, n_way = json.loads((tmp_path / "benchmark.json").read_text())["rows"]
    assert len(outcome.out.strip().splitlines()) == 2 + 4
    assert ssim["ratio"] == ssim["plain"]["timing"]["median"] / ssim["ours"]["timing"]["median"]
    assert n_way["plain"] is None and n_way["ours"]["timing"]["fastest"] <= n_way["ours"]["timing"]["slowest"]
    assert stage_a["ours"]["usage"]["flops"] == half["ours"]["usage"]["flops"] > 0
    assert (stage_a["precision"], half["precision"]) == ("32-true", "bf16-mixed")
    assert stage_a["ours"]["usage"]["peak_bytes"] is None or stage_a["ours"]["usage"]["peak_bytes"] > 1e8


@pytest.mark.parametrize(("setting", "word"), [
    ("parts=[stage_c]", "stage_a"), ("precisions=[half]", "bf16-mixed"), ("repetitions=0", "at least 1"),
    ("ldm=nowhere.yaml", "nowhere.yaml"),
])  # fmt: skip
def test_impossible_settings_are_refused(setting, word):
    """One line and status 2, also where the process of a work finds the fault."""
    outcome = run("benchmark", "parts=[stage_b]", *TINY, setting)
    assert outcome.status == 2 and outcome.err.count("\n") == 1 and word in outcome.err


def test_plain_stage_b_has_gradients_for_unet_and_conditioner_alone(config):
    """As the published code: its autoencoder is frozen and encodes without autograd."""
    ldm = with_all_gradients(build_diffusion(config))
    assert all(p.requires_grad for part in (ldm.unet, ldm.conditioner) for p in part.parameters())
    assert not any(p.requires_grad for p in ldm.autoencoder.parameters())
    assert not ldm.encode(torch.zeros(1, 3, *2 * [4 * ldm.latent_shape[-1]])).requires_grad


def test_plain_stage_b_keeps_gradients_that_ours_does_not(config):
    """The plain step has more operations: gradients of frozen weights, and whole images encoded."""
    ours, plain = (count_flops(stage_b(config, Variant("stage_b", plain=plain)).call) for plain in (False, True))
    assert 1.2 * ours < plain


def test_plain_stage_a_gives_the_same(config):
    """Masking by copies and correlation row by row: loss, gradients and correlation are ours, within round-off."""
    found = []
    for build in (MaskedBrainModel, CopyingModel):
        torch.manual_seed(0)
        network = build(num_voxels=64, **vars(config.model))
        fmri = torch.randn(3, 1, 64)
        out = network(fmri, noise=torch.rand(3, network.num_patches))
        out.loss.backward()
        rows = fmri[:, 0], network.unpatchify(out.reconstruction)
        found.append((out.loss, correlation(*rows), pearson(*rows).mean(), network.patch_embed.proj.weight.grad))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(found[0][1], found[0][2])


@pytest.mark.parametrize("split", [False, True])
def test_attention_counts_as_its_products(config, split):
    """Whether it is fused or not: queries with keys, weights with values."""
    attention = CrossAttention(8, num_heads=2)
    x = torch.randn(3, 5, 8)
    if split:
        unfused(attention)
    assert count_flops(lambda: attention(x)) == 4 * (2 * 15 * 8 * 8) + 2 * (2 * 3 * 5 * 5 * 8)


@pytest.mark.skipif(not on_cpu.has_onednn(), reason="torch offers no oneDNN product on this processor")
def test_products_of_onednn_are_counted():
    """A wide layer has the operations of torch's own, forward and backward."""
    layer, x = torch.nn.Linear(512, 384), torch.randn(2, 3, 512, requires_grad=True)
    wanted = count_flops(lambda: layer(x).sum().backward())
    on_cpu.attach(network := torch.nn.Sequential(layer), mixed=False)
    assert count_flops(lambda: network(x).sum().backward()) == wanted == 3 * 2 * 6 * 512 * 384


def test_operations_and_memory_are_counted():
    """A product of a x b and b x c is 2abc operations."""
    assert count_flops(lambda: torch.ones(3, 4) @ torch.ones(4, 5)) == 120
    assert matmul_rate("32-true", "cpu", calls=1) > 1e8
    assert peak_bytes("cpu") is None or peak_bytes("cpu") > 1e7


def test_a_gpu_is_timed_between_events(monkeypatch):
    """The clock starts when earlier work is done, and stops when that of the call is."""
    order = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            order.append("event")

        def elapsed_time(self, end):
            return 250.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: order.append("wait"))
    assert timed(lambda: order.append("call"), "cuda") == 0.25
    assert order == ["wait", "event", "call", "event", "wait"]


def test_parts_without_networks_are_timed_on_the_cpu(config):
    """Whatever the device: a GPU has no part in them, and no memory of its own to compare."""
    small = replace(
        config, device="cuda", parts=["evaluation"], plain=True, num_stimuli=2, num_samples=1, size=16, repetitions=1
    )
    ssim, n_way = benchmark(small)
    assert ssim.ratio > 0 and n_way.ours.timing.median > 0
    assert ssim.memory_ratio is None or ssim.memory_ratio > 0


def test_fit_beside_the_bare_step(tmp_path):
    """Time of a step through the whole loop, and how much of it the loader was waited for."""
    outcome = run("benchmark", "parts=[fit]", *TINY, "precisions=[32-true]", f"output={tmp_path}")
    assert outcome.status == 0, outcome.err
    (row,) = json.loads((tmp_path / "fit.json").read_text())["rows"]
    assert row["share_of_bare"] == row["bare_seconds"] / row["seconds"] > 0
    assert 0 <= row["loader_share"] < 1 and "Stage A through fit, 32-true" in outcome.out


def test_stage_b_through_fit(tmp_path):
    """Pairs with kept latents, some of whose pictures are cropped and encoded."""
    outcome = run("benchmark", "parts=[fit_stage_b]", *TINY, "precisions=[32-true]", f"output={tmp_path}")
    assert outcome.status == 0, outcome.err
    (row,) = json.loads((tmp_path / "fit_stage_b.json").read_text())["rows"]
    assert row["stage"] == "stage_b" and row["seconds"] > 0
    assert "Stage B through fit, 32-true, batch 1" in outcome.out


def test_a_gpu_has_sizes_of_its_own():
    """Those of the README's table; what is given stays."""
    found = complete(BenchmarkConfig(device="cuda", stage_b_batch=5))
    assert (batches(found, "stage_a"), batches(found, "stage_b"), found.plain) == ((100, 62), (5,), False)
    assert found.parts == ["stage_a", "stage_b", "sampling", "fit", "fit_stage_b"] and found.repetitions == 30
    assert found.precisions == ["bf16-mixed"] and found.max_seconds == 390
    assert complete(BenchmarkConfig()).parts == ["evaluation"] and complete(BenchmarkConfig()).plain


@pytest.fixture
def in_this_process(monkeypatch):
    """Works of a GPU made on the CPU, eager, and called once; which ones."""
    made = []

    def measure(config, variants):
        made.extend(variants)
        found = {}
        for variant in variants:
            sizes = replace(config, device="cpu", sampling_batch=2, num_pictures=2, num_steps=2)
            work = WORKS[variant.work](sizes, replace(variant, compiled=False, batch=variant.batch and 2))
            work.call()
            usage = Usage(10, 0.0 if variant.compiled else 8.0)
            found[variant] = Measured((work.name, work.items, work.unit), Timing.of([2.0]), usage, 1.0)
        return found

    monkeypatch.setattr("mindvis.benchmarks.table.measure_variants", measure)
    monkeypatch.setattr("mindvis.benchmarks.networks.PLAIN_STEPS", 2)
    return made


def test_one_command_fills_every_cell_of_the_table_of_a_gpu(config, in_this_process):
    """Both stages with both of their batches, the UNet, pictures by both samplers: eager first, then compiled."""
    on_gpu = complete(replace(config, device="cuda", parts=None, plain=None, precisions=None, num_pictures=None))
    rows = list(benchmark(on_gpu))
    wanted = [("stage_a", 100), ("stage_a", 62), ("stage_b", 25), ("stage_b", 5)]
    wanted += [("unet_evaluation", None), ("pictures", None), ("pictures_plms", None)]
    assert [(each.work, each.batch) for each in in_this_process] == 2 * wanted
    assert [row.variant.compiled for row in rows] == 7 * [False] + 7 * [True]
    assert {row.ours.usage.flops for row in rows} == {8.0}, "those of a compiled work are those of the eager one"
    assert {row.variant.precision for row in rows} == {"bf16-mixed"}


def test_what_the_time_does_not_suffice_for_is_left_out_and_named(config, in_this_process, caplog):
    """Compiled works are expected to take a minute, and a minute is kept for each part that trains."""
    on_gpu = complete(replace(config, device="cuda", parts=["stage_a", "fit"], precisions=None))
    assert [row.variant.compiled for row in benchmark(on_gpu, Limit(100))] == [False, False]
    assert caplog.text.count("left out, as max_seconds=390 are nearly over") == 2
    assert benchmark_fit(on_gpu, limit=Limit(0)) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="without a GPU only")
def test_a_gpu_that_is_not_there_is_refused():
    """One line, before anything is timed."""
    outcome = run("benchmark", "parts=[stage_a]", *TINY, "device=cuda")
    assert outcome.status == 2 and outcome.err.count("\n") == 1 and "cuda" in outcome.err


def test_solver_table(tmp_path, monkeypatch):
    """Every sampler and number of steps, beside the reference, which is at no distance."""
    monkeypatch.setattr("mindvis.benchmarks.solvers.REFERENCE_STEPS", 20)
    sizes = ["solver_steps=[2]", "solver_pictures=1", "num_threads=1"]
    outcome = run("benchmark", "parts=[solvers]", *sizes, f"output={tmp_path}")
    rows = json.loads((tmp_path / "solvers.json").read_text())["rows"]
    names = ["ddim", "plms", "ddim", "dpm_solver", "unipc", "unipc_averaged", "euler"]
    assert [row["sampler"] for row in rows] == names
    assert rows[0]["latent"] == 0 < min(row["latent"] for row in rows[1:])
    assert (tmp_path / "solvers.md").read_text() == outcome.out


def test_suggestion_names_the_cheapest_that_is_as_near():
    """Evaluations decide among those that are as near as PLMS is with its most steps."""
    rows = [
        SolverRow("plms", 250, 251, 0.02, 1, 1),
        SolverRow("unipc", 20, 20, 0.01, 1, 1),
        SolverRow("dpm_solver", 20, 20, 0.03, 1, 1),
        SolverRow("unipc", 30, 30, 0.001, 1, 1),
    ]
    assert "unipc 20 is as near (0.0100) with 20 evaluations" in suggestion(rows)
    assert "no sampler" in suggestion(rows[:1])


def test_growth_is_plotted():
    """Seconds above memory, a column for what is varied."""
    points = {curve.label: [Point(size, 0.1 * size, size * 10**8) for size in curve.sizes] for curve in CURVES}
    figure = growth_plot(points)
    assert [axis.get_xlabel() for axis in figure.axes[len(CURVES) :]] == [curve.label for curve in CURVES]
    assert min(len(curve.sizes) for curve in CURVES) >= 3


def test_the_audit_is_timed():
    """One line, without a plain version; its training pictures are drawn slice by slice."""
    outcome = run("benchmark", "parts=[audit]", *TINY, "num_stimuli=12", "num_samples=1", "size=32")
    assert outcome.status == 0 and "audit, 12 decoded and 120 training images of 32" in outcome.out
    pictures = DrawnPictures(5, 16, 0)
    assert pictures[1:3].shape == (2, 16, 16, 3) and (pictures[1:3][1] == pictures[2:3][0]).all()

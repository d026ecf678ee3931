"""What only a GPU can show: run with `pytest -m gpu`; skipped, with a reason, where there is none."""

import csv
import itertools
import subprocess
import sys
from pathlib import Path

import ldm_cases
import numpy as np
import pytest
import tiny_stages
import torch
from script_runner import run
from test_chain import GENERATE, Killed, arguments, dying, without_zeros
from test_distributed import TOY, environment
from toy import ToyModule, train
from two_nodes import run_on_two_nodes

from mindvis.benchmarks.memory_estimate import estimate, stage_model
from mindvis.common.devices import matmul_precision
from mindvis.common.tensor_files import load_tensors
from mindvis.dc_ldm import LDMModule
from mindvis.dc_ldm.precision import cast_frozen
from mindvis.dc_ldm.samplers import SAMPLERS
from mindvis.sc_mbm import MaskedBrainModel, MBMModule
from mindvis.training.optim import adamw

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that torch can use"),
]
VARIANTS = {
    "plain": [],
    "checkpointing": ["trainer.activation_checkpointing=true"],
    "compile": ["trainer.compile=true"],
}
BOUNDS = {"32-true": 1e-3, "bf16-mixed": 5e-2, "16-mixed": 5e-2}
ON_GPU = ["trainer.accelerator=gpu", "trainer.max_epochs=1", "trainer.matmul_precision=highest"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Data, a label-to-image model and both stages trained on the CPU."""
    folder = tmp_path_factory.mktemp("gpu")
    tiny_stages.simulate_experiment(folder)
    without_zeros(folder / "model.ckpt")
    for stage in ("pretrain_mbm", "finetune_ldm"):
        assert run(stage, *arguments(stage, folder, "trainer.max_epochs=1")).status == 0
    return folder


def curve(path: Path) -> np.ndarray:
    with (path / "metrics.csv").open(newline="") as file:
        return np.array([float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]])


def check(found: torch.Tensor, expected: torch.Tensor, half: bool, bound: float) -> None:
    """The largest error beside the largest value, or in bfloat16 the error of all beside all values."""
    error = found.float().cpu() - expected
    if half:
        assert error.norm() <= 2e-2 * expected.norm()
    else:
        assert error.abs().max() <= bound * expected.abs().max()


@pytest.mark.parametrize("half", [False, True])
def test_stage_a_gives_the_golden_numbers(golden, half):
    """Float32 without TF32 within 1e-5 of the largest; bfloat16 within 2e-2, root mean square beside that of all."""
    case = golden("mbm_forward")
    network = MaskedBrainModel(**case.meta["kwargs"])
    network.load_state_dict(case.tensors("state"))
    network.cuda()
    with matmul_precision("highest"), torch.autocast("cuda", torch.bfloat16, enabled=half):
        out = network(case.tensor("in/fmri").cuda(), case.meta["mask_ratio"], case.tensor("in/noise").cuda())
    check(out.reconstruction, case.tensor("out/pred"), half, bound=1e-5)


@pytest.mark.parametrize("half", [False, True])
def test_stage_b_gives_the_numbers_of_the_cpu(golden, half):
    """The noise predicted by the UNet, in float32 within 1e-4, in bfloat16 as above."""
    ldm = ldm_cases.build(golden("dc_ldm"))
    x, t = torch.randn(2, *ldm.latent_shape), torch.tensor([10, 900])
    fmri = torch.randn(2, 1, ldm.conditioner.encoder.num_voxels)
    with torch.no_grad():
        expected = ldm.unet(x, t, ldm.conditioner(fmri))
        ldm.cuda()
        with matmul_precision("highest"), torch.autocast("cuda", torch.bfloat16, enabled=half):
            found = ldm.unet(x.cuda(), t.cuda(), ldm.conditioner(fmri.cuda()))
    check(found, expected, half, bound=1e-4)


@pytest.mark.parametrize("stage", ["pretrain_mbm", "finetune_ldm"])
@pytest.mark.parametrize(("precision", "variant"), itertools.product(BOUNDS, VARIANTS))
def test_a_training_has_the_curve_of_the_cpu(folder, tmp_path, stage, precision, variant):
    settings = [*ON_GPU, f"trainer.precision={precision}", f"run_dir={tmp_path}", *VARIANTS[variant]]
    outcome = run(stage, *arguments(stage, folder, *settings))
    assert outcome.status == 0, outcome.err
    expected = curve(folder / stage)
    np.testing.assert_allclose(curve(tmp_path), expected, atol=BOUNDS[precision] * np.abs(expected).max(), rtol=0)


@pytest.mark.parametrize("stage", ["pretrain_mbm", "finetune_ldm"])
def test_a_deterministic_run_that_was_stopped_ends_with_the_same_bits(folder, tmp_path, stage):
    settings = ["trainer.accelerator=gpu", "trainer.deterministic=true", "trainer.precision=bf16-mixed"]
    settings += ["trainer.max_epochs=2", "trainer.checkpoint_every_steps=1"]
    ends = []
    for name in ("whole", "stopped"):
        command = arguments(stage, folder, *settings, f"run_dir={tmp_path / name}")
        if name == "stopped":
            with dying(MBMModule if stage == "pretrain_mbm" else LDMModule, 3), pytest.raises(Killed):
                run(stage, *command)
        assert run(stage, *command).status == 0
        ends.append(load_tensors(tmp_path / name / "checkpoints" / "last.ckpt")["state_dict"])
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


@pytest.fixture
def no_waiting():
    """A wait of the host for the device is an error."""
    yield lambda mode="error": torch.cuda.set_sync_debug_mode(mode)
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("stage", ["A", "B"])
def test_a_step_waits_for_nothing(golden, no_waiting, stage):
    """Loss, gradients, clipping and optimiser, on a batch that is there."""
    if stage == "A":
        sizes = {"embed_dim": 64, "depth": 2, "num_heads": 2, "decoder_embed_dim": 32, "decoder_depth": 1}
        module, voxels = MBMModule(MaskedBrainModel(num_voxels=64, decoder_num_heads=2, **sizes)).cuda(), 64
        loss = lambda batch: module(batch).loss  # noqa: E731
    else:
        module = LDMModule(ldm_cases.build(golden("dc_ldm"))).cuda()
        voxels, loss = module.ldm.conditioner.encoder.num_voxels, module.loss
    batch = {"fmri": torch.randn(2, 1, voxels).cuda(), "key": torch.tensor([[0, 0, 0], [0, 0, 1]])}
    if stage == "B":
        batch["latent"] = torch.randn(2, *module.ldm.latent_shape).cuda()
    batch |= {name: value.pin_memory() for name, value in module.draw(batch).items()}
    tuned = [p for p in module.parameters() if p.requires_grad]
    optimizer = adamw([{"params": tuned}], lr=1e-4, betas=(0.9, 0.95))
    for mode in ("default", "error"):  # the first step makes the state of the optimiser
        no_waiting(mode)
        loss(batch).backward()
        torch.nn.utils.clip_grad_norm_(tuned, 0.5)
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_a_sampling_loop_waits_for_nothing(golden, no_waiting, sampler):
    ldm = ldm_cases.build(golden("dc_ldm")).cuda()
    with torch.no_grad():
        context = ldm.conditioner(torch.randn(2, 1, ldm.conditioner.encoder.num_voxels).cuda())
        prepared = ldm.unet.prepare_context(context)
        noise, alphas_cumprod = torch.randn(2, *ldm.latent_shape).cuda(), ldm.schedule.alphas_cumprod.cpu()
        for mode in ("default", "error"):
            no_waiting(mode)
            SAMPLERS[sampler](lambda x, t: ldm.unet(x, t, prepared), noise, alphas_cumprod, 4)


@pytest.fixture(scope="module")
def one(tmp_path_factory) -> np.ndarray:
    """The toy's curve, by one process on the GPU."""
    path = tmp_path_factory.mktemp("one")
    train(path, batch_size=4, max_epochs=2, accelerator="gpu", matmul_precision="highest")
    return curve(path)


def test_two_processes_on_one_gpu_train_as_one_with_the_doubled_batch(tmp_path, one):
    """As two nodes. They exchange gradients through gloo: NCCL wants a GPU for each."""
    settings = ["batch_size=2", "max_epochs=2", "accelerator=gpu", "matmul_precision=highest", "num_nodes=2"]
    run_on_two_nodes([str(TOY), str(tmp_path), *settings], environment() | {"TOY_BACKEND": "gloo"})
    np.testing.assert_allclose(curve(tmp_path), one, atol=1e-5)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two GPUs")
def test_two_gpus_train_as_one_with_the_doubled_batch(tmp_path, one):
    """Exchanging gradients through NCCL."""
    settings = ["batch_size=2", "max_epochs=2", "accelerator=gpu", "matmul_precision=highest", "devices=2"]
    subprocess.run([sys.executable, str(TOY), str(tmp_path), *settings], check=True, env=environment())
    np.testing.assert_allclose(curve(tmp_path), one, atol=1e-5)


class Hungry(ToyModule):
    """Takes 200 MB a sample."""

    def loss(self, batch):
        torch.empty(len(batch["key"]) * 50_000_000, device=self.device)
        return super().loss(batch)


def test_the_batch_that_fits_is_found(tmp_path, caplog):
    """With memory for about five of the samples."""
    share = 1.1e9 / torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(share)
    try:
        train(tmp_path, module=Hungry(), accelerator="gpu", find_batch_size=True, batch_size=1, max_epochs=1)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "does not fit in memory; using" in caplog.text


@pytest.mark.parametrize(("stage", "batch"), [("A", 62), ("B", 5)])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_estimated_memory_is_the_measured_one(stage, batch, precision):
    """Two optimiser steps at the published size, within 12 %."""
    expected = estimate(stage, batch, precision=precision).total
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    with torch.device("cuda"):
        model = stage_model(stage).cuda()
        if precision == "bf16-mixed":
            cast_frozen(model)
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-6, fused=True)
        for _ in range(2):
            with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16-mixed"):
                loss = model(batch)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    assert torch.cuda.max_memory_allocated() == pytest.approx(expected, rel=0.12)


def test_every_script_runs_on_it(folder):
    """Pictures, eager and compiled, scores, what the model looks at, hidden voxels, a baseline, the benchmark."""
    ldm, quick = f"run={folder / 'finetune_ldm'}", ["classifier=demo", "num_bootstrap=50"]
    data = [f"data.root={folder / 'data' / 'Kamitani' / 'npz'}", "data.subjects=[sbj_1]"]
    commands = {
        "generate": [ldm, *GENERATE, f"output={folder / 'eager'}"],
        "evaluate": [f"decoded={folder / 'eager'}", "num_ways=[5]", "logging.wandb=disabled", "audit=false", *quick],
        "look_inside": [ldm, "num_ways=5", "num_steps=2", "num_stimuli=2", f"output={folder / 'inside'}", *quick],
        "score_mbm": [f"run={folder / 'pretrain_mbm'}", "num_masks=1"],
        "baseline_ridge": [*data, "ldm=demo", "targets=[latent]", "num_steps=2", f"output={folder / 'ridge'}"],
        "benchmark": [
            "parts=[stage_a,evaluation]",
            "num_voxels=64",
            "stage_a_batch=4",
            "repetitions=2",
            "model.embed_dim=64",
        ],
    }
    for script, settings in commands.items():
        outcome = run(script, *settings, "device=cuda")
        assert outcome.status == 0, f"{script}: {outcome.err}"
    outcome = run("generate", ldm, *GENERATE, "compile=true", f"output={folder / 'compiled'}", "device=cuda")
    assert outcome.status == 0, outcome.err
    eager, compiled = (np.load(folder / name / "decoded.npz")["decoded"] for name in ("eager", "compiled"))
    assert np.abs(eager.astype(int) - compiled).mean() < 1

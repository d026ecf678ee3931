"""Every stage on a pretend GPU: tensors where they belong, and no wait for the device in a step or a sampling loop."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import tiny_stages
import torch
from pretend_gpu import MixedDevices, PretendGPU, pretend_trainer
from script_runner import run
from test_chain import arguments, without_zeros

from mindvis.checkpoints.builders import seeded
from mindvis.common import devices
from mindvis.common.progress import Pace
from mindvis.dc_ldm.samplers import SAMPLERS
from mindvis.training import engine

TRAINER = ["trainer.accelerator=auto", "trainer.max_epochs=2", "trainer.log_every_steps=2", "trainer.val_fraction=0.2"]
TRAINER += ["trainer.figure_every_epochs=2", "trainer.checkpoint_every_steps=0", "trainer.num_workers=0"]
ON_GPU = ["device=cuda"]


@dataclass(frozen=True)
class Chain:
    """The device after all stages, and the folder they wrote."""

    gpu: PretendGPU
    folder: Path


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """All stages, one after another, on one pretend GPU."""
    folder = tmp_path_factory.mktemp("gpu")
    tiny_stages.simulate_experiment(folder)
    without_zeros(folder / "model.ckpt")
    gpu = PretendGPU()
    with pytest.MonkeyPatch.context() as patch, gpu:
        patch.setattr("pytorch_lightning.Trainer", pretend_trainer(gpu))
        for module in (devices, engine):
            patch.setattr(module, "num_gpus", lambda: 1)
        patch.setattr(Pace, "due", lambda _: False)  # a line of progress reads the losses, whenever the clock says so
        for name, sampler in SAMPLERS.items():
            patch.setitem(SAMPLERS, name, in_section(gpu, f"sampling {name}", sampler))
        run_all(folder)
    return Chain(gpu, folder)


def in_section(gpu, name, function):
    def inside(*rest, **options):
        with gpu.within(name):
            return function(*rest, **options)

    return inside


def run_all(folder: Path) -> None:
    """Trainings, pictures by every sampler, scores, what the model looks at, and the baseline."""
    succeed("pretrain_mbm", *arguments("pretrain_mbm", folder, *TRAINER))
    succeed("finetune_mbm", *arguments("finetune_mbm", folder, *TRAINER, "trainer.precision=16-mixed"))
    tuned = [f"encoder={folder / 'finetune_mbm'}", "trainer.precision=bf16-mixed"]
    succeed("finetune_ldm", *arguments("finetune_ldm", folder, *TRAINER, *tuned))
    succeed("score_mbm", f"run={folder / 'pretrain_mbm'}", "num_masks=1", *ON_GPU)
    ldm = f"run={folder / 'finetune_ldm'}"
    pictures = [ldm, "num_samples=2", "num_steps=4", "stimuli=[0,3,5]", "batch_size=4", *ON_GPU]
    for sampler in SAMPLERS:
        guided = ["guidance=2", "precision=bf16-mixed"] if sampler == "unipc" else []
        succeed("generate", *pictures, f"sampler={sampler}", f"output={folder / sampler}", *guided)
    scores = [
        "classifier=demo",
        "num_ways=[5]",
        "num_bootstrap=50",
        "batch_size=3",
        "logging.wandb=disabled",
        "fid=[]",
        "audit=false",
    ]
    succeed("evaluate", f"decoded={folder / 'plms'}", f"output={folder / 'report'}", *scores, *ON_GPU)
    inside = ["classifier=demo", "num_ways=5", "num_steps=2", "num_stimuli=2", "rois=[V1,V2]", "num_bootstrap=50"]
    succeed("look_inside", ldm, f"output={folder / 'inside'}", *inside, *ON_GPU)
    stage_a = ["num_masks=1", "num_stimuli=2", "flat_map=false", "num_bootstrap=50"]
    succeed("look_inside", f"run={folder / 'finetune_mbm'}", f"output={folder / 'inside_a'}", *stage_a, *ON_GPU)
    data = [f"data.root={folder / 'data' / 'Kamitani' / 'npz'}", "data.subjects=[sbj_1]"]
    ridge = ["ldm=demo", f"output={folder / 'ridge'}", "targets=[latent]"]
    succeed("baseline_ridge", *data, *ridge, "num_steps=2", "sampler=ddim", *ON_GPU)


def succeed(script: str, *settings: str) -> None:
    outcome = run(script, *settings)
    assert outcome.status == 0, f"{script}: {outcome.err}"


def test_every_stage_ran_on_the_device(chain):
    """Nothing was refused, and the work was done there: forward, backward, optimiser, decoding, scoring."""
    for name in ("convolution", "native_layer_norm_backward", "_fused_adamw_"):
        assert chain.gpu.kernels[f"aten.{name}.default"] > 0, name
    written = ["plms/decoded.npz", "report/report.json", "inside/inside.json", "ridge/latent/decoded.npz"]
    assert all((chain.folder / name).is_file() for name in written)


def test_what_it_was_computed_on_is_recorded(chain):
    """Device, driver and precisions: of trainings, of pictures, of scores."""
    places = {"finetune_ldm/manifest.json": "high", "plms/generate.json": "high", "report/report.json": "highest"}
    for place, matmul in places.items():
        machine = json.loads((chain.folder / place).read_text())["machine"]
        assert machine["device"] == "pretend GPU" and "driver" in machine, place
        half = place.startswith("finetune_ldm")
        assert machine["precision"] == ("bf16-mixed" if half else "32-true"), place
        assert machine["matmul_precision"] == matmul, place


def test_a_training_step_waits_for_nothing(chain):
    """In all three trainings; every second step is logged, and may read what it logs."""
    waits = {int(section.split()[1]): where for section, *where in chain.gpu.waits if section.startswith("step")}
    assert 2 in waits, "logging was not seen"
    assert {step: where for step, where in waits.items() if step % 2} == {}


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_a_sampling_loop_waits_for_nothing(chain, sampler):
    """Nor does guidance, which is on for one of them."""
    assert [wait for wait in chain.gpu.waits if wait[0] == f"sampling {sampler}"] == []


def test_a_training_on_the_cpu_leaves_the_gpu_alone(chain, monkeypatch):
    """With trainer.accelerator=cpu latents are encoded there too, though there is a GPU."""
    on_cpu = ["trainer.accelerator=cpu", "trainer.max_epochs=1", "trainer.num_workers=0"]
    for module in (devices, engine):
        monkeypatch.setattr(module, "num_gpus", lambda: 1)
    with PretendGPU() as gpu:
        run_dir = f"run_dir={chain.folder / 'on_cpu'}"
        succeed("finetune_ldm", *arguments("finetune_ldm", chain.folder, *on_cpu, run_dir))
    assert list((chain.folder / "on_cpu").glob("latents-*.npy")) and not gpu.kernels and not gpu.waits


def test_first_weights_are_drawn_without_starting_the_gpus(monkeypatch):
    """Every process of a training would start all of them; and torch's generator is left as it was."""

    def started(*_):
        raise AssertionError("CUDA was started")

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name in ("get_rng_state", "set_rng_state", "_lazy_init"):
        monkeypatch.setattr(torch.cuda, name, started)
    before = torch.random.get_rng_state()
    with seeded(3):
        drawn = torch.rand(4)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(drawn, torch.rand(4, generator=torch.Generator().manual_seed(3)))


@pytest.fixture
def gpu():
    with PretendGPU() as gpu:
        yield gpu


def test_two_devices_are_refused(gpu):
    """As CUDA does; numbers and indices may come from the host."""
    x = torch.ones(3, device="cuda")
    with pytest.raises(MixedDevices):
        x + torch.ones(3)
    with pytest.raises(TypeError, match="can't convert cuda"):
        x.numpy()
    assert (2 * x + torch.tensor(1.0)).device == torch.device("cuda", 0)
    assert torch.ones(3).device.type == "cpu" and x[:2].is_cuda and x.view(3, 1).T.is_cuda


@pytest.mark.parametrize(
    ("action", "what"),
    [
        (lambda x: float(x.sum()), "item"),
        (lambda x: x[x > 1], "boolean index"),
        (lambda x: x.tolist(), "copy to host"),
        (lambda x: torch.zeros(3).to("cuda"), "copy to device"),
        (lambda x: torch.tensor(1.0, device=x.device), "copy to device"),
        (lambda x: x.cpu(), "copy to host"),
        (lambda x: x[torch.tensor([0, 1])], "index from host"),
    ],
)
def test_waits_are_counted(gpu, action, what):
    """With their section and the line they came from."""
    x = torch.ones(3).to("cuda", non_blocking=True)
    assert not gpu.waits
    with gpu.within("here"):
        action(x)
    assert [(section, kind) for section, kind, _ in gpu.waits] == [("here", what)]


def test_gradients_are_those_of_the_cpu(gpu):
    """Through a copy to the device, and onto parameters there."""
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(3, 2), torch.randn(4, 3)
    layer(x).square().sum().backward()
    expected = layer.weight.grad.clone()
    layer.zero_grad()
    layer.to("cuda")
    layer(x.to("cuda", non_blocking=True)).square().sum().backward()
    assert layer.weight.grad.is_cuda and torch.equal(layer.weight.grad.cpu(), expected)


def test_the_tests_for_a_real_gpu_run():
    """Those of parity and of waiting, which would otherwise run for the first time where there is a GPU."""
    command = [sys.executable, "-m", "pytest", "-p", "pretend_gpu_plugin", "-p", "no:cacheprovider", "-m", "gpu"]
    place = Path(__file__).parent
    done = subprocess.run(
        [*command, "-k", "golden or numbers or waits", str(place / "test_gpu.py")],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(place.parent), str(place)])},
        cwd=place.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout[-3000:]

"""Two processes, of one machine or two, train as one does with the doubled batch."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from toy import train
from two_nodes import free_port, run_on_two_nodes

from mindvis.data import FMRIDataset
from mindvis.decoding.previews import MaskedReconstructions
from mindvis.sc_mbm import MaskedBrainModel, MBMModule
from mindvis.training.logging import MetricsFile

TOY = Path(__file__).with_name("toy_run.py")
JOBS = TOY.parents[1] / "scripts" / "slurm"
ONE = {"batch_size": 4, "max_epochs": 2}
HALF = ["batch_size=2", "max_epochs=2"]


def curves(path: Path) -> np.ndarray:
    """metrics.csv as numbers, empty cells as NaN."""
    return np.genfromtxt(path / "metrics.csv", delimiter=",", skip_header=1)


@pytest.fixture(scope="module")
def one(tmp_path_factory) -> np.ndarray:
    path = tmp_path_factory.mktemp("one")
    train(path, **ONE)
    return curves(path)


def environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key not in ("LOCAL_RANK", "RANK", "WORLD_SIZE")}
    folders = [str(TOY.parents[1]), str(TOY.parent)]
    return kept | {"PYTHONPATH": os.pathsep.join(folders), "OMP_NUM_THREADS": "1"}


def test_two_devices_give_the_curve_of_one_with_the_doubled_batch(tmp_path, one):
    """11 samples: the last batch is shared unevenly, in training and in validation."""
    subprocess.run([sys.executable, str(TOY), str(tmp_path), *HALF, "devices=2"], check=True, env=environment())
    np.testing.assert_allclose(curves(tmp_path), one, atol=1e-5)
    assert len(list((tmp_path / "checkpoints").glob("best-*"))) == 1


def test_two_nodes_started_by_torchrun_do_likewise(tmp_path, one):
    run_on_two_nodes([str(TOY), str(tmp_path), *HALF, "num_nodes=2"], environment())
    np.testing.assert_allclose(curves(tmp_path), one, atol=1e-5)


def test_torchrun_inside_a_slurm_job_numbers_its_processes_itself(tmp_path, one):
    """The variables of a job that has one task: they would make both processes the first one."""
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "mindvis", "SLURM_NTASKS": "1", "SLURM_NTASKS_PER_NODE": "1"}
    job |= {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_STEP_NUM_TASKS": "1"}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}"]
    command = [*launcher, str(TOY), str(tmp_path), *HALF, "devices=2", "strategy=ddp"]
    done = subprocess.run(command, env=environment() | job, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    np.testing.assert_allclose(curves(tmp_path), one, atol=1e-5)
    assert json.loads((tmp_path / "manifest.json").read_text())["machine"]["processes"] == 2


@pytest.mark.parametrize("job", sorted(JOBS.glob("*.sbatch")), ids=lambda path: path.name)
def test_the_tasks_of_a_job_have_its_processors(job):
    """srun takes the number from its own option alone (since SLURM 22.05), not from that of the job."""
    started = [line for line in job.read_text().splitlines() if not line.startswith("#") and "srun " in line]
    assert started and all('srun --cpus-per-task="$SLURM_CPUS_PER_TASK" ' in line for line in started)


@pytest.mark.parametrize(("rank", "pictures"), [(0, 1), (1, 0)])
def test_the_first_process_alone_draws_previews(tmp_path, rank, pictures):
    """Others go on training."""
    sizes = {"embed_dim": 16, "depth": 1, "num_heads": 2, "decoder_embed_dim": 8, "decoder_depth": 1}
    module = MBMModule(MaskedBrainModel(num_voxels=48, patch_size=4, decoder_num_heads=2, **sizes))
    loggers = [MetricsFile(tmp_path)]
    ends = {"should_stop": False, "max_epochs": 2}
    trainer = SimpleNamespace(
        current_epoch=0, global_step=1, fast_dev_run=False, is_global_zero=rank == 0, loggers=loggers, **ends
    )
    fmri = np.random.default_rng(0).standard_normal((6, 48), dtype=np.float32)
    (tmp_path / "figures").mkdir()
    MaskedReconstructions(FMRIDataset(fmri), every_epochs=1).on_train_epoch_end(trainer, module)
    assert len(list((tmp_path / "figures").iterdir())) == pictures and module.training

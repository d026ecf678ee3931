"""The three trainings on a simulated experiment, each a few seconds long: commands for tests that start processes."""

import shutil
import sys
from pathlib import Path

import torch
from omegaconf import OmegaConf

from mindvis.dc_ldm import build_class_ldm
from mindvis.simulation.experiment import Experiment
from mindvis.simulation.simulate import simulate

TESTS = Path(__file__).parent
SCRIPTS = TESTS.parent / "scripts"
LDM_CONFIG = TESTS / "golden" / "checkpoints" / "config.yaml"
VOXELS = {"V1": 20, "V2": 20, "V3": 12, "V4": 12, "LOC": 12, "FFA": 6, "PPA": 6}
ENCODER = ["model.embed_dim=32", "model.depth=2", "model.num_heads=2"]
DECODER = ["model.decoder_embed_dim=16", "model.decoder_depth=1", "model.decoder_num_heads=2"]
TRAINER = [
    "trainer.batch_size=4",
    "trainer.val_fraction=0.2",
    "trainer.log_every_steps=1",
    "trainer.checkpoint_every_steps=1",
    "trainer.figure_every_epochs=1",
    "trainer.accelerator=cpu",
    "trainer.num_threads=1",
    "logging.wandb=disabled",
]
NUM_EPOCHS = {"pretrain_mbm": 4, "finetune_mbm": 4, "finetune_ldm": 3}


def simulate_experiment(folder: Path, num_subjects: int = 1) -> None:
    """Data of viewing and two resting subjects in `folder`/data, and an untrained label-to-image model."""
    sizes = {"num_subjects": num_subjects, "train_per_class": 3, "num_test": 8, "num_resting": 2, "num_frames": 400}
    simulate(folder / "data", Experiment(voxels=VOXELS, **sizes))
    shutil.copy(LDM_CONFIG, folder / "config.yaml")
    torch.manual_seed(0)
    ldm = build_class_ldm(OmegaConf.to_container(OmegaConf.load(LDM_CONFIG)))
    parts = (("model.diffusion_model.", ldm.unet), ("first_stage_model.", ldm.autoencoder))
    state = {prefix + name: value for prefix, part in parts for name, value in part.state_dict().items()}
    torch.save({"state_dict": state}, folder / "model.ckpt")


def command(stage: str, folder: Path, run_dir: Path, *settings: str) -> list[str]:
    """Command of a stage on the data in `folder`; finetune_mbm goes on from `folder`/pretrain_mbm."""
    god = [f"data.root={folder / 'data' / 'Kamitani' / 'npz'}", "data.subjects=[sbj_1]"]
    own = {
        "pretrain_mbm": [f"data.root={folder / 'data' / 'HCP' / 'npz'}", *ENCODER, *DECODER, "optim.warmup_epochs=1"],
        "finetune_mbm": [*god, f"pretrained={folder / 'pretrain_mbm'}", "fmri=both"],
        "finetune_ldm": [*god, *ENCODER, f"ldm={folder / 'model.ckpt'}", "image_size=16", "preview_steps=3"],
    }
    epochs = f"trainer.max_epochs={NUM_EPOCHS[stage]}"
    script = str(SCRIPTS / f"{stage}.py")
    return [sys.executable, script, f"run_dir={run_dir}", *own[stage], epochs, *TRAINER, *settings]

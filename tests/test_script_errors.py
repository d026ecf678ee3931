"""What a user can get wrong, through the scripts: one line, status 2, no traceback, nothing half-written."""

import shutil

import numpy as np
import pytest
import tiny_stages
from script_runner import run

TRAININGS = ("pretrain_mbm", "finetune_mbm", "finetune_ldm")


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """A tiny experiment with a pretrained Stage A model."""
    folder = tmp_path_factory.mktemp("experiment")
    tiny_stages.simulate_experiment(folder)
    stage = tiny_stages.command("pretrain_mbm", folder, folder / "pretrain_mbm", "trainer.max_epochs=1")
    assert run("pretrain_mbm", *stage[2:]).status == 0
    return folder


@pytest.fixture
def broken(experiment, tmp_path):
    """A copy of the experiment that a test may damage."""
    shutil.copytree(experiment, tmp_path / "broken")
    return tmp_path / "broken"


def train(stage: str, folder, *settings: str):
    """A training on the data in `folder`, into a run folder beside it."""
    return run(stage, *tiny_stages.command(stage, folder, folder / "run", *settings)[2:])


def refused(outcome, *parts: str) -> None:
    """Status 2 and one line that says all of `parts`."""
    assert outcome.status == 2, outcome
    lines = outcome.err.strip().splitlines()
    assert lines[-1].startswith("error: ")
    assert not [line for line in lines if line.startswith(("Traceback", "error: "))][1:]
    for part in parts:
        assert part in lines[-1]


def change(path, **arrays) -> None:
    """Replace arrays of an npz; None takes one out."""
    with np.load(path) as file:
        content = {name: file[name] for name in file.files} | arrays
    np.savez(path, **{name: array for name, array in content.items() if array is not None})


def subject(folder):
    return folder / "data" / "Kamitani" / "npz" / "sbj_1.npz"


@pytest.mark.parametrize("stage", TRAININGS)
def test_missing_data_folder(experiment, tmp_path, stage):
    """The folder is named, and no run folder is made."""
    settings = tiny_stages.command(stage, experiment, tmp_path / "run", f"data.root={tmp_path / 'nowhere'}")
    refused(run(stage, *settings[2:]), "nowhere")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("stage", TRAININGS)
def test_a_training_ends_with_a_line_that_says_what_it_made(experiment, tmp_path, stage):
    """On stdout: the run folder, steps and checkpoints."""
    options = ("trainer.max_epochs=1", "trainer.figure_every_epochs=0")
    outcome = run(stage, *tiny_stages.command(stage, experiment, tmp_path / "run", *options)[2:])
    assert outcome.status == 0, outcome.err
    assert outcome.out.splitlines()[-1].startswith(f"run: {tmp_path / 'run'}, ")
    assert ", epoch 1, train/loss" in outcome.out and "last.ckpt" in outcome.out


def test_missing_array(broken):
    """A subject's file without its training rows."""
    change(subject(broken), arr_0=None)
    refused(train("finetune_mbm", broken), "sbj_1.npz", "arr_0")


def test_wrong_shape(broken):
    """Training rows as one long vector."""
    change(subject(broken), arr_0=np.zeros(9))
    refused(train("finetune_mbm", broken), "sbj_1.npz", "arr_0")


def test_nan(broken):
    """A single value that is no number."""
    with np.load(subject(broken)) as file:
        rows = file["arr_0"].copy()
    rows[0, 0] = np.nan
    change(subject(broken), arr_0=rows)
    refused(train("finetune_mbm", broken), "sbj_1.npz", "arr_0")


def test_empty_roi(broken):
    """A region without voxels."""
    with np.load(subject(broken)) as file:
        empty = np.zeros_like(file["VC"])
    change(subject(broken), VC=empty)
    refused(train("finetune_mbm", broken), "sbj_1.npz", "VC")


def test_unknown_roi(broken):
    """A region that the file does not name."""
    refused(train("finetune_mbm", broken, "data.roi=V9"), "V9")


def test_images_and_fmri_that_do_not_match(broken):
    """Fewer training images than the rows refer to."""
    images = broken / "data" / "Kamitani" / "npz" / "images_256.npz"
    with np.load(images) as file:
        fewer = file["train_images"][:-2]
    change(images, train_images=fewer)
    refused(train("finetune_ldm", broken), "images_256.npz")


@pytest.mark.parametrize("stage", [*TRAININGS, "generate", "evaluate", "simulate"])
def test_unknown_setting_names_the_nearest(stage):
    """A slip of the pen in a key."""
    key, nearest = {"generate": ("num_step", "num_steps"), "evaluate": ("top_ks", "top_k")}.get(stage, ("sed", "seed"))
    refused(run(stage, f"{key}=3"), key, f"nearest: {nearest}")


@pytest.mark.parametrize("stage", [*TRAININGS, "generate", "evaluate", "simulate"])
def test_wrong_type(stage):
    """Text where a number is needed."""
    refused(run(stage, "seed=soon"), "seed", "'soon'")


@pytest.mark.parametrize("stage", [*TRAININGS, "generate", "evaluate", "simulate"])
def test_missing_config_file(stage):
    """A YAML file that is not there."""
    refused(run(stage, "--config", "configs/nothing.yaml"), "configs/nothing.yaml")


@pytest.mark.parametrize("stage", TRAININGS)
def test_unwritable_run_folder(experiment, tmp_path, stage):
    """A file where the run folder should be (root may write into any folder)."""
    (tmp_path / "run").write_text("in the way")
    refused(run(stage, *tiny_stages.command(stage, experiment, tmp_path / "run")[2:]), str(tmp_path / "run"))
    assert (tmp_path / "run").read_text() == "in the way"


def test_run_folder_of_the_wrong_stage(experiment):
    """A Stage A run is no decoder; nothing is written."""
    refused(run("generate", f"run={experiment / 'pretrain_mbm'}"), "pretrain_mbm", "decoder")
    assert not (experiment / "pretrain_mbm" / "decoded").exists()


def test_encoder_that_is_a_label_to_image_model(experiment):
    """Stage B wants a Stage A model as its encoder."""
    refused(train("finetune_ldm", experiment, f"encoder={experiment / 'model.ckpt'}"), "model.ckpt", "Stage A")


def test_used_run_folder_with_resume_never(experiment):
    """A run is not overwritten unless asked for."""
    settings = tiny_stages.command("pretrain_mbm", experiment, experiment / "pretrain_mbm", "resume=never")
    refused(run("pretrain_mbm", *settings[2:]), "pretrain_mbm", "resume")


@pytest.mark.parametrize(
    ("setting", "part"),
    [
        ("fmri=all", "fmri is 'all'"),
        ("data.name=hcp", "without images"),
        ("data.name=imagenet", "one of god"),
        ("mask.mask_ratio=0", "mask_ratio"),
        ("trainer.precision=8-bit", "precision"),
        ("trainer.precision=16-mixed", "precision is 16-mixed on a CPU"),
        ("trainer.batch_size=0", "batch_size"),
        ("trainer.val_fraction=1", "val_fraction"),
        ("trainer.num_threads=0", "num_threads is 0"),
        ("logging.wandb=maybe", "wandb"),
    ],
)
def test_setting_without_meaning(experiment, tmp_path, setting, part):
    """A value outside what the setting can be."""
    settings = tiny_stages.command("finetune_mbm", experiment, tmp_path / "run", setting)
    refused(run("finetune_mbm", *settings[2:]), part)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("script", ["generate", "evaluate"])
def test_threads_that_cannot_be(experiment, tmp_path, script):
    """Said before anything is read."""
    needed = {"generate": f"run={tmp_path / 'run'}", "evaluate": f"decoded={tmp_path / 'decoded'}"}
    refused(run(script, needed[script], "num_threads=-1"), "num_threads is -1")


def test_a_network_without_blocks(experiment, tmp_path):
    settings = tiny_stages.command("pretrain_mbm", experiment, tmp_path / "run", "model.depth=-1")
    refused(run("pretrain_mbm", *settings[2:]), "depth is -1")


def test_a_simulation_that_cannot_be_written_is_not_computed(tmp_path, monkeypatch):
    """The folder is tried first."""
    monkeypatch.setattr("mindvis.simulation.simulate.draw_experiment", lambda experiment: pytest.fail("computed"))
    (tmp_path / "file").write_text("in the way")
    refused(run("simulate", f"out={tmp_path / 'file' / 'simulated'}"), "file")


@pytest.mark.parametrize(
    ("setting", "part"),
    [
        ("selection=best", "selection"),
        ("tune=heads", "tune"),
        ("ldm=nowhere/model.ckpt", "nowhere/model.ckpt"),
        ("image_size=1", "image_size is [1, 1]; needed: a height and a width that are multiples of"),
        ("image_size=17", "image_size is [17, 17]"),
    ],
)
def test_stage_b_setting_without_meaning(experiment, tmp_path, setting, part):
    """The same for Stage B."""
    settings = tiny_stages.command("finetune_ldm", experiment, tmp_path / "run", setting)
    refused(run("finetune_ldm", *settings[2:]), part)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("script", ["pretrain_mbm", "finetune_mbm", "finetune_ldm", "generate", "evaluate", "simulate"])
def test_help_lists_settings_and_an_example(script):
    """--help names every setting with its default, and a command that can be copied."""
    outcome = run(script, "--help")
    assert outcome.status == 0
    assert f"python scripts/{script}.py" in outcome.out
    assert "seed = " in outcome.out

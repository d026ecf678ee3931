"""The whole chain on a tiny simulated experiment, script by script, as the demo and the published settings run it."""

import html
import json
import shutil
import sys
from contextlib import contextmanager
from itertools import count
from unittest.mock import patch

import numpy as np
import pytest
import tiny_stages
import torch
from PIL import Image
from script_runner import run

import mindvis
from mindvis.checkpoints import read_weights
from mindvis.data.open import open_pairs
from mindvis.dc_ldm import LDMModule
from mindvis.decoding import settle
from mindvis.decoding.generation import data_of
from mindvis.evaluation.audit_features import choose_spaces

GENERATE = ["num_samples=2", "num_steps=4", "sampler=ddim", "stimuli=[0,3,5]"]


def arguments(stage: str, folder, *settings: str) -> list[str]:
    """What follows the script's name in the command of a stage."""
    return tiny_stages.command(stage, folder, folder / stage, *settings)[2:]


def without_zeros(path) -> None:
    """An untrained UNet begins with layers of zeros, through which no context would be seen."""
    generator = torch.Generator().manual_seed(0)
    state = torch.load(path, weights_only=True)["state_dict"]
    zeros = [tensor for name, tensor in state.items() if tensor.ndim > 1 and not tensor.any()]
    assert zeros
    for tensor in zeros:
        tensor.normal_(std=0.5, generator=generator)
    torch.save({"state_dict": state}, path)


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """Folder in which every stage has run once."""
    folder = tmp_path_factory.mktemp("chain")
    tiny_stages.simulate_experiment(folder)
    without_zeros(folder / "model.ckpt")
    for stage in ("pretrain_mbm", "finetune_mbm"):
        assert run(stage, *arguments(stage, folder)).status == 0
    assert run("finetune_ldm", *arguments("finetune_ldm", folder, f"encoder={folder / 'finetune_mbm'}")).status == 0
    for control in ("none", "shuffled"):
        assert run("generate", f"run={folder / 'finetune_ldm'}", f"control={control}", *GENERATE).status == 0
    return folder


def test_stage_b_says_what_its_encoder_saw(chain):
    """The pictures know that Stage A was tuned on test fMRI, two runs before."""
    provenance = json.loads((chain / "finetune_ldm" / "decoded" / "generate.json").read_text())
    assert provenance["test_set_use"] == {
        "stage_a_tuning": "both",
        "checkpoint_selection": "last",
        "normalisation": "separate",
    }


def test_pictures_are_there_in_every_form(chain):
    """Arrays, PNGs and the grid agree: the stimulus first, then its samples."""
    folder = chain / "finetune_ldm" / "decoded"
    arrays = np.load(folder / "decoded.npz")
    assert arrays["decoded"].shape == (3, 2, 16, 16, 3)
    assert arrays["stimulus_ids"].tolist() == [0, 3, 5]
    assert np.array_equal(np.asarray(Image.open(folder / "pictures" / "0003" / "1.png")), arrays["decoded"][1, 1])
    assert np.array_equal(np.asarray(Image.open(folder / "pictures" / "0005" / "stimulus.png")), arrays["stimuli"][2])
    grid = np.asarray(Image.open(folder / "grid.png"))
    assert np.array_equal(grid[4:20, 4:20], arrays["stimuli"][0])


def test_a_picture_does_not_depend_on_its_batch_or_on_other_stimuli(chain, tmp_path):
    """One stimulus alone, one picture at a time, gives the same pictures."""
    settings = [
        f"run={chain / 'finetune_ldm'}",
        *GENERATE[:3],
        "stimuli=[3]",
        "batch_size=1",
        f"output={tmp_path / 'o'}",
    ]
    assert run("generate", *settings).status == 0
    alone = np.load(tmp_path / "o" / "decoded.npz")["decoded"][0].astype(int)
    together = np.load(chain / "finetune_ldm" / "decoded" / "decoded.npz")["decoded"][1].astype(int)
    assert np.abs(alone - together).max() <= 1  # float32 round-off may turn a half into the next level


def test_processes_share_the_stimuli(chain, tmp_path, monkeypatch):
    """Two processes decode the pictures of one, each its share; the first one puts them together."""
    settings = [f"run={chain / 'finetune_ldm'}", *GENERATE, f"output={tmp_path / 'o'}"]
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        assert run("generate", *settings).status == 0
    shared = np.load(tmp_path / "o" / "decoded.npz")["decoded"].astype(int)
    alone = np.load(chain / "finetune_ldm" / "decoded" / "decoded.npz")["decoded"].astype(int)
    assert np.abs(shared - alone).max() <= 1
    assert [path.name for path in tmp_path.iterdir()] == ["o"]


def test_shuffled_control_lies_beside_the_pictures(chain, tmp_path):
    """The control decodes other fMRI for the same stimuli; guidance makes that visible through an untrained UNet."""
    folder = chain / "finetune_ldm" / "decoded"
    decoded, shuffled = np.load(folder / "decoded.npz"), np.load(folder / "shuffled" / "decoded.npz")
    assert np.array_equal(decoded["stimuli"], shuffled["stimuli"])
    guided = [f"run={chain / 'finetune_ldm'}", *GENERATE, "guidance=30"]
    for control in ("none", "shuffled"):
        assert run("generate", *guided, f"control={control}", f"output={tmp_path / control}").status == 0
    pictures = [np.load(tmp_path / control / "decoded.npz")["decoded"] for control in ("none", "shuffled")]
    assert not np.array_equal(*pictures)


def arrays_of(folder):
    with np.load(folder / "decoded.npz") as file:
        return dict(file)


def test_pictures_start_from_the_ridge_of_the_run(chain, tmp_path, monkeypatch):
    """It is fitted once and kept; two processes, and the exported model, decode the same; the control is its own."""
    ridge = chain / "finetune_ldm" / "ridge.safetensors"
    settings = [f"run={chain / 'finetune_ldm'}", *(item for item in GENERATE if "stimuli" not in item), "init=ridge"]
    assert run("generate", *settings, "strength=.5", f"output={tmp_path / 'one'}").status == 0
    one, written = arrays_of(tmp_path / "one")["decoded"], ridge.stat().st_mtime_ns
    said = json.loads((tmp_path / "one" / "generate.json").read_text())
    assert said["settings"]["strength"] == 0.5 and said["ridge"]["alpha"] > 0 and said["ridge"]["start_step"] > 0
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        assert run("generate", *settings, "strength=.5", f"output={tmp_path / 'two'}").status == 0
    monkeypatch.undo()
    assert np.abs(arrays_of(tmp_path / "two")["decoded"].astype(int) - one).max() <= 1
    assert run("export_model", chain / "finetune_ldm", tmp_path / "shared").status == 0
    exported = [f"run={tmp_path / 'shared'}", *settings[1:], "strength=.5", f"output={tmp_path / 'three'}"]
    assert run("generate", *exported).status == 0
    assert np.array_equal(arrays_of(tmp_path / "three")["decoded"], one)
    decoder = mindvis.load(tmp_path / "shared")
    rows = open_pairs(data_of(str(chain / "finetune_ldm")), 16)[1].fmri[:][:, : decoder.num_voxels]
    options = {"num_samples": 2, "num_steps": 4, "sampler": "ddim", "scaling": "none"}
    assert np.array_equal(decoder.decode(rows, init="ridge", strength=0.5, **options), one)
    for control in ("none", "shuffled"):
        output = f"output={tmp_path / control}"
        assert run("generate", *settings, "strength=0", f"control={control}", output).status == 0
    own, shuffled = (arrays_of(tmp_path / control) for control in ("none", "shuffled"))
    assert np.array_equal(shuffled["decoded"], own["decoded"][shuffled["fmri_rows"]])
    assert ridge.stat().st_mtime_ns == written


def test_auto_chooses_on_held_out_training_stimuli(chain, tmp_path, monkeypatch):
    """A run that held some out: both choices are written and kept; one that held out none is refused in one line."""
    monkeypatch.setattr(settle, "STRENGTHS", (0.4, 0.8))
    monkeypatch.setattr(settle, "choose_spaces", lambda _: choose_spaces("pixels"))
    settings = ["init=ridge", "strength=auto", "guidance=auto", *GENERATE, f"output={tmp_path / 'o'}"]
    outcome = run("generate", f"run={chain / 'finetune_ldm'}", *settings)
    assert outcome.status == 2 and "held out no training stimuli" in outcome.err
    watch = ("watch.classifier=demo", "watch.num_ways=10", "watch.num_steps=2")
    trained = arguments("finetune_ldm", chain, "selection=validation", "trainer.max_epochs=1", *watch)
    trained = [item for item in trained if not item.startswith("run_dir")] + [f"run_dir={tmp_path / 'run'}"]
    assert run("finetune_ldm", *trained).status == 0
    assert run("generate", f"run={tmp_path / 'run'}", *settings).status == 0
    said = json.loads((tmp_path / "o" / "generate.json").read_text())
    for name in ("strength", "guidance"):
        scores = said["chosen"]["scores"][name]
        assert said["settings"][name] == said["chosen"][name] == float(max(scores, key=scores.get))
    assert list(json.loads((tmp_path / "run" / "chosen.json").read_text()).values()) == [said["chosen"]]


def test_the_report_tells_every_stage_and_the_ridge(chain, tmp_path, monkeypatch):
    """Command, date and revision of the trainings, generate, its control, the baseline and evaluate; ridge a column."""
    ldm = torch.load(chain / "model.ckpt", weights_only=True)
    ldm["state_dict"]["cond_stage_model.embedding.weight"] = torch.zeros(11, 24)
    torch.save(ldm, tmp_path / "model.ckpt")
    shutil.copy(chain / "config.yaml", tmp_path)
    folder = tmp_path / "run" / "decoded"
    data = [f"data.root={chain / 'data' / 'Kamitani' / 'npz'}", "data.subjects=[sbj_1]", "targets=[latent]"]
    generate = [f"run={chain / 'finetune_ldm'}", "num_samples=1", "num_steps=2"]
    score = ["classifier=demo", "num_ways=[5]", "top_k=[1]", "num_bootstrap=100", "nsd_suite=false", "audit=false"]
    steps = [
        ("generate", *generate, f"output={folder}"),
        ("generate", *generate, f"output={folder / 'shuffled'}", "control=shuffled"),
        ("baseline_ridge", *data, f"ldm={tmp_path / 'model.ckpt'}", f"output={tmp_path / 'run' / 'baseline_ridge'}"),
        ("evaluate", f"decoded={folder}", *score, "logging.wandb=disabled"),
    ]
    for name, *settings in steps:
        monkeypatch.setattr(sys, "argv", [f"scripts/{name}.py", *settings])
        assert run(name, *settings).status == 0
    report = json.loads((folder / "report.json").read_text())
    trained = ["pretrain_mbm", "finetune_mbm", "finetune_ldm"]
    made = ["generate", "generate: shuffled", "baseline_ridge: ridge_latent", "evaluate"]
    assert [stage["stage"] for stage in report["stages"]] == trained + made
    page = (folder / "report.html").read_text()
    for stage in report["stages"]:
        assert stage["command"] and stage["finished_at"].startswith("20") and stage["settings"]
        assert html.escape(stage["command"], quote=False).replace("'", "&#39;") in page
        assert stage["git_revision"] is None or stage["git_revision"] in page
    for stage, (name, *settings) in zip(report["stages"][3:], steps, strict=True):
        assert stage["command"].startswith(f"python scripts/{name}.py") and settings[0] in stage["command"]
    assert page.count('alt="loss curves of') == 3 and page.count("trials of fMRI") == 6
    assert len(set(report["caveats"])) == len(report["caveats"]) and 'href="#audit"' not in page
    assert "<td>train 72, test 8</td>" in page and "<th>ridge, latent</th>" in page


def test_figures_are_made_on_the_way(chain):
    """Stage A shows masked reconstructions, Stage B decoded stimuli."""
    assert list((chain / "pretrain_mbm" / "figures").glob("masked_reconstruction-*.png"))
    assert list((chain / "finetune_ldm" / "figures").glob("decoded-*.png"))


@pytest.mark.parametrize("stage", ["pretrain_mbm", "finetune_mbm", "finetune_ldm"])
def test_fast_dev_run_keeps_nothing(chain, tmp_path, stage):
    """One batch of everything, and no run folder."""
    settings = tiny_stages.command(stage, chain, tmp_path / "run", "trainer.fast_dev_run=true")[2:]
    assert run(stage, *settings).status == 0
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("stage", ["pretrain_mbm", "finetune_ldm"])
def test_gradients_are_clipped_in_mixed_precision(chain, tmp_path, stage):
    """Optimiser and clipping of both stages go together with it."""
    extra = ["trainer.precision=bf16-mixed", "trainer.fast_dev_run=true"]
    assert run(stage, *tiny_stages.command(stage, chain, tmp_path / "run", *extra)[2:]).status == 0


class Killed(Exception):
    """What ends a training in the middle."""


@contextmanager
def dying(module, step):
    """The training of a module fails when it has taken so many steps."""
    steps, real = count(), module.training_step

    def training_step(self, batch, batch_idx):
        if next(steps) == step:
            raise Killed
        return real(self, batch, batch_idx)

    with patch.object(module, "training_step", training_step):
        yield


def test_stage_b_in_half_precision_goes_on_where_it_stopped(chain, tmp_path):
    """Its frozen weights are cast to bfloat16 and kept apart; the end is that of a run which never stopped."""
    ends = []
    for name in ("whole", "stopped"):
        extra = ["trainer.precision=bf16-mixed", "trainer.max_epochs=1", "trainer.checkpoint_every_steps=1"]
        settings = tiny_stages.command("finetune_ldm", chain, tmp_path / name, *extra)[2:]
        if name == "stopped":
            with dying(LDMModule, 3), pytest.raises(Killed):
                run("finetune_ldm", *settings)
        outcome = run("finetune_ldm", *settings)
        assert outcome.status == 0, outcome.err
        ends.append(read_weights(tmp_path / name).state_dict)
    assert json.loads((tmp_path / "stopped" / "manifest.json").read_text())["resumed"]
    assert torch.bfloat16 in {tensor.dtype for tensor in ends[0].values()}
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    counts = [json.loads((tmp_path / name / "manifest.json").read_text())["num_steps"] for name in ("whole", "stopped")]
    assert counts[0] == counts[1] > 2


def test_mean_fmri_is_one_vector_for_all(chain):
    """The second control: every stimulus is decoded from the mean training row."""
    settings = [f"run={chain / 'finetune_ldm'}", "control=mean_fmri", *GENERATE]
    assert run("generate", *settings).status == 0
    provenance = json.loads((chain / "finetune_ldm" / "decoded" / "mean_fmri" / "generate.json").read_text())
    assert provenance["settings"]["control"] == "mean_fmri"


def test_an_exported_decoder_makes_the_same_pictures(chain, tmp_path):
    """The folder to share holds all that generate needs but the data."""
    assert run("export_model", chain / "finetune_ldm", tmp_path / "shared").status == 0
    settings = [f"run={tmp_path / 'shared'}", *GENERATE, f"output={tmp_path / 'o'}"]
    root = chain / "data" / "Kamitani" / "npz"
    assert run("generate", *settings, "data.name=god", f"data.root={root}", "data.subjects=[sbj_1]").status == 0
    again = np.load(tmp_path / "o" / "decoded.npz")["decoded"].astype(int)
    first = np.load(chain / "finetune_ldm" / "decoded" / "decoded.npz")["decoded"].astype(int)
    assert np.abs(again - first).max() <= 1


def test_a_published_file_is_a_decoder(chain, tmp_path):
    """A run in the form of finetuned.pth, with the label2img config and the encoder's heads given beside it."""
    published = {name: tmp_path / f"{name}.pth" for name in ("finetuned", "fmri_encoder")}
    assert run("convert_checkpoint", chain / "finetune_ldm", published["finetuned"]).status == 0
    assert run("convert_checkpoint", chain / "finetune_mbm", published["fmri_encoder"]).status == 0
    given = [
        f"run={published['finetuned']}",
        f"ldm={chain / 'model.ckpt'}",
        f"fmri_encoder={published['fmri_encoder']}",
    ]
    root = chain / "data" / "Kamitani" / "npz"
    data = ["data.name=god", f"data.root={root}", "data.subjects=[sbj_1]", f"output={tmp_path / 'o'}"]
    assert run("generate", *given, *GENERATE, *data).status == 0
    again = np.load(tmp_path / "o" / "decoded.npz")["decoded"].astype(int)
    first = np.load(chain / "finetune_ldm" / "decoded" / "decoded.npz")["decoded"].astype(int)
    assert np.abs(again - first).max() <= 1


def test_stage_b_starts_from_a_published_encoder(chain, tmp_path):
    """fmri_encoder.pth goes wherever a Stage A run folder goes."""
    assert run("convert_checkpoint", chain / "finetune_mbm", tmp_path / "fmri_encoder.pth").status == 0
    settings = ["trainer.max_epochs=1", f"encoder={tmp_path / 'fmri_encoder.pth'}"]
    assert run("finetune_ldm", *tiny_stages.command("finetune_ldm", chain, tmp_path / "run", *settings)[2:]).status == 0


def test_pictures_of_another_size_and_of_training_stimuli(chain, tmp_path):
    """Any multiple of the autoencoder's factor, not only square ones; the grids are shown in TensorBoard."""
    pytest.importorskip("tensorboard")
    settings = [f"run={chain / 'finetune_ldm'}", *GENERATE[:3], "stimuli=[0,3]", f"output={tmp_path / 'o'}"]
    shown = ["num_training=3", "logging.wandb=disabled", "logging.tensorboard=true"]
    assert run("generate", *settings, *shown, "image_size=[10,24]").status == 0
    arrays = np.load(tmp_path / "o" / "decoded.npz")
    assert arrays["decoded"].shape == (2, 2, 10, 24, 3) and arrays["stimuli"].shape == (2, 10, 24, 3)
    grids = [np.asarray(Image.open(tmp_path / "o" / name)) for name in ("grid.png", "training.png")]
    assert grids[0].shape[0] * 3 > grids[1].shape[0] * 2 and grids[0].shape[1] == grids[1].shape[1]
    assert list((chain / "finetune_ldm" / "tensorboard").glob("events.*"))
    refused = run("generate", *settings, "overwrite=true", "image_size=[11,24]")
    assert refused.status == 2 and "multiples of 2" in refused.err


def test_a_size_that_is_the_usual_one_changes_nothing(chain, tmp_path):
    """The noise of a picture does not depend on how its size was asked for."""
    settings = [f"run={chain / 'finetune_ldm'}", *GENERATE, "image_size=16", f"output={tmp_path / 'o'}"]
    assert run("generate", *settings).status == 0
    again = np.load(tmp_path / "o" / "decoded.npz")["decoded"]
    assert np.array_equal(again, np.load(chain / "finetune_ldm" / "decoded" / "decoded.npz")["decoded"])

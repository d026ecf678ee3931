"""scripts/evaluate.py: from settings to files, comparison of runs, and one line with status 2 for what is wrong."""

import json
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from mindvis.common.errors import InputError
from mindvis.config import invocation
from mindvis.evaluation import open as evaluating
from mindvis.evaluation.audit_folders import read_images
from mindvis.evaluation.classifiers import Classifier
from mindvis.evaluation.networks import Preprocess

SCRIPT = Path(__file__).parents[1] / "scripts" / "evaluate.py"
SETTINGS = ["classifier=tiny", "num_ways=[2]", "top_k=[1]", "num_bootstrap=100", "logging.wandb=disabled"]


def run(*arguments):
    return runpy.run_path(str(SCRIPT))["main"]([str(a) for a in arguments])


@pytest.fixture(autouse=True)
def tiny_classifier(monkeypatch):
    """Ten classes from the mean colours of the quarters of a picture, in the place of any named classifier."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 10)).eval()
    classifier = Classifier("tiny", network, Preprocess(8, 8), "0" * 64, torch.device("cpu"))
    monkeypatch.setattr(evaluating, "load_classifier", lambda name, weights, device: classifier)


@pytest.fixture
def folder(tmp_path, rng):
    """What `generate` writes for four stimuli of 16 pixels."""
    decoded = rng.integers(0, 256, (4, 2, 16, 16, 3), dtype=np.uint8)
    (tmp_path / "run").mkdir()
    np.savez(tmp_path / "run" / "decoded.npz", decoded=decoded, stimuli=decoded[:, 0], stimulus_ids=np.arange(4))
    np.save(tmp_path / "training.npy", decoded[:, 1])
    return tmp_path / "run"


def test_script_writes_a_report(folder, tmp_path, capsys):
    """Table and path on the terminal, the files beside the pictures, the settings and the Stage A plot in them."""
    (tmp_path / "stage_a" / "figures").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "stage_a" / "figures" / "masked_reconstruction-00000009.png")
    (folder / "generate.json").write_text(json.dumps({"stage_a_run": str(tmp_path / "stage_a")}))
    assert run(f"decoded={folder}", f"training_images={tmp_path / 'training.npy'}", *SETTINGS) == 0
    printed = capsys.readouterr().out
    assert "2_way_top_1/tiny" in printed and f"report: {folder / 'report.html'}" in printed
    content = json.loads((folder / "report.json").read_text())
    assert content["settings"]["evaluate"]["num_ways"] == [2] and content["copying"]["near_copies"] == 4
    assert "Stage A: masked reconstruction" in (folder / "report.html").read_text()
    in_float32 = {"device": "cpu", "driver": None, "precision": "32-true", "matmul_precision": "highest"}
    assert content["machine"] == content["stages"][-1]["machine"] == in_float32


def test_script_compares_runs(folder, tmp_path, capsys):
    """Two reports of the same pictures do not differ."""
    assert run(f"decoded={folder}", f"output={tmp_path / 'a'}", *SETTINGS) == 0
    assert run(f"decoded={folder}", f"output={tmp_path / 'b'}", *SETTINGS) == 0
    capsys.readouterr()
    assert run("compare", tmp_path / "a", tmp_path / "b") == 0
    assert "+0.000" in capsys.readouterr().out


def test_processes_share_the_pictures(folder, tmp_path, monkeypatch, capsys):
    """Two processes write, byte for byte, the report of one; the second one prints nothing, and no part is left."""
    monkeypatch.setattr(invocation, "now", lambda: "2026-01-02T03:04:05+00:00")  # of the page
    arguments = [f"decoded={folder}", f"controls=[{folder}]", "batch_size=3", *SETTINGS]
    assert run(*arguments, f"output={tmp_path / 'alone'}") == 0
    table = capsys.readouterr().out.replace("alone", "shared")
    monkeypatch.setenv("WORLD_SIZE", "2")
    printed = []
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        assert run(*arguments, f"output={tmp_path / 'shared'}") == 0
        printed.append(capsys.readouterr().out)
    assert printed == ["", table]
    for name in ("report.json", "report.csv", "report.html", "grid_sorted.png"):
        assert (tmp_path / "shared" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes(), name
    assert not list(tmp_path.glob(".*"))


def test_a_process_that_is_missing_is_named(folder, monkeypatch, capsys):
    """The first of two processes, alone, ends with one line and without a report."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert run(f"decoded={folder}", "wait_minutes=0", *SETTINGS) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "00001.npy: not there after 0 minutes" in error and "needed: process 1 of 2" in error
    assert not list(folder.glob("report*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["decoded=/nowhere"], "no such folder"),
        (["decoded=RUN", "num_ways=[50]"], "num_ways: found 50"),
        (["decoded=RUN", "metrics=[psnr]"], "setting metrics names 'psnr'"),
        (["decoded=RUN", "clasifier=tiny"], "classifier"),
        (["decoded=RUN", "device=warp"], "setting device is 'warp'; needed: auto, cpu, or cuda"),
        (["decoded=RUN", "images=RUN"], "decoded.npz holds the true pictures; needed: none"),
        (["decoded=RUN", "lpips_weights=absent.pth"], "lpips_weights: absent.pth: no such file"),
        (["decoded=RUN", "features={alexnet: absent.pth}"], "alexnet: absent.pth: no such file"),
        (["decoded=RUN", "controls=[RUN/../mine]"], "holds pictures of control=none"),
        (["decoded=RUN", "training_images=RUN/../rows.npy"], "rows.npy: found float64 [4], need uint8 [n h w 3]"),
        (["decoded=RUN", "matmul_precision=low"], "setting matmul_precision is 'low'; needed: one of highest"),
        (["decoded=RUN", "training_images=absent.npy"], "absent.npy"),
        (["decoded=RUN", "output=/proc/none"], "/proc/none: cannot be written"),
        (["compare", "RUN"], "found 1 run"),
        (["compare", "RUN", "RUN"], "run evaluate first"),
    ],
)
def test_bad_input_is_one_line_and_status_two(folder, arguments, message, capsys):
    """No traceback, and no report half-written."""
    shutil.copytree(folder, folder.parent / "mine")
    (folder.parent / "mine" / "generate.json").write_text(json.dumps({"settings": {"control": "none"}}))
    np.save(folder.parent / "rows.npy", np.zeros(4))
    arguments = [argument.replace("RUN", str(folder)) for argument in arguments]
    given = {argument.split("=")[0] for argument in arguments}
    rest = [] if "compare" in arguments else [s for s in SETTINGS if s.split("=")[0] not in given]
    assert run(*arguments, *rest) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in error
    assert not list(folder.glob("report*"))


def test_images_of_own_files(tmp_path):
    """npy, the published npz name, and what is refused."""
    images = np.zeros((2, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "a.npz", train_images=images, test_images=images[:1])
    np.savez(tmp_path / "b.npz", other=images)
    assert read_images(tmp_path / "a.npz").shape == images.shape
    with pytest.raises(InputError, match="found other, need one of train_images"):
        read_images(tmp_path / "b.npz")


def test_a_top_k_that_identifies_every_picture_is_said_to_be_left_out(folder, capsys):
    """Top-2 of two ways is no score."""
    assert run(f"decoded={folder}", "top_k=[1,2]", *(line for line in SETTINGS if not line.startswith("top_k"))) == 0
    printed = capsys.readouterr().out
    assert "2-way top-2 skipped: every picture would be identified" in printed and "2_way_top_2" not in printed

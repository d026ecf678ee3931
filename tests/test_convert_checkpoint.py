"""scripts/convert_checkpoint.py and scripts/export_model.py, run as a user runs them."""

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from mindvis.checkpoints import build_ldm_from, read_ldm, read_weights
from mindvis.checkpoints.weights import ENVELOPE, envelope
from mindvis.common.errors import InputError
from mindvis.common.files import write_json
from mindvis.common.tensor_files import save_tensors
from mindvis.evaluation.report import SCHEMA
from mindvis.training.runs import create_run

ROOT = Path(__file__).parents[1]
FILES = ROOT / "tests" / "golden" / "checkpoints"
ENCODER, DECODER = FILES / "fmri_encoder.pth", FILES / "finetuned.pth"


def load_main(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture
def convert():
    main = load_main("convert_checkpoint")
    return lambda *arguments: main([str(argument) for argument in arguments])


@pytest.fixture
def export():
    main = load_main("export_model")
    return lambda *arguments: main([str(argument) for argument in arguments])


def test_there_and_back(tmp_path, convert, capsys):
    """A published decoder goes through safetensors and our format back to the published keys, equal to the bit."""
    steps = [DECODER, tmp_path / "a.safetensors", tmp_path / "b.pt", tmp_path / "c.pth"]
    for source, target in zip(steps, steps[1:], strict=False):
        assert convert(source, target) == 0
    first, last = read_weights(steps[0]), read_weights(steps[-1])
    assert all(torch.equal(tensor, last.state_dict[name]) for name, tensor in first.state_dict.items())
    assert read_weights(steps[1]).settings["encoder"]["num_heads"] == 4
    out = capsys.readouterr().out
    assert "matched       358  unet 212, autoencoder 121, conditioner 25" in out and "unexpected      0" in out


def test_table_alone(convert, capsys, tmp_path):
    """Without a target kind, checksum and table are printed and nothing is written."""
    assert convert(ENCODER) == 0
    kind, checksum, table = capsys.readouterr().out.splitlines()[:3]
    assert kind.startswith(str(ENCODER)) and table.startswith("matched       122")
    assert checksum == "sha256 " + hashlib.sha256(Path(ENCODER).read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("selection", "options", "taken"),
    [
        ({"selection": "validation"}, [], "best-00000004.ckpt"),
        ({"selection": "test"}, ["--checkpoint", "last"], "last.ckpt"),
        ({"selection": "last"}, [], "last.ckpt"),
        ({}, [], "last.ckpt"),
        ({}, ["--checkpoint", "best"], "best-00000004.ckpt"),
    ],
)
def test_of_a_run_the_selected_checkpoint_is_taken_and_named(tmp_path, convert, capsys, selection, options, taken):
    """As for generate: what the run's own setting says; a run of Stage A has none, and goes on from the last."""
    run = create_run(tmp_path, stage="finetune_mbm", settings=selection, resume="auto", resume_override=False)
    weights = read_weights(ENCODER)
    for name in ("last.ckpt", "best-00000004.ckpt"):
        save_tensors({"state_dict": weights.state_dict, ENVELOPE: envelope(weights)}, run.checkpoints / name)
    write_json(run.checkpoints / "best.json", {"best-00000004.ckpt": 0.5})
    assert convert(tmp_path, *options) == 0
    assert f"weights of {run.checkpoints / taken}" in capsys.readouterr().out


def test_failed_conversion_writes_nothing(tmp_path, convert, capsys):
    """Weights that do not fit their settings end with status 2, one line that names one, and no file."""
    state = read_weights(ENCODER).state_dict
    torch.save({"model": {**state, "evil.weight": torch.ones(1)}}, tmp_path / "x.pth")
    assert convert(tmp_path / "x.pth", tmp_path / "y.pt") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "evil.weight" in error
    assert [path.name for path in tmp_path.iterdir()] == ["x.pth"]


FIGURE = {"name": "50_way_top_1/vit_h_14", "set": "decoded", "value": 0.2385, "low": 0.19, "high": 0.29, "chance": 0.02}
REPORT = {
    "schema": SCHEMA,
    "figures": [
        FIGURE | {"n": 50, "num_samples": 5},
        FIGURE | {"set": "shuffled", "low": None, "n": 50, "num_samples": 5},
    ],
    "leakage": [{"what": "Stage A", "touched": True, "text": "Stage A was tuned on the fMRI of the test set."}],
    "caveats": ["The classifier is a small one."],
}


def test_export_states_data_training_figures_limits_licence_and_citation(tmp_path, export):
    """The folder holds three files; the card is filled from the file's own settings and the report."""
    (tmp_path / "report.json").write_text(json.dumps(REPORT))
    assert export(DECODER, tmp_path / "shared", "--report", tmp_path / "report.json") == 0
    names = sorted(path.name for path in (tmp_path / "shared").iterdir())
    assert names == ["README.md", "model.safetensors", "settings.yaml"]
    card = (tmp_path / "shared" / "README.md").read_text()
    for line in (
        "# MinD-Vis decoder: god, sbj_3",
        "| region | VC |",
        "| num_epoch | 500 |",
        "| 50_way_top_1/vit_h_14 | decoded | 0.2385 | 0.19 to 0.29 | 0.02 | 50 x 5 |",
        "| 50_way_top_1/vit_h_14 | shuffled | 0.2385 |  | 0.02 | 50 x 5 |",
        "- Stage A was tuned on the fMRI of the test set.",
        "- The classifier is a small one.",
    ):
        assert line in card.splitlines()
    assert "96 voxels" in card and "Generic Object Decoding: the terms" in card and "Nature Communications" in card
    assert "$" not in card and "_path" not in card
    assert read_ldm(tmp_path / "shared")[1]["num_heads"] == 4


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prefix": 3}, "prefix is '3'; needed"),
        ({"config": [1]}, r"config is '\[1\]'; needed"),
        ({"data": "god"}, "data is 'god'; needed"),
        ({"settings": {}}, "its settings lack encoder, ldm_config; needed"),
        ({"settings": 7}, "does not say which model it is; needed"),
        ({"config": {"stage_a": 3}}, "config.stage_a is '3'; needed"),
        ({"config": {"stage_a": {"data": "god"}}}, "config.stage_a.data is 'god'; needed"),
        ({"kind": "other"}, "does not say which model it is; needed"),
    ],
)
def test_an_exported_folder_with_settings_of_another_kind_is_refused(tmp_path, export, change, words):
    """One line that names the file and what it holds."""
    assert export(DECODER, tmp_path / "shared", "--data", "mine") == 0
    file = tmp_path / "shared" / "settings.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | change))
    with pytest.raises(InputError, match=rf"shared/model.safetensors: {words}"):
        read_weights(tmp_path / "shared")


@pytest.mark.parametrize(
    ("name", "value"),
    [("patch_size", "x"), ("embed_dim", -1), ("depth", [1]), ("num_voxels", 1e30), ("num_heads", None)],
)
def test_settings_that_describe_no_network_are_refused(tmp_path, export, name, value):
    """Whatever Python or torch says of them, in one line that names the folder."""
    assert export(DECODER, tmp_path / "shared", "--data", "mine") == 0
    file = tmp_path / "shared" / "settings.yaml"
    said = yaml.safe_load(file.read_text())
    said["settings"]["encoder"][name] = value
    file.write_text(yaml.safe_dump(said))
    with pytest.raises(InputError, match=r"shared: its settings describe no network \(.+\); needed: those it was"):
        build_ldm_from(tmp_path / "shared")


def test_a_card_without_a_report_says_so(tmp_path, export):
    """No figures, and nothing known about the use of the test set."""
    assert export(DECODER, tmp_path / "shared", "--data", "mine") == 0
    card = (tmp_path / "shared" / "README.md").read_text()
    assert "None given: no report came with the weights." in card
    assert "How the test set was used before is not stated." in card and "ask whoever recorded" in card


@pytest.mark.parametrize("what", ["report", "another report", "folder in use", "encoder", "absent"])
def test_export_refuses(tmp_path, export, capsys, what):
    """A report that is broken or foreign, a folder in use, a Stage A file and an absent one: status 2 and one line."""
    (tmp_path / "report.json").write_text("{")
    (tmp_path / "other.json").write_text('{"top1": 1}')
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "thesis.tex").write_text("years of work")
    arguments = {
        "report": (DECODER, tmp_path / "new", "--report", tmp_path / "report.json"),
        "another report": (DECODER, tmp_path / "new", "--report", tmp_path / "other.json"),
        "folder in use": (DECODER, tmp_path / "used"),
        "encoder": (ENCODER, tmp_path / "new"),
        "absent": (tmp_path / "absent.pth", tmp_path / "new"),
    }[what]
    assert export(*arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["convert_checkpoint", "export_model"])
def test_help_has_an_example(name, capsys):
    """`--help` ends with a command to copy."""
    with pytest.raises(SystemExit) as caught:
        load_main(name)(["--help"])
    assert caught.value.code == 0 and f"example:\n  python scripts/{name}.py " in capsys.readouterr().out


def test_as_a_program(tmp_path):
    """A bad file ends the program with status 2 and one line on stderr, without a traceback."""
    (tmp_path / "x.pth").write_text("<html>")
    command = [sys.executable, ROOT / "scripts" / "convert_checkpoint.py", tmp_path / "x.pth", tmp_path / "y.pt"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    failed = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert failed.returncode == 2 and failed.stderr.count("\n") == 1 and "x.pth" in failed.stderr
    assert not (tmp_path / "y.pt").exists()

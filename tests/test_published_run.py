"""The published decoder in one command: what finetuned.pth and the files around it say is enough to decode."""

import json
from pathlib import Path

import numpy as np
import pytest
from script_runner import run

from mindvis.checkpoints import write_diffusers
from mindvis.config.loading import read_yaml
from mindvis.dc_ldm import build_class_ldm

FILES = Path(__file__).parent / "golden" / "checkpoints"
SIZES = {"train": 4, "test": 2}  # pictures
NUM_VOXELS = 90  # 96 with the padding of a patch of 8: what the small decoder takes


def write_god(folder: Path, rng: np.random.Generator) -> None:
    """Generic Object Decoding as published, with two test pictures."""
    folder.mkdir(parents=True)
    region = np.ones(NUM_VOXELS, bool)
    arrays = [rng.standard_normal((rows, NUM_VOXELS)) for rows in (4, 6, 2)]
    arrays += [np.arange(4), np.repeat([1, 2], 3), np.ones(NUM_VOXELS), np.ones(NUM_VOXELS)]
    np.savez(folder / "sbj_3.npz", *arrays, VC=region)
    pictures = {f"{part}_images": rng.integers(0, 256, (n, 32, 32, 3), np.uint8) for part, n in SIZES.items()}
    np.savez(folder / "images_256.npz", **pictures)
    for part, name in {"train": "training", "test": "testing"}.items():
        rows = "".join(f"1518878.{row:06d},1\n" for row in range(SIZES[part]))
        (folder / f"imagenet_{name}_label.csv").write_text(rows)
    (folder / "imagenet_class_index.json").write_text(json.dumps({"0": ["n01518878", "ostrich"]}))


@pytest.fixture
def project(tmp_path, rng, monkeypatch) -> Path:
    """A folder laid out as the published project is."""
    god, label2img = tmp_path / "pretrains" / "GOD", tmp_path / "pretrains" / "ldm" / "label2img"
    god.mkdir(parents=True)
    label2img.mkdir(parents=True)
    for name in ("finetuned.pth", "fmri_encoder.pth"):
        (god / name).write_bytes((FILES / name).read_bytes())
    (label2img / "config.yaml").write_text((FILES / "config.yaml").read_text())
    write_god(tmp_path / "data" / "Kamitani" / "npz", rng)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_file_alone_is_enough(project):
    """Data set, subject, region, heads and UNet come from the file and its usual places; pictures lie beside it."""
    outcome = run("generate", "run=pretrains/GOD/finetuned.pth", "num_steps=2", "num_samples=1")
    assert outcome.status == 0, outcome.err
    output = project / "pretrains" / "GOD" / "finetuned_decoded"
    with np.load(output / "decoded.npz") as arrays:
        assert arrays["decoded"].shape == (2, 1, 16, 16, 3)
    said = json.loads((output / "generate.json").read_text())
    data = said["data"]["settings"]
    assert (data["name"], data["subjects"], data["roi"]) == ("god", ["sbj_3"], "VC")
    assert said["test_set_use"]["stage_a_tuning"] == said["test_set_use"]["checkpoint_selection"] == "test"


def test_settings_win_over_the_file(project):
    """Another folder for the pictures and other data can be named."""
    (project / "data").rename(project / "elsewhere")
    data = ["data.name=god", "data.root=elsewhere/Kamitani/npz", "data.subjects=[sbj_3]"]
    few = ["num_steps=2", "num_samples=1", "stimuli=[1]"]
    assert run("generate", "run=pretrains/GOD/finetuned.pth", "output=out", *data, *few).status == 0
    assert (project / "out" / "grid.png").is_file()


def test_a_diffusers_folder_stands_for_the_config(project):
    """`ldm=FOLDER` names the shape of the image model as config.yaml does: the same pictures; look_inside takes it."""
    config = read_yaml(FILES / "config.yaml")
    write_diffusers(build_class_ldm(config), project / "folder", config)
    few = ["run=pretrains/GOD/finetuned.pth", "num_steps=2", "num_samples=1"]
    assert run("generate", *few, "output=first").status == 0
    (project / "pretrains" / "ldm" / "label2img" / "config.yaml").unlink()
    outcome = run("generate", *few, "ldm=folder", "output=second")
    assert outcome.status == 0, outcome.err
    first, second = (np.load(project / name / "decoded.npz")["decoded"] for name in ("first", "second"))
    assert np.array_equal(first, second)
    sampling = ["classifier=demo", "num_ways=5", "num_stimuli=2", "num_bootstrap=50", "flat_map=false", "sampler=ddim"]
    outcome = run("look_inside", *few[:2], "ldm=folder", "output=inside", *sampling)
    assert outcome.status == 0, outcome.err
    assert (project / "inside" / "attention.csv").is_file() and (project / "inside" / "occlusion.csv").is_file()


@pytest.mark.parametrize(
    ("absent", "words"),
    [("pretrains/ldm/label2img/config.yaml", "label2img"), ("data/Kamitani/npz/sbj_3.npz", "Kamitani")],
)
def test_what_is_absent_is_named(project, absent, words):
    """One line, status 2, nothing written."""
    (project / absent).unlink()
    outcome = run("generate", "run=pretrains/GOD/finetuned.pth", "num_steps=2", "num_samples=1")
    assert outcome.status == 2 and words in outcome.err and outcome.err.count("\n") == 1
    assert not (project / "pretrains" / "GOD" / "finetuned_decoded").exists()

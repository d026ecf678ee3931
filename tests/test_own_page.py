"""docs/own_data.md does what it says: its Python from a NIfTI to a file, and from a run to pictures."""

import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tiny_stages
from PIL import Image
from script_runner import run

from mindvis.data import load_npz

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "own_data.md").read_text()
MAKE, DECODE = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
SHAPE, NUM_TRIALS = (4, 4, 4), 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What a researcher has: raw response maps, masks, a list of the pictures shown, and the pictures as files."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("page")
    level = rng.normal(1000, 200, SHAPE)[..., None]
    maps = {"betas": level + rng.normal(0, 3, (*SHAPE, NUM_TRIALS))}
    maps["visual"] = np.ones(SHAPE)
    maps["visual"][0] = 0
    maps["v1"] = np.zeros(SHAPE)
    maps["v1"][:2] = 1
    for name, values in maps.items():
        nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), np.eye(4)), folder / f"{name}.nii.gz")
    (folder / "pictures").mkdir()
    names = [f"picture {i % 30:02d}.png" for i in range(NUM_TRIALS)]
    for name in sorted(set(names)):
        picture = rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(picture).save(folder / "pictures" / name)
    (folder / "trials.txt").write_text("\n".join(names) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(MAKE.replace("256)", "16)"), {})
    return folder


def test_a_nifti_becomes_a_file_that_is_in_order(folder):
    """Voxels of the mask, repeats of a picture on one side, regions; check_data finds nothing wrong."""
    train, test, _ = load_npz(folder / "my_data.npz", roi="V1", scale="none", patch_size=16)
    assert train.formats["my_data"].num_voxels == 16 and train.formats["my_data"].num_recorded == 48
    assert not set(train.stimulus) & set(test.stimulus) and train.num_rows > test.num_rows > 0
    assert np.load(folder / "rows.npy").shape[1] == 48
    outcome = run("check_data", "--root", folder / "my_data.npz")
    assert outcome.status == 0 and "raw responses: data.scale=voxel" in outcome.out


def test_a_run_on_it_gives_pictures_of_its_rows(folder, monkeypatch, capsys):
    """The two lines, after a training of two steps."""
    tiny_stages.simulate_experiment(folder)
    monkeypatch.chdir(folder)
    settings = ["data.name=npz", "data.root=my_data.npz", "ldm=model.ckpt", *tiny_stages.ENCODER, *tiny_stages.TRAINER]
    brief = ["trainer.max_steps=2", "trainer.figure_every_epochs=0"]
    outcome = run("finetune_ldm", "run_dir=runs/own/mine/finetune_ldm", *settings, *brief)
    assert outcome.status == 0, outcome.err
    names: dict = {}
    exec(DECODE.replace("num_samples=5", "num_samples=5, num_steps=2"), names)
    assert names["pictures"].shape == (len(np.load("rows.npy")), 5, 16, 16, 3)
    assert capsys.readouterr().out.strip() == "voxel 48 ['my_data']"
    assert Path("pictures.png").is_file()
    assert run("export_model", "runs/own/mine/finetune_ldm", "shared").status == 0
    assert "| region | all |" in Path("shared/README.md").read_text()  # the file names no VC: every voxel was taken

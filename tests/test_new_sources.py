"""The chain (Stage A, Stage B, decoding, score) on MOSAIC, NSD, imagery and beta images, each with tiny sizes."""

import json

import betas_files
import mosaic_files
import nsd_files
import numpy as np
import pytest
import tiny_stages
from PIL import Image
from script_runner import run
from test_evaluate_script import tiny_classifier  # noqa: F401 - a fixture, in the place of any classifier

pytestmark = mosaic_files.needs_glasser
QUIET = ["trainer.max_epochs=1", "trainer.val_fraction=0.2", *tiny_stages.TRAINER[2:]]
EVALUATE = ["classifier=tiny", "num_ways=[2]", "top_k=[1]", "num_bootstrap=100", "logging.wandb=disabled"]
EVALUATE += ["nsd_suite=false", "metrics=[pcc]", "fid=[]", "training_images=auto"]
MOSAIC_TRIALS = [(f"{split}{i}.png", split, k) for split in ("train", "test") for k in (0, 1) for i in range(6)]


@pytest.fixture(scope="module")
def ldm(tmp_path_factory):
    """A folder with a label-to-image model of 16 pixels, and a simulated GOD subject."""
    folder = tmp_path_factory.mktemp("ldm")
    tiny_stages.simulate_experiment(folder)
    return folder


def make_mosaic(folder):
    """Two subjects of different sets, of different lengths, in the smallest of the visual areas."""
    names = ["sub-01_NSD", "sub-02_GOD"]
    mosaic_files.write_mosaic(folder / "mosaic", names, trials=MOSAIC_TRIALS)
    return ["data.name=mosaic", f"data.root={folder / 'mosaic'}", f"data.subjects=[{','.join(names)}]", "data.roi=V3CD"]


def make_nsd(folder):
    """One subject, prepared."""
    nsd_files.make_study(folder / "raw", num_sessions=1)
    assert run("prepare_nsd", folder / "raw", "--out", folder / "nsd").status == 0
    return ["data.name=nsd", f"data.root={folder / 'nsd'}", "data.subjects=[subj01]", "data.fraction=0.1"]


def make_betas(folder, rng):
    """NIfTI images of trials, prepared: 12 training pictures once, 4 test pictures twice, in a mask of 60 voxels."""
    shown = [(f"p{i}.png", "train") for i in range(12)] + [(f"p{i}.png", "test") for i in range(12, 16)] * 2
    rows = [(f"b{i:02d}", *trial, str(shown.index(trial) % 3)) for i, trial in enumerate(shown)]
    for name, *_ in rows:
        betas_files.save_nifti(folder / "betas" / f"{name}.nii.gz", 2 + rng.standard_normal(betas_files.GRID))
    betas_files.save_nifti(folder / "mask.nii.gz", np.ones(betas_files.GRID, np.uint8))
    header = ("onset", "beta_file", "stim_file", "split", "class_id")
    betas_files.write_table(folder / "trials.tsv", rows, header=header)
    (folder / "stimuli").mkdir()
    for picture in {trial[0] for trial in shown}:
        pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "stimuli" / picture)
    files = ["--table", folder / "trials.tsv", "--stimuli", folder / "stimuli", "--mask", folder / "mask.nii.gz"]
    outcome = run("prepare_betas", folder / "betas", *files, "--size", 16, "--out", folder / "my.npz")
    assert outcome.status == 0, outcome.err
    return ["data.name=npz", f"data.root={folder / 'my.npz'}", "data.subjects=[]", "data.roi=mask"]


def train(folder, ldm, data):
    """Stage A on the source's own fMRI, then Stage B; the folder of the run."""
    stage_a, stage_b = folder / "stage_a", folder / "stage_b"
    shape = [*tiny_stages.ENCODER, *tiny_stages.DECODER]
    common = [*data, *tiny_stages.TRAINER[:1], *QUIET]
    outcome = run("pretrain_mbm", f"run_dir={stage_a}", *common, *shape, "optim.warmup_epochs=1")
    assert outcome.status == 0, outcome.err
    settings = [f"encoder={stage_a}", f"ldm={ldm / 'model.ckpt'}", "image_size=16", "preview_steps=3"]
    outcome = run("finetune_ldm", f"run_dir={stage_b}", *common, *settings)
    assert outcome.status == 0, outcome.err
    return stage_b


def decode_and_score(run_dir, *settings, folder="decoded"):
    """The arrays of the decoded pictures and the report."""
    steps = ["num_samples=2", "num_steps=2", "sampler=ddim"]
    outcome = run("generate", f"run={run_dir}", *steps, *settings)
    assert outcome.status == 0, outcome.err
    outcome = run("evaluate", f"decoded={run_dir / folder}", *EVALUATE)
    assert outcome.status == 0, outcome.err
    return np.load(run_dir / folder / "decoded.npz"), json.loads((run_dir / folder / "report.json").read_text())


def test_two_subjects_of_different_sets_of_mosaic(tmp_path, ldm, tiny_classifier):  # noqa: F811
    """From their files to a report that knows how test fMRI was scaled and looked at the training pictures."""
    data = make_mosaic(tmp_path)
    run_dir = train(tmp_path, ldm, data)
    arrays, report = decode_and_score(run_dir)
    assert arrays["decoded"].shape == (12, 2, 16, 16, 3)
    assert report["settings"]["generate"]["test_set_use"]["normalisation"] == "train"
    assert report["copying"]["num_decoded"] == 24


def test_nsd(tmp_path, ldm, tiny_classifier):  # noqa: F811
    """Four shared pictures are the test set; its z-scores saw test trials, which the report says."""
    run_dir = train(tmp_path, ldm, make_nsd(tmp_path))
    arrays, report = decode_and_score(run_dir)
    assert arrays["decoded"].shape == (4, 2, 16, 16, 3)
    assert any("z-scored over all trials of a session" in line["text"] for line in report["leakage"])


def test_beta_images(tmp_path, ldm, rng, tiny_classifier):  # noqa: F811
    """From one NIfTI a trial to a report: repeats of test pictures are averaged, classes come from the table."""
    run_dir = train(tmp_path, ldm, make_betas(tmp_path, rng))
    arrays, report = decode_and_score(run_dir)
    assert arrays["decoded"].shape == (4, 2, 16, 16, 3) and arrays["class_ids"].tolist() == [0, 1, 2, 0]
    assert report["copying"]["num_decoded"] == 8 and len(report["per_stimulus"]) == 4
    assert [stage["stage"] for stage in report["stages"]] == ["pretrain_mbm", "finetune_ldm", "generate", "evaluate"]
    noted = report["settings"]["generate"]["data"]["test"]
    assert noted["rows"] == 4 and noted["voxels"] == 64  # padded to whole patches


def test_imagery(tmp_path, ldm, tiny_classifier):  # noqa: F811
    """Decoded in a folder of its own, with the class that was imagined; without such rows, one line says so."""
    data = ["data.name=god", f"data.root={tmp_path}", "data.subjects=[sbj_1]", "data.roi=V1"]
    source = ldm / "data/Kamitani/npz"
    for path in source.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    run_dir = train(tmp_path, ldm, data)
    refused = run("generate", f"run={run_dir}", "split=imagery")
    assert refused.status == 2 and "no array 'imagery'" in refused.err and refused.err.count("\n") == 1
    with np.load(source / "sbj_1.npz") as npz:
        arrays = dict(npz)
    imagined = np.array([0, 2, 3, 0])
    rows = arrays["arr_2"][imagined] + np.float32(0.1)
    np.savez(tmp_path / "sbj_1.npz", **arrays, imagery=rows, imagery_images=imagined)
    decoded, report = decode_and_score(run_dir, "split=imagery", folder="decoded_imagery")
    assert decoded["decoded"].shape == (3, 2, 16, 16, 3) and len(decoded["class_ids"]) == 3
    assert any(line.startswith("imagery: nothing was shown") for line in report["caveats"])


def test_splits_that_a_source_has_not(tmp_path, ldm):
    """Named with those it has."""
    data = ["data.name=god", f"data.root={ldm / 'data/Kamitani/npz'}", "data.subjects=[sbj_1]", "data.roi=V1"]
    run_dir = train(tmp_path, ldm, data)
    refused = run("generate", f"run={run_dir}", "split=artificial")
    assert refused.status == 2
    assert "split is 'artificial', data.name is 'god'; needed: train, test, imagery" in refused.err

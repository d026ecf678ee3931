"""Rows of fMRI without pictures: from Python, by generate, from a run folder and from an exported one."""

import subprocess
import sys

import numpy as np
import pytest
import tiny_stages
from script_runner import run

import mindvis
from mindvis.checkpoints import read_weights
from mindvis.common.errors import InputError
from mindvis.data import save_npz
from mindvis.data.row_format import FMRIFacts

NUM_TRAIN, NUM_TEST, NUM_VOXELS = 16, 4, 40
SAMPLING = {"num_samples": 2, "sampler": "ddim", "num_steps": 3}
SETTINGS = [f"{name}={value}" for name, value in SAMPLING.items()] + ["num_threads=1", "device=cpu"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """own.npz of raw responses in two regions, and in `run` a decoder tuned on one of them for two steps."""
    folder = tmp_path_factory.mktemp("decoder")
    tiny_stages.simulate_experiment(folder)
    save_own(folder / "own.npz", seed=0)
    data = ["data.name=npz", f"data.root={folder / 'own.npz'}", "data.roi=[V1,V2]"]
    settings = [*data, f"ldm={folder / 'model.ckpt'}", *tiny_stages.ENCODER, *tiny_stages.TRAINER]
    outcome = run("finetune_ldm", f"run_dir={folder / 'run'}", *settings, "trainer.max_steps=2", "num_preview=1")
    assert outcome.status == 0, outcome.err
    return folder


def save_own(path, seed: int) -> np.ndarray:
    """A file of raw responses, voxels at levels of their own; gives its fMRI."""
    rng = np.random.default_rng(seed)
    level = np.random.default_rng(9).normal(1000, 200, NUM_VOXELS)  # of the person: the same in every file
    fmri = (level + rng.normal(0, 3, (NUM_TRAIN + NUM_TEST, NUM_VOXELS))).astype(np.float32)
    images = rng.integers(0, 256, (len(fmri), 16, 16, 3), dtype=np.uint8)
    voxel = np.arange(NUM_VOXELS)
    masks = {"V1": voxel < 20, "V2": (voxel >= 20) & (voxel < 35), "V4": voxel >= 35}
    save_npz(path, fmri, images, ["train"] * NUM_TRAIN + ["test"] * NUM_TEST, roi_masks=masks)
    return fmri


@pytest.fixture(scope="module")
def generated(folder):
    """Pictures of the test rows by `generate`, uint8 [n k h w 3]."""
    outcome = run("generate", f"run={folder / 'run'}", f"output={folder / 'decoded'}", *SETTINGS)
    assert outcome.status == 0, outcome.err
    return np.load(folder / "decoded" / "decoded.npz")["decoded"]


@pytest.fixture(scope="module")
def test_rows(folder):
    """The raw test rows of own.npz, all voxels of the file."""
    return np.load(folder / "own.npz")["fmri"][NUM_TRAIN:]


def test_pictures_are_those_of_generate(folder, generated, test_rows):
    """Bit for bit: from raw rows, in two lines; one row alone under its number."""
    decoder = mindvis.load(folder / "run", device="cpu")
    assert np.array_equal(decoder.decode(test_rows, **SAMPLING), generated)
    assert np.array_equal(decoder.decode(test_rows[2:3], **SAMPLING, stimuli=[2])[0], generated[2])
    assert generated.shape == (NUM_TEST, 2, 16, 16, 3) and generated.dtype == np.uint8


def test_what_a_decoder_says_of_its_rows(folder, test_rows):
    """Scaling, voxels of its regions, subjects; rows of these regions alone are taken too."""
    decoder = mindvis.load(folder / "run", device="cpu")
    assert (decoder.scaling, decoder.num_voxels, decoder.subjects) == ("voxel", 35, ["own"])
    assert np.array_equal(decoder.prepare(test_rows[:, :35]), decoder.prepare(test_rows))


def test_a_card_names_no_subject_whom_the_decoder_does_not_know(folder, generated, tmp_path):
    """It would mislead whoever decodes with it; nothing is written."""
    outcome = run("export_model", folder / "run", tmp_path / "shared", "--subjects", "ben")
    assert outcome.status == 2 and "--subjects names 'ben'; needed: some of own" in outcome.err
    assert not (tmp_path / "shared").exists()


def test_an_exported_model_needs_nothing_else(folder, generated, test_rows, tmp_path):
    """The folder alone, moved away: the same pictures; its card shows the two lines and what rows it takes."""
    outcome = run("export_model", folder / "run", tmp_path / "shared")
    assert outcome.status == 0, outcome.err
    decoder = mindvis.load(tmp_path / "shared", device="cpu")
    assert np.array_equal(decoder.decode(test_rows, **SAMPLING), generated)
    card = (tmp_path / "shared" / "README.md").read_text()
    assert "import mindvis" in card and 'mindvis.load("<this folder>").decode(fmri, num_samples=5)' in card
    assert "Rows of own: 35 voxels, as they were recorded: each voxel is z-scored" in card
    assert "| region | V1, V2 |" in card and "| subjects | own |" in card


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_generate_from_rows_without_pictures(folder, generated, test_rows, tmp_path, suffix):
    """The same pictures, numbers and grid; nothing that says what was shown."""
    rows = tmp_path / f"rows.{suffix}"
    if suffix == "npy":
        np.save(rows, test_rows)
    else:
        np.savez(rows, fmri=test_rows)
    out = tmp_path / "decoded"
    outcome = run("generate", f"run={folder / 'run'}", f"fmri={rows}", f"output={out}", *SETTINGS)
    assert outcome.status == 0, outcome.err
    arrays = np.load(out / "decoded.npz")
    assert np.array_equal(arrays["decoded"], generated) and "stimuli" not in arrays
    assert (out / "grid.png").is_file() and not (out / "pictures" / "0000" / "stimulus.png").exists()
    refused = run("evaluate", f"decoded={out}", "classifier=demo", "logging.wandb=disabled")
    assert refused.status == 2 and "decoded from fMRI without pictures" in refused.err


def test_rows_with_guidance_use_the_mean_that_is_kept(folder, test_rows, tmp_path):
    """generate on the data set, on the rows, and Python agree with guidance too."""
    np.save(tmp_path / "rows.npy", test_rows)
    for name, source in (("a", []), ("b", [f"fmri={tmp_path / 'rows.npy'}"])):
        out = f"output={tmp_path / name}"
        assert run("generate", f"run={folder / 'run'}", *source, out, *SETTINGS, "guidance=2").status == 0
    by_data, by_rows = (np.load(tmp_path / name / "decoded.npz")["decoded"] for name in "ab")
    decoder = mindvis.load(folder / "run", device="cpu")
    assert np.array_equal(by_data, by_rows)
    assert np.array_equal(decoder.decode(test_rows, **SAMPLING, guidance=2.0), by_data)


def test_data_in_part_lies_over_that_of_the_run(folder, tmp_path):
    """`data.root=` alone keeps name, regions and scaling of the exported model, in place of GOD's."""
    save_own(tmp_path / "more.npz", seed=1)
    assert run("export_model", folder / "run", tmp_path / "shared").status == 0
    data, out = f"data.root={tmp_path / 'more.npz'}", tmp_path / "out"
    outcome = run("generate", f"run={tmp_path / 'shared'}", data, f"output={out}", *SETTINGS)
    assert outcome.status == 0, outcome.err
    assert np.array_equal(np.load(out / "decoded.npz")["stimuli"], np.load(tmp_path / "more.npz")["images"][NUM_TRAIN:])
    outcome = run("generate", f"run={tmp_path / 'shared'}", "data.roi=V4", f"output={tmp_path / 'o'}", *SETTINGS)
    assert outcome.status == 2 and "voxels in ROI 'V4' after padding" in outcome.err


REFUSALS = {
    "length": (lambda rows: rows[:, :34], {}, "rows of 34 voxels; needed: 35, as the training rows, or whole"),
    "one row": (lambda rows: rows[0], {}, "needs real numbers .n v."),
    "NaN": (lambda rows: rows * np.nan, {}, "NaN or infinite"),
    "other units": (
        lambda rows: rows / 1000,
        {},
        "after scaling by the training rows; needed: rows as they",
    ),
    "not scaled": (lambda rows: rows, {"scaling": "none"}, "needed: rows scaled as the training rows"),
    "scaling": (lambda rows: rows, {"scaling": "all"}, "scaling is 'all'; needed: one of stored, none"),
    "subject": (lambda rows: rows, {"subject": "ben"}, "subject is 'ben' for 4 rows; needed: one of own"),
    "stimuli": (lambda rows: rows, {"stimuli": [1]}, "stimuli has 1 numbers; needed: 4"),
}


@pytest.mark.parametrize("fault", REFUSALS)
def test_rows_that_do_not_fit(folder, test_rows, fault):
    """One line that says what was found and what is needed."""
    change, options, message = REFUSALS[fault]
    with pytest.raises(InputError, match=message):
        mindvis.load(folder / "run", device="cpu").decode(change(test_rows), **SAMPLING, **options)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["control=shuffled"], "setting control is 'shuffled', but fmri="),
        (["data.name=npz"], "settings fmri and data name two sources"),
    ],
)
def test_settings_that_need_pictures(folder, test_rows, tmp_path, settings, message):
    """They are refused beside rows without any."""
    np.save(tmp_path / "rows.npy", test_rows)
    rows, out = f"fmri={tmp_path / 'rows.npy'}", f"output={tmp_path / 'o'}"
    outcome = run("generate", f"run={folder / 'run'}", rows, out, *SETTINGS, *settings)
    assert outcome.status == 2 and message in outcome.err
    assert not (tmp_path / "o").exists()


def test_scaled_rows(folder, test_rows):
    """`scaling="none"` takes what the training rows became."""
    decoder = mindvis.load(folder / "run", device="cpu")
    form = decoder.facts.formats["own"]
    scaled = (test_rows[:, form.columns] - form.mean) / form.deviation
    assert np.array_equal(decoder.prepare(scaled, scaling="none"), decoder.prepare(test_rows))


def test_weights_of_before_keep_nothing(folder, test_rows, monkeypatch):
    """Rows are taken as scaled, where their padded length is that of the encoder."""
    monkeypatch.setattr(FMRIFacts, "from_plain", lambda content, where: FMRIFacts())
    decoder = mindvis.load(folder / "run", device="cpu")
    assert (decoder.scaling, decoder.num_voxels, decoder.subjects) == ("none", None, [])
    rows = np.random.default_rng(0).normal(size=(2, 35))
    assert np.array_equal(decoder.prepare(rows)[:, 35:], decoder.prepare(rows)[:, :13])
    with pytest.raises(InputError, match="does not say of how many"):
        decoder.prepare(rows[:, :20])
    with pytest.raises(InputError, match="mean training fMRI, which guidance=2"):
        decoder.decode(rows, guidance=2)


def test_a_run_stores_what_its_rows_were(folder):
    """Regions, formats and the mean training row, as plain text."""
    kept = read_weights(folder / "run").settings["fmri"]
    assert kept["roi"] == ["V1", "V2"]
    facts = FMRIFacts.from_plain(kept, "run")
    assert facts.mean.shape == (48,) and facts.formats["own"].num_recorded == NUM_VOXELS
    with pytest.raises(InputError, match="run: what it keeps of its fMRI cannot be read"):
        FMRIFacts.from_plain({"formats": {"own": {}}, "mean": "?"}, "run")


def test_importing_is_light():
    """`import mindvis` brings neither torch nor numpy."""
    code = "import sys, mindvis; assert callable(mindvis.load); assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

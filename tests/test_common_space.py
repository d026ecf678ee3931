"""Several subjects in one model: each other subject's voxels are mapped into those of one by ridge regression."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import tiny_stages
import torch
from script_runner import run

import mindvis
from mindvis.checkpoints import read_weights
from mindvis.common.errors import InputError
from mindvis.config.schemas import DataConfig
from mindvis.data import save_npz
from mindvis.data.learned_map import TEMPERATURE, _contrast
from mindvis.data.open import open_pairs
from mindvis.data.row_format import RowFormat
from mindvis.simulation.experiment import Experiment
from mindvis.simulation.simulate import simulate

PATCH = 8
SAMPLING = {"num_samples": 1, "sampler": "ddim", "num_steps": 2}
SETTINGS = [f"{name}={value}" for name, value in SAMPLING.items()] + ["num_threads=1", "device=cpu"]


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A folder of two subjects' files: ben's 24 voxels are mixtures of anna's 20; the same pictures."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("own")
    images = rng.integers(0, 256, (72, 8, 8, 3), dtype=np.uint8)
    anna = rng.normal(size=(72, 4)) @ rng.normal(size=(4, 20)) + 0.1 * rng.normal(size=(72, 20))
    ben = 7 + anna @ rng.normal(size=(20, 24)) + 0.1 * rng.normal(size=(72, 24))
    split = ["train"] * 60 + ["test"] * 12
    save_npz(folder / "anna.npz", anna, images, split, roi_masks={"V1": np.arange(20) < 8})
    save_npz(folder / "ben.npz", ben[::-1], images[::-1], split[::-1])
    return folder


def config(folder, *subjects: str, reference: str | None = "anna", **others) -> DataConfig:
    return DataConfig(name="npz", root=str(folder), subjects=list(subjects), reference=reference, roi="all", **others)


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.corrcoef(x.ravel(), y.ravel())[0, 1])


def test_rows_land_in_the_voxels_of_the_reference(own):
    """Test rows of ben, on which no map was fitted, are those of anna for the same pictures; without a map not."""
    train, test, _ = open_pairs(config(own), PATCH)
    assert (train.num_rows, test.num_rows, train.num_voxels) == (120, 24, 24)
    assert train.subject.tolist() == ["anna"] * 60 + ["ben"] * 60
    anna, ben = test.fmri[:12], test.fmri[12:][::-1]
    assert np.array_equal(test.images[:12], test.images[12:][::-1])
    assert correlation(anna, ben) > 0.95
    alone = open_pairs(config(own, "ben", reference=None), PATCH)[1].fmri[::-1]
    assert abs(correlation(anna[:, :20], alone[:, :20])) < 0.6
    assert abs(ben.std() / anna.std() - 1) < 0.1
    assert train.roi_masks["V1"].sum() == 8


def test_the_reference_alone_is_as_without(own):
    """To the bit."""
    (train, test, _), (plain, plain_test, _) = (
        open_pairs(config(own, "anna", reference=reference), PATCH) for reference in ("anna", None)
    )
    assert np.array_equal(train.fmri, plain.fmri) and np.array_equal(test.fmri, plain_test.fmri)


def test_a_new_subject_alone_with_little_data(own):
    """The reference need not be among the subjects; a share of the new one's pictures fits scaling and map."""
    train, test, _ = open_pairs(config(own, "ben", fraction=0.5), PATCH)
    assert (train.num_rows, test.num_rows) == (30, 12)
    anna = open_pairs(config(own, "anna"), PATCH)[1].fmri
    assert correlation(anna, test.fmri[::-1]) > 0.9


def test_recorded_rows_become_input_by_the_format(own):
    """Scaling, padding and map as kept with a model, bit for bit, one row at a time."""
    _, test, _ = open_pairs(config(own), PATCH)
    form = RowFormat.from_plain(json.loads(json.dumps(test.formats["ben"].as_plain())), "run")
    with np.load(own / "ben.npz") as file:
        rows = file["fmri"][np.flatnonzero(file["split"] == "test")]
    assert np.array_equal(form.to_input(rows, 24), test.fmri[12:])
    assert np.array_equal(form.to_input(rows[3:4], 24), test.fmri[15:16])


def test_a_smaller_rank_is_a_smaller_map(own):
    """The rank is a setting, and is what is kept."""
    form = open_pairs(config(own, "ben", adapter_rank=2), PATCH)[0].formats["ben"]
    assert form.adapter.down.shape == (32, 2) and form.adapter.up.shape == (2, 24)


def identified(rows: np.ndarray, targets: np.ndarray) -> float:
    """Share of rows [n v] that are most like their own target [n v]."""
    return float((np.corrcoef(rows, targets)[: len(rows), len(rows) :].argmax(axis=1) == np.arange(len(rows))).mean())


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """Two subjects of the simulated cortex who share 120 training pictures; 96 are left for the test."""
    folder = tmp_path_factory.mktemp("simulated") / "data"
    sizes = {"num_subjects": 2, "train_per_class": 5, "num_test": 96, "num_resting": 0}
    simulate(folder, Experiment(seed=1, voxels=tiny_stages.VOXELS | {"V1": 60, "V2": 60}, **sizes))
    return folder / "Kamitani" / "npz"


def test_a_map_that_is_trained_further_finds_more_pictures(simulated, caplog):
    """By test pictures, which it has not seen; the same twice; the subject of the reference is as it was."""
    caplog.set_level("INFO")
    ridge, learned, again = (
        open_pairs(DataConfig(root=str(simulated), reference="sbj_1", adapter_steps=steps), PATCH)
        for steps in (0, 200, 200)
    )
    assert re.search("sbj_2: the map was trained further for [1-9][0-9]* of 200 steps", caplog.text)
    tests = [np.split(np.asarray(parts[1].fmri), 2) for parts in (ridge, learned, again)]
    assert np.array_equal(tests[0][0], tests[1][0]) and np.array_equal(tests[1][1], tests[2][1])
    shares = [identified(mapped, own) for own, mapped in tests[:2]]
    assert shares[1] > shares[0] + 0.02, shares
    before, after = (parts[0].formats["sbj_2"].adapter for parts in (ridge, learned))
    assert before.down.shape == after.down.shape and before.up.shape == after.up.shape


def test_a_learned_map_is_kept_with_the_model(own):
    """What a checkpoint keeps maps recorded rows as the data set has them, bit for bit; off, it is ridge's."""
    _, test, _ = open_pairs(config(own, adapter_steps=20), PATCH)
    form = RowFormat.from_plain(json.loads(json.dumps(test.formats["ben"].as_plain())), "run")
    with np.load(own / "ben.npz") as file:
        rows = file["fmri"][np.flatnonzero(file["split"] == "test")]
    assert np.array_equal(form.to_input(rows, 24), test.fmri[12:])
    plain, off = (open_pairs(config(own, **more), PATCH)[0] for more in ({}, {"adapter_steps": 0}))
    assert np.array_equal(plain.fmri, off.fmri)


def test_what_a_map_is_trained_by_is_the_cross_entropy_of_finding_pictures(rng):
    """Against loops over rows and pictures."""
    rows, targets = rng.normal(size=(5, 9)), rng.normal(size=(5, 9))
    logits = np.corrcoef(rows, targets)[:5, 5:] / TEMPERATURE
    entropy = [np.log(np.exp(table[i]).sum()) - table[i, i] for table in (logits, logits.T) for i in range(5)]
    found = _contrast(*(torch.from_numpy(array) for array in (rows, targets)))
    assert float(found) == pytest.approx(np.mean(entropy))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fraction": 0.1, "subjects": ["ben"]}, "subjects ben and anna share 6 training pictures; needed: 10"),
        ({"reference": None}, r"a folder of 2 files, one a subject \(anna, ben\); needed: data.subjects=\[one\]"),
        ({"subjects": ["carl"]}, "subject 'carl' is unknown, available: anna, ben"),
        ({"name": "mosaic"}, "the subjects of mosaic have their voxels in common"),
    ],
)
def test_wrong_settings(own, changes, message):
    """One line that says what is needed."""
    with pytest.raises(InputError, match=message):
        open_pairs(replace(config(own), **changes), PATCH)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Decoders tuned for two steps on simulated subjects: of sbj_1, the same with a reference, of sbj_1 and sbj_2."""
    folder = tmp_path_factory.mktemp("several")
    tiny_stages.simulate_experiment(folder, num_subjects=3)
    tune(folder, "one", "data.subjects=[sbj_1]")
    tune(folder, "same", "data.subjects=[sbj_1]", "data.reference=sbj_1")
    tune(folder, "two", "data.subjects=[sbj_1,sbj_2]", "data.reference=sbj_1", "data.adapter_steps=20")
    assert run("export_model", str(folder / "two"), str(folder / "exported")).status == 0
    return folder


def tune(folder, name: str, *settings: str) -> None:
    data = f"data.root={folder / 'data' / 'Kamitani' / 'npz'}"
    shape = [*tiny_stages.ENCODER, *tiny_stages.TRAINER, "trainer.max_steps=2", "trainer.figure_every_epochs=0"]
    outcome = run("finetune_ldm", f"run_dir={folder / name}", data, f"ldm={folder / 'model.ckpt'}", *shape, *settings)
    assert outcome.status == 0, outcome.err


def test_one_subject_is_trained_as_ever(runs):
    """The weights after training are the same, to the bit, with the setting and without."""
    one, same = (read_weights(runs / name).state_dict for name in ("one", "same"))
    assert one.keys() == same.keys() and all(torch.equal(one[name], same[name]) for name in one)


def test_one_model_decodes_each_of_its_subjects(runs, tmp_path):
    """`data.subjects=` alone chooses whose rows are decoded; from Python the same pictures, subject by subject.

    The map of the second subject, which was trained further, lies in the run and in what is exported.
    """
    decoder, exported = (mindvis.load(runs / name, device="cpu") for name in ("two", "exported"))
    assert decoder.subjects == exported.subjects == ["sbj_1", "sbj_2"]
    for subject in decoder.subjects:
        out = tmp_path / subject
        outcome = run("generate", f"run={runs / 'two'}", f"data.subjects=[{subject}]", f"output={out}", *SETTINGS)
        assert outcome.status == 0, outcome.err
        rows = np.load(runs / "data" / "Kamitani" / "npz" / f"{subject}.npz")["arr_2"]
        decoded = decoder.decode(rows, **SAMPLING, subject=subject)
        assert np.array_equal(decoded, np.load(out / "decoded.npz")["decoded"])
        assert np.array_equal(decoded, exported.decode(rows, **SAMPLING, subject=subject))
    with pytest.raises(InputError, match="knows subjects sbj_1, sbj_2; needed: subject="):
        decoder.decode(rows, **SAMPLING)


def test_a_new_subject_goes_on_from_the_others(runs):
    """All weights are those of the earlier run at the start, whose space the new subject is mapped into."""
    settings = ["data.subjects=[sbj_3]", "data.reference=sbj_1", "data.fraction=0.5", f"start={runs / 'two'}"]
    tune(runs, "new", *settings, "optim.lr=1e-30", "optim.weight_decay=0")
    before, after = (read_weights(runs / name).state_dict for name in ("two", "new"))
    assert all(torch.allclose(before[name], after[name], atol=1e-12) for name in before)
    assert mindvis.load(runs / "new", device="cpu").subjects == ["sbj_3"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["data.subjects=[sbj_3]", "encoder=x"], "settings start="),
        (["data.subjects=[sbj_3]", "use_time_condition=false"], "use_time_condition is True, this training has False"),
        (["data.subjects=[sbj_3]", "data.roi=V1"], "data.reference and data.roi as in that run keep its voxels"),
    ],
)
def test_starts_that_do_not_fit(runs, tmp_path, settings, message):
    """Status 2 and what is needed, before a folder is made."""
    data = [f"data.root={runs / 'data' / 'Kamitani' / 'npz'}", f"ldm={runs / 'model.ckpt'}", f"start={runs / 'two'}"]
    outcome = run("finetune_ldm", f"run_dir={tmp_path / 'r'}", *data, *tiny_stages.TRAINER, *settings)
    assert outcome.status == 2 and message in outcome.err
    assert not (tmp_path / "r").exists()

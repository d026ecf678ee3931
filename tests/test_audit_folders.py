"""Audits of folders: anybody's pictures, baselines beside them, and scripts/audit.py with its files and its errors."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from planted import class_retriever, classifier_and_generator, make_world, reconstructor
from script_runner import run

from mindvis.common import draws
from mindvis.data import PairedDataset
from mindvis.decoding.output import write_decoded
from mindvis.evaluation.audit_features import small_pixels
from mindvis.evaluation.audit_folders import Audited, _read_classes, read_training
from mindvis.evaluation.checks import kept_rows
from mindvis.evaluation.noise_ceiling import noise_ceilings
from mindvis.evaluation.pictures import read_decoded
from mindvis.evaluation.report_page import audit_text

SETTINGS = ("features=pixels", "logging.wandb=disabled")


@pytest.fixture(scope="module")
def world():
    """60 test pictures of 10 classes, 80 training pictures."""
    return make_world(0, num_test=60, per_class=8, num_classes=10)


@pytest.fixture
def folders(world, tmp_path):
    """`decoded`, `true` and `training` pictures as files, and the classes of all as `classes.csv`."""
    lines = [("name", "class")]
    for folder, letter, pictures, classes in (
        ("decoded", "t", reconstructor(world)[:, 0], world.class_ids),
        ("true", "t", world.stimuli, world.class_ids),
        ("training", "x", world.training, world.training_class_ids),
    ):
        (tmp_path / folder).mkdir()
        for i, picture in enumerate(pictures):
            Image.fromarray(picture).save(tmp_path / folder / f"{letter}{i}.png")
            lines.append((f"{letter}{i}.png", f"kind {classes[i]}"))
    with (tmp_path / "classes.csv").open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    return tmp_path


def arguments(folders, *more):
    names = {"decoded": "decoded", "images": "true", "training": "training", "classes": "classes.csv"}
    given = [f"{setting}={folders / name}" for setting, name in names.items()]
    kept = [pair for pair in given if pair.split("=")[0] not in [other.split("=")[0] for other in more]]
    return [*kept, *SETTINGS, *more]


def write_run(folder, world, decoded, **settings):
    folder.mkdir(parents=True)
    arrays = {"stimulus_ids": np.arange(len(decoded)), "class_ids": world.class_ids}
    np.savez(folder / "decoded.npz", decoded=decoded, stimuli=world.stimuli, **arrays)
    if settings:
        (folder / "generate.json").write_text(json.dumps(settings))
    return folder


def test_pictures_of_another_code_base_in_one_command(folders):
    """Folders of files and a CSV of classes: a verdict on the terminal, audit.json and a page beside the pictures."""
    outcome = run("audit", *arguments(folders))
    assert outcome.status == 0, outcome.err
    assert outcome.out.startswith("verdict: reconstruction") and "within_class/pixels" in outcome.out
    content = json.loads((folders / "decoded" / "audit.json").read_text())
    assert content["verdict"] == "reconstruction" and content["settings"]["num_training"] == 80
    page = (folders / "decoded" / "audit.html").read_text()
    assert "http" not in page.replace("http-equiv", "") and page.count("data:image/png") == 2
    again = run("audit", *arguments(folders, f"output={folders / 'again'}"))
    assert again.status == 0
    assert json.loads((folders / "again" / "audit.json").read_text()) == content


def test_an_audit_script_needs_neither_lightning_nor_wandb_nor_nibabel(folders):
    """The whole script in a fresh interpreter."""
    code = (
        "import runpy, sys; from mindvis.config.command_line import entry_point; "
        f"sys.argv = ['audit.py', *{arguments(folders)!r}]; "
        "status = runpy.run_path('scripts/audit.py')['main'](); "
        "print(status, [n for n in ('pytorch_lightning', 'lightning', 'wandb', 'nibabel') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"


def test_baselines_and_ceilings_stand_in_one_table(world, tmp_path):
    """Each is audited by itself, and the differences are paired."""
    decoded = write_run(tmp_path / "run", world, reconstructor(world))
    write_run(tmp_path / "run" / "shuffled", world, np.roll(reconstructor(world), 1, axis=0))
    ceiling = write_run(tmp_path / "true_class", world, classifier_and_generator(world, 1.0))
    nearest = write_run(tmp_path / "retrieval", world, class_retriever(world))
    np.save(tmp_path / "training.npy", world.training)
    outcome = run(
        "audit",
        f"decoded={decoded}",
        f"others=[{ceiling},{nearest}]",
        f"training={tmp_path / 'training.npy'}",
        *SETTINGS,
    )
    assert outcome.status == 0, outcome.err
    content = json.loads((decoded / "audit.json").read_text())
    assert content["others"]["retrieval"]["verdict"] == "retrieval"
    difference = content["differences"]["minus/within_class/pixels/true_class"]
    assert difference["low"] > 0 and difference["p"] < 0.001 and difference["n"] == 60
    assert "minus_control/pixels/shuffled" in content["evidence"]
    assert "Baselines and ceilings" in (decoded / "audit.html").read_text()
    assert any(line.startswith("retrieval   retrieval") for line in outcome.out.splitlines())


def of_subjects(*names):
    """What generate.json says of data that is not there any more."""
    return {"data": {"settings": {"name": "npz", "root": "/gone.npz"}, "subjects": names}, "patch_size": 16}


def two_subjects(world, folder, names=("s1", "s2")):
    """Pictures of two subjects, the second one's noisier, a folder each, with a control beside them."""
    for place, noise, name in (("s1", 20, names[0]), ("s2", 90, names[1])):
        rng = np.random.default_rng(noise)
        noisy = reconstructor(world) + rng.normal(0, noise, reconstructor(world).shape)
        decoded = noisy.round().clip(0, 255).astype(np.uint8)
        write_run(folder / place, world, decoded, **of_subjects(name))
        write_run(folder / place / "shuffled", world, np.roll(decoded, 1, axis=0), **of_subjects(name))
    return folder / "s1", folder / "s2"


def naive_areas(folder):
    """Share of other stimuli that each stimulus's pictures are less close to than to it, in pixels: loops over all."""
    pictures = read_decoded(folder)
    true = [small_pixels(one[None])[0].astype(float) for one in pictures.stimuli]
    areas = []
    for i, samples in enumerate(pictures.decoded):
        shares = []
        for sample in samples:
            pixels = small_pixels(sample[None])[0].astype(float)
            closeness = [np.corrcoef(pixels, other)[0, 1] for other in true]
            shares.append(np.mean([closeness[i] > other for j, other in enumerate(closeness) if j != i]))
        areas.append(np.mean(shares))
    return np.array(areas)


def naive_interval(groups, seed):
    """Subjects drawn anew, then their stimuli, 10 000 times."""
    rng, means = draws.generator((seed,), "subjects"), []
    for _ in range(10_000):
        of_subjects = []
        for subject in rng.integers(len(groups), size=len(groups)):
            drawn = rng.integers(len(groups[subject]), size=len(groups[subject]))
            of_subjects.append(sum(groups[subject][i] for i in drawn) / len(drawn))
        means.append(sum(of_subjects) / len(of_subjects))
    return np.percentile(means, [2.5, 97.5])


def test_folders_of_subjects_are_audited_as_one(world, tmp_path):
    """Value and interval are those of plain loops over subjects, their stimuli and the samples of these."""
    first, second = two_subjects(world, tmp_path)
    outcome = run("audit", f"decoded={first}", f"other_subjects=[{second}]", "training=none", *SETTINGS)
    assert outcome.status == 0, outcome.err
    content = json.loads((first / "audit.json").read_text())
    found = content["evidence"]["own_against_other/pixels"]
    groups = [naive_areas(first), naive_areas(second)]
    assert found["value"] == pytest.approx(np.mean([group.mean() for group in groups]), abs=1e-6)
    assert [found["low"], found["high"]] == pytest.approx(naive_interval(groups, 0), abs=1e-6)
    assert found["n"] == 120 and content["evidence"]["minus_control/pixels/shuffled"]["n"] == 60
    assert any("each counted once" in line for line in content["caveats"])


def test_subjects_that_cannot_be_told_apart_are_refused(world, tmp_path):
    """Two folders of one subject would pass for two; pictures of another number of samples do not go together."""
    first, second = two_subjects(world, tmp_path, names=("s1", "s1"))
    outcome = run("audit", f"decoded={first}", f"other_subjects=[{second}]", *SETTINGS)
    assert outcome.status == 2 and "of subject 's1', as an earlier folder" in outcome.err
    more = write_run(tmp_path / "more", world, np.repeat(reconstructor(world), 2, axis=1))
    outcome = run("audit", f"decoded={first}", f"other_subjects=[{more}]", *SETTINGS)
    assert outcome.status == 2 and "more: samples and sides" in outcome.err


def test_rows_of_several_subjects_in_one_folder(world, tmp_path):
    """What generate records of each row is read; a folder of before says that intervals are over stimuli alone."""
    decoded = write_run(tmp_path / "run", world, reconstructor(world), **of_subjects("a", "b"))
    assert read_decoded(decoded).subjects is None
    outcome = run("audit", f"decoded={decoded}", "training=none", *SETTINGS)
    assert "whose each row is of 2 subjects is not recorded" in outcome.out
    dataset = PairedDataset(np.zeros((60, 4), np.float32), world.stimuli, subject=np.repeat(["a", "b"], 30))
    write_decoded(tmp_path / "new", reconstructor(world), dataset, range(60), of_subjects("a", "b"))
    assert read_decoded(tmp_path / "new").subjects == ["a"] * 30 + ["b"] * 30


def test_training_pictures_of_an_npy_are_read_when_asked_for(world, tmp_path):
    """Slices are those of the array, and only what was asked for is in memory."""
    np.save(tmp_path / "training.npy", world.training)
    images = read_training(tmp_path / "training.npy", 16).images
    assert len(images) == 80 and not isinstance(images, np.ndarray)
    assert np.array_equal(images[3:9], world.training[3:9]) and images[3:9].base is None


def test_a_folder_that_does_not_know_its_training_pictures_says_so(world, tmp_path):
    """The verdict stays open, and the caveat names what would close it."""
    decoded = write_run(tmp_path / "run", world, reconstructor(world))
    outcome = run("audit", f"decoded={decoded}", *SETTINGS)
    assert outcome.status == 0 and outcome.out.startswith("verdict: undecided")
    assert "needed: training=PICTURES" in outcome.out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["decoded=/nowhere"], "/nowhere: no such folder"),
        (["training=/nowhere.npy"], "/nowhere.npy: no such file; needed: pictures"),
        (["training=TMP/empty"], "empty: no pictures"),
        (["classes=/nowhere.csv"], "/nowhere.csv: no such file"),
        (["classes=TMP/few.csv"], "no class of stimulus 't1'"),
        (["classes=TMP/latin.csv"], "latin.csv: no text in utf-8"),
        (["classes=TMP/twice.csv"], "twice.csv: 't0' is of class 'cat' and of 'dog', need one"),
        (["features=resnet"], "classifier: found 'resnet'"),
        (["others=[TMP/other]"], "true pictures of 'other' are not those"),
        (["output=/proc/none"], "/proc/none: cannot be written"),
        (["fetures=pixels"], "features"),
    ],
)
def test_malformed_input_is_one_line_and_status_two(folders, more, message):
    """No traceback, and no audit half-written."""
    (folders / "empty").mkdir()
    (folders / "few.csv").write_text("name,class\nt0,cat\n")
    write_other(folders / "other")
    (folders / "latin.csv").write_bytes("name,class\nt0,ch\xe2t\n".encode("latin-1"))
    (folders / "twice.csv").write_text("name,class\nt0.png,cat\nt0.png,dog\n")
    before = sorted((folders / "decoded").iterdir())
    given = [line.replace("TMP", str(folders)) for line in more]
    outcome = run("audit", *arguments(folders, *given))
    assert outcome.status == 2 and message in outcome.err.splitlines()[-1]
    assert sorted((folders / "decoded").iterdir()) == before


def write_other(folder):
    """A run of other stimuli, as many and of the same size."""
    pictures = np.zeros((60, 64, 64, 3), np.uint8)
    pictures[1] = 1
    folder.mkdir()
    np.savez(folder / "decoded.npz", decoded=pictures[:, None], stimuli=pictures)


def test_training_files_are_read_slice_by_slice(folders):
    """Squared and resized when a slice is asked for; in the order of their names."""
    training = read_training(folders / "training", 32)
    assert len(training.images) == 80 and training.images[1:3].shape == (2, 32, 32, 3)
    exact = read_training(folders / "training", 64)
    file = folders / "training" / f"{exact.names[2]}.png"
    np.testing.assert_array_equal(exact.images[2:3][0], np.asarray(Image.open(file)))


def test_an_old_shuffled_folder_counts_the_rows_it_kept(world, tmp_path):
    """A plain permutation of 50 rows by seed 2022 kept two; a derangement says nothing, or how many classes it kept."""
    settings = {"control": "shuffled", "seed": 2022, "split": "test"}
    old = write_run(tmp_path / "old", world, reconstructor(world), settings=settings, data={"test": {"rows": 50}})
    with np.load(old / "decoded.npz") as file:
        np.savez(old / "decoded.npz", **{name: file[name][:50] for name in file.files})
    assert "2 of 50 rows kept their own fMRI" in kept_rows(read_decoded(old))
    new = {"rows": 60, "kept_stimulus": 0, "kept_class": 0}
    assert kept_rows(read_decoded(write_run(tmp_path / "new", world, reconstructor(world), shuffle=new))) is None
    some = write_run(tmp_path / "some", world, reconstructor(world), settings=settings, shuffle=new | {"kept_class": 3})
    assert "3 of 60 rows have fMRI of their own class" in kept_rows(read_decoded(some))
    nameless = write_run(tmp_path / "nameless", world, reconstructor(world), settings={"control": "shuffled"})
    assert "not recorded" in kept_rows(read_decoded(nameless))


def test_noise_ceilings_of_a_data_set(rng):
    """Single trials follow the averages; subjects count alike."""
    signal, stimulus = rng.standard_normal((30, 20)), np.tile(np.arange(30), 5)
    trials = signal[stimulus] + rng.standard_normal((150, 20))
    repeat = np.repeat(np.arange(5), 30)
    data = PairedDataset(trials, np.zeros((30, 8, 8, 3), np.uint8), stimulus=stimulus, repeat=repeat)
    voxels, halves = noise_ceilings(data, 0)
    assert voxels.value == pytest.approx(np.sqrt(1 / (1 + 1 / 4)), abs=0.05) and voxels.n == 20
    assert halves.value > 0.95 and halves.by_accident == 0.5
    data.noise_ceilings = {"s1": np.array([0.25, 1.0]), "s2": np.array([0.25, np.nan])}
    assert noise_ceilings(data, 0)[0].value == pytest.approx((0.5 + 1 + 0.5) / 3)


def test_text_of_an_audit_has_a_line_a_figure(world):
    """The verdict first, its steps, then the figures."""
    from mindvis.evaluation.audit import audit_pictures

    found = audit_pictures(reconstructor(world), world.stimuli, features="pixels")
    lines = audit_text(Audited(found)).splitlines()
    assert lines[0].startswith("verdict: undecided") and lines[1].startswith("- own_against_other/pixels")
    assert any(line.startswith("own_against_other/pixels ") for line in lines)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_classes_as_spreadsheets_save_them(tmp_path, encoding, separator):
    """Byte-order marks, other separators and line ends give the same classes."""
    lines = [("name", "class"), ("t0.png", "cat"), ("t1", "dog")]
    text = "".join(f"{name}{separator} {word}\r\n" for name, word in lines)
    (tmp_path / "classes.csv").write_bytes(text.encode(encoding))
    assert _read_classes(tmp_path / "classes.csv") == {"t0": "cat", "t1": "dog"}

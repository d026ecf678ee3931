"""load_mosaic on made-up files in the layout of MOSAIC, beside a naive reading of the same files."""

import json
import pickle
import sys

import h5py
import numpy as np
import pytest
from mosaic_files import NUM, TRIALS, needs_glasser, write_mosaic, write_subject
from script_runner import run

from mindvis.common.errors import InputError
from mindvis.config.schemas import DataConfig
from mindvis.data.cache import RowCache
from mindvis.data.mosaic import load_mosaic
from mindvis.data.open import open_pairs
from mindvis.data.regions import grayordinates

pytestmark = needs_glasser
AREAS = ["V4", "V3A"]


def naive(path, areas, split, average, patch_size=16, splits=None):
    """Rows of a split and their stimuli, read whole and one after another."""
    with h5py.File(path) as file:
        trials = [(name, data[()], dict(data.attrs)) for name, data in file["betas"].items()]
    columns = np.concatenate([grayordinates(area, "") for area in areas])
    whole = np.stack([beta for _, beta, _ in trials]).astype(np.float32)[:, columns]
    whole = whole[:, np.isfinite(whole).all(axis=0)]
    added = patch_size - whole.shape[1] % patch_size
    whole = np.concatenate([whole, whole[:, :added]], axis=1)

    def part(which, mean):
        names = [attributes["presented_stimulus_filename"] for _, _, attributes in trials]
        phase = [attributes["phase"] for _, _, attributes in trials]
        if splits:
            phase = [next((k for k, v in splits.items() if name in v), None) for name, _, _ in trials]
        rows = [i for i in range(len(trials)) if phase[i] == which]
        if not mean:
            return [names[i] for i in rows], whole[rows]
        order = list(dict.fromkeys(names[i] for i in rows))
        return order, np.stack([whole[[i for i in rows if names[i] == name]].mean(axis=0) for name in order])

    train = part("train", average)[1].astype(np.float64)
    names, rows = part(split, average or split != "train")
    return names, (rows - np.float32(train.mean())) / np.float32(train.std())


@pytest.mark.parametrize("create", [{}, {"chunks": (5000,), "compression": "gzip"}, {"dtype": "f2"}, {"dtype": "f8"}])
@pytest.mark.parametrize("average", [True, False])
def test_it_is_what_a_naive_reading_gives(tmp_path, create, average):
    """Rows, order, stimuli, NaN grayordinates, scaling, padding: exactly, of any type and way of storing."""
    write_mosaic(tmp_path, **create)
    train, test = load_mosaic(tmp_path, roi=AREAS, average=average)
    for split, found in (("train", train), ("test", test)):
        names, rows = naive(tmp_path / "sub-01_NSD.hdf5", AREAS, split, average)
        assert found.stimulus_names == names
        np.testing.assert_array_equal(np.asarray(found.fmri), rows)
        assert [int(found.stimuli[i][0, 0, 0]) for i in found.stimulus] == [colour(name) for name in names]


def colour(name):
    return 20 + 17 * list(dict.fromkeys(stimulus for stimulus, _, _ in TRIALS)).index(name)


def test_single_test_trials_follow_their_averages(tmp_path):
    """Picture by picture, numbered from 1."""
    write_mosaic(tmp_path)
    test = load_mosaic(tmp_path, roi="V4", include_single_trials=True)[1]
    assert test.stimulus_names == ["t1.png", "t2.png", "t1.png", "t1.png", "t2.png", "t2.png"]
    assert test.repeat.tolist() == [0, 0, 1, 2, 1, 2]
    np.testing.assert_allclose(test.fmri[2:4].mean(axis=0), test.fmri[0], atol=1e-6)


def test_visual_cortex_is_that_of_the_resting_state(tmp_path):
    """VC is V1 V2 V3 V4 in this order, 4183 grayordinates less the NaN ones, and padded as those of HCP."""
    first = int(grayordinates("V1", "")[0])
    write_mosaic(tmp_path, nan=(first, 90000))
    train, _ = load_mosaic(tmp_path)
    assert train.num_voxels == 4192 and {name: int(m.sum()) for name, m in train.roi_masks.items()} == {
        "V1": 1617,
        "V2": 1220,
        "V3": 684,
        "V4": 661,
    }


def test_an_absurd_value_leaves_its_voxel_out(tmp_path):
    """As NaN does: one of 1e20 would leave nothing of the others."""
    first = int(grayordinates("V4", "")[0])
    write_mosaic(tmp_path, ["sub-01_NSD"], nan=(90000,))
    with h5py.File(tmp_path / "sub-01_NSD.hdf5", "r+") as file:
        next(iter(file["betas"].values()))[first] = 1e20
    train, _ = load_mosaic(tmp_path, roi="V4", patch_size=1)
    assert int(train.roi_masks["V4"].sum()) == len(grayordinates("V4", "")) - 1
    assert abs(np.asarray(train.fmri).std() - 1) < 0.01


def test_subjects_of_different_sets_make_one_data_set(tmp_path):
    """A mixture: each scaled by itself, brought to the longest, shared pictures once."""
    write_mosaic(tmp_path, ["sub-01_NSD", "sub-03_GOD"])
    more = [int(i) for i in grayordinates("V4", "")[:40]]
    write_subject(tmp_path / "sub-03_GOD.hdf5", seed=5, nan=more)
    (tmp_path / "sub-03_GOD.hdf5").rename(tmp_path / "sub-03_GOD_crc32-0123abcd.hdf5")
    train, _ = load_mosaic(tmp_path, ["sub-01_NSD", "sub-03_GOD"], roi="V4")
    lengths = [672, 624]
    assert train.subject.tolist() == ["sub-01_NSD"] * 5 + ["sub-03_GOD"] * 5 and train.num_voxels == max(lengths)
    assert len(train.stimuli) == 5 and train.roi_masks is None
    rows = naive(tmp_path / "sub-03_GOD_crc32-0123abcd.hdf5", ["V4"], "train", True)[1]
    np.testing.assert_array_equal(np.asarray(train.fmri)[5:], np.pad(rows, [(0, 0), (0, 48)], mode="wrap"))


def test_a_whole_recording_becomes_input_as_the_rows_did(tmp_path):
    """What a run keeps about a subject takes a row of all 91 282 grayordinates."""
    responses = write_mosaic(tmp_path)["sub-01_NSD"]
    train, _ = load_mosaic(tmp_path, roi="V4", average=False)
    recording = np.stack([responses["sub-01_NSD_stimulus-a_phase-train_rep-0"]])
    given = train.formats["sub-01_NSD"].to_input(recording, train.num_voxels)
    np.testing.assert_array_equal(given[0], np.asarray(train.fmri)[0])


def test_every_grayordinate(tmp_path):
    """roi=all takes all that are never NaN."""
    write_mosaic(tmp_path, nan=(7, 8, 9))
    train, _ = load_mosaic(tmp_path, roi="all", patch_size=1)
    assert train.num_voxels == NUM - 3 + 1  # a whole patch is added to whole patches


def splits_of(names):
    trial = "sub-01_NSD_stimulus-{}_phase-{}_rep-{}"
    return [{f"sub-01_NSD_stimulus-{s}": [trial.format(s.split(".")[0], p, r) + ".npz"]} for s, p, r in names]


@pytest.mark.parametrize("form", [("train", "test", "artificial"), ("train_naturalistic", "test_naturalistic", None)])
def test_the_split_files_decide_where_they_are_given(tmp_path, form):
    """Trials that they leave out are left out, and artificial pictures are a split of their own."""
    write_mosaic(tmp_path)
    parts = {"train": TRIALS[1:6:4], "test": [TRIALS[2]], "artificial": [TRIALS[4]]}
    folder = tmp_path / "testtrain"
    folder.mkdir()
    for (split, trials), name in zip(parts.items(), form, strict=True):
        (folder / f"{name or 'test_' + split}.json").write_text(json.dumps(splits_of(trials)))
    train, test, artificial = load_mosaic(tmp_path, roi="V4", splits=folder, parts=("train", "test", "artificial"))
    assert (train.stimulus_names, test.stimulus_names) == (["b.png", "c.jpg"], ["t1.png"])
    assert artificial.stimulus_names == ["t2.png"]


def test_stimuli_in_both_splits_are_said(tmp_path, caplog):
    """A picture that one subject trains on and another is tested with."""
    write_mosaic(tmp_path, ["sub-01_NSD"])
    write_subject(tmp_path / "sub-02_NSD.hdf5", [(s, {"train": "test", "test": "train"}[p], r) for s, p, r in TRIALS])
    open_pairs(DataConfig(name="mosaic", root=str(tmp_path), roi="V4"), 16)
    assert "7 of 7 test pictures are training pictures too" in caplog.text


def test_voxels_are_chosen_by_noise_ceiling(tmp_path, caplog):
    """Percent in the file, a share in the setting; chosen by test repeats, which is said; handed on for the audit."""
    write_mosaic(tmp_path)
    area = grayordinates("V4", "")
    threshold = float(np.median(np.linspace(0, 1, NUM)[area]))
    train, _ = load_mosaic(tmp_path, roi="V4", patch_size=1, min_noise_ceiling=threshold)
    kept = np.linspace(0, 1, NUM)[area] >= threshold
    assert train.num_voxels == kept.sum() + 1 and 0 < kept.sum() < len(area)
    np.testing.assert_allclose(train.noise_ceilings["sub-01_NSD"], np.linspace(0, 1, NUM)[area][kept])
    assert "chosen by repeats of the test split" in caplog.text


def test_a_video_is_stood_for_by_a_picture_of_its_name(tmp_path):
    """The sets of videos name files that are no pictures."""
    trials = [(s.replace("a.png", "a.mp4"), p, r) for s, p, r in TRIALS]
    write_mosaic(tmp_path)
    write_subject(tmp_path / "sub-01_NSD.hdf5", trials)
    train, _ = load_mosaic(tmp_path, roi="V4")
    assert train.stimulus_names[0] == "a.mp4" and int(train.stimuli[0][0, 0, 0]) == colour("a.png")


def test_pictures_are_read_when_asked_for(tmp_path):
    """At the size asked for; a data set can be sent to another process."""
    write_mosaic(tmp_path)
    train, _ = load_mosaic(tmp_path, roi="V4", image_size=8)
    assert train.stimuli.shape == (5, 8, 8, 3) and train.with_image_size(16).stimuli.shape == (5, 16, 16, 3)
    (tmp_path / "stimuli" / "a.png").unlink()
    again = pickle.loads(pickle.dumps(train))
    assert again[1]["image"].shape == (3, 8, 8) and again[1]["fmri"].shape == (1, train.num_voxels)
    with pytest.raises(InputError, match=r"a\.png: no such file"):
        again[0]


def test_a_stopped_conversion_goes_on(tmp_path, monkeypatch):
    """Files that are whole are kept; the rows are those of a conversion in one go."""
    write_mosaic(tmp_path)
    monkeypatch.setattr("mindvis.data.cache.MAX_ROWS", 2)
    monkeypatch.setattr("mindvis.data.cache.MIN_ROWS", 2)
    whole = np.asarray(load_mosaic(tmp_path, roi="V4", cache_dir=tmp_path / "one")[0].fmri)
    made = []
    build = RowCache.build_parts

    def stopping(self, shape, make, facts, **options):
        def until(start, stop):
            if len(made) == 3:
                raise KeyboardInterrupt
            made.append(start)
            return make(start, stop)

        return build(self, shape, until, facts, **options | {"num_workers": 1})

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(RowCache, "build_parts", stopping)
        load_mosaic(tmp_path, roi="V4", cache_dir=tmp_path / "two")
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "two").rglob("*.npy")}
    assert len(files) == 3
    again = load_mosaic(tmp_path, roi="V4", cache_dir=tmp_path / "two")[0]
    np.testing.assert_array_equal(np.asarray(again.fmri), whole)
    assert {path: path.stat().st_mtime_ns for path in files} == files


def test_it_is_converted_once(tmp_path, monkeypatch):
    """Another opening reads the mapped rows, and not the file's betas."""
    write_mosaic(tmp_path)
    first = np.asarray(load_mosaic(tmp_path, roi="V4")[0].fmri)
    monkeypatch.setattr("mindvis.data.mosaic.read_betas", None)
    np.testing.assert_array_equal(np.asarray(load_mosaic(tmp_path, roi="V4")[0].fmri), first)


@pytest.mark.parametrize("damage", ["facts.json", "rows-0000000.npy"])
def test_a_damaged_cache_is_made_again(tmp_path, caplog, damage):
    """With a line in the log."""
    write_mosaic(tmp_path)
    first = np.asarray(load_mosaic(tmp_path, roi="V4")[0].fmri)
    next(tmp_path.rglob(damage)).write_text("{")
    np.testing.assert_array_equal(np.asarray(load_mosaic(tmp_path, roi="V4")[0].fmri), first)
    assert "a damaged cache, made again" in caplog.text


# Malformed: each is one line that names the file and says what is needed.


def edit(change):
    def damage(root):
        with h5py.File(root / "sub-01_NSD.hdf5", "a") as file:
            change(file)

    return damage


def first(file):
    return next(iter(file["betas"].values()))


def attribute(name, value=None):
    def change(file):
        del first(file).attrs[name]
        if value is not None:
            first(file).attrs[name] = value

    return edit(change)


def replace_first(make):
    def change(file):
        name, old = next(iter(file["betas"].items()))
        attributes, values = dict(old.attrs), make(old[()])
        del file["betas"][name]
        new = file["betas"].create_dataset(name, data=values)
        new.attrs.update(attributes)

    return edit(change)


def duplicate(file):
    copy = file["betas"].create_dataset("sub-01_NSD_stimulus-a_phase-train_rep-00", data=first(file)[()])
    copy.attrs.update(dict(first(file).attrs))


def empty(file):
    for name in list(file["betas"]):
        del file["betas"][name]


def no_group(file):
    del file["betas"]
    file["betas"] = np.ones(3)


def truncated(root):
    path = root / "sub-01_NSD.hdf5"
    path.write_bytes(path.read_bytes()[:-400_000])


def without(phase):
    return lambda root: write_subject(root / "sub-01_NSD.hdf5", [trial for trial in TRIALS if trial[1] != phase])


def ceiling(make):
    def change(file):
        name, old = next(iter(file["noiseceilings"].items()))
        values = make(old[()])
        del file["noiseceilings"][name]
        file["noiseceilings"][name] = values

    return edit(change)


def silent(root):
    path = root / "sub-01_NSD.hdf5"
    write_subject(path)
    with h5py.File(path, "a") as file:
        for dataset in file["betas"].values():
            dataset[...] = 1.0


def split_files(**contents):
    def damage(root):
        (root / "testtrain").mkdir()
        for name, content in contents.items():
            (root / "testtrain" / f"{name}.json").write_text(content)

    return damage


GOOD = json.dumps(["sub-01_NSD_stimulus-a_phase-train_rep-0.npz"])
MALFORMED = {
    "no_file": (lambda root: (root / "sub-01_NSD.hdf5").unlink(), "no subject's files in it"),
    "no_hdf5": (lambda root: (root / "sub-01_NSD.hdf5").write_bytes(b"{}" * 600), "not readable"),
    "empty_file": (lambda root: (root / "sub-01_NSD.hdf5").write_bytes(b""), "not readable"),
    "truncated": (truncated, "not readable"),
    "missing_group": (edit(lambda f: f.pop("betas")), "no 'betas', has "),
    "no_trial": (edit(empty), "'betas' holds no trial"),
    "betas_no_group": (edit(no_group), "'betas' holds no trial"),
    "wrong_length": (replace_first(lambda a: a[:-1]), "is float32 [91281], needs floats [91282]"),
    "two_axes": (replace_first(lambda a: a[None]), "needs floats [91282]"),
    "integers": (replace_first(lambda a: np.zeros(a.shape, "i4")), "is int32 [91282], needs floats"),
    "text": (replace_first(lambda a: np.zeros(a.shape, "S4")), "needs floats [91282]"),
    "nested_group": (edit(lambda f: f["betas"].create_group("more")), "trial 'more' is a group"),
    "all_nan": (replace_first(lambda a: np.full(a.shape, np.nan, "f4")), "is NaN in every grayordinate"),
    "unknown_phase": (
        attribute("phase", "validation"),
        "is of phase 'validation', needs one of",
    ),
    "no_phase": (attribute("phase"), "has no attribute 'phase'"),
    "no_stimulus_name": (
        attribute("presented_stimulus_filename"),
        "has no attribute 'presented",
    ),
    "repetition_text": (attribute("repetition", "two"), "needs a whole number"),
    "duplicate_trial": (edit(duplicate), "is repetition 0 of 'a.png', as "),
    "no_training": (without("train"), "no trial of split 'train' is in it"),
    "no_test": (without("test"), "no trial of split 'test' is in it"),
    "silent": (silent, "the training rows are constant"),
    "stimulus_absent": (lambda root: (root / "stimuli/c.jpg").unlink(), "1 stimuli have no picture, 'c.jpg' first"),
    "no_stimuli": (
        lambda root: (root / "stimuli").rename(root / "pictures"),
        "needs the stimuli of MOSAIC",
    ),
    "ceiling_length": (ceiling(lambda a: a[:9]), "noise ceiling 'sub-01_NSD_phase-test_n-avg_split-0' is float64 [9]"),
    "ceiling_range": (ceiling(lambda a: a * 9), "needs percent"),
    "two_files": (lambda root: write_subject(root / "sub-01_NSD_crc32-00ff.hdf5"), "keep one of the two"),
    "split_missing": (split_files(train=GOOD), "no test.json or test_naturalistic.json in it"),
    "split_no_json": (split_files(train="[", test=GOOD), "not readable as JSON"),
    "split_empty": (split_files(train="[]", test=GOOD), "names no trial"),
    "split_twice": (split_files(train=GOOD, test=GOOD), "is in more than one split"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed(tmp_path, case):
    """Of a script: status 2, one line with what was found, no run, and nothing that looks like a finished cache."""
    damage, message = MALFORMED[case]
    write_mosaic(tmp_path)
    damage(tmp_path)
    settings = [f"run_dir={tmp_path / 'run'}", "data.name=mosaic", f"data.root={tmp_path}", "data.roi=V4"]
    settings += [f"data.splits={tmp_path / 'testtrain'}"] * case.startswith("split")
    outcome = run("pretrain_mbm", *settings, "logging.wandb=disabled")
    assert outcome.status == 2 and "Traceback" not in outcome.err
    assert [message in line for line in outcome.err.splitlines() if line.startswith("error: ")] == [True]
    assert not (tmp_path / "run").exists()
    if case in ("all_nan", "truncated", "wrong_length"):
        assert not list(tmp_path.rglob("facts.json"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"roi": "V9"}, "no region 'V9'; the nearest names are"),
        ({"roi": ["V1", "V1"]}, "needs every region once"),
        ({"subjects": "sub-02_NSD"}, "'sub-02_NSD' is unknown, available: sub-01_NSD"),
        ({"min_noise_ceiling": 1.5}, "none of the 661 voxels"),
        ({"patch_size": 0}, "patch_size is 0"),
    ],
)
def test_settings_that_select_nothing(tmp_path, options, message):
    """They name the setting, and what there is."""
    write_mosaic(tmp_path)
    with pytest.raises(InputError, match="".join(message.split("[")[:1])):
        load_mosaic(tmp_path, **{"roi": "V4", **options})


def test_without_h5py_it_says_what_to_install(tmp_path, monkeypatch):
    """One clear line."""
    write_mosaic(tmp_path)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(InputError, match="h5py is not installed"):
        load_mosaic(tmp_path, roi="V4")

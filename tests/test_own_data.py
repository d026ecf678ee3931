"""Anyone's own data in one file: the layout, its checks, averaging, scaling, mapping, and the writer."""

import json

import numpy as np
import pytest

from mindvis.checkpoints import image_side
from mindvis.common.errors import InputError
from mindvis.config.schemas import DataConfig, FinetuneLDMConfig
from mindvis.data import load_npz, own, save_npz
from mindvis.data.open import data_facts, open_pairs, open_stage_b, saved_data
from mindvis.data.row_format import RowFormat
from mindvis.data.rows import VoxelRows


@pytest.fixture
def arrays(rng) -> dict:
    """Two subjects, 7 images: 4 for training, 2 tested three times each, 1 for validation."""
    stimulus = np.tile([0, 1, 2, 3, 5, 4, 4, 5, 5, 4, 6], 2)
    return {
        "fmri": rng.normal(5, 3, size=(22, 20)),
        "images": rng.integers(0, 256, (7, 8, 8, 3), dtype=np.uint8),
        "split": np.tile(["train"] * 4 + ["test"] * 6 + ["val"], 2),
        "stimulus": stimulus,
        "class_ids": stimulus + 100,
        "class_names": np.array([f"class {i}" for i in stimulus]),
        "subject": np.repeat(["anna", "ben"], 11),
        "roi_names": np.array(["V1", "V4"]),
        "roi_masks": np.stack([np.arange(20) < 6, np.arange(20) >= 15]),
    }


@pytest.fixture
def path(arrays, tmp_path):
    np.savez(tmp_path / "own.npz", **arrays)
    return tmp_path / "own.npz"


def scaled(arrays: dict, rows: slice) -> np.ndarray:
    """The rows of one subject, each voxel z-scored by the training rows, wrap-padded to 32."""
    fmri = arrays["fmri"][rows]
    return np.pad((fmri - fmri[:4].mean(axis=0)) / fmri[:4].std(axis=0), [(0, 0), (0, 12)], mode="wrap")


def test_one_mean_and_deviation_a_subject(arrays, path):
    """The published scaling, by the setting scale=subject; the padding counts, as in the published arrays."""
    train = load_npz(path, scale="subject").train
    padded = np.pad(arrays["fmri"][11:22], [(0, 0), (0, 12)], mode="wrap")
    assert np.abs(train.fmri[4:] - ((padded - padded[:4].mean()) / padded[:4].std())[:4]).max() < 1e-5
    assert train.formats["ben"].scale == "subject"


def test_raw_responses_keep_their_signal(arrays, tmp_path):
    """Voxel offsets of 1000 +- 200: z-scored a voxel the signal has deviation 1, under one mean they are refused."""
    rng = np.random.default_rng(0)
    raw = rng.normal(1000, 200, 20) + rng.normal(0, 3, (22, 20))
    np.savez(tmp_path / "raw.npz", **arrays | {"fmri": raw})
    train = load_npz(tmp_path / "raw.npz", "anna").train
    assert np.allclose(train.fmri.std(axis=0), 1, atol=1e-4)
    message = r"raw.npz: fmri of subject 'anna': voxels differ in mean by .* and vary by .*data\.scale=voxel"
    with pytest.raises(InputError, match=message):
        load_npz(tmp_path / "raw.npz", scale="subject")


def test_constant_voxels_are_counted_and_become_0(arrays, tmp_path, caplog):
    """In all rows, also where a test row differs there."""
    fmri = arrays["fmri"].copy()
    fmri[:4, [2, 5]] = 1000.1
    np.savez(tmp_path / "c.npz", **arrays | {"fmri": fmri})
    with caplog.at_level("WARNING"):
        parts = load_npz(tmp_path / "c.npz", "anna")
    assert "subject 'anna': 2 of 20 voxels are constant in the training rows and become 0" in caplog.text
    assert not parts.train.fmri[:, [2, 5]].any() and not parts.test.fmri[:, [2, 5]].any()
    assert data_facts(train=parts.train)["train"]["constant_voxels"] == 4  # the padding repeats both
    assert np.isfinite(parts.test.fmri).all()


def test_test_pictures_that_are_training_pictures_are_named(arrays, tmp_path, caplog):
    """The same stimulus, and an identical picture under another number: at load and in the manifest."""
    images = arrays["images"].copy()
    images[4] = images[1]
    stimulus = arrays["stimulus"].copy()
    stimulus[stimulus == 5] = 0
    np.savez(tmp_path / "o.npz", **arrays | {"images": images, "stimulus": stimulus, "class_ids": stimulus})
    with caplog.at_level("WARNING"):
        train, test, _ = open_pairs(DataConfig(name="npz", root=str(tmp_path / "o.npz")), 16)
    assert "2 of 2 test pictures are training pictures too (stimulus 0, 4)" in caplog.text
    facts = data_facts(train=train, test=test)["overlap"]
    assert facts == {"test_pictures": 2, "also_in_training": 2, "stimuli": [0, 4]}


def test_separate_pictures_are_not_called_the_same(path, caplog):
    """No line where nothing overlaps."""
    train, test, _ = open_pairs(DataConfig(name="npz", root=str(path)), 16)
    assert data_facts(train=train, test=test)["overlap"]["also_in_training"] == 0
    assert "training pictures too" not in caplog.text


def test_a_share_of_the_training_pictures(arrays, path):
    """Half of the training stimuli, the rows are scaled by these alone, test rows are all there; shares are nested."""
    train, test, _ = load_npz(path, "anna", fraction=0.5)
    assert train.num_rows == 2 and test.num_rows == 2
    assert np.abs(train.fmri.mean(axis=0)).max() < 1e-5
    quarter = load_npz(path, "anna", fraction=0.25, scale="none").train
    assert set(quarter.stimulus) < set(train.stimulus)


def test_the_format_of_rows_is_kept(arrays, path):
    """Recorded rows of the region, or the whole recording, become what the loader gives, bit for bit; as text too."""
    train = load_npz(path, "ben", roi="V4", patch_size=4).train
    form = RowFormat.from_plain(json.loads(json.dumps(train.formats["ben"].as_plain())), "run")
    for rows in (arrays["fmri"][11:15], arrays["fmri"][11:15, 15:]):
        assert np.array_equal(form.to_input(rows, 8), train.fmri)
    with pytest.raises(
        InputError, match="rows of 7 voxels; needed: 5, as the training rows, or whole recordings of 20"
    ):
        form.to_input(arrays["fmri"][:, :7], 8)
    with pytest.raises(InputError, match=r"after scaling by the training rows; needed: rows as they were recorded"):
        form.to_input(1e4 + arrays["fmri"], 8)


def test_training_rows_are_scaled_within_a_subject(arrays, path):
    """Each subject's voxels by its own moments, rows in the order of the file, with images and classes."""
    train = load_npz(path).train
    wanted = np.concatenate([scaled(arrays, slice(0, 11))[:4], scaled(arrays, slice(11, 22))[:4]])
    assert train.fmri.dtype == np.float32
    assert np.abs(train.fmri - wanted).max() < 1e-5
    assert train.subject.tolist() == ["anna"] * 4 + ["ben"] * 4
    assert train.class_ids == [100, 101, 102, 103] * 2
    assert np.array_equal(train.images, arrays["images"][[0, 1, 2, 3] * 2])


def test_test_rows_of_a_stimulus_are_averaged(arrays, path):
    """Averages in the order of first appearance, scaled by the moments of the training rows."""
    test = load_npz(path, subjects="anna").test
    rows = scaled(arrays, slice(0, 11))
    assert test.stimulus.tolist() == [5, 4]
    assert np.abs(test.fmri[0] - rows[[4, 7, 8]].mean(axis=0)).max() < 1e-5
    assert np.abs(test.fmri[1] - rows[[5, 6, 9]].mean(axis=0)).max() < 1e-5
    assert test.class_names == ["class 5", "class 4"]


def test_single_trials_follow_the_averages(arrays, path):
    """All averages, then image by image in time."""
    test = load_npz(path, "ben", include_single_trials=True).test
    assert test.stimulus.tolist() == [5, 4, 5, 5, 5, 4, 4, 4]
    assert test.repeat.tolist() == [0, 0, 1, 2, 3, 1, 2, 3]
    assert np.abs(test.fmri[5] - scaled(arrays, slice(11, 22))[5]).max() < 1e-5


def test_averaging_stays_within_a_subject(path):
    """The same image seen by two subjects gives two rows."""
    test = load_npz(path).test
    assert list(zip(test.subject.tolist(), test.stimulus.tolist(), strict=True)) == [
        ("anna", 5),
        ("anna", 4),
        ("ben", 5),
        ("ben", 4),
    ]


def test_validation_part(arrays, path, tmp_path):
    """Rows that say "val" become a part of their own; without any there is none."""
    assert load_npz(path).val.stimulus.tolist() == [6, 6]
    np.savez(tmp_path / "b.npz", **arrays | {"split": np.where(arrays["split"] == "val", "train", arrays["split"])})
    assert load_npz(tmp_path / "b.npz").val is None


def test_splits_as_integers(arrays, path, tmp_path):
    """0, 1, 2 mean train, test, val."""
    numbers = np.array([["train", "test", "val"].index(name) for name in arrays["split"]])
    np.savez(tmp_path / "b.npz", **arrays | {"split": numbers})
    assert np.array_equal(load_npz(tmp_path / "b.npz").train.fmri, load_npz(path).train.fmri)


def test_scale_none_leaves_the_numbers(arrays, path):
    """Rows are padded only."""
    train = load_npz(path, scale="none").train
    assert np.allclose(train.fmri[:4, :20], arrays["fmri"][:4], atol=1e-6)


def test_regions(arrays, path):
    """A region reduces the voxels; the masks follow; "VC" is everything where no region has that name."""
    whole = load_npz(path, roi="VC").train
    assert whole.roi_masks["V4"].nonzero()[0].tolist() == [15, 16, 17, 18, 19]
    region = load_npz(path, roi="V4", patch_size=4, scale="none").train
    assert np.allclose(region.fmri[0], np.pad(arrays["fmri"][0, 15:], (0, 3), mode="wrap"), atol=1e-6)
    assert region.roi_masks["V4"].tolist() == [True] * 5 + [False] * 3


def test_the_smallest_file(rng, tmp_path):
    """fMRI, one image for each row and the split are enough."""
    images = rng.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    save_npz(tmp_path / "own.npz", rng.normal(size=(4, 10)), images, ["train", "test", "train", "test"])
    train, test, val = load_npz(tmp_path / "own.npz")
    assert np.array_equal(train.images, images[[0, 2]])
    assert np.array_equal(test.images, images[[1, 3]])
    assert val is None and train.class_ids is None and train.roi_masks is None


def test_save_and_load_agree(arrays, path, tmp_path):
    """What `save_npz` writes loads as the file made by hand."""
    masks = dict(zip(arrays.pop("roi_names"), arrays.pop("roi_masks"), strict=True))
    save_npz(tmp_path / "saved.npz", **arrays, roi_masks=masks)
    by_hand, saved = load_npz(path), load_npz(tmp_path / "saved.npz")
    assert np.array_equal(by_hand.train.fmri, saved.train.fmri)
    assert saved.test.class_ids == by_hand.test.class_ids
    assert saved.train.roi_masks.keys() == by_hand.train.roi_masks.keys()


@pytest.mark.parametrize("compressed", [False, True])
def test_large_arrays_are_mapped(arrays, path, tmp_path, monkeypatch, compressed):
    """Above a size fMRI and images stay in the file (unless it is compressed), with the same numbers."""
    plain = load_npz(path)
    monkeypatch.setattr(own, "MAPPED_BYTES", 0)
    (np.savez_compressed if compressed else np.savez)(tmp_path / "b.npz", **arrays)
    train, test, _ = load_npz(tmp_path / "b.npz")
    assert isinstance(train.fmri, VoxelRows) != compressed
    assert isinstance(train.stimuli, np.memmap) != compressed
    assert np.array_equal(np.asarray(train.fmri), plain.train.fmri)
    assert np.array_equal(test.fmri, plain.test.fmri)
    assert np.array_equal(train[3]["image"], plain.train[3]["image"])


FAULTS = {
    "no fmri": ({"fmri": None}, "no array 'fmri', has images"),
    "no split": ({"split": None}, "no array 'split'"),
    "unknown array": ({"fMRI": np.ones(3)}, "unknown array 'fMRI', the layout has class_ids"),
    "NaN": ({"fmri": np.full((22, 20), np.nan)}, "'fmri' has 440 NaN or infinite of 440"),
    "three dimensions": ({"fmri": np.ones((22, 1, 20))}, "'fmri' is float64 .22, 1, 20., needs real numbers .n v."),
    "objects": ({"fmri": np.full((22, 20), None)}, "'fmri' holds Python objects"),
    "object labels": ({"class_names": np.array(["a"] * 22, dtype=object)}, "'class_names' holds Python objects"),
    "float images": ({"images": np.zeros((7, 8, 8, 3))}, "'images' is float64"),
    "grey images": ({"images": np.zeros((7, 8, 8), np.uint8)}, "needs uint8 images"),
    "image count": ({"stimulus": None}, "'images' is uint8 .7, 8, 8, 3., needs .* m = 22 as in fmri"),
    "stimulus range": ({"stimulus": np.arange(22)}, "needs indices in 0 .. 6"),
    "split length": ({"split": np.array(["train"] * 4)}, "'split' is <U5 .4., needs .* n = 22 as in fmri"),
    "split name": ({"split": np.array(["training"] * 22)}, "'training', needs train, test or val"),
    "split number": ({"split": np.full(22, 3)}, "'3', needs train, test or val"),
    "split matrix": ({"split": np.full((22, 2), 0)}, "needs one text or number per row"),
    "no test": ({"split": np.array(["train"] * 22)}, "no row of split 'test' is left"),
    "no train": ({"split": np.array(["test"] * 22)}, "no row of split 'train' is left"),
    "constant": ({"fmri": np.ones((22, 20))}, "all voxels are constant in its 4 training rows, it cannot be scaled"),
    "two classes": ({"class_ids": np.arange(22)}, "gives stimulus 4 6 classes"),
    "negative class": ({"class_ids": np.full(22, -1)}, "'class_ids' spans -1 .. -1"),
    "no ROI masks": ({"roi_masks": None}, "roi_names and roi_masks only together"),
    "ROI count": ({"roi_names": np.array(["V1"])}, "'roi_masks' is bool .2, 20., needs .* r = 1 as in roi_names"),
    "ROI twice": ({"roi_names": np.array(["V1", "V1"])}, "needs every name once"),
    "ROI length": ({"roi_masks": np.ones((2, 19), bool)}, "'roi_masks' is bool .2, 19., needs .* v = 20 as in fmri"),
    "empty ROI": ({"roi_masks": np.zeros((2, 20), bool)}, "ROI 'V1' selects none of 20 voxels"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_files(arrays, tmp_path, fault):
    """One line that names the file, what was found and what is needed."""
    changes, message = FAULTS[fault]
    path = tmp_path / "own.npz"
    np.savez(path, **{name: array for name, array in (arrays | changes).items() if array is not None})
    with pytest.raises(InputError, match=message) as caught:
        load_npz(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"subjects": ["carl"]}, "subject 'carl' is unknown, available: anna, ben"),
        ({"roi": "V9"}, "ROI 'V9' is unknown, available: V1, V4"),
        ({"scale": "test"}, "scale 'test' is unknown, available: voxel, subject, none"),
    ],
)
def test_bad_settings(path, options, message):
    """Unknown names list what there is."""
    with pytest.raises(InputError, match=message):
        load_npz(path, **options)


def test_a_file_that_names_no_subject_is_taken_whole(arrays, tmp_path):
    """Whatever subject the settings of another experiment choose."""
    np.savez(tmp_path / "own.npz", **{name: array for name, array in arrays.items() if name != "subject"})
    train = load_npz(tmp_path / "own.npz", subjects=["sbj_3"]).train
    assert len(train.fmri) == 8
    assert set(train.subject) == {"own"} == set(train.formats)  # no name of another experiment's subject


def test_broken_or_missing_file(path, tmp_path):
    """A truncated file, and none."""
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="own.npz: no readable .npz file"):
        load_npz(path)
    with pytest.raises(InputError, match="no such file"):
        load_npz(tmp_path / "none.npz")


def test_nothing_is_written_when_a_check_fails(arrays, path):
    """The file that was there stays, and no part of a new one is left."""
    before = path.read_bytes()
    with pytest.raises(InputError, match="NaN"):
        save_npz(path, arrays["fmri"] * np.nan, arrays["images"], arrays["split"], stimulus=arrays["stimulus"])
    assert path.read_bytes() == before
    with pytest.raises(InputError, match="cannot be written"):
        save_npz(path / "x.npz", arrays["fmri"][:7], arrays["images"], arrays["split"][:7])
    assert [entry.name for entry in path.parent.iterdir()] == ["own.npz"]


def test_several_regions(arrays, path):
    """Voxels in any of the regions, in the order of the file."""
    train = load_npz(path, roi=["V4", "V1"], patch_size=4, scale="none").train
    assert np.allclose(train.fmri[0, :11], arrays["fmri"][0, [0, 1, 2, 3, 4, 5, 15, 16, 17, 18, 19]], atol=1e-6)


def test_labels_as_other_programs_write_them(arrays, path, tmp_path):
    """Bytes, blanks, capitals, whole numbers kept as floats: the same data."""
    splits = np.array([f" {name.title()} " for name in arrays["split"]])
    names = np.char.encode(arrays["subject"], "utf-8")
    stimulus = arrays["stimulus"].astype(np.float64)
    np.savez(tmp_path / "b.npz", **arrays | {"split": splits, "subject": names, "stimulus": stimulus})
    again = load_npz(tmp_path / "b.npz", "anna")
    assert np.array_equal(again.train.fmri, load_npz(path, "anna").train.fmri)
    assert again.train.subject.tolist() == ["anna"] * 4


def test_narrow_and_offset_rows_are_scaled_in_float64(arrays, tmp_path):
    """float16 rows, and float32 rows whose level is a million times their deviation."""
    rng = np.random.default_rng(0)
    for fmri in ((1e4 + 300 * rng.normal(size=(22, 20))).astype(np.float16), 1e6 + rng.normal(size=(22, 20))):
        np.savez(tmp_path / "b.npz", **arrays | {"fmri": fmri})
        train = load_npz(tmp_path / "b.npz").train.fmri
        assert abs(train.mean()) < 0.05 and abs(train.std() - 1) < 0.05


def test_a_subject_without_training_rows_cannot_be_scaled(arrays, tmp_path):
    """Its own test rows are no substitute."""
    split = np.where((arrays["subject"] == "ben") & (arrays["split"] == "train"), "test", arrays["split"])
    np.savez(tmp_path / "b.npz", **arrays | {"split": split})
    with pytest.raises(InputError, match="subject 'ben' has no training row to scale by"):
        load_npz(tmp_path / "b.npz")


def test_earlier_runs_keep_one_mean_and_deviation():
    """Data settings from before `scale`; new ones say it themselves."""
    assert saved_data({"name": "npz", "root": "x.npz"}).scale == "subject"
    assert saved_data({"name": "npz", "root": "x.npz", "scale": "voxel"}).scale == "voxel"
    assert saved_data({"name": "god"}) == DataConfig(name="god")


def test_pictures_take_the_size_of_the_ldm(path, caplog):
    """64 pixels for the demo's model; that 8 are enlarged to it is said."""
    config = FinetuneLDMConfig(data=DataConfig(name="npz", root=str(path)), image_size=image_side("demo"))
    train, _, _ = open_stage_b(config, 16)
    assert train.stimuli.shape[1:3] == (64, 64)
    assert "pictures of 8 pixels, enlarged to 64" in caplog.text


def test_a_value_that_leaves_little_of_the_others_is_named(arrays, tmp_path, caplog):
    """Under one mean and deviation a subject; 1e20 under any scaling."""
    fmri = np.random.default_rng(0).standard_normal((22, 20)).astype(np.float32)
    fmri[np.flatnonzero(arrays["split"] == "train")[0], 3] = 1e6
    np.savez(tmp_path / "b.npz", **arrays | {"fmri": fmri})
    load_npz(tmp_path / "b.npz")
    assert not caplog.records
    load_npz(tmp_path / "b.npz", scale="subject")
    assert "has a value of 1e+06, half of them lie between" in caplog.text
    fmri[-1, 0] = 1e20
    np.savez(tmp_path / "b.npz", **arrays | {"fmri": fmri})
    load_npz(tmp_path / "b.npz")
    assert "b.npz: array 'fmri' has a value of 1e+20 in size, which no measurement comes near" in caplog.text

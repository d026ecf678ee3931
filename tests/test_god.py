"""GOD in the published layout: agreement with the published loader, settings, and every kind of bad file."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from mindvis.common.errors import InputError
from mindvis.data import load_god

ROOT = Path(__file__).parent / "golden" / "raw" / "Kamitani" / "npz"


@pytest.fixture
def folder(tmp_path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(ROOT, tmp_path / "npz", copy_function=shutil.copyfile))


def rewrite(folder: Path, name: str = "sbj_3.npz", **changes) -> None:
    """Replace arrays of a file; None removes one."""
    arrays = dict(np.load(folder / name)) | changes
    np.savez(folder / name, **{key: value for key, value in arrays.items() if value is not None})


@pytest.mark.parametrize(("name", "subjects"), [("god_one_subject", "sbj_3"), ("god_two_subjects", ["sbj_1", "sbj_3"])])
def test_parity(golden, name, subjects):
    """fMRI, images, classes and their names are those of the published loader, single trials included."""
    file = golden(name)
    train, test = load_god(ROOT, subjects)
    _, single = load_god(ROOT, subjects, include_single_trials=True)
    for ours, key in ((train, "train_fmri"), (test, "test_fmri"), (single, "test_fmri_nonavg")):
        assert ours.fmri.dtype == np.float32
        assert np.abs(ours.fmri - file[f"out/{key}"]).max() < 1e-6
    for ours, split in ((train, "train"), (test, "test")):
        assert np.array_equal(ours.images, file[f"out/{split}_image"])
        assert ours.class_ids == file[f"out/{split}_class"].tolist()
        assert ours.class_names == file[f"out/{split}_class_name"].tolist()


def test_single_trials_are_paired_with_their_own_images():
    """Averages first, then the five trials of each image, each with the right picture and class."""
    _, test = load_god(ROOT, "sbj_3", include_single_trials=True)
    stimulus = [*range(6), *np.repeat(range(6), 5)]
    assert test.stimulus.tolist() == stimulus
    assert test.repeat.tolist() == [0] * 6 + [1, 2, 3, 4, 5] * 6
    assert np.array_equal(test.images, np.load(ROOT / "images_256.npz")["test_images"][stimulus])
    assert [test.class_ids[i] for i in range(6, 36, 5)] == test.class_ids[:6]


def test_subjects_are_named_and_all_when_none_is_chosen():
    """Rows know their subject; no choice means every file there is."""
    train, test = load_god(ROOT)
    assert train.subject.tolist() == ["sbj_1"] * 24 + ["sbj_3"] * 24
    assert test.subject.tolist() == ["sbj_1"] * 6 + ["sbj_3"] * 6


def test_regions():
    """Another region selects its voxels; masks of the regions cover the voxels and none of the padding."""
    raw = np.load(ROOT / "sbj_3.npz")
    train, test = load_god(ROOT, "sbj_3", roi="V1")
    num_voxels = raw["V1"].sum()
    assert np.allclose(test.fmri[:, :num_voxels], raw["arr_2"][:, raw["V1"]])
    whole, _ = load_god(ROOT, "sbj_3")
    assert whole.roi_masks["VC"].sum() == 48 and not whole.roi_masks["VC"][48:].any()
    within = whole.roi_masks["V1"].nonzero()[0]
    assert np.allclose(np.corrcoef(whole.fmri[:, within[0]], raw["arr_0"][:, raw["V1"]][:, 0])[0, 1], 1)


def test_test_rows_can_be_scaled_by_the_training_moments():
    """scale_test="train": both splits go through the same shift and scale."""
    _, released = load_god(ROOT, "sbj_3")
    _, scaled = load_god(ROOT, "sbj_3", scale_test="train")
    raw = np.load(ROOT / "sbj_3.npz")
    padded = np.pad(raw["arr_0"][:, raw["VC"]], [(0, 0), (0, 16)], mode="wrap")
    assert np.allclose(scaled.fmri, (released.fmri - padded.mean()) / padded.std(), atol=1e-6)


def test_subjects_of_unequal_length(folder):
    """Wrapped to the longest, filled with zeros, or cut to the shortest."""
    voxels = np.arange(80) < 30
    rewrite(folder, VC=voxels, V1=voxels)
    wrapped, _ = load_god(folder)
    assert wrapped.fmri.shape == (48, 64)
    assert np.array_equal(wrapped.fmri[24:, 32:], wrapped.fmri[24:, :32])
    zeros, _ = load_god(folder, pad_mode="constant")
    assert not zeros.fmri[24:, 32:].any()
    cut, _ = load_god(folder, pad_mode="cut")
    assert cut.fmri.shape == (48, 16)


def test_image_indices_kept_as_floats(folder):
    """Files made elsewhere keep arr_3 as float64: whole numbers are taken."""
    rewrite(folder, arr_3=np.load(folder / "sbj_3.npz")["arr_3"].astype(np.float64))
    assert load_god(folder, "sbj_3")[0].class_ids == load_god(ROOT, "sbj_3")[0].class_ids


ARRAY = np.load(ROOT / "sbj_3.npz")["arr_0"]
FAULTS = {
    "missing array": ({"arr_2": None}, "no array 'arr_2', has arr_0, arr_1"),
    "NaN": ({"arr_0": np.where(np.arange(80) == 7, np.nan, ARRAY)}, "'arr_0' has 24 NaN or infinite of 1920"),
    "text": ({"arr_0": ARRAY.astype(str)}, "needs real numbers"),
    "objects": ({"arr_2": ARRAY[:6].astype(object)}, "holds Python objects"),
    "scalar": ({"arr_0": np.float64(1)}, "float64 .., needs real numbers .n v."),
    "one dimension": ({"arr_2": ARRAY[0]}, "needs real numbers .m v., none of them empty"),
    "constant": ({"arr_0": np.ones_like(ARRAY)}, "sbj_3.*constant"),
    "voxels": ({"arr_2": ARRAY[:6, :70]}, "'arr_2' is float64 .6, 70., needs .* v = 80 as in arr_0"),
    "averages": (
        {"arr_2": ARRAY[:5]},
        "'arr_2' is float64 .5, 80., needs .* m = 6 as in test_images",
    ),
    "trials": ({"arr_1": np.tile(ARRAY, (2, 1))[:31]}, "has 31 rows, needs a multiple of 6"),
    "too few indices": ({"arr_3": np.arange(20)}, "'arr_3' is int64 .20., needs indices .n. with n = 24 as in arr_0"),
    "index out of range": ({"arr_3": np.arange(1, 25)}, "spans 1 .. 24, needs indices in 0 .. 23"),
    "broken indices": ({"arr_3": np.arange(24) + 0.5}, "no whole numbers"),
    "empty ROI": ({"VC": np.zeros(80, bool)}, "'VC' selects none of 80 voxels"),
    "short ROI": ({"VC": np.ones(79, bool)}, "'VC' is bool .79., needs a boolean .v. with v = 80 as in arr_0"),
    "no ROI": ({"VC": None}, "ROI 'VC' is unknown, available: V1"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_arrays(folder, fault):
    """One line that names the file, the array, what was found and what is needed."""
    changes, message = FAULTS[fault]
    rewrite(folder, **changes)
    with pytest.raises(InputError, match=message) as caught:
        load_god(folder, "sbj_3", include_single_trials=True)
    assert "sbj_3" in str(caught.value) and "\n" not in str(caught.value)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_bytes(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[2000:2400] = bytes(400)
    path.write_bytes(content)


BREAKS = {
    "no images": (lambda f: (f / "images_256.npz").unlink(), "images_256.npz: no such file"),
    "no subject": (lambda f: (f / "sbj_3.npz").unlink(), "subject 'sbj_3' is unknown, available: sbj_1"),
    "truncated": (lambda f: truncate(f / "sbj_3.npz"), "sbj_3.npz: no readable .npz"),
    "damaged": (lambda f: flip_bytes(f / "sbj_3.npz"), "sbj_3.npz: array .* cannot be read"),
    "not an npz": (lambda f: (f / "sbj_3.npz").write_text("hello"), "sbj_3.npz: no readable .npz"),
    "no labels": (lambda f: (f / "imagenet_testing_label.csv").unlink(), "imagenet_testing_label.csv: no such file"),
    "labels": (lambda f: (f / "imagenet_testing_label.csv").write_text("10000004.1,1\n"), "has 1 rows, test_images"),
    "label text": (lambda f: (f / "imagenet_testing_label.csv").write_text("cat,1\n"), "row 1 begins with 'cat'"),
    "unknown class": (lambda f: (f / "imagenet_testing_label.csv").write_text("77.1,1\n"), "row 1 names n00000077"),
    "no index": (lambda f: (f / "imagenet_class_index.json").unlink(), "imagenet_class_index.json: no such file"),
    "index": (
        lambda f: (f / "imagenet_class_index.json").write_text("[1, 2"),
        "class_index.json: not readable as JSON",
    ),
    "index kind": (lambda f: (f / "imagenet_class_index.json").write_text(json.dumps([1, 2])), "no class index"),
    "float images": (
        lambda f: rewrite(f, "images_256.npz", test_images=np.zeros((6, 32, 32, 3))),
        "'test_images' is float64",
    ),
    "image count": (
        lambda f: rewrite(f, "images_256.npz", train_images=np.zeros((20, 32, 32, 3), np.uint8)),
        "imagenet_training_label.csv has 24 rows, train_images .* has 20",
    ),
}


@pytest.mark.parametrize("fault", BREAKS)
def test_bad_files(folder, fault):
    """Missing, broken and disagreeing files."""
    break_it, message = BREAKS[fault]
    break_it(folder)
    with pytest.raises(InputError, match=message) as caught:
        load_god(folder, "sbj_3")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"subjects": "sbj_9"}, "'sbj_9' is unknown, available: sbj_1, sbj_3"),
        ({"subjects": "sbj_3", "roi": "V9"}, "ROI 'V9' is unknown, available: VC, V1"),
        ({"subjects": "sbj_3", "scale_test": "test"}, "scale_test 'test' is unknown, available: none, train"),
        ({"subjects": "sbj_3", "pad_mode": "mirror"}, "pad_mode is 'mirror'"),
        ({"subjects": "sbj_3", "patch_size": 0}, "patch_size is 0"),
    ],
)
def test_bad_settings(options, message):
    """Unknown names list what there is."""
    with pytest.raises(InputError, match=message):
        load_god(ROOT, **options)


def test_missing_folder(tmp_path):
    """The folder is named, with what it should hold."""
    with pytest.raises(InputError, match="nowhere: no such folder, needs the GOD files"):
        load_god(tmp_path / "nowhere", "sbj_3")
    with pytest.raises(InputError, match="no subject's files"):
        load_god(tmp_path)


def test_narrow_rows_are_scaled_like_wide_ones(folder, caplog):
    """float16 rows, z-scored or of the scanner's level, have mean 0 and deviation 1."""
    raw = dict(np.load(folder / "sbj_3.npz"))
    for level, spread in ((0, 1), (10_000, 300)):
        rows = {name: (level + spread * raw[name]).astype(np.float16) for name in ("arr_0", "arr_1", "arr_2")}
        rewrite(folder, **rows)
        fmri = load_god(folder, "sbj_3")[0].fmri
        assert abs(fmri.mean()) < 1e-3 and abs(fmri.std() - 1) < 1e-3
    assert "scaling leaves little" not in caplog.text


def test_a_value_far_from_all_others_is_named(folder, caplog):
    """One value of 1e20 leaves little of the others: they are scaled as float64 says, and the log names it."""
    rows = np.load(folder / "sbj_3.npz")["arr_0"].astype(np.float32)
    rows[0, 0] = 1e20
    rewrite(folder, arr_0=rows)
    fmri = load_god(folder, "sbj_3")[0].fmri
    assert np.isfinite(fmri).all() and fmri.any()
    assert "sbj_3.npz: array 'arr_0' has a value of 1e+20" in caplog.text


def test_several_regions_and_all(folder):
    """Voxels in any of the regions, each once, in the order of the file; "all" takes those in no region too."""
    overlap = np.arange(80) % 3 == 0
    rewrite(folder, V9=overlap)
    raw = np.load(folder / "sbj_3.npz")
    either = raw["V1"] | overlap
    _, test = load_god(folder, "sbj_3", roi=["V9", "V1"], patch_size=4)
    assert np.allclose(test.fmri[:, : either.sum()], raw["arr_2"][:, either])
    assert test.roi_masks["V9"].sum() == overlap.sum()
    _, test = load_god(folder, "sbj_3", roi="all")
    assert np.allclose(test.fmri[:, :80], raw["arr_2"])
    for roi, message in (([], "needs a region"), (["V1", "V1"], "every region once"), (["V1", "V8"], "ROI 'V8'")):
        with pytest.raises(InputError, match=message):
            load_god(folder, "sbj_3", roi=roi)


def test_copies_beside_the_data_are_no_subjects(folder, caplog):
    """What browsers and file managers leave is passed over with a word, linked files count."""
    for name in ("sbj_3 (1).npz", "sbj_3 - Copy.npz", "sbj_9 (1).npz", "._sbj_3.npz"):
        shutil.copy(folder / "sbj_3.npz", folder / name)
    (folder / "sbj_4.npz").symlink_to(folder / "sbj_3.npz")
    with caplog.at_level("INFO"):
        train, _ = load_god(folder)
    assert sorted(set(train.subject)) == ["sbj_1", "sbj_3", "sbj_4"]
    assert "passed over 2: copies of what is beside them" in caplog.text
    assert "not called sbj_<number>.npz (sbj_9 (1).npz)" in caplog.text


def test_label_tables_saved_again(folder):
    """A byte-order mark, semicolons and zeros that a spreadsheet dropped change nothing."""
    before = load_god(folder, "sbj_3")[0].class_ids
    path = folder / "imagenet_training_label.csv"
    rows = [line.split(",") for line in path.read_text().splitlines()]
    path.write_text("\ufeff" + "".join(f"{float(row[0])};x\r\n" for row in rows), newline="")
    assert load_god(folder, "sbj_3")[0].class_ids == before


def test_test_rows_of_another_scale_are_named(folder, caplog):
    """Left as they are, as released ones are z-scored already; that these are not is said."""
    load_god(folder, "sbj_3")
    assert "no z-scores" not in caplog.text
    rewrite(folder, arr_2=500 + np.load(folder / "sbj_3.npz")["arr_2"])
    load_god(folder, "sbj_3")
    assert "they are no z-scores; data.scale_test=train scales them" in caplog.text
    caplog.clear()
    load_god(folder, "sbj_3", scale_test="train")
    assert not caplog.records


def test_an_absurd_value_of_a_test_row_is_named(folder, caplog):
    """It does not change how the others are scaled, and still is no measurement."""
    rows = np.load(folder / "sbj_3.npz")["arr_2"].astype(np.float32)
    rows[0, 0] = -1e20
    rewrite(folder, arr_2=rows)
    load_god(folder, "sbj_3")
    assert "sbj_3.npz: array 'arr_2' has a value of 1e+20 in size, which no measurement comes near" in caplog.text


def test_files_called_in_capitals_are_named(folder, caplog):
    """They are no subjects, whatever the file system makes of them."""
    (folder / "SBJ_9.NPZ").write_bytes(b"x")
    with caplog.at_level("INFO"):
        assert "SBJ_9" not in load_god(folder)[0].subject
    assert "passed over 1: not called sbj_<number>.npz (SBJ_9.NPZ)" in caplog.text

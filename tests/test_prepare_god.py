"""scripts/prepare_god.py on bdpy HDF5, MATLAB v7.3 and picture files."""

import json
import shutil

import h5py
import numpy as np
import pytest
from god_files import (
    REPEATS,
    TEST_IDS,
    TRAIN_IDS,
    VOXELS,
    columns,
    main,
    make_rows,
    make_study,
    run,
    save_picture,
    write_bdpy,
    write_matlab,
    written,
)
from PIL import Image

from mindvis.common.errors import InputError
from mindvis.data.god import load_god, load_god_imagery


@pytest.fixture
def study(tmp_path, rng):
    return make_study(tmp_path, rng)


def by_hand(rows):
    """Training rows and test averages in image order, each voxel scaled by its training rows, with plain loops."""
    fmri, kind, _, stimuli = rows
    train = fmri[kind == 1]
    scaled = (fmri - train.mean(0)) / train.std(0)
    order = [next(i for i in range(6) if stimuli[i] == name) for name in TRAIN_IDS]
    single = [[i for i in range(len(kind)) if kind[i] == 2 and stimuli[i] == name] for name in TEST_IDS]
    return scaled[order], scaled[np.concatenate(single)], np.stack([scaled[rows].mean(0) for rows in single])


def test_rows_in_image_order_with_their_stimulus(study, rng):
    """arr_0..arr_4 against plain loops; the stimulus id beside each row proves its order."""
    rows = make_rows(np.random.default_rng(5))
    write_bdpy(study / "fmri" / "Subject3.h5", rows, columns())
    assert run(study) == 0
    arrays = written(study)
    for name, expected in zip(("arr_0", "arr_1", "arr_2"), by_hand(rows), strict=True):
        assert arrays[name].dtype == np.float32
        np.testing.assert_allclose(arrays[name], expected, atol=1e-5)
    assert arrays["arr_3"].tolist() == list(range(6))
    assert arrays["train_stimuli"].tolist() == TRAIN_IDS
    assert arrays["average_stimuli"].tolist() == TEST_IDS
    assert arrays["test_stimuli"].tolist() == [name for name in TEST_IDS for _ in range(REPEATS)]
    assert arrays["arr_4"].tolist() == [i for i in range(3) for _ in range(REPEATS)]
    assert arrays["VC"].sum() == 8
    assert arrays["V1"].tolist() == [True] * 3 + [False] * 9


@pytest.mark.parametrize("struct_array", [False, True])
def test_matlab_form_gives_the_same_file(study, rng, struct_array):
    """A v7.3 file, metaData as a struct or as a struct array, is read as its bdpy twin."""
    rows = make_rows(rng)
    write_bdpy(study / "fmri" / "Subject3.h5", rows, columns())
    write_matlab(study / "fmri" / "Subject4.mat", rows, columns(), struct_array)
    assert run(study) == 0
    one, other = written(study), written(study, "sbj_4.npz")
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name])


def test_the_loader_reads_what_was_prepared(study):
    """load_god pairs each row with the picture of its stimulus."""
    assert run(study) == 0
    train, test = load_god(study / "out", "sbj_3", patch_size=4)
    pictures, arrays = written(study, "images_256.npz"), written(study)
    assert train.fmri.shape == (6, 12)
    np.testing.assert_array_equal(test.fmri[:, :8], arrays["arr_2"][:, :8])
    np.testing.assert_array_equal(np.asarray(train.images[4]), pictures["train_images"][4])
    assert test.class_ids[0] == 1


def test_pictures_are_cut_at_the_centre_and_rgb(study, rng):
    """The shorter side becomes the whole side; grey, palette and transparent pictures become RGB."""
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = (200, 100, 50)
    Image.fromarray(wide).save(study / "images" / "training" / "n01518878_5958.JPEG", format="PNG")
    for name, mode in (("n01518878_10042", "L"), ("n01639765_32", "P"), ("n01639765_52902", "RGBA")):
        save_picture(study / "images" / "training" / f"{name}.JPEG", rng, mode=mode)
    assert run(study) == 0
    pictures = written(study, "images_256.npz")["train_images"]
    assert pictures.dtype == np.uint8
    assert pictures.shape == (6, 16, 16, 3)
    inside = pictures[0, :, 4:-4].astype(int)  # the filter reaches over the cut
    assert np.abs(inside - (200, 100, 50)).max() <= 3
    assert (pictures[1] == pictures[1][..., :1]).all()


def test_label_tables_set_the_order(study):
    """Given tables, their order is that of rows and pictures."""
    (study / "labels").mkdir()
    order = TRAIN_IDS[::-1]
    (study / "labels" / "imagenet_training_label.csv").write_text("".join(f"{name},1\n" for name in order))
    (study / "labels" / "imagenet_testing_label.csv").write_text("".join(f"{name},1\n" for name in TEST_IDS))
    assert run(study) == 0
    sorted_pictures = written(study, "images_256.npz")["train_images"]
    assert run(study, "--labels", str(study / "labels")) == 0
    np.testing.assert_array_equal(written(study, "images_256.npz")["train_images"], sorted_pictures[::-1])
    assert written(study)["train_stimuli"].tolist() == order


def test_class_index_is_extended(study):
    """Known classes stay, --same-as joins one to a known class, the rest are numbered from 1000 on."""
    (study / "same.csv").write_text("n01639765,1\n")
    assert run(study, "--same-as", str(study / "same.csv")) == 0
    index = json.loads((study / "out" / "imagenet_class_index.json").read_text())
    assert index["0"] == ["n01518878", "ostrich"]
    assert index["1"] == ["n01443537", "n01639765", "goldfish"]
    assert [index[str(i)][0] for i in (1000, 1001, 1002)] == ["n01621127", "n01677366", "n02084071"]


@pytest.mark.parametrize("scaling", ["run", "none"])
def test_other_scalings(study, rng, scaling):
    """By run: every run has mean 0 and deviation 1 in each voxel; none: the responses as they were."""
    rows = make_rows(rng)
    write_bdpy(study / "fmri" / "Subject3.h5", rows, columns())
    assert run(study, "--scaling", scaling) == 0
    single = written(study)["arr_1"].reshape(3, REPEATS, VOXELS)
    if scaling == "run":
        np.testing.assert_allclose(single.mean(axis=0), 0, atol=1e-5)
        np.testing.assert_allclose(single.std(axis=0), 1, atol=1e-4)
        return
    raw = [rows[0][6 + i] for i in range(12) if rows[3][6 + i] == TEST_IDS[0]]
    np.testing.assert_allclose(single[0], raw, rtol=1e-6)


@pytest.mark.parametrize(("policy", "voxels", "vc"), [("zero", 12, 8), ("drop", 10, 6)])
def test_constant_and_nan_voxels(study, rng, policy, voxels, vc):
    """Bad voxels become zero or leave arrays and masks alike."""
    rows = make_rows(rng)
    rows[0][:, 0], rows[0][4, 5] = 3, np.nan
    write_bdpy(study / "fmri" / "Subject3.h5", rows, columns())
    assert run(study, "--bad-voxels", policy) == 0
    arrays = written(study)
    assert arrays["arr_1"].shape == (12, voxels)
    assert arrays["VC"].sum() == vc
    assert np.isfinite(arrays["arr_0"]).all()


def test_fmri_alone_uses_the_tables_that_are_there(study):
    """The halves can be run apart, and give the same files as together."""
    assert run(study) == 0
    whole = written(study)
    shutil.copytree(study / "out", study / "apart", ignore=lambda *_: ["sbj_3.npz"])
    assert main(["--fmri", str(study / "fmri"), "--out", str(study / "apart")]) == 0
    with np.load(study / "apart" / "sbj_3.npz") as arrays:
        np.testing.assert_array_equal(arrays["arr_0"], whole["arr_0"])


def test_other_peoples_files_are_passed_over_with_a_word(study, capsys):
    """Features, the same subject as .mat, hidden files, notes and copies beside subjects and pictures."""
    with h5py.File(study / "fmri" / "ImageFeatures_vgg19.h5", "w") as file:
        file["cnn1"] = np.zeros(3)
    write_matlab(study / "fmri" / "Subject3.mat", make_rows(np.random.default_rng(1)), columns())
    shutil.copy(study / "fmri" / "Subject3.h5", study / "fmri" / "Subject3 (1).h5")
    (study / "fmri" / "._Subject3.h5").write_bytes(b"\0\5\26\7")
    (study / "images" / "test" / "notes.txt").write_text("")
    assert run(study) == 0
    out = capsys.readouterr().out
    assert "found 1 subjects" in out
    for words in (
        "hidden (._Subject3.h5)",
        "copies of what is beside them (Subject3 (1).h5)",
        "no fMRI (BData) in it (ImageFeatures_vgg19.h5)",
        "the same subject as a .h5 file (Subject3.mat)",
        "no picture (notes.txt)",
    ):
        assert f"passed over 1: {words}" in out


def test_pictures_behind_a_link_are_found(study, tmp_path):
    """The folder of training pictures may lie on another disk."""
    assert run(study) == 0
    before = written(study, "images_256.npz")["train_images"]
    (study / "images" / "training").rename(tmp_path / "elsewhere")
    (study / "images" / "training").symlink_to(tmp_path / "elsewhere")
    assert run(study) == 0
    assert np.array_equal(written(study, "images_256.npz")["train_images"], before)


def test_rows_without_a_picture_may_hold_anything(study, rng):
    """Imagery rows whose label and run are NaN refuse no file."""
    fmri, kind, runs, stimuli = make_rows(rng)
    unused = kind == 3
    fmri[unused] = np.nan
    stimuli = [np.nan if skip else name for skip, name in zip(unused, stimuli, strict=True)]
    write_bdpy(study / "fmri" / "Subject3.h5", (fmri, kind, np.where(unused, np.nan, runs), stimuli), columns())
    assert run(study, "--scaling", "run") == 0


def test_label_tables_saved_by_a_spreadsheet(study, tmp_path):
    """Dropped zeros, a byte-order mark and semicolons: the same order."""
    for name, ids in (("imagenet_training_label.csv", TRAIN_IDS[::-1]), ("imagenet_testing_label.csv", TEST_IDS)):
        text = "\ufeff" + "".join(f"{float(i)};x\r\n" for i in ids)
        (tmp_path / name).write_text(text, newline="")
    assert run(study, "--labels", str(tmp_path)) == 0
    assert written(study)["train_stimuli"].tolist() == TRAIN_IDS[::-1]


def test_rows_of_imagery_are_kept_with_their_category(study, capsys):
    """Scaled as the pictures' rows are, in time, beside the test image of the category that was imagined."""
    fmri, kind, number, stimuli = make_rows(np.random.default_rng(5))
    fmri, kind = np.vstack([fmri, fmri[-2:] + 1]), np.append(kind, [3, 3])
    number, stimuli = np.append(number, [9, 9]), [*stimuli, TEST_IDS[0], "1677366.000009"]
    write_bdpy(study / "fmri" / "Subject3.h5", (fmri, kind, number, stimuli), columns())
    assert run(study) == 0
    arrays = written(study)
    assert arrays["imagery_images"].tolist() == [0, 1, 0, 2]  # the last one is of the class of the third test image
    assert arrays["imagery_stimuli"].tolist() == [*TEST_IDS[:2], TEST_IDS[0], "1677366.000009"]
    train = fmri[kind == 1]
    np.testing.assert_allclose(arrays["imagery"], (fmri[-4:] - train.mean(0)) / train.std(0), atol=1e-5)
    assert "4 rows of imagery of 3 categories" in capsys.readouterr().out
    found = load_god_imagery(study / "out", "sbj_3", patch_size=4, include_single_trials=True)
    test = load_god(study / "out", "sbj_3", patch_size=4)[1]
    assert found.stimulus.tolist() == [0, 1, 2, 0, 0, 1, 2] and found.repeat.tolist() == [0, 0, 0, 1, 2, 1, 1]
    assert found.class_ids[:3] == test.class_ids and found.fmri.shape == (7, 12)
    np.testing.assert_allclose(found.fmri[0], found.fmri[3:5].mean(axis=0), atol=1e-6)


@pytest.mark.parametrize("fault", ["nan", "absurd", "category"])
def test_imagery_of_no_use_is_left_out_with_the_reason(study, capsys, fault):
    """The rows of pictures are written all the same."""
    fmri, kind, number, stimuli = make_rows(np.random.default_rng(5))
    if fault != "category":
        fmri[-1, 2] = {"nan": np.nan, "absurd": 1e20}[fault]
    else:
        stimuli[-1] = "9999999.000001"
    write_bdpy(study / "fmri" / "Subject3.h5", (fmri, kind, number, stimuli), columns())
    assert run(study) == 0 and "imagery" not in written(study)
    of_no_use = "rows of imagery hold NaN, infinity or values that no measurement comes near"
    reason = {"nan": of_no_use, "absurd": of_no_use, "category": "imagery of n09999999, no category"}
    assert f"imagery left out ({reason[fault]}" in capsys.readouterr().out
    with pytest.raises(InputError, match="no array 'imagery'"):
        load_god_imagery(study / "out", "sbj_3", patch_size=4)

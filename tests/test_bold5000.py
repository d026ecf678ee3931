"""BOLD5000 in the published layout: agreement with the published loader and every kind of bad file."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from mindvis.common.errors import InputError
from mindvis.data import load_bold5000
from mindvis.data.arrays import load_object_npy
from mindvis.data.bold5000 import PRESENTATIONS, REPEATED, RESPONSES, STIMULI

ROOT = Path(__file__).parent / "golden" / "raw" / "BOLD5000"
BETAS = "{}_GLMbetas-TYPED-FITHRF-GLMDENOISE-RR_allses_{}.npy"


@pytest.fixture
def folder(tmp_path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(ROOT, tmp_path / "BOLD5000", copy_function=shutil.copyfile))


def write_pair(folder: Path) -> dict[str, np.ndarray]:
    """Replace the pickled stimuli by the mapped pair of files."""
    pictures = load_object_npy(folder / STIMULI / "img_dict.npy")
    (folder / STIMULI / "img_dict.npy").unlink()
    np.save(folder / STIMULI / "img_dict_images.npy", np.stack(list(pictures.values())))
    (folder / STIMULI / "img_dict_names.json").write_text(json.dumps(list(pictures)))
    return pictures


@pytest.mark.parametrize("subject", ["CSI1", "CSI4"])
def test_parity(golden, subject):
    """fMRI and images of both splits are those of the published loader, single trials included."""
    file = golden(f"bold5000_{subject.lower()}")
    train, test = load_bold5000(ROOT, subject)
    _, single = load_bold5000(ROOT, [subject], include_single_trials=True)
    for ours, fmri, image in (
        (train, "train_fmri", "train_image"),
        (test, "test_fmri", "test_image"),
        (single, "test_fmri_nonavg", "test_image_nonavg"),
    ):
        assert np.abs(ours.fmri - file[f"out/{fmri}"]).max() < 1e-6
        assert np.array_equal(ours.images, file[f"out/{image}"])
        assert ours.class_ids is None


def test_repeats_are_counted_within_an_image():
    """Averages (0) first, then trials 1, 2, .. of each image; the mean of its trials is its average."""
    _, test = load_bold5000(ROOT, "CSI1", include_single_trials=True)
    for stimulus in range(7):
        rows = test.stimulus == stimulus
        assert test.repeat[rows].tolist() == list(range(rows.sum()))
        assert np.allclose(test.fmri[rows][0], test.fmri[rows][1:].mean(axis=0), atol=1e-6)


def test_subjects_share_stimulus_numbers():
    """CSI4, who never saw the first two repeated images, points at the same pictures as CSI1."""
    train, test = load_bold5000(ROOT)
    assert train.fmri.shape == (66, 64)
    assert test.stimulus.tolist() == [*range(7), *range(2, 7)]
    assert test.subject.tolist() == ["CSI1"] * 7 + ["CSI4"] * 5
    assert np.array_equal(test.images[2:7], test.images[7:])


def test_regions_join_both_hemispheres():
    """Masks of the five regions cover every voxel once and none of the padding."""
    train, _ = load_bold5000(ROOT, "CSI1")
    assert np.array_equal(sum(mask.astype(int) for mask in train.roi_masks.values()), np.arange(64) < 51)
    assert train.roi_masks["EarlyVis"][:19].all()


def test_mapped_pair_in_place_of_the_pickle(folder):
    """Images and names as two files give the same data, and the training images stay mapped."""
    plain_train, plain_test = load_bold5000(folder, "CSI1")
    write_pair(folder)
    train, test = load_bold5000(folder, "CSI1")
    assert isinstance(train.stimuli, np.memmap)
    assert np.array_equal(train.images, plain_train.images)
    assert np.array_equal(test.images, plain_test.images)
    assert np.array_equal(train.fmri, plain_train.fmri)
    assert np.array_equal(train[3]["image"], plain_train[3]["image"])


def break_beta(change):
    def apply(folder: Path) -> None:
        path = folder / RESPONSES / BETAS.format("CSI1", "RHLOC")
        np.save(path, change(np.load(path)))

    return apply


def break_pair(change):
    def apply(folder: Path) -> None:
        change(folder / STIMULI, write_pair(folder))

    return apply


def make_constant(folder: Path) -> None:
    for path in (folder / RESPONSES).glob("CSI1*"):
        np.save(path, np.zeros_like(np.load(path)))


def save_pictures(change):
    def apply(folder: Path) -> None:
        path = folder / STIMULI / "img_dict.npy"
        np.save(path, np.array(change(load_object_npy(path)), dtype=object), allow_pickle=True)

    return apply


def run_list(folder: Path) -> Path:
    return folder / PRESENTATIONS / "CSI1" / "CSI1_sess01" / "CSI1_sess01_run01.txt"


def without_first(pictures: dict) -> dict:
    return dict(list(pictures.items())[1:])


BREAKS = {
    "no response": (lambda f: (f / RESPONSES / BETAS.format("CSI1", "LHRSC")).unlink(), "LHRSC.npy: no such file"),
    "truncated": (
        lambda f: (f / RESPONSES / BETAS.format("CSI1", "LHRSC")).write_bytes(b"\x93NUMPY\x01\x00"),
        "LHRSC.npy: no readable .npy",
    ),
    "NaN": (break_beta(lambda b: np.where(b > 0, np.nan, b)), "RHLOC.npy has .* NaN or infinite"),
    "trials": (
        break_beta(lambda b: b[:-1]),
        "RHLOC.npy is float64 .57, 6., needs .* n = 58 as in the presentation",
    ),
    "dimensions": (break_beta(lambda b: b[0]), "RHLOC.npy is float64 .6., needs real numbers .n v."),
    "constant": (make_constant, "fMRI of CSI1 .* constant"),
    "complex": (break_beta(lambda b: b * 1j), "needs real numbers"),
    "no list": (lambda f: shutil.rmtree(f / PRESENTATIONS / "CSI1"), "CSI1: no such folder"),
    "empty list": (
        lambda f: shutil.rmtree(f / PRESENTATIONS / "CSI1" / "CSI1_sess02"),
        "n = 38 as in",
    ),
    "binary list": (lambda f: run_list(f).write_bytes(b"\xff\xfe\x80"), "run01.txt: no text in utf-16"),
    "no repeats": (lambda f: (f / REPEATED).unlink(), "repeated_stimuli_113_list.txt: no such file"),
    "other repeats": (
        lambda f: (f / REPEATED).write_text("x.jpg\n"),
        "1 images have no picture, 'x.jpg' first; they would be",
    ),
    "no stimuli": (lambda f: (f / STIMULI / "img_dict.npy").unlink(), "no img_dict_images.npy .* and no img_dict.npy"),
    "unseen name": (
        lambda f: run_list(f).write_text("a.jpg\n" * 10),
        "1 presented",
    ),
    "missing image": (
        save_pictures(without_first),
        "CSI1_sess01: 1 presented images have no picture, 'COCO",
    ),
    "float image": (
        save_pictures(lambda p: p | {"n.jpg": np.zeros((24, 24, 3))}),
        "'n.jpg' is float64",
    ),
    "text image": (save_pictures(lambda p: p | {"n.jpg": "pixels"}), "image 'n.jpg' is a str"),
    "sizes": (
        save_pictures(lambda p: p | {"n.jpg": np.zeros((9, 9, 3), np.uint8)}),
        "'n.jpg' is uint8 .9, 9, 3.,",
    ),
    "no repeated": (lambda f: (f / REPEATED).write_text("\n"), "names no image, needs those that were repeated"),
    "no dict": (save_pictures(lambda p: None), "needs a dict"),
    "no names": (break_pair(lambda f, p: (f / "img_dict_names.json").unlink()), "img_dict_names.json: no such file"),
    "names": (break_pair(lambda f, p: (f / "img_dict_names.json").write_text('["a"]')), "has 1 rows, img_dict_images"),
    "names kind": (break_pair(lambda f, p: (f / "img_dict_names.json").write_text("{}")), "needs a JSON list"),
}


@pytest.mark.parametrize("fault", BREAKS)
def test_bad_files(folder, fault):
    """One line that names the file, what was found and what is needed."""
    break_it, message = BREAKS[fault]
    break_it(folder)
    with pytest.raises(InputError, match=message) as caught:
        load_bold5000(folder, "CSI1")
    assert "\n" not in str(caught.value)


def test_unknown_subject_and_folder(tmp_path):
    """The subjects that are there are listed."""
    with pytest.raises(InputError, match="'CSI9' is unknown, available: CSI1, CSI4"):
        load_bold5000(ROOT, "CSI9")
    with pytest.raises(InputError, match="no such folder"):
        load_bold5000(tmp_path / "nowhere", "CSI1")


def test_lists_of_another_system(folder):
    """A byte-order mark, other line ends, blanks and another case: the same test set, no test picture in training."""
    train, test = load_bold5000(folder, "CSI1")
    repeated = (folder / REPEATED).read_text().split()
    (folder / REPEATED).write_bytes(("\ufeff" + "".join(f"{name.upper()} \r\n" for name in repeated)).encode())
    run_list(folder).write_text(run_list(folder).read_text().replace("\n", "\r"), newline="")
    again = load_bold5000(folder, "CSI1")
    assert np.array_equal(again[0].fmri, train.fmri)
    assert np.array_equal(again[1].fmri, test.fmri)


def test_other_peoples_files_are_no_runs(folder, caplog):
    """Notes, hidden files and copies beside the presentation lists and the responses are passed over with a word."""
    before = load_bold5000(folder, "CSI1")[0].fmri
    session = run_list(folder).parent
    (session / "notes.txt").write_text("slept badly\n")
    (session / "._CSI1_sess01_run01.txt").write_bytes(b"\0\5\26\7")
    shutil.copy(run_list(folder), session / "CSI1_sess01_run01 (1).txt")
    (folder / RESPONSES / ("._" + BETAS.format("CSI1", "LHEarlyVis"))).write_bytes(b"\0\5\26\7")
    with caplog.at_level("INFO"):
        assert np.array_equal(load_bold5000(folder, "CSI1")[0].fmri, before)
    for words in ("hidden", "copies of what is beside them", "no presentation list, which has the number of its run"):
        assert words in caplog.text


def test_some_regions():
    """Both hemispheres of the regions asked for; "all" is the default."""
    whole, _ = load_bold5000(ROOT, "CSI1")
    some, _ = load_bold5000(ROOT, "CSI1", roi=["PPA", "LOC"], patch_size=4)
    assert {name: mask.sum() for name, mask in some.roi_masks.items()} == {
        name: whole.roi_masks[name].sum() for name in ("LOC", "PPA")
    }
    assert np.array_equal(load_bold5000(ROOT, "CSI1", roi="all")[0].fmri, whole.fmri)
    with pytest.raises(InputError, match="ROI 'V1' is unknown, available: EarlyVis, LOC"):
        load_bold5000(ROOT, "CSI1", roi="V1")


def test_narrow_responses_are_scaled_like_wide_ones(folder):
    """float16 estimates keep mean 0 and deviation 1."""
    for path in (folder / RESPONSES).glob("CSI1*"):
        np.save(path, (1000 + 100 * np.load(path)).astype(np.float16))
    fmri = np.concatenate([part.fmri for part in load_bold5000(folder, "CSI1", include_single_trials=True)])
    assert 0.5 < fmri.std() < 1.5

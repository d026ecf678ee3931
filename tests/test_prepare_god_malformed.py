"""scripts/prepare_god.py on malformed fMRI, pictures, tables and settings."""

import shutil

import h5py
import numpy as np
import pytest
from god_files import columns, main, make_rows, make_study, run, write_bdpy
from PIL import Image
from script_runner import assert_one_line


@pytest.fixture
def study(tmp_path, rng):
    return make_study(tmp_path, rng)


# Malformed inputs: one clear line, exit status 2, no file of the part that failed, nothing half-written.


def edit(study, change):
    with h5py.File(study / "fmri" / "Subject3.h5", "a") as file:
        change(file)


def replace(name, make):
    def change(file):
        old = file[name][()]
        del file[name]
        file[name] = make(old)

    return change


def bomb(file):
    del file["dataset"]
    file.create_dataset("dataset", (10**7, 10**5), chunks=(1000, 1000), dtype="f8")


def no_key(name):
    def make(study):
        values = {key: row for key, row in columns().items() if key != name}
        write_bdpy(study / "fmri" / "Subject3.h5", make_rows(np.random.default_rng(0)), values)

    return make


def with_rows(change):
    def make(study):
        fmri, kind, run, stimuli = make_rows(np.random.default_rng(0))
        write_bdpy(study / "fmri" / "Subject3.h5", change(fmri, kind, run, stimuli), columns())

    return make


def subject(content):
    return lambda study: (study / "fmri" / "Subject3.h5").write_bytes(content)


def cut(study):
    path = study / "fmri" / "Subject3.h5"
    path.write_bytes(path.read_bytes()[:3000])


def drop(rows, index):
    fmri, kind, run, stimuli = rows
    kept = [i for i in range(len(kind)) if i != index]
    return fmri[kept], kind[kept], run[kept], [stimuli[i] for i in kept]


def only_imagery(fmri, kind, run, stimuli):
    return fmri, np.full_like(kind, 3), run, stimuli


def nan_type(fmri, kind, run, stimuli):
    return fmri, np.where(kind == 3, np.nan, kind), run, stimuli


def other_stimulus(fmri, kind, run, stimuli):
    return fmri, kind, run, ["9999999.000001", *stimuli[1:]]


BAD_FMRI = {
    "no_hdf5": (subject(b"MATLAB 5.0 MAT-file" + b"\0" * 600), "needs BData as HDF5 or MATLAB v7.3"),
    "empty_file": (subject(b""), "not readable"),
    "truncated": (cut, "Subject3.h5: not readable"),
    "no_dataset": (lambda s: edit(s, lambda f: f.pop("dataset")), "no dataset or dataSet; it has metadata"),
    "no_metadata": (lambda s: edit(s, lambda f: f.pop("metadata")), "no metadata or metaData"),
    "no_values": (lambda s: edit(s, lambda f: f.pop("metadata/value")), "has no 'value'"),
    "text_matrix": (lambda s: edit(s, replace("dataset", lambda a: a.astype("S8"))), "needs numbers"),
    "swapped_axes": (lambda s: edit(s, replace("dataset", lambda a: a.T)), "needs [keys columns] and [rows columns]"),
    "three_axes": (lambda s: edit(s, replace("dataset", lambda a: a[None])), "needs [keys columns]"),
    "keys_cut": (lambda s: edit(s, replace("metadata/key", lambda a: a[:-1])), "for 5 keys"),
    "bomb": (lambda s: edit(s, bomb), "damaged or malicious"),
    "no_voxels": (no_key("VoxelData"), "no metadata key 'VoxelData'"),
    "no_vc": (no_key("ROI_VC"), "no voxel in ROI_VC"),
    "no_types": (no_key("DataType"), "no metadata key 'DataType'"),
    "no_stimuli": (no_key("stimulus_id"), "no metadata key 'stimulus_id'"),
    "only_imagery": (with_rows(only_imagery), "needs 1 (training) and 2 (test)"),
    "nan_type": (with_rows(nan_type), "column 'DataType' holds NaN"),
    "unknown_stimulus": (with_rows(other_stimulus), "stimulus 9999999.000001 (and 0 more rows) is not in"),
    "missing_training_row": (with_rows(lambda *rows: drop(rows, 0)), "show 5 images; needs all 6"),
    "missing_test_row": (with_rows(lambda *rows: drop(rows, 7)), "test images were shown 3 to 4 times"),
    "silent": (with_rows(lambda fmri, *rest: (np.ones_like(fmri), *rest)), "all 12 voxels are constant"),
    "no_number": (lambda s: (s / "fmri/Subject3.h5").rename(s / "fmri/Subject.h5"), "no subject number in its name"),
    "twice": (lambda s: shutil.copy(s / "fmri/Subject3.h5", s / "fmri/S3.h5"), "keep one of the two"),
    "no_files": (lambda s: (s / "fmri/Subject3.h5").unlink(), "no subject's file in it; needs .h5"),
}


@pytest.mark.parametrize("case", BAD_FMRI)
def test_malformed_fmri(study, capsys, case):
    """Each is one line that names the file and what is needed; no sbj file is left."""
    damage, message = BAD_FMRI[case]
    damage(study)
    assert run(study) == 2
    assert_one_line(capsys, message)
    left = {path.name for path in (study / "out").glob("*")}
    assert not [name for name in left if name.startswith(("sbj", "."))]


def picture(content, name="training/n01518878_5958.JPEG"):
    return lambda study: (study / "images" / name).write_bytes(content)


def cut_picture(study):
    path = study / "images" / "training" / "n01518878_5958.JPEG"
    path.write_bytes(path.read_bytes()[:200])


def deep_picture(study):
    path = study / "images" / "training" / "n01518878_5958.JPEG"
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(path, format="PNG")


def huge_picture(study):
    path = study / "images" / "training" / "n01518878_5958.JPEG"
    Image.new("1", (20000, 6000)).save(path, format="PNG")


def labels(text):
    return lambda study: (study / "images").joinpath("imagenet_training_label.csv").write_text(text)


BAD_STIMULI = {
    "corrupt": (picture(b"\xff\xd8\xff no picture"), "not a readable picture"),
    "truncated": (cut_picture, "not a readable picture"),
    "sixteen_bits": (deep_picture, "needs 8 bits a channel"),
    "huge": (huge_picture, "needs at most 100000000 in all"),
    "no_wnid": (picture(b"", "training/ostrich.JPEG"), "needs a name n<wnid>_<image>"),
    "twice": (picture(b"", "training/n01518878_05958.png"), "the same stimulus as"),
    "no_test": (lambda s: shutil.rmtree(s / "images" / "test"), "no such folder"),
    "no_pictures": (lambda s: [p.unlink() for p in (s / "images" / "test").iterdir()], "no pictures in it"),
    "index_cut": (lambda s: (s / "index.json").write_text('{"0": ["n01'), "not readable as JSON"),
    "index_list": (lambda s: (s / "index.json").write_text("[1, 2]"), "no class index"),
    "index_words": (lambda s: (s / "index.json").write_text('{"a": ["n01518878", "ostrich"]}'), "no class index"),
}


@pytest.mark.parametrize("case", BAD_STIMULI)
def test_malformed_stimuli(study, capsys, case):
    """Each is one line; nothing half-written."""
    damage, message = BAD_STIMULI[case]
    damage(study)
    assert run(study) == 2
    assert_one_line(capsys, message)
    assert not list(study.glob("out/.*"))


BAD_TABLES = {
    "header_line": ("id,class\n1518878.005958,1\n", "row 1 begins with 'id'"),
    "line_twice": ("1518878.005958,1\n1518878.005958,1\n", "needs each image once"),
    "too_short": ("1518878.005958,1\n", "6 pictures; needs the 1 of"),
    "other_image": ("1518878.000001,1\n", "1518878.000001 is missing"),
    "empty": ("", "0 lines"),
}


@pytest.mark.parametrize("case", BAD_TABLES)
def test_malformed_label_tables(study, capsys, case):
    """A table that is no table or not of these pictures is refused before anything is written."""
    text, message = BAD_TABLES[case]
    labels(text)(study)
    assert run(study, "--labels", str(study / "images")) == 2
    assert_one_line(capsys, message)
    assert not (study / "out").exists()


def test_same_as_must_name_a_class(study, capsys):
    """A number that the class index does not hold, and a line that is no pair."""
    for text, message in (("n01639765,7\n", "no class 7"), ("n01639765 1\n", "needs `<wnid>,<class number>`")):
        (study / "same.csv").write_text(text)
        assert run(study, "--same-as", str(study / "same.csv")) == 2
        assert_one_line(capsys, message)


def test_nothing_to_do_and_absent_subject(study, capsys):
    """Neither half named; a subject that is not there."""
    assert main(["--out", str(study / "out")]) == 2
    assert_one_line(capsys, "needs --fmri, --stimuli or both")
    assert run(study, "--subjects", "5") == 2
    assert_one_line(capsys, "no file of subject 5; it has [3]")


def test_numbers_too_short_for_stimulus_ids(study, capsys):
    """float32 cannot hold 1518878.005958: the line says so."""
    edit(study, replace("dataset", lambda a: a.astype(np.float32)))
    assert run(study) == 2
    assert_one_line(capsys, "the file keeps its numbers as float32, too short for stimulus ids")


def test_keys_of_the_string_class(study, capsys):
    """MATLAB's string objects cannot be read from HDF5: one line says what can."""
    (study / "fmri" / "Subject3.h5").unlink()
    with h5py.File(study / "fmri" / "Subject3.mat", "w") as file:
        file["dataSet"] = np.zeros((2, 3))
        file["metaData/value"] = np.zeros((2, 1))
        text = file.create_dataset("#refs#/a", data=np.array([[0xDD000000, 2, 1, 1, 1, 1]], np.uint32))
        key = file.create_dataset("metaData/key", (1, 1), dtype=h5py.ref_dtype)
        key[0, 0] = text.ref
        key.attrs["MATLAB_class"] = np.bytes_("cell")
    assert run(study) == 2
    assert_one_line(capsys, "metadata keys are MATLAB strings, needs char")

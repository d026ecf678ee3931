"""scripts/prepare_god.py on bdpy HDF5, MATLAB v7.3 and picture files, good and malformed."""

import json
import shutil

import h5py
import numpy as np
import pytest
from PIL import Image
from test_prepare_hcp import assert_one_line, script

from mindvis.data.god import load_god

main = script("prepare_god")

TRAIN_IDS = ["1518878.005958", "1518878.010042", "1639765.000032", "1639765.052902", "2084071.000007", "2084071.000102"]
TEST_IDS = ["1443537.022563", "1621127.019020", "1677366.018182"]
REPEATS, VOXELS = 4, 12


def make_rows(rng):
    """Rows in the order of an experiment: [rows voxels], DataType, Run, stimulus of each row."""
    train = list(rng.permutation(TRAIN_IDS))
    test = [name for _ in range(REPEATS) for name in rng.permutation(TEST_IDS)]
    kind = np.repeat([1, 2, 3], [len(train), len(test), 2])
    run = np.concatenate([np.repeat([1, 2], 3), np.repeat(np.arange(REPEATS), len(TEST_IDS)), [9, 9]])
    stimuli = train + test + TEST_IDS[:2]
    return 100 + 5 * rng.standard_normal((len(kind), VOXELS)), kind, run, stimuli


def columns():
    """Metadata keys and their values [keys columns]; NaN marks a column that a key is not about."""
    vc = [1] * 8 + [0] * (VOXELS - 8)
    v1 = [1] * 3 + [0] * (VOXELS - 3)
    rest = [np.nan] * 3
    values = {"VoxelData": [1] * VOXELS + rest, "ROI_VC": vc + rest, "ROI_V1": v1 + rest}
    for i, key in enumerate(("DataType", "Run", "stimulus_id")):
        values[key] = [np.nan] * VOXELS + [1 if i == j else np.nan for j in range(3)]
    return values


def write_bdpy(path, rows, values):
    fmri, kind, run, stimuli = rows
    matrix = np.column_stack([fmri, kind, run, [float(name) for name in stimuli]])
    with h5py.File(path, "w") as file:
        file["dataset"] = matrix
        file["metadata/key"] = [key.encode() for key in values]
        file["metadata/value"] = np.array(list(values.values()))
        file["metadata/description"] = [b"" for _ in values]


def write_matlab(path, rows, values, struct_array=False):
    """What MATLAB's `save -v7.3` makes of dataSet and metaData: transposed, strings behind references."""
    fmri, kind, run, stimuli = rows
    matrix = np.column_stack([fmri, kind, run, [float(name) for name in stimuli]])
    with h5py.File(path, "w", userblock_size=512) as file:
        file["dataSet"] = matrix.T
        references = []
        for i, key in enumerate(values):
            name = file.create_dataset(f"#refs#/{i}", data=np.array([[ord(c)] for c in key], dtype=np.uint16))
            name.attrs["MATLAB_class"] = np.bytes_("char")
            references.append(name.ref)
        stored = file.create_dataset("metaData/key", (len(values), 1), dtype=h5py.ref_dtype)
        stored[:, 0] = references
        stored.attrs["MATLAB_class"] = np.bytes_("cell")
        if not struct_array:
            file["metaData/value"] = np.array(list(values.values())).T
            return
        parts = [file.create_dataset(f"#refs#/v{i}", data=np.array([v]).T).ref for i, v in enumerate(values.values())]
        file.create_dataset("metaData/value", (len(values), 1), dtype=h5py.ref_dtype)[:, 0] = parts


def save_picture(path, rng, size=(20, 15), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, format="PNG")


@pytest.fixture
def study(tmp_path, rng):
    """One subject, its stimuli and a class index of two classes."""
    (tmp_path / "fmri").mkdir()
    write_bdpy(tmp_path / "fmri" / "Subject3.h5", make_rows(rng), columns())
    for folder, names in (("training", TRAIN_IDS), ("test", TEST_IDS)):
        for name in names:
            wnid, number = name.split(".")
            save_picture(tmp_path / "images" / folder / f"n{int(wnid):08d}_{int(number)}.JPEG", rng)
    (tmp_path / "index.json").write_text(json.dumps({"0": ["n01518878", "ostrich"], "1": ["n01443537", "goldfish"]}))
    return tmp_path


def run(study, *extra):
    defaults = {"--fmri": "fmri", "--stimuli": "images", "--class-index": "index.json", "--out": "out"}
    args = [word for key, value in defaults.items() if key not in extra for word in (key, str(study / value))]
    return main([*args, "--size", "16", *extra])


def written(study, name="sbj_3.npz"):
    with np.load(study / "out" / name) as arrays:
        return dict(arrays)


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
    "no_number": (lambda s: (s / "fmri/Subject3.h5").rename(s / "fmri/Subject.h5"), "no subject number"),
    "twice": (lambda s: shutil.copy(s / "fmri/Subject3.h5", s / "fmri/Subject3.mat"), "keep one of the two"),
    "no_files": (lambda s: (s / "fmri/Subject3.h5").unlink(), "needs Subject1.h5"),
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
    "header_line": ("id,class\n1518878.005958,1\n", "line 1 starts with 'id'"),
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

"""BData files in both forms and stimulus pictures for the tests of prepare_god."""

import json

import h5py
import numpy as np
from PIL import Image
from script_runner import script

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


def make_study(tmp_path, rng):
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

"""scripts/check_data.py: complete, incomplete and broken folders of the three data sets."""

import json
import shutil
import socket
import zipfile

import numpy as np
import pytest
from script_runner import script

from mindvis.common.files import sha256
from mindvis.data import save_npz
from mindvis.prepare import check_datasets

main = script("check_data")
COUNTS = {"V1": 1618, "V2": 1220, "V3": 684, "V4": 661}
STIMULI = "BOLD5000/BOLD5000_Stimuli/Scene_Stimuli"
LISTS = "BOLD5000/BOLD5000_Stimuli/Stimuli_Presentation_Lists"
BETAS = "BOLD5000/BOLD5000_GLMsingle_ROI_betas/py"
REGIONS = [side + region for region in ("EarlyVis", "LOC", "OPA", "PPA", "RSC") for side in ("LH", "RH")]
TRAIN_IDS = [f"1518878.00000{i}" for i in range(6)]
TEST_IDS = ["1443537.000001", "1443537.000002"]


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    """Any socket is a failure: the check works on what is there."""

    def refuse(*args, **kwargs):
        raise AssertionError("check_data opened a socket")

    monkeypatch.setattr(socket, "socket", refuse)


def make_hcp(root, rng, counts=COUNTS, subject="100307"):
    path = root / "HCP" / "npz" / subject / "HCP_visual_voxel.npz"
    path.parent.mkdir(parents=True)
    np.savez(path, **{roi: rng.standard_normal((5, n)).astype(np.float32) for roi, n in counts.items()})
    return path


def god_subject(rng):
    masks = {"VC": np.arange(10) < 8, "V1": np.arange(10) < 3}
    arrays = {f"arr_{i}": rng.standard_normal((n, 10)) for i, n in enumerate((6, 8, 2))}
    stimuli = {"train_stimuli": TRAIN_IDS, "average_stimuli": TEST_IDS}
    return arrays | {"arr_3": np.arange(6)} | masks | {name: np.array(ids) for name, ids in stimuli.items()}


def make_god(root, rng):
    folder = root / "Kamitani" / "npz"
    folder.mkdir(parents=True)
    for number in range(1, 6):
        np.savez(folder / f"sbj_{number}.npz", **god_subject(rng))
    images = {"train_images": np.zeros((6, 4, 4, 3), np.uint8), "test_images": np.zeros((2, 4, 4, 3), np.uint8)}
    np.savez(folder / "images_256.npz", **images)
    (folder / "imagenet_training_label.csv").write_text("".join(f"{name},1\n" for name in TRAIN_IDS))
    (folder / "imagenet_testing_label.csv").write_text("".join(f"{name},1\n" for name in TEST_IDS))
    (folder / "imagenet_class_index.json").write_text(
        json.dumps({"0": ["n01518878", "ostrich"], "1": ["n01443537", "fish"]})
    )
    return folder


def make_bold5000(root, subjects=("CSI1", "CSI2", "CSI3", "CSI4")):
    """The published numbers: 4803 images once, 112 four times, one three times; 9 sessions of CSI4."""
    once = [f"once{i:04}.jpg" for i in range(4803)]
    repeated = [f"again{i:03}.jpg" for i in range(113)]
    (root / STIMULI / "Presented_Stimuli").mkdir(parents=True)
    (root / BETAS).mkdir(parents=True)
    (root / STIMULI / "repeated_stimuli_113_list.txt").write_text("\n".join(repeated))
    np.save(root / STIMULI / "Presented_Stimuli/img_dict_images.npy", np.zeros((4916, 2, 2, 3), np.uint8))
    (root / STIMULI / "Presented_Stimuli/img_dict_names.json").write_text(json.dumps(once + repeated))
    shown = once + repeated + [f"rep_{name}" for name in (repeated * 3)[:-1]]
    few = once[:2846] + repeated[:106] + ["rep_" + name for name in (repeated[:106] * 2)[: 3108 - 2846 - 106]]
    for subject in subjects:
        trials, num_sessions = (few, 9) if subject == "CSI4" else (shown, 15)
        for i, part in enumerate(np.array_split(trials, num_sessions), start=1):
            session = root / LISTS / subject / f"{subject}_sess{i:02}"
            session.mkdir(parents=True)
            (session / f"{subject}_sess{i:02}_run01.txt").write_text("\n".join(part))
        for region in REGIONS:
            rows = np.random.default_rng(1).random((len(trials), 2), dtype=np.float32)
            np.save(root / BETAS / f"{subject}_GLMbetas-TYPED-FITHRF-GLMDENOISE-RR_allses_{region}.npy", rows)


@pytest.fixture
def small_god(monkeypatch):
    """The published sizes of GOD set to those of the small files."""
    monkeypatch.setattr(check_datasets, "VC_VOXELS", dict.fromkeys(range(1, 6), 8))
    for name, value in (("NUM_TRAIN", 6), ("NUM_TEST", 2), ("NUM_SINGLE", 8)):
        monkeypatch.setattr(check_datasets, name, value)


def run(root, *extra):
    return main(["--root", str(root), *extra])


def test_all_three_complete(tmp_path, rng, capsys, small_god):
    """Status 0 at the published sizes, with shapes, voxels of each region and hashes."""
    path = make_hcp(tmp_path, rng)
    folder = make_god(tmp_path, rng)
    make_bold5000(tmp_path)
    assert run(tmp_path) == 0
    out = capsys.readouterr().out
    assert "1 subject with V1 1618 V2 1220 V3 684 V4 661 = 4183 voxels" in out
    assert "sbj_3.npz: 6 training, 8 single and 2 averaged test rows, 10 voxels (VC 8 V1 3), finite, 0 constant" in out
    assert sha256(folder / "sbj_3.npz")[:16] in out
    assert "CSI1: 15 sessions, 5254 trials, 4803 training trials, 113 test images" in out
    assert "CSI4: 9 sessions, 3108 trials, 2846 training trials, 106 test images" in out
    assert [f"{name}: complete" in out for name in ("HCP", "GOD", "BOLD5000")] == [True] * 3
    assert path.exists()


def test_an_empty_folder_says_where_everything_is_obtained(tmp_path, capsys):
    """Status 1; page, terms, size and command of each data set."""
    assert run(tmp_path) == 1
    out = capsys.readouterr().out
    for page in ("humanconnectome.org", "KamitaniLab/GenericObjectDecoding", "bold5000-dataset.github.io"):
        assert page in out
    for word in ("terms:", "size:", "prepare_hcp.py", "prepare_god.py", "prepare_bold5000.py"):
        assert word in out
    assert out.count(": incomplete") == 3
    assert list(tmp_path.iterdir()) == []


def test_missing_files_are_named(tmp_path, rng, capsys, small_god):
    """A subject that is not there is missing, the others are checked: status 1."""
    folder = make_god(tmp_path, rng)
    (folder / "sbj_4.npz").unlink()
    (folder / "imagenet_class_index.json").unlink()
    assert run(tmp_path, "--datasets", "god") == 1
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("  missing")]
    assert [words[1].rpartition("/")[2] for words in lines] == ["imagenet_class_index.json", "sbj_4.npz"]


def test_other_sizes_differ_unless_allowed(tmp_path, rng, capsys):
    """Voxels that are not the published ones: status 1, or 0 with --any-size."""
    make_hcp(tmp_path, rng, {"V1": 5, "V2": 4, "V3": 3, "V4": 2})
    assert run(tmp_path, "--datasets", "hcp") == 1
    assert "differs  voxels: [5, 4, 3, 2], published [1618, 1220, 684, 661]" in capsys.readouterr().out
    assert run(tmp_path, "--datasets", "hcp", "--any-size") == 0


def test_constant_voxels_are_counted(tmp_path, rng, capsys):
    """Zeros that prepare_hcp left are no fault, but they are counted."""
    path = make_hcp(tmp_path, rng, {"V1": 5, "V2": 4, "V3": 3, "V4": 2})
    arrays = dict(np.load(path))
    arrays["V1"][:, :2] = 0
    np.savez(path, **arrays)
    assert run(tmp_path, "--datasets", "hcp", "--any-size") == 0
    assert "finite, 2 constant voxels in all" in capsys.readouterr().out


def test_quick_reads_no_values(tmp_path, rng, capsys):
    """--quick leaves out NaN and hashes."""
    path = make_hcp(tmp_path, rng, dict.fromkeys(COUNTS, 3))
    save_with(path, V2=np.full((5, 3), np.nan, np.float32))
    assert run(tmp_path, "--datasets", "hcp", "--any-size", "--quick") == 0
    assert "sha256" not in capsys.readouterr().out


def test_a_missing_session_differs(tmp_path, capsys):
    """CSI4 with 8 of its 9 sessions and responses of 9: broken, and the line says which numbers disagree."""
    make_bold5000(tmp_path, ["CSI4"])
    shutil.rmtree(tmp_path / LISTS / "CSI4" / "CSI4_sess09")
    assert run(tmp_path, "--datasets", "bold5000") == 2
    assert "the trials of the 8 sessions of CSI4" in capsys.readouterr().out


def save_with(path, **changed):
    arrays = dict(np.load(path)) | changed
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})


def cut(path):
    path.write_bytes(path.read_bytes()[:-300])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(bytes(content))


def bomb(path):
    """A zip of death: 200 MB of zeros in 200 kB."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("V1.npy", "w") as member:
        np.lib.format.write_array_header_1_0(member, {"shape": (50, 2**20), "fortran_order": False, "descr": "<f4"})
        for _ in range(50):
            member.write(bytes(4 * 2**20))


def false_shape(path):
    with zipfile.ZipFile(path, "w") as archive, archive.open("V1.npy", "w") as member:
        shape = {"shape": (10**6, 10**9), "fortran_order": False, "descr": "<f4"}
        np.lib.format.write_array_header_1_0(member, shape)


ONES = np.ones((5, 3), np.float32)
BAD_HCP = {
    "cut": (cut, "no readable .npz file"),
    "flipped": (flip, "cannot be read (Bad CRC-32"),
    "empty": (lambda path: path.write_bytes(b""), "no readable .npz file"),
    "text": (lambda path: path.write_text("<html>"), "no readable .npz file"),
    "bomb": (bomb, "damaged or malicious"),
    "false_shape": (false_shape, "says shape [1000000, 1000000000], which its 128 bytes are not"),
    "pickled": (lambda path: save_with(path, V1=np.array([{}], dtype=object)), "'V1' holds Python objects"),
    "nan": (lambda path: save_with(path, V2=ONES * np.nan), "'V2' has 15 NaN or infinite of 15 values"),
    "frames": (
        lambda path: save_with(path, V3=ONES[:4]),
        "'V3' is float32 [4, 3], needs real numbers [f V3] with f = 5",
    ),
    "axes": (lambda path: save_with(path, V3=ONES[0]), "'V3' is float32 [3], needs real numbers [f V3]"),
    "integers": (lambda path: save_with(path, V3=ONES.astype(int)), "needs z-scored floats"),
    "not_a_zip_member": (lambda path: zipfile.ZipFile(path, "w").writestr("V1.npy", b"zero"), "'V1' cannot be read"),
}


@pytest.mark.parametrize("case", BAD_HCP)
def test_broken_hcp_subjects(tmp_path, rng, capsys, case):
    """Status 2 and one line for the broken subject; the other one is still reported."""
    damage, message = BAD_HCP[case]
    make_hcp(tmp_path, rng, dict.fromkeys(COUNTS, 3), "100408")
    damage(make_hcp(tmp_path, rng, dict.fromkeys(COUNTS, 3)))
    assert run(tmp_path, "--datasets", "hcp", "--any-size") == 2
    out = capsys.readouterr().out
    broken = [line for line in out.splitlines() if line.startswith("  broken")]
    assert len(broken) == 1
    assert message in broken[0]
    assert "1 subject with V1 3" in out
    assert out.rstrip().endswith("HCP: broken")


def subject(**changed):
    return lambda folder: save_with(folder / "sbj_2.npz", **changed)


def write(name, text):
    return lambda folder: (folder / name).write_text(text)


ROWS = np.random.default_rng(0).standard_normal((6, 10))
BAD_GOD = {
    "no_masks": (subject(VC=None, V1=None), "no voxel in a mask VC; it has no mask"),
    "empty_vc": (subject(VC=np.zeros(10, bool)), "no voxel in a mask VC"),
    "short_mask": (subject(V1=np.ones(9, bool)), "'V1' is bool [9], needs a boolean [v] with v = 10 as in arr_0"),
    "no_arr_2": (subject(arr_2=None), "no array 'arr_2'"),
    "nan": (subject(arr_0=ROWS * np.nan), "'arr_0' has 60 NaN or infinite of 60 values"),
    "voxels": (
        subject(arr_1=ROWS[:, :9]),
        "'arr_1' is float64 [6, 9], needs real numbers [s v] with v = 10",
    ),
    "repeats": (subject(arr_1=ROWS[:5]), "'arr_1' has 5 rows, needs a multiple of 2"),
    "index_length": (subject(arr_3=np.arange(5)), "'arr_3' is int64 [5], needs indices [n] with n = 6 as in arr_0"),
    "index_from_1": (subject(arr_3=np.arange(1, 7)), "'arr_3' spans 1 .. 6, needs indices in 0 .. 5"),
    "index_floats": (subject(arr_3=np.arange(6) + 0.5), "no whole numbers"),
    "train_order": (subject(train_stimuli=np.array(TRAIN_IDS[::-1])), "train_stimuli beside the rows are not in"),
    "test_order": (subject(average_stimuli=np.array(TEST_IDS[::-1])), "average_stimuli beside the rows are not in"),
    "labels": (
        write("imagenet_training_label.csv", "1518878.000001,1\n"),
        "with i = 1 as in imagenet_training",
    ),
    "classes": (write("imagenet_class_index.json", '{"0": ["n01518878", "ostrich"]}'), "the first is n01443537"),
    "images": (
        lambda folder: save_with(folder / "images_256.npz", test_images=ROWS),
        "needs uint8 images [m h w 3]",
    ),
}


@pytest.mark.parametrize("case", BAD_GOD)
def test_broken_god_files(tmp_path, rng, capsys, small_god, case):
    """Status 2 with the reason; the other subjects are still reported."""
    damage, message = BAD_GOD[case]
    damage(make_god(tmp_path, rng))
    assert run(tmp_path, "--datasets", "god") == 2
    out = capsys.readouterr().out
    assert message in "\n".join(line for line in out.splitlines() if line.startswith("  broken"))
    assert "ok       sbj_5.npz" in out or "sbj_5.npz: array 'arr_3'" in out


@pytest.mark.parametrize("fault", ["nan", "rows", "names"])
def test_broken_bold5000(tmp_path, capsys, fault):
    """NaN responses, rows that are no trials, images without names: status 2."""
    make_bold5000(tmp_path, ["CSI4"])
    path = tmp_path / BETAS / "CSI4_GLMbetas-TYPED-FITHRF-GLMDENOISE-RR_allses_RHPPA.npy"
    if fault == "names":
        (tmp_path / STIMULI / "Presented_Stimuli/img_dict_names.json").write_text("[]")
    else:
        rows = np.load(path)
        np.save(path, rows * np.nan if fault == "nan" else rows[1:])
    assert run(tmp_path, "--datasets", "bold5000", "--any-size") == 2
    message = {
        "nan": "NaN or infinite of",
        "rows": "[3107, 2]; needs [3108 voxels]",
        "names": "has 0 rows",
    }[fault]
    assert message in capsys.readouterr().out


def test_the_parity_files_are_complete(shared, capsys):
    """Files in the published layouts pass, apart from their sizes."""
    assert run(shared / "parity" / "raw", "--any-size") == 0
    assert "img_dict.npy: 40 images" in capsys.readouterr().out


def test_any_regions_that_were_prepared(tmp_path, rng, capsys):
    """--any-size takes what `prepare_hcp --rois` wrote; subjects that differ are named; published sizes are not met."""
    make_hcp(tmp_path, rng, {"V1": 5, "V2": 4})
    assert run(tmp_path, "--datasets", "hcp", "--any-size") == 0
    assert "1 subject with V1 5 V2 4 = 9 voxels" in capsys.readouterr().out
    assert run(tmp_path, "--datasets", "hcp") == 2
    assert "no V3, V4, has V1, V2; --any-size takes any regions" in capsys.readouterr().out
    make_hcp(tmp_path, rng, {"V1": 5, "V3": 4}, "100408")
    assert run(tmp_path, "--datasets", "hcp", "--any-size") == 1
    assert "differs  subjects have different regions" in capsys.readouterr().out


def test_absurd_values_are_named(tmp_path, rng, capsys, small_god):
    """One value of 1e20 is finite, and no measurement."""
    folder = make_god(tmp_path, rng)
    save_with(folder / "sbj_2.npz", arr_0=np.where(np.arange(10) == 3, 1e20, ROWS))
    assert run(tmp_path, "--datasets", "god") == 1
    assert "sbj_2.npz: arr_0 has a value of 1e+20" in capsys.readouterr().out


def test_copies_are_passed_over_with_a_word(tmp_path, rng, capsys, small_god):
    """`sbj_1 (1).npz` is no subject."""
    folder = make_god(tmp_path, rng)
    shutil.copy(folder / "sbj_1.npz", folder / "sbj_1 (1).npz")
    assert run(tmp_path, "--datasets", "god") == 0
    assert "passed over 1: copies of what is beside them (sbj_1 (1).npz)" in capsys.readouterr().out


def test_own_data_in_one_file(tmp_path, rng, capsys):
    """Rows, regions, pictures, constant voxels, raw responses; a test picture that is a training picture differs."""
    raw = rng.normal(1000, 200, 6) + rng.normal(size=(8, 6))
    raw[:6, 2] = 7
    images = rng.integers(0, 256, (8, 8, 8, 3), dtype=np.uint8)
    split = ["train"] * 6 + ["test"] * 2
    masks = {"V1": np.arange(6) < 2}
    save_npz(tmp_path / "own.npz", raw, images, split, roi_masks=masks)
    assert main(["--root", str(tmp_path / "own.npz")]) == 0
    out = capsys.readouterr().out
    assert "8 rows (6 train, 2 test, 0 val), 6 voxels, sha256" in out and "regions: V1 2" in out
    assert "all rows: finite, 1 constant voxels" in out and "data.scale=voxel, the default" in out
    assert out.endswith("npz: complete\n\n")
    images[7] = images[0]
    save_npz(tmp_path / "own.npz", raw, images, split)
    assert main(["--root", str(tmp_path / "own.npz"), "--datasets", "npz"]) == 1
    assert "differs  1 of 2 test pictures are training pictures too" in capsys.readouterr().out


def test_own_data_that_is_broken_or_absent(tmp_path, capsys):
    """Status 2 with the loader's line, and 1 with what to give."""
    np.savez(tmp_path / "own.npz", fmri=np.zeros((2, 3)))
    assert main(["--root", str(tmp_path / "own.npz"), "--datasets", "npz"]) == 2
    assert "broken   " in (out := capsys.readouterr().out) and "no array 'images'" in out
    assert main(["--root", str(tmp_path / "none.npz"), "--datasets", "npz"]) == 1
    assert "--root names the .npz file itself" in capsys.readouterr().out

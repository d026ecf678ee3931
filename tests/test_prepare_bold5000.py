"""scripts/prepare_bold5000.py on small folders of pictures, lists and responses, good and malformed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bold5000_files import LISTS, PICTURES, REPEATED, STIMULI, make_study, responses
from command_lines import ROOT
from PIL import Image
from script_runner import assert_one_line, script

from mindvis.data.bold5000 import load_bold5000

main = script("prepare_bold5000")


@pytest.fixture
def root(tmp_path, rng):
    return make_study(tmp_path, rng)


def run(root, *extra):
    return main([str(root), "--size", "16", *extra])


def written(root):
    images = np.load(root / STIMULI / "img_dict_images.npy", mmap_mode="r")
    return images, json.loads((root / STIMULI / "img_dict_names.json").read_text())


def test_pictures_become_one_mapped_array_with_names(root):
    """Every picture once, sorted by name, square, uint8, in a file that numpy maps without pickle."""
    assert run(root) == 0
    images, names = written(root)
    assert names == sorted(name for part in PICTURES.values() for name in part)
    assert images.dtype == np.uint8
    assert images.shape == (6, 16, 16, 3)
    with Image.open(root / STIMULI / "Scene" / "airport1.jpg") as picture:
        square = picture.crop((2, 0, 22, 20)).resize((16, 16), Image.Resampling.LANCZOS)
    inside = np.s_[:, 3:-3]  # the filter reaches over the cut
    difference = np.abs(images[names.index("airport1.jpg")][inside].astype(int) - np.asarray(square)[inside])
    assert difference.max() <= 2


def test_every_subject_and_session_is_reported(root, capsys):
    """Sessions, trials, training and test images and voxels, a line a subject."""
    assert run(root) == 0
    out = capsys.readouterr().out
    assert "CSI1: 2 sessions, 8 trials, 5 training trials, 1 test images, 30 voxels" in out
    assert "CSI4: 1 sessions, 3 trials, 2 training trials, 1 test images, 30 voxels" in out


def test_the_loader_reads_what_was_prepared(root):
    """load_bold5000 pairs each trial with the picture of its name."""
    assert run(root) == 0
    train, test = load_bold5000(root, "CSI1", patch_size=4)
    images, names = written(root)
    assert train.fmri.shape == (5, 32)
    np.testing.assert_array_equal(np.asarray(train.images[1]), images[names.index("n01440764_10.JPEG")])
    np.testing.assert_array_equal(np.asarray(test.images[0]), images[names.index("airport1.jpg")])


def test_a_pickled_dict_gives_the_same_files(root):
    """An img_dict.npy of old is converted, names in its order."""
    assert run(root) == 0
    images, names = written(root)
    order = names[::-1]
    pickled = {name: np.array(images[names.index(name)]) for name in order}
    np.save(root / "img_dict.npy", pickled, allow_pickle=True)
    assert run(root, "--from-pickle", str(root / "img_dict.npy")) == 0
    again, new_names = written(root)
    assert new_names == order
    np.testing.assert_array_equal(again, np.array(images)[::-1])


def test_check_writes_nothing(root, capsys):
    """--check needs the pictures of before and leaves them as they are."""
    assert run(root, "--check") == 2
    assert_one_line(capsys, "made by scripts/prepare_bold5000.py")
    assert run(root) == 0
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert run(root, "--check") == 0
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_absent_responses_are_named(root, capsys):
    """Responses not downloaded yet: pictures are written, exit status 1."""
    responses(root, "CSI4", "LHLOC").unlink()
    assert run(root) == 1
    assert "1 response files absent (CSI4_GLMbetas" in capsys.readouterr().out
    assert len(written(root)[1]) == 6


class RunsACommand:
    """Unpickled by numpy, this would make a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def save_pickle(root, content):
    np.save(root / "img_dict.npy", content, allow_pickle=True)
    return ["--from-pickle", str(root / "img_dict.npy")]


def test_a_pickle_that_would_run_a_command_does_not(root, capsys):
    """It is refused by the name of what it would call, and nothing has run."""
    extra = save_pickle(root, np.array({"a.jpg": RunsACommand(root / "harm")}, dtype=object))
    assert run(root, *extra) == 2
    assert_one_line(capsys, "mkdir")
    assert not (root / "harm").exists()
    assert not (root / STIMULI / "img_dict_images.npy").exists()


def gone(name):
    def damage(root):
        path = root / name
        for file in [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]:
            file.unlink()

    return damage


def text(name, content):
    return lambda root: (root / name).write_text(content)


def response(array):
    return lambda root: np.save(responses(root, "CSI1", "LHPPA"), array, allow_pickle=True)


def cut_response(root):
    path = responses(root, "CSI1", "LHPPA")
    path.write_bytes(path.read_bytes()[:100])


def cut_picture(root):
    path = root / STIMULI / "Scene" / "zoo2.jpg"
    path.write_bytes(path.read_bytes()[:300])


def deep_picture(root):
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(root / STIMULI / "Scene" / "zoo2.jpg", format="PNG")


RUN1 = f"{LISTS}/CSI1/CSI1_sess01/CSI1_sess01_run01.txt"
TINY = np.zeros((4, 4, 3), np.uint8)
BAD = {
    "no_scene_folder": (gone(f"{STIMULI}/Scene"), "no pictures in it"),
    "picture_missing": (gone(f"{STIMULI}/Scene/zoo2.jpg"), "1 presented images have no picture, 'zoo2.jpg' first"),
    "picture_cut": (cut_picture, "zoo2.jpg: not a readable picture"),
    "picture_no_picture": (text(f"{STIMULI}/Scene/zoo2.jpg", "<html>404</html>"), "zoo2.jpg: not a readable picture"),
    "picture_16_bits": (deep_picture, "needs 8 bits a channel"),
    "picture_twice": (text(f"{STIMULI}/COCO/zoo2.jpg", ""), "the same name as"),
    "no_lists": (gone(LISTS), "CSI1: no presented image in <session>/*.txt"),
    "run_empty": (text(RUN1, "\n"), "an empty run"),
    "run_binary": (lambda root: (root / RUN1).write_bytes(b"\xff\xfe\x00"), "run01.txt: no text in utf-16"),
    "run_cut": (text(RUN1, "airport1.jpg\n"), "needs [6 voxels], the trials of the 2 sessions of CSI1 (3 + 3)"),
    "session_missing": (gone(f"{LISTS}/CSI1/CSI1_sess02"), "needs [5 voxels], the trials of the 1 sessions"),
    "repeats_missing": (gone(REPEATED), "no such file"),
    "repeat_unknown": (text(REPEATED, "nowhere.jpg\n"), "1 images have no picture, 'nowhere.jpg' first"),
    "response_rows": (response(np.zeros((7, 3))), "float64 [7, 3]; needs [8 voxels]"),
    "response_swapped": (response(np.zeros((3, 8))), "float64 [3, 8]; needs [8 voxels]"),
    "response_axes": (response(np.zeros(8)), "float64 [8]; needs"),
    "response_pickled": (response(np.array([{}] * 8, dtype=object)), "holds Python objects"),
    "response_cut": (cut_response, "no readable .npy file"),
}


@pytest.mark.parametrize("case", BAD)
def test_malformed_folders(root, capsys, case):
    """Each is one line that names the file; no array and no list of names is left."""
    damage, message = BAD[case]
    damage(root)
    assert run(root) == 2
    assert_one_line(capsys, message)
    assert not [path for path in (root / STIMULI).iterdir() if path.is_file()]


BAD_PICKLES = {
    "list": ([1, 2], "needs a dict of name -> uint8 image"),
    "empty": ({}, "needs a dict of name -> uint8 image"),
    "floats": ({"a.jpg": TINY.astype(float)}, "'a.jpg' is float64 [4, 4, 3], needs uint8 images [h w 3]"),
    "numbers": ({1: TINY}, "image 1 is a ndarray, needs uint8 [h w 3]"),
    "sizes": (
        {"a.jpg": TINY, "b.jpg": TINY[:2]},
        "'b.jpg' is uint8 [2, 4, 3], needs uint8 images [h w 3] with h = 4",
    ),
    "grey": ({"a.jpg": TINY[..., 0]}, "'a.jpg' is uint8 [4, 4], needs uint8 images [h w 3]"),
    "other_names": ({"a.jpg": TINY}, "presented images have no picture"),
}


@pytest.mark.parametrize("case", BAD_PICKLES)
def test_malformed_pickles(root, capsys, case):
    """A pickled object that is no dict of images of one size is refused in one line."""
    content, message = BAD_PICKLES[case]
    extra = save_pickle(root, content)
    assert run(root, *extra) == 2
    assert_one_line(capsys, message)
    assert not (root / STIMULI / "img_dict_images.npy").exists()


def test_a_bad_picture_leaves_the_old_array(root, capsys):
    """What was written before stays whole when a later run fails half-way."""
    assert run(root) == 0
    before = {name: (root / STIMULI / name).read_bytes() for name in ("img_dict_images.npy", "img_dict_names.json")}
    cut_picture(root)
    assert run(root) == 2
    assert {name: (root / STIMULI / name).read_bytes() for name in before} == before
    assert len([path for path in (root / STIMULI).iterdir() if path.is_file()]) == 2


def test_written_pair_must_agree(root, capsys):
    """--check refuses names that are not as many as the images, or no list."""
    assert run(root) == 0
    capsys.readouterr()
    for content, message in (
        ('["airport1.jpg"]', "has 1 rows"),
        ("{}", "needs a JSON list"),
        ("[", "not readable as JSON"),
    ):
        (root / STIMULI / "img_dict_names.json").write_text(content)
        assert run(root, "--check") == 2
        assert_one_line(capsys, message)


def test_bad_size_and_subject(root, capsys):
    """A side of 0 and a subject without lists."""
    assert main([str(root), "--size", "0"]) == 2
    assert_one_line(capsys, "size: 0")
    assert run(root, "--subjects", "CSI9") == 2
    assert_one_line(capsys, "CSI9: no such folder")


def test_error_of_the_script_is_one_line(tmp_path):
    """Run as a user runs it: status 2, one line, no traceback."""
    command = [sys.executable, str(Path("scripts") / "prepare_bold5000.py"), str(tmp_path / "nowhere")]
    result = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "no such folder, needs presentation lists" in result.stderr


def test_other_peoples_files_are_passed_over_with_a_word(root, capsys):
    """Notes, hidden files and copies among pictures and lists; the end says what was found."""
    session = (root / RUN1).parent
    (session / "notes.txt").write_text("slept badly\n")
    (session / "._CSI1_sess01_run01.txt").write_bytes(b"\0\5\26\7")
    (root / STIMULI / "Scene" / ".ipynb_checkpoints").mkdir()
    (root / STIMULI / "Scene" / "zoo2 (1).jpg").write_bytes((root / STIMULI / "Scene" / "zoo2.jpg").read_bytes())
    assert run(root) == 0
    out = capsys.readouterr().out
    assert "img_dict_images.npy: 6 images" in out and "found 2 subjects" in out
    for words in (
        "passed over 2: hidden",
        "passed over 1: copies",
        "number of its run in its name (notes.txt)",
    ):
        assert words in out


def test_lists_in_another_case(root):
    """Names in capitals, with blanks and a byte-order mark, are the pictures they mean."""
    (root / REPEATED).write_text("\ufeffAIRPORT1.JPG \r\n", newline="")
    assert run(root) == 0

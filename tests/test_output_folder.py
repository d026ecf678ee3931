"""Which folders `generate` writes into."""

import json

import numpy as np
import pytest

from mindvis.common.errors import InputError
from mindvis.data import PairedDataset
from mindvis.decoding.output import check_output, control_fmri, write_decoded


@pytest.fixture
def shuffled(tmp_path):
    """A folder with pictures of the shuffled control."""
    (tmp_path / "decoded.npz").touch()
    (tmp_path / "generate.json").write_text(json.dumps({"settings": {"control": "shuffled"}}))
    return tmp_path


def test_an_empty_folder_is_taken(tmp_path):
    """Also one that is not there yet."""
    check_output(tmp_path / "new", overwrite=False)


@pytest.mark.parametrize(("overwrite", "control", "said"), [
    (False, "shuffled", "overwrite=true"), (True, "none", "holds pictures of control=shuffled"),
])  # fmt: skip
def test_pictures_are_not_replaced_unasked(shuffled, overwrite, control, said):
    """Nor by pictures of another kind, whatever may be overwritten."""
    with pytest.raises(InputError, match=said):
        check_output(shuffled, overwrite, control)


def test_pictures_of_the_same_control_are_replaced(shuffled):
    """Where the settings allow it."""
    check_output(shuffled, overwrite=True, control="shuffled")


def pairs(stimulus, class_ids=None):
    """Rows of fMRI that name themselves, and the stimuli they show."""
    stimulus = np.asarray(stimulus)
    images = np.zeros((stimulus.max() + 1, 8, 8, 3), np.uint8)
    fmri = np.repeat(np.arange(len(stimulus), dtype=np.float32)[:, None], 4, axis=1)
    return PairedDataset(fmri, images, class_ids, stimulus=stimulus)


def test_no_row_keeps_its_stimulus_in_the_shuffled_control():
    """50 rows and the default seed, with which a plain permutation leaves two where they are."""
    data = pairs(range(50))
    assert (np.random.default_rng(2022).permutation(50) == np.arange(50)).sum() == 2
    shuffled = control_fmri(data, data, "shuffled", 2022)
    assert (shuffled.rows != np.arange(50)).all() and sorted(shuffled.rows) == list(range(50))
    np.testing.assert_array_equal(shuffled.fmri[:, 0], shuffled.rows)
    assert shuffled.facts["shuffle"] == {"rows": 50, "kept_stimulus": 0, "kept_class": None}


def test_no_row_keeps_its_class_where_that_can_be_had():
    """Repeats and classes move away from their own; where one class fills most rows, stimuli still do."""
    data = pairs([0, 0, 1, 1, 2, 2], class_ids=[7, 7, 8, 8, 7, 8])
    for seed in range(20):
        rows = control_fmri(data, data, "shuffled", seed).rows
        assert (np.asarray(data.class_ids)[rows] != data.class_ids).all()
    crowded = pairs([0, 0, 1, 1, 2, 2], class_ids=[7, 7, 7, 7, 8, 8])
    shuffled = control_fmri(crowded, crowded, "shuffled", 0)
    assert (crowded.stimulus[shuffled.rows] != crowded.stimulus).all()
    assert shuffled.facts["shuffle"]["kept_class"] > 0


def test_rows_of_one_stimulus_cannot_be_shuffled():
    """The line says how many rows show it."""
    data = pairs([0, 0, 0, 1])
    with pytest.raises(InputError, match="3 of 4 rows show the same stimulus"):
        control_fmri(data, data, "shuffled", 0)


def test_the_folder_says_whose_fmri_was_decoded(tmp_path):
    """`fmri_rows` of a shuffled control are the rows that were dealt to the stimuli, of the mean fMRI -1."""
    data = pairs(range(4))
    decoded = np.zeros((4, 1, 8, 8, 3), np.uint8)
    for control, wanted in (("none", [0, 1, 2, 3]), ("mean_fmri", [-1] * 4)):
        shown = control_fmri(data, data, control, 0)
        write_decoded(tmp_path / control, decoded, data, range(4), {}, fmri_rows=shown.rows)
        assert np.load(tmp_path / control / "decoded.npz")["fmri_rows"].tolist() == wanted


@pytest.mark.parametrize("held", ["checkpoints/last.ckpt", "notes.txt", "model.safetensors", "sbj_1.npz"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_other_things_is_refused(tmp_path, held, overwrite):
    """A run's, an exported model's, data or the working directory: nothing in it is ever removed."""
    (tmp_path / held).parent.mkdir(exist_ok=True)
    (tmp_path / held).write_text("kept")
    with pytest.raises(InputError, match=f"holds {held.split('/')[0]}, which is none of decoded pictures"):
        check_output(tmp_path, overwrite)


def test_a_file_in_the_place_of_the_folder_is_refused_before_the_work(tmp_path):
    """The file itself as output, and a folder below it."""
    (tmp_path / "file").write_text("kept")
    for output in (tmp_path / "file", tmp_path / "file" / "decoded"):
        with pytest.raises(InputError, match="file is no folder that may be written"):
            check_output(output, overwrite=True)


def test_overwriting_leaves_what_is_not_of_the_earlier_pictures(tmp_path):
    """Controls and somebody's own files stay; earlier pictures and the report about them go."""
    data, folder = pairs(range(4)), tmp_path / "decoded"
    for name in ("shuffled/decoded.npz", "notes.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("kept")
    for count, name in ((4, "report.json"), (2, "audit.html")):
        write_decoded(folder, np.zeros((count, 1, 8, 8, 3), np.uint8), data, range(count), {})
        assert len(list((folder / "pictures").iterdir())) == count
        (folder / name).write_text("{}")
    check_output(folder, overwrite=True)
    assert sorted(path.name for path in folder.iterdir()) == [
        "audit.html", "decoded.npz", "generate.json", "grid.png", "notes.txt", "pictures", "shuffled",
    ]  # fmt: skip
    assert (folder / "notes.txt").read_text() == "kept"


def test_pictures_that_cannot_be_written_leave_nothing(tmp_path, monkeypatch):
    """The disk is full in the middle of the folder."""

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mindvis.common.plots.png_bytes", refuse)
    with pytest.raises(InputError, match="stimulus.png: No space left on device"):
        write_decoded(tmp_path / "decoded", np.zeros((2, 1, 8, 8, 3), np.uint8), pairs(range(2)), range(2), {})
    assert not list(tmp_path.iterdir())

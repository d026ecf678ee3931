"""Block designs from (signal, labels, runs) to folds, and how often pictures carry the category."""

import json

import numpy as np
import pytest
from script_runner import run

from mindvis.common.errors import InputError
from mindvis.config.loading import plain
from mindvis.config.schemas import DataConfig
from mindvis.data import load_npz
from mindvis.decoding.categories import LOGISTIC, score_categories
from mindvis.evaluation.classifiers import load_classifier
from mindvis.simulation.block_design import HAXBY, Recording, class_ids_of, read_recording, rows_of, write_fold
from mindvis.simulation.stimuli import CLASS_NAMES, draw_stimuli

LABELS = ["rest"] * 4 + ["face"] * 5 + ["rest"] * 4 + ["house"] * 5 + ["rest"] * 4 + ["cat"] * 5 + ["rest"] * 4
LAG = 2


@pytest.fixture
def recording(rng):
    """Four runs of three blocks; each category has a pattern of its own, two volumes late, on a drift."""
    patterns = {"rest": np.zeros(48), **{name: rng.standard_normal(48) for name in ("face", "house", "cat")}}
    late = ["rest"] * LAG + LABELS[:-LAG]
    one = np.stack([patterns[label] for label in late])
    drift = np.linspace(0, 30, len(LABELS))[:, None]
    signal = np.concatenate([500 + drift + one + 0.3 * rng.standard_normal(one.shape) for _ in range(4)])
    return Recording(signal.astype(np.float32), np.array(LABELS * 4), np.repeat(np.arange(4), len(LABELS)))


@pytest.fixture
def source(recording, tmp_path):
    np.savez(tmp_path / "raw.npz", bold=recording.signal, label=recording.labels, run=recording.runs)
    return tmp_path / "raw.npz"


def test_rows_are_late_volumes_without_rest_and_without_drift(recording):
    """The volumes two after the labelled ones; every voxel of a run has mean 0 and no slope, whatever it drifts."""
    rows = rows_of(recording, LAG)
    assert len(rows.fmri) == 4 * 15 and set(rows.labels) == {"face", "house", "cat"}
    assert len(np.unique(rows.blocks)) == 12
    whole = np.asarray(recording.signal[:31], np.float64)
    fit = np.polyfit(np.arange(31), whole, 1)
    flat = whole - np.outer(np.arange(31), fit[0]) - fit[1]
    np.testing.assert_allclose(rows.fmri[:5], (flat / flat.std(axis=0))[4 + LAG : 9 + LAG], atol=2e-3)


def test_a_fold_is_read_as_own_data(source, tmp_path):
    """Training rows are volumes with drawings of their own; a test row is the mean of a block; no run is in both."""
    rows = rows_of(read_recording(source), LAG)
    assert write_fold(tmp_path / "fold.npz", rows, [1, 3]) == 6
    train, test, _ = load_npz(tmp_path / "fold.npz", scale="none")
    assert (train.num_rows, test.num_rows, len(train.stimuli)) == (30, 6, 36)
    assert [CLASS_NAMES[i] for i in test.class_ids] == [HAXBY[name] for name in ("face", "house", "cat")] * 2
    first = rows.fmri[(rows.runs == 1) & (rows.labels == "face")].mean(axis=0)
    np.testing.assert_allclose(np.asarray(test.fmri)[0, :48], first, atol=1e-5)
    assert len({picture.tobytes() for picture in train.images}) == 30


@pytest.mark.parametrize(("held", "kinds", "message"), [
    ([7], HAXBY, "held-out runs are .7.; needed: some of 0, 1, 2, 3"),
    ([0, 1, 2, 3], HAXBY, "some left for training"),
    ([0], {"face": "sun"}, "category 'house' is shown by None; needed: --kinds house=KIND"),
    ([0], HAXBY | {"cat": "sun"}, "shows two categories alike"),
])  # fmt: skip
def test_folds_that_cannot_be_are_refused(recording, tmp_path, held, kinds, message):
    """Before anything is written."""
    with pytest.raises(InputError, match=message):
        write_fold(tmp_path / "fold.npz", rows_of(recording), held, kinds=kinds)
    assert not (tmp_path / "fold.npz").exists()


def test_labels_of_another_system_and_narrow_numbers(recording, source, tmp_path):
    """Blanks around labels, another case of rest and float16 change nothing."""
    labels = [" Rest " if label == "rest" else f"{label} " for label in recording.labels]
    narrow = recording.signal.astype(np.float16)
    np.savez(tmp_path / "odd.npz", bold=narrow, label=labels, run=recording.runs)
    odd, rows = rows_of(read_recording(tmp_path / "odd.npz")), rows_of(read_recording(source))
    assert odd.labels.tolist() == rows.labels.tolist() and odd.fmri.std() == pytest.approx(rows.fmri.std(), abs=0.02)


def test_voxels_that_are_no_measurement_become_0_and_are_named(recording, tmp_path, caplog):
    """A constant one, and one with an absurd value; nothing but such is refused."""
    signal = recording.signal.copy()
    signal[:, 3], signal[5, 7] = 1000, 1e20
    np.savez(tmp_path / "bad.npz", bold=signal, label=recording.labels, run=recording.runs)
    rows = rows_of(read_recording(tmp_path / "bad.npz"))
    assert not rows.fmri[:, [3, 7]].any() and rows.fmri[:, 4].std() > 0.5
    assert "2 of 48 voxels are constant or absurd" in caplog.text
    np.savez(tmp_path / "bad.npz", bold=signal * 0, label=recording.labels, run=recording.runs)
    with pytest.raises(InputError, match="all 48 voxels are constant or not finite"):
        read_recording(tmp_path / "bad.npz")


def test_a_file_without_labels_is_one_line(tmp_path):
    """It names the array and what is needed."""
    np.savez(tmp_path / "raw.npz", bold=np.zeros((4, 3)), run=np.zeros(4, int))
    with pytest.raises(InputError, match="no array 'labels'; needed: signal, labels, runs"):
        read_recording(tmp_path / "raw.npz")


def write_pictures(folder, data, class_ids, shown):
    """What `generate` writes, with drawings of the classes `shown` as decoded pictures, two a row."""
    folder.mkdir(parents=True)
    decoded = np.stack([draw_stimuli(5, np.full(2, one), 100 + np.arange(2)) for one in shown])
    arrays = {"decoded": decoded, "stimuli": decoded[:, 0], "stimulus_ids": np.arange(len(shown))}
    np.savez(folder / "decoded.npz", **arrays, fmri_rows=np.arange(len(shown)), class_ids=class_ids)
    about = {"settings": {"control": "none"}, "patch_size": 16, "data": {"settings": plain(data)}}
    (folder / "generate.json").write_text(json.dumps(about))


def test_pictures_are_scored_beside_logistic_regression(source, tmp_path):
    """Pictures of the right kinds score 1 and of others 0; patterns that differ are read off the voxels."""
    fold = tmp_path / "fold.npz"
    outcome = run("prepare_blocks", source, fold, "--held-out", 1, 3)
    assert outcome.status == 0 and "60 volumes of 48 voxels, 6 test blocks" in outcome.out
    data = DataConfig(name="npz", root=str(fold), roi="all")
    class_ids = class_ids_of(np.array(["face", "house", "cat"] * 2), HAXBY)
    write_pictures(tmp_path / "decoded", data, class_ids, class_ids)
    write_pictures(tmp_path / "decoded" / "shuffled", data, class_ids, np.roll(class_ids, 1))
    scores = score_categories(tmp_path / "decoded", load_classifier("demo"))
    assert scores.chance == pytest.approx(1 / 3)
    means = {name: share.mean() for name, share in scores.shares.items()}
    assert means == {"decoded": 1.0, "shuffled": 0.0, LOGISTIC: 1.0}
    outcome = run("score_categories", tmp_path / "decoded")
    assert outcome.status == 0 and "decoded: 1.000 [1.000, 1.000] of 6 rows, chance 0.333" in outcome.out

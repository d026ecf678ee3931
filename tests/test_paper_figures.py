"""The figures of the paper: made from tiny runs as PNG and PDF, what they show, what they refuse."""

import json

import numpy as np
import pytest
import tiny_stages
from PIL import Image
from script_runner import run

from mindvis.common.errors import InputError
from mindvis.common.plots import score_label
from mindvis.figures.make import accuracy_figure, consistency_figure, failures_figure, subjects_figure
from mindvis.figures.subjects import at_most, find_subjects, shared_stimuli, spread
from mindvis.inspection.hidden_voxels import open_held_out

MAIN = "50_way_top_1/tiny"
IDS = [3, 5, 8, 9]
OWN = {"name": "npz", "subjects": ["sbj_3"]}


def figure_of(name: str, value: float, of: str = "decoded", **changes) -> dict:
    """One number of a report."""
    fields = {"low": value - 0.1, "high": value + 0.1, "deviation": 0.01, "best": value, "chance": 0.02}
    return {"name": name, "set": of, "value": value, "larger_is_better": True, **fields, **changes}


def write_decoded(folder, stimuli: np.ndarray, decoded: np.ndarray, subject: str, value: float):
    """What generate and evaluate leave: the later a stimulus, the better by the main score, the worse by mse."""
    folder.mkdir(parents=True)
    np.savez(folder / "decoded.npz", decoded=decoded, stimuli=stimuli, stimulus_ids=np.array(IDS))
    (folder / "generate.json").write_text(json.dumps({"data": {"settings": {"subjects": [subject]}}}))
    rows = [
        {"stimulus_id": str(i), "class": f"class {i}", "scores": {MAIN: place / 10, "mse": place / 10}}
        for place, i in enumerate(IDS)
    ]
    figures = [figure_of(MAIN, value), figure_of(MAIN, 0.02, "shuffled")]
    figures.append(figure_of("mse", value, chance=None, larger_is_better=False))
    report = {"schema": "mindvis.report/1", "main": MAIN, "figures": figures, "per_stimulus": rows, "provenance": {}}
    (folder / "report.json").write_text(json.dumps(report))
    return folder


@pytest.fixture
def folders(tmp_path, rng):
    """Two subjects who saw the same four stimuli, three samples of each."""
    stimuli = rng.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    return [
        write_decoded(
            tmp_path / name / "decoded", stimuli, rng.integers(0, 256, (4, 3, 8, 8, 3), dtype=np.uint8), name, value
        )
        for name, value in (("sbj_1", 0.2), ("sbj_2", 0.3))
    ]


def texts(figure) -> list[str]:
    """What is written on the page, without what is empty."""
    return [text.get_text() for text in figure.axes[0].texts if text.get_text()]


def pictures(figure) -> list[np.ndarray]:
    """The blocks of pictures on the page."""
    return [np.asarray(image.get_array()) for image in figure.axes[0].images]


def test_every_figure_as_png_and_pdf(folders, tmp_path):
    """From a tiny pretraining and two decoded subjects: files that open, and the closing line that names them."""
    tiny_stages.simulate_experiment(tmp_path)
    command = tiny_stages.command("pretrain_mbm", tmp_path, tmp_path / "run", "trainer.max_epochs=1")
    assert run("pretrain_mbm", *command[2:]).status == 0
    decoded = ",".join(map(str, folders))
    outcome = run("figures", f"run={tmp_path / 'run'}", f"decoded=[{decoded}]", f"output={tmp_path / 'out'}")
    assert outcome.status == 0, outcome.err
    stems = ["masked", "subjects", "consistency-sbj_1", "consistency-sbj_2", "failures-sbj_1", "failures-sbj_2"]
    for stem in [*stems, "accuracy"]:
        assert np.asarray(Image.open(tmp_path / "out" / f"{stem}.png").convert("L")).std() > 5
        assert (tmp_path / "out" / f"{stem}.pdf").read_bytes().startswith(b"%PDF")
        assert f"{stem}.pdf" in outcome.out
    assert len(list((tmp_path / "out").iterdir())) == 14


def test_masked_rows_of_a_tuned_run(tmp_path):
    """A run of finetune_mbm on test fMRI, which held out nothing, is shown by training rows; one on both by none."""
    tiny_stages.simulate_experiment(tmp_path)
    stages = {"pretrain_mbm": (), "finetune_mbm": ("fmri=test", "trainer.val_fraction=0")}
    for stage, settings in stages.items():
        command = tiny_stages.command(stage, tmp_path, tmp_path / stage, "trainer.max_epochs=1", *settings)
        assert run(stage, *command[2:]).status == 0
    tuned = tmp_path / "finetune_mbm"
    outcome = run("figures", "figures=[masked]", f"run={tuned}", f"output={tmp_path / 'out'}")
    assert outcome.status == 0, outcome.err
    assert np.asarray(Image.open(tmp_path / "out" / "masked.png").convert("L")).std() > 5
    assert open_held_out(str(tuned), "last")[3].num_rows > open_held_out(str(tuned), "last")[2].num_rows
    settings = (tuned / "config.yaml").read_text()
    (tuned / "config.yaml").write_text(settings.replace("fmri: test", "fmri: both"))
    outcome = run("figures", "figures=[masked]", f"run={tuned}", f"output={tmp_path / 'none'}")
    assert outcome.status == 2 and "held out no rows" in outcome.err


def test_subjects_share_rows(folders):
    """A block a subject, in their order; a row shows the same stimulus in every block."""
    subjects = find_subjects(list(map(str, folders)))
    figure = subjects_figure(subjects, ["9", "3"], num_samples=2, pixels=8)
    shown, first, second = pictures(figure)
    assert texts(figure) == ["shown", "sbj_1", "sbj_2"]
    assert np.array_equal(shown[:8, :8], subjects[0].pictures.stimuli[3])
    for block, subject in ((first, subjects[0]), (second, subjects[1])):
        assert np.array_equal(block[:8, 8:], subject.pictures.decoded[3, 1])
        assert np.array_equal(block[8:, :8], subject.pictures.decoded[0, 0])


def test_another_test_set_is_refused(folders):
    """An id that names another picture for another subject is no shared stimulus."""
    arrays = dict(np.load(folders[1] / "decoded.npz"))
    arrays["stimuli"][2] += 1
    np.savez(folders[1] / "decoded.npz", **arrays)
    subjects = find_subjects(list(map(str, folders)))
    assert shared_stimuli(subjects, ["3", "9"], 8) == ["3", "9"]
    with pytest.raises(InputError, match="stimulus '8' is another picture"):
        shared_stimuli(subjects, None, 8)


def test_consistency_runs_from_agreement_to_disagreement(folders):
    """Samples that are all alike come first, with SSIM 1; every sample is shown."""
    arrays = dict(np.load(folders[0] / "decoded.npz"))
    arrays["decoded"][2] = arrays["decoded"][2, 0]
    np.savez(folders[0] / "decoded.npz", **arrays)
    figure = consistency_figure(find_subjects([str(folders[0])])[0], None, 4, pixels=8)
    notes = [text for text in texts(figure) if text.startswith("SSIM")]
    values = [float(note.split()[1]) for note in notes]
    assert values[0] == 1.0 and values == sorted(values, reverse=True) and len(values) == 4
    assert np.array_equal(pictures(figure)[1][:8, 16:24], arrays["decoded"][2, 2])


def test_failures_are_the_worst(folders):
    """The lowest main score first; for an error, the highest."""
    subject = find_subjects([str(folders[0])])[0]
    by_main, by_error = (texts(failures_figure(subject, score, 2, pixels=8)) for score in (None, "mse"))
    assert by_main[-3:] == ["class 3\n0.000", "class 5\n0.100", "50-way top-1\n(tiny)"]
    assert by_error[-3:-1] == ["class 9\n0.300", "class 8\n0.200"]


def test_accuracy_shows_intervals_and_chance(folders):
    """A bar a subject as high as its score, its interval, chance and the shuffled control."""
    subjects = find_subjects([str(folders[0] / "report.json"), str(folders[1].parent)])
    axis = accuracy_figure(subjects, None).axes[0]
    assert [round(bar.get_height(), 6) for bar in axis.patches] == [0.2, 0.3]
    spans = [line.get_ydata() for line in axis.lines if list(line.get_xdata()) == [1, 1]]
    assert np.allclose(spans[0], [0.2, 0.4])
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["chance 0.02", "shuffled fMRI"]
    assert axis.get_ylabel() == "50-way top-1 (tiny)"


@pytest.mark.parametrize(
    ("settings", "needed"),
    [
        (["figures=[masked]"], "run=FOLDER, a run of pretrain_mbm"),
        (["figures=[subjects]"], "decoded=[FOLDER,...], the output of generate"),
        (["figures=[accuracy]"], "report.json"),
        (["figures=[portrait]", "decoded=[x]"], "some of masked, subjects, consistency, failures, accuracy"),
        (["figures=[]"], "some of masked"),
        (["figures=[accuracy]", "decoded=[nowhere]"], "nowhere: no such file or folder"),
        (["figures=[subjects]", "decoded=[.]", "labels=[a,b]"], "labels has 2 names"),
    ],
)
def test_a_missing_input_is_one_line(settings, needed, tmp_path):
    """Status 2 and one line that says what is needed; nothing is written."""
    outcome = run("figures", *settings, f"output={tmp_path / 'out'}")
    assert outcome.status == 2 and outcome.err.count("\n") == 1 and needed in outcome.err
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_unless_all_can_be(folders, tmp_path):
    """The report is missing, so the grid that could be drawn is not written either."""
    (folders[0] / "report.json").unlink()
    outcome = run("figures", "figures=[subjects,failures]", f"decoded=[{folders[0]}]", f"output={tmp_path / 'out'}")
    assert outcome.status == 2 and "run evaluate first" in outcome.err
    assert not (tmp_path / "out").exists()


def test_two_subjects_of_one_name_need_labels(folders):
    """A legend of twins would say nothing."""
    with pytest.raises(InputError, match="two are named 'sbj_1'; needed: labels"):
        find_subjects([str(folders[0]), str(folders[0])])
    assert [s.label for s in find_subjects([str(folders[0])] * 2, ["a", "b"])] == ["a", "b"]


def test_runs_are_named_apart(tmp_path):
    """Two runs of one subject by their folders, own data by its run and not by a subject that it has not."""
    for name, data in (("a", {"subjects": ["sbj_3"]}), ("b", {"subjects": ["sbj_3"]}), ("mine", OWN)):
        (tmp_path / name / "decoded").mkdir(parents=True)
        (tmp_path / name / "decoded" / "decoded.npz").write_bytes(b"")
        said = json.dumps({"data": {"settings": data}})
        (tmp_path / name / "decoded" / "generate.json").write_text(said)
    entries = [str(tmp_path / name) for name in ("a", "b", "mine")]
    assert [subject.label for subject in find_subjects(entries)] == ["a", "b", "mine"]
    assert [subject.label for subject in find_subjects(entries[1:])] == ["sbj_3", "mine"]


def test_spread_keeps_both_ends():
    """Even distances, no item twice, all when there are few."""
    assert spread(list("abcdefghi"), 3) == ["a", "e", "i"]
    assert spread(["a", "b"], 8) == ["a", "b"]


def test_large_pictures_are_made_smaller(rng):
    """256 pixels become 128; small ones stay as they are."""
    large = rng.integers(0, 256, (2, 3, 16, 16, 3), dtype=np.uint8)
    assert at_most(large, 8).shape == (2, 3, 8, 8, 3)
    assert at_most(large, 16) is large


def test_score_labels():
    """Names as a reader says them."""
    assert score_label("50_way_top_1/vit_h_14") == "50-way top-1 (vit_h_14)"
    assert score_label("pairwise_pcc") == "pairwise pcc"

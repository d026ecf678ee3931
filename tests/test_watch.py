"""Decoding while Stage B trains: what is logged, when, and which weights each rule of selection keeps."""

import csv
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_stages
import torch
from script_runner import run

from mindvis.common.errors import InputError
from mindvis.common.tensor_files import load_tensors
from mindvis.config.schemas import FinetuneLDMConfig, SelectionRuleConfig, TrainerConfig, WatchConfig
from mindvis.data import PairedDataset
from mindvis.decoding import watch as watching
from mindvis.decoding.previews import is_due
from mindvis.decoding.watch import PublishedSelection, Scorer, watch_stage_b
from mindvis.evaluation import identification_accuracy, n_way_accuracy
from mindvis.evaluation.classifiers import load_classifier
from mindvis.training.checkpointing import Checkpoints
from mindvis.training.logging import MetricsFile
from mindvis.training.runs import create_run
from mindvis.training.signals import SignalWatch

SETTINGS = WatchConfig(classifier="demo", num_ways=10, metrics=["mse", "pcc", "ssim"])


def pictures(rng, *shape: int) -> np.ndarray:
    return rng.integers(0, 256, (*shape, 16, 16, 3), np.uint8)


def pairs(rng, rows: int) -> PairedDataset:
    """Paired data of noise."""
    return PairedDataset(rng.standard_normal((rows, 32), np.float32), pictures(rng, rows))


def config(**changes: object) -> FinetuneLDMConfig:
    """Stage B with a classifier whose weights are there."""
    return replace(FinetuneLDMConfig(ldm="demo", watch=SETTINGS), **changes)


def epoch(number: int, **facts: object) -> SimpleNamespace:
    """What the callbacks see of a trainer after so many epochs."""
    return SimpleNamespace(current_epoch=number - 1, should_stop=False, max_epochs=10**6, **facts)


def test_scores_are_the_measures_of_an_evaluation(rng):
    """The mean over stimuli of each sample set, with the classifier's class of the true picture as the target."""
    stimuli, decoded = pictures(rng, 6), pictures(rng, 6, 2)
    scores = Scorer(SETTINGS, stimuli)(decoded, range(6), "cpu")
    classifier = load_classifier("demo")
    target = classifier.classify(stimuli).top_class
    for k in range(2):
        logits = classifier.classify(decoded[:, k]).logits
        assert np.isclose(scores["10_way_top_1"][k], n_way_accuracy(logits, target, 10).mean())
        for metric in ("mse", "pcc", "ssim"):
            expected = identification_accuracy(decoded[:, k], stimuli, metric).mean()
            assert np.isclose(scores[f"pairwise_{metric}"][k], expected)
    error = (decoded[:, 1].astype(float) - stimuli).reshape(6, -1)
    assert np.isclose(scores["mse"][1], np.square(error).mean())


def test_what_has_no_weights_is_left_out_with_a_line(rng, caplog):
    """A training does not stop for them."""
    settings = replace(SETTINGS, classifier_weights="nowhere.pth", metrics=["pcc", "lpips"])
    scores = Scorer(settings, pictures(rng, 3))(pictures(rng, 3, 1), range(3), "cpu")
    assert list(scores) == ["pcc", "pairwise_pcc"]
    assert "no n-way scores while training: nowhere.pth" in caplog.text
    assert "no lpips while training" in caplog.text


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"selection": "validation", "watch": replace(SETTINGS, classifier_weights="nowhere.pth")}, "nowhere.pth"),
        ({"selection": "test", "watch": replace(SETTINGS, classifier="none")}, "none"),
        ({"selection": "validation", "watch": replace(SETTINGS, score="loss")}, "watch.score is 'loss'"),
        ({"watch": replace(SETTINGS, num_ways=50)}, "watch.num_ways is 50"),
        ({"watch": replace(SETTINGS, metrics=["l2"])}, "watch.metrics names 'l2'"),
    ],
)
def test_settings_by_which_nothing_can_be_chosen_are_refused_before_training(rng, changes, named):
    """One line that names the setting or the file."""
    with pytest.raises(InputError, match=named):
        watch_stage_b(config(**changes), pairs(rng, 4), pairs(rng, 4))


def test_held_out_stimuli_are_watched_and_chosen_by(rng):
    """So many of them, evenly; test stimuli only where none are held out, and `last` chooses nothing."""
    val, test = pairs(rng, 9), pairs(rng, 5)
    chosen = config(selection="validation", watch=replace(SETTINGS, num_stimuli=4))
    (_, watch), judge = watch_stage_b(chosen, val, test)
    assert judge is watch and watch.score == "10_way_top_1"
    assert np.array_equal(watch.dataset.fmri, val.fmri[[0, 2, 5, 8]])
    (_, watch), judge = watch_stage_b(config(), None, test)
    assert judge is None and watch.dataset.num_rows == 5
    assert len(watch_stage_b(config(watch=replace(SETTINGS, every_epochs=0)), None, test)[0]) == 1


def test_a_picture_is_due_after_the_last_epoch_too():
    """A short run has one; 0 means none."""
    assert [is_due(epoch(number), 3) for number in (1, 2, 3, 4)] == [False, False, True, False]
    last = epoch(4)
    last.max_epochs = 4
    assert is_due(last, 3) and not is_due(last, 0)
    stopped = epoch(4)
    stopped.should_stop = True
    assert is_due(stopped, 3)


def published(rng, quick: dict[int, list[float]], full: dict[int, list[float]]) -> tuple[PublishedSelection, list]:
    """The published rule with scripted scores by epoch, and what it decodes: (epoch, stimuli, sample sets)."""
    watch = PublishedSelection(pairs(rng, 50), Scorer(SETTINGS, pictures(rng, 50)), SelectionRuleConfig(), seed=0)
    decoded = []

    def scripted(trainer, module, rows, sampling):
        number = trainer.current_epoch + 1
        decoded.append((number, len(rows), sampling.num_samples, sampling.sampler, sampling.num_steps))
        scores = (quick if len(rows) == 5 else full).get(number, [0.0, 0.1])
        return {"10_way_top_1": np.array(scores)}

    watch.decode_and_score = scripted
    return watch, decoded


def go(watch: PublishedSelection, num_epochs: int) -> dict[int, float]:
    """Epoch -> score of the weights, where they were judged."""
    logged: list[dict] = []
    logger = SimpleNamespace(log_metrics=lambda values, step: logged.append(values))
    facts = {"fast_dev_run": False, "loggers": [logger], "global_step": 1}
    module = SimpleNamespace(eval=lambda: None, train=lambda: None)
    taken = {}
    for number in range(1, num_epochs + 1):
        watch.on_train_epoch_end(epoch(number, **facts), module)
        taken[number] = watch.take()
    return {number: score for number, score in taken.items() if score is not None}


def test_the_published_rule_decodes_all_stimuli_above_the_threshold_and_every_15th_time(rng):
    """5 stimuli x 3 every 5 epochs; all x 5 when the best of the 3 exceeds .15, and at the 15th, whose quick one is
    left out; the score of the weights is the best of the 5 sets."""
    watch, decoded = published(rng, {10: [0.1, 0.15], 20: [0.16, 0.0]}, {20: [0.1, 0.3, 0.2], 75: [0.25, 0.1]})
    assert go(watch, 80) == {20: 0.3, 75: 0.25}
    quick = [number for number in range(5, 81, 5) if number != 75]
    assert [entry[0] for entry in decoded if entry[1] == 5] == quick
    assert [entry for entry in decoded if entry[1] == 50] == [(20, 50, 5, "plms", 250), (75, 50, 5, "plms", 250)]
    assert {entry[2:] for entry in decoded if entry[1] == 5} == {(3, "plms", 250)}


def test_the_checkpoint_of_the_highest_score_is_kept(tmp_path):
    """A judge is asked at the boundary after it judged; larger is better, the first of equal ones stays."""
    scores = {2: 0.3, 4: 0.7, 6: 0.7, 8: 0.5}
    begun = create_run(
        tmp_path, stage="finetune_ldm", settings={"selection": "test"}, resume="auto", resume_override=False
    )
    trainer = SimpleNamespace(global_step=0, world_size=1, is_global_zero=True, callback_metrics={"val/loss": 0.0})
    trainer.save_checkpoint = lambda path: path.write_text(str(trainer.global_step))
    judge = SimpleNamespace(take=lambda: scores.pop(trainer.global_step, None))
    settings = TrainerConfig(checkpoint_every_steps=0, keep_best=1)
    checkpoints = Checkpoints(begun, MetricsFile(tmp_path), SignalWatch(), settings, judge=judge)
    for trainer.global_step in range(1, 10):
        checkpoints.on_validation_end(trainer, None)
        checkpoints.on_train_epoch_start(trainer, None)
    assert json.loads((tmp_path / "checkpoints" / "best.json").read_text()) == {"best-00000004.ckpt": 0.7}
    assert [path.name for path in (tmp_path / "checkpoints").glob("best-*.ckpt")] == ["best-00000004.ckpt"]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """A tiny simulated experiment and an untrained label-to-image model."""
    folder = tmp_path_factory.mktemp("watch")
    tiny_stages.simulate_experiment(folder)
    return folder


WATCHED = ["watch.classifier=demo", "watch.num_ways=10", "watch.every_epochs=2", "watch.num_steps=2"]
RULE = ["test_rule.every_epochs=1", "test_rule.num_steps=2", "test_rule.threshold=0", "trainer.val_every_epochs=0"]


def column(path, name: str) -> dict[int, float]:
    """Step -> value of one column of metrics.csv."""
    with (path / "metrics.csv").open(newline="") as file:
        return {int(row["step"]): float(row[name]) for row in csv.DictReader(file) if row.get(name)}


@pytest.mark.parametrize(
    ("extra", "name", "times"),
    [
        (["selection=validation", *WATCHED], "val/10_way_top_1", 2),  # after epoch 2, and after the last
        (["selection=test", *WATCHED, *RULE], "val/10_way_top_1 (max)_full", 3),
    ],
)
def test_the_checkpoint_of_the_best_decoding_is_selected(experiment, tmp_path, extra, name, times):
    """Trained for three epochs: every judged state has a row, and the best of them is what `generate` takes."""
    command = tiny_stages.command("finetune_ldm", experiment, tmp_path / "run", *extra)
    assert run("finetune_ldm", *command[2:]).status == 0
    scores = column(tmp_path / "run", name)
    assert len(scores) == times
    best = json.loads((tmp_path / "run" / "checkpoints" / "best.json").read_text())
    step = max(scores, key=scores.get)
    assert best == pytest.approx({f"best-{step:08d}.ckpt": scores[step]})
    told = run("generate", f"run={tmp_path / 'run'}", "num_samples=1", "num_steps=2", "stimuli=[0,1]")
    assert f"best-{step:08d}.ckpt" in told.out


def test_validation_needs_held_out_stimuli(experiment, tmp_path):
    """Nothing is chosen on the test set unless it is asked for."""
    command = tiny_stages.command("finetune_ldm", experiment, tmp_path / "run", "selection=validation", *WATCHED)
    told = run("finetune_ldm", *command[2:], "trainer.val_fraction=0")
    assert told.status == 2 and "holds out none of" in told.err


def test_watching_changes_no_weight(experiment, tmp_path):
    """A run that is decoded after every epoch ends bit for bit where one that is not does, in mixed precision."""
    states = []
    for every in (0, 1):
        quiet = [f"watch.every_epochs={every}", "trainer.figure_every_epochs=0", "trainer.max_epochs=2"]
        folder = tmp_path / str(every)
        command = tiny_stages.command(
            "finetune_ldm", experiment, folder, *WATCHED, *quiet, "trainer.precision=bf16-mixed"
        )
        assert run("finetune_ldm", *command[2:]).status == 0
        states.append(load_tensors(folder / "checkpoints" / "last.ckpt")["state_dict"])
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not column(tmp_path / "0", "val/10_way_top_1") and column(tmp_path / "1", "val/10_way_top_1")


def test_processes_share_what_is_decoded(rng, monkeypatch):
    """Each decodes every third row; all get all pictures in the order of the rows, also where one has nothing to do."""
    dataset = pairs(rng, 8)

    def decoded(module, dataset, rows, sampling, seed):
        return np.array(rows, np.uint8).reshape(-1, 1, 1, 1, 1).repeat(3, axis=4)

    def gather(parts, own):
        parts[:] = [decoded(None, dataset, rows[rank::3], None, 0) if rows[rank::3] else None for rank in range(3)]

    monkeypatch.setattr(watching, "decode_in_training", decoded)
    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    for rows in ([0, 1, 2, 3, 4, 5, 6, 7], [5, 2]):
        for rank in range(3):
            trainer = SimpleNamespace(global_rank=rank, world_size=3)
            pictures = watching.decode_shared(trainer, None, dataset, rows, None, 0)
            assert pictures[:, 0, 0, 0, 0].tolist() == rows

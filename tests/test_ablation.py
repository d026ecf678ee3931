"""The paper's ablation tables: their rows as settings, and running them row by row."""

import csv
import json
import multiprocessing
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import script_runner
from fake_stages import FakeStages
from omegaconf import OmegaConf
from scipy import stats

from mindvis.chain import ablation_tables
from mindvis.chain.ablation import Ablation, within_class
from mindvis.chain.ablation_tables import Figure, load_table, summarise, table_names
from mindvis.chain.plan import TRAININGS
from mindvis.common.errors import InputError
from mindvis.config.loading import flatten
from mindvis.config.tools import AblateConfig
from mindvis.evaluation.pictures import DecodedSet

ROOT = Path(__file__).parents[1]
# 50-way top-1 in per cent, as the paper has it
PAPER = {
    "embed_dim": [5.4, 6.9, 14.8, 15.9, 17.9, 17.7, 23.9, 15.5],
    "mask_ratio": [19.6, 20.0, 18.1, 21.7, 23.9, 16.1],
    "patch_size": [23.9, 18.2, 16.4],
    "depth": [23.9, 14.8, 13.6],
    "pretraining": [23.9, 2.6, 3.4],
    "focus": [23.9, 16.3],
    "padding": [23.9, 19.6, 14.8],
    "pretext": [23.9, 16.1],
    "condition": [23.9, 15.6, 13.8],
    "ldm": [23.9, 13.4, 16.0],
    "crop": [14.9, 17.9, 23.9, 15.2],
    "resting": [None] * 4,  # not in the paper, asked by users
    "selection": [None] * 3,
}
GOD = [
    ("embed_dim", "1280", "pretrain_mbm", "model.embed_dim", 1280),
    ("mask_ratio", "0.85", "finetune_mbm", "mask.mask_ratio", 0.85),
    ("patch_size", "64", "pretrain_mbm", "model.patch_size", 64),
    ("depth", "8", "pretrain_mbm", "model.decoder_depth", 4),
    ("pretraining", "none, depth 2", "finetune_ldm", "model.depth", 2),
    ("pretraining", "none, depth 24", "finetune_ldm", "encoder", None),
    ("focus", "focused on V1", "pretrain_mbm", "mask.focus_range", [0, 1618]),
    ("padding", "cut", "pretrain_mbm", "extra_data.pad_mode", "cut"),
    ("padding", "constant", "finetune_ldm", "data.pad_mode", "constant"),
    ("condition", "cross-attention only (no time-step condition)", "finetune_ldm", "use_time_condition", False),
    ("condition", "encoder only (no cross-attention heads)", "finetune_ldm", "tune", "encoder"),
    ("ldm", "layout-to-image", "finetune_ldm", "ldm", "pretrains/ldm/layout2img/model.ckpt"),
    ("pretext", "also image features", "pretrain_mbm", "pretext.weight", 0.5),
    ("resting", "100 subjects", "pretrain_mbm", "data.num_subjects", 100),
    ("selection", "best on the test set (test, as published)", "finetune_ldm", "selection", "test"),
    ("crop", "0.4", "finetune_ldm", "augment.crop_ratio", 0.4),
]

# Scaled down: what a row of these tables may change of the demo's trainings
SCALED = {
    "embed_dim": {"pretrain_mbm": {"model.embed_dim"}},
    "mask_ratio": {"pretrain_mbm": {"mask.mask_ratio"}, "finetune_mbm": {"mask.mask_ratio"}},
    "pretraining": {"finetune_ldm": {"model.embed_dim", "model.depth", "model.num_heads"}},  # where there is no encoder
    "condition": {"finetune_ldm": {"use_time_condition", "tune"}},
    "crop": {"finetune_ldm": {"augment.crop_ratio", "augment.crop_probability"}},
    "objective": {"finetune_ldm": {"objective"}},
}
FOLDERS = {"run_dir", "pretrained", "encoder"}


@pytest.fixture(autouse=True)
def in_the_project(monkeypatch):
    """Chains name their stage files from the project's folder."""
    monkeypatch.chdir(ROOT)


def results(step):
    """Scores that follow from the seed and the width, so that rows and seeds differ."""
    if step.stage == "score_mbm":
        return {"model": 0.1 * step.settings["seed"]}
    figures = [("10_way_top_1/demo", 0.2), ("pairwise_pcc", 0.7), ("pairwise_ssim", 0.6)]
    own = {"set": "decoded", "low": 0.1, "high": 0.9}
    return {"figures": [own | {"name": name, "value": value} for name, value in figures]}


def prepare(tmp_path, table, *, settings=None, **others):
    """The ablation of a table on simulated data, all below `tmp_path`."""
    settings = {"simulate": {"out": str(tmp_path / "data")}} | (settings or {})
    return Ablation(AblateConfig(table=table, scale="demo", root=str(tmp_path / "runs"), settings=settings, **others))


def test_every_row_of_the_paper_is_there():
    """All tables, each row with the paper's value."""
    found = {name: [row.paper for row in load_table(name).rows] for name in table_names()}
    assert found.pop("new_subject") == [None] * 8  # ours
    assert found.pop("objective") == [None] * 3  # ours too
    assert found.pop("hard") == [None] * 25 and found.pop("recipe") == [None] * 11
    assert found == PAPER


@pytest.mark.parametrize("scale", ["god", "demo"])
@pytest.mark.parametrize("name", table_names())
def test_every_row_can_be_planned(name, scale, tmp_path):
    """Known stages and settings; a row that cannot be run says why."""
    ablation = Ablation(AblateConfig(table=name, scale=scale, root=str(tmp_path)))
    assert all(getattr(m.row, scale) is not None or m.row.reason for m in ablation.results)
    assert len({plan[-1].name for _, _, plan in ablation.plans}) == len(ablation.plans)  # no two rows are the same
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("table", "row", "stage", "key", "value"), GOD)
def test_rows_set_what_they_are_named_after(table, row, stage, key, value):
    """On GOD subject 3, at the published sizes."""
    ablation = Ablation(AblateConfig(table=table, rows=[row]))
    (step,) = [step for _, _, plan in ablation.plans for step in plan if step.stage == stage]
    assert OmegaConf.select(OmegaConf.create(step.settings), key) == value
    assert stage == "pretrain_mbm" or step.settings["data"]["subjects"] == ["sbj_3"]


@pytest.mark.parametrize("name", SCALED)
def test_scaled_rows_differ_in_what_they_are_named_after(name, tmp_path):
    """Every other setting of every training is the same in all rows, and no two rows are the same."""
    found = {}
    for _, _, plan in prepare(tmp_path, name, decode=True).plans:
        for step in plan:
            for key, value in flatten(step.settings).items() if step.stage in TRAININGS else ():
                found.setdefault((step.stage, key), set()).add(str(value))
    changed = {key for key, values in found.items() if len(values) > 1 and key[1] not in FOLDERS}
    assert changed == {(stage, key) for stage, keys in SCALED[name].items() for key in keys}


def test_scaled_mask_ratios_are_what_the_rows_say(tmp_path):
    """Each row hides that share before and in the tuning, whatever the demo hides; all are scored alike."""
    for measured, _, plan in prepare(tmp_path, "mask_ratio", decode=True).plans:
        trained = [s.settings["mask"]["mask_ratio"] for s in plan if s.stage in ("pretrain_mbm", "finetune_mbm")]
        scored = [s.settings["mask_ratio"] for s in plan if s.stage == "score_mbm"]
        assert trained == [float(measured.row.name)] * 2 and scored == [0.75]


def test_a_table_of_stage_a_runs_no_stage_b(tmp_path):
    """Scaled down it is scored by hidden voxels, unless decoding is asked for."""
    stages = {step.stage for _, _, plan in prepare(tmp_path, "mask_ratio").plans for step in plan}
    assert stages == {"simulate", "pretrain_mbm", "score_mbm"}
    stages = {step.stage for _, _, plan in prepare(tmp_path, "mask_ratio", decode=True).plans for step in plan}
    assert stages >= {"score_mbm", "finetune_ldm", "evaluate"}


def test_results_over_seeds_beside_the_paper(tmp_path):
    """Markdown, CSV and JSON hold the mean over seeds, its interval and the paper's value."""
    ablation = prepare(tmp_path, "patch_size", seeds=[1, 2, 3])
    assert ablation.run(FakeStages(results=results), lambda line: None)
    text = (tmp_path / "runs" / "patch_size.md").read_text()
    assert "| 16 | 23.9 +- 3 | 0.200 [-0.048, 0.448] | 3 |" in text and "| 64 | 16.4 |" in text
    rows = list(csv.DictReader((tmp_path / "runs" / "patch_size.csv").open()))
    assert [row["paper"] for row in rows] == ["23.9", "18.2", "16.4"] and rows[0]["num_seeds"] == "3"
    content = json.loads((tmp_path / "runs" / "patch_size.json").read_text())
    assert [content["rows"][0]["seeds"][seed][0]["value"] for seed in "123"] == pytest.approx([0.1, 0.2, 0.3])


def test_decoded_rows_share_their_stage_a(tmp_path):
    """The rows of a Stage B table run one Stage A a seed."""
    stages = FakeStages(results=results)
    assert prepare(tmp_path, "condition", seeds=[1, 2]).run(stages, lambda line: None)
    kinds = [name.split("-")[0] for name in stages.started if "/" not in name]
    assert (kinds.count("simulate"), kinds.count("pretrain_mbm"), kinds.count("finetune_ldm")) == (1, 2, 6)
    table = (tmp_path / "runs" / "condition.md").read_text()
    assert "| full model | 23.9 +- 3 | 20.0 [20.0, 20.0] | 70.0 [70.0, 70.0] | 60.0 [60.0, 60.0] | 2 |" in table


def test_tables_share_what_they_have_in_common(tmp_path):
    """One root: one Stage A a seed for all three, and one Stage B of the full model."""
    stages, unused = FakeStages(results=results), lambda line: None
    for table in ("condition", "crop", "pretraining"):
        assert prepare(tmp_path, table, seeds=[1, 2]).run(stages, unused)
    kinds = [name.split("-")[0] for name in stages.started if "/" not in name]
    assert (kinds.count("simulate"), kinds.count("pretrain_mbm"), kinds.count("finetune_mbm")) == (1, 2, 2)
    assert kinds.count("finetune_ldm") == 2 * (3 + 3 + 2)


def test_rows_side_by_side_run_nothing_twice(tmp_path):
    """With two jobs two trainings are under way at a time; a row waits for a step that another has begun."""
    stages, together = FakeStages(results=results), threading.Barrier(2, timeout=20)

    def launch(step, *rest):
        if step.stage == "finetune_mbm":  # one a seed: a row after the other would never meet here
            together.wait()
        return stages(step, *rest)

    lines = []
    assert prepare(tmp_path, "condition", seeds=[1, 2], jobs=2).run(launch, lines.append)
    assert len(set(stages.started)) == len(stages.started)
    assert "| 2 |" in (tmp_path / "runs" / "condition.md").read_text()
    assert "condition 2/6: row full model, seed 2: 10-way top-1, % 20, pairwise pcc, % 70, pairwise ssim, % 60" in lines


def test_one_row_at_a_time_can_fork_its_stages(tmp_path):
    """A fork of a pool's thread would end with status 1 whatever the stage returns."""
    stages = FakeStages(results=results)

    def launch(step, *rest):
        process = multiprocessing.get_context("fork").Process(target=sys.exit, args=(0,))
        process.start()
        process.join()
        return process.exitcode or stages(step, *rest)

    assert prepare(tmp_path, "condition", seeds=[1]).run(launch, lambda line: None)


def test_an_unfinished_table_says_what_is_missing(tmp_path):
    """Rows and seeds without figures by name; the line goes when all is there."""
    prepare(tmp_path, "patch_size", seeds=[1], rows=["64"]).run(FakeStages(results=results), lambda line: None)
    ablation = prepare(tmp_path, "patch_size", seeds=[1, 2])
    assert not ablation.run(lambda step, *rest: 75, lambda line: None)
    table = ablation.write()
    assert "| 64 | 16.4 | 0.100 | 1 of 2 |" in table
    assert "Unfinished, not measured yet: 16 (seed 1, 2); 32 (seed 1, 2); 64 (seed 2)." in table
    assert prepare(tmp_path, "patch_size", seeds=[1, 2]).run(FakeStages(results=results), lambda line: None)
    assert "Unfinished" not in (tmp_path / "runs" / "patch_size.md").read_text()


def test_a_failed_row_leaves_the_others_and_goes_on_later(tmp_path):
    """What is finished stands in the table; the same command again runs the rest alone."""
    ablation = prepare(tmp_path, "patch_size")
    broken = ablation.plans[1][2][1].name
    assert not ablation.run(FakeStages(broken=[broken], results=results), lambda line: None)
    table = (tmp_path / "runs" / "patch_size.md").read_text()
    assert "| 32 | 18.2 |  | failed |" in table and "| 64 | 16.4 | 202.200 | 1 |" in table
    stages = FakeStages(results=results)
    assert prepare(tmp_path, "patch_size").run(stages, lambda line: None)
    assert stages.started == [broken, f"{broken}/score_mbm"]


def test_a_stopped_run_leaves_what_it_has(tmp_path):
    """Started again, the table begins with the rows that were done."""
    full, seen = FakeStages(results=results), []
    prepare(tmp_path, "patch_size", rows=["64"]).run(full, lambda line: None)

    def stop(step, *rest):
        seen.append((tmp_path / "runs" / "patch_size.md").read_text())
        return 75

    ablation = prepare(tmp_path, "patch_size")
    assert not ablation.run(stop, lambda line: None)
    assert len(seen) == 1 and "| 64 | 16.4 | 202.200 | 1 |" in seen[0]
    assert "| 16 | 23.9 +- 3 |  | stopped |" in ablation.write() and "not run yet" in ablation.write()


def test_a_row_of_the_paper_alone_gives_its_reason(tmp_path):
    """It stands in the table and runs nothing."""
    ablation = prepare(tmp_path, "ldm")
    assert ablation.run(FakeStages(results=results), lambda line: None)
    line = next(line for line in ablation.write().splitlines() if line.startswith("| text-to-image | 13.4 |"))
    assert "not run: no small text-to-image model" in line


def test_a_table_that_the_paper_does_not_have(tmp_path):
    """No column for the paper, and nothing in its place in the CSV."""
    ablation = prepare(tmp_path, "selection")
    assert ablation.run(FakeStages(results=results), lambda line: None)
    text = ablation.write()
    assert "paper" not in text and "| the last | 20.0 [10.0, 90.0] | 1 |" in text
    with (ablation.root / "selection.csv").open() as file:
        assert {row["paper"] for row in csv.DictReader(file)} == {""}


def hard_results(step):
    """Scores that follow from the decoder and the signal-to-noise ratio."""
    figures = [("10_way_top_1/demo", 0.2), ("pairwise_pcc", 0.7), ("pairwise_ssim", 0.6)]
    sets = [{"set": of, "low": 0.1, "high": 0.9} for of in ("decoded", "shuffled")]
    apart = [own | {"name": figures[0][0], "value": value, "classes": classes} for own in sets
             for classes, value in (("trained", 0.4), ("unseen", 0.3))]  # fmt: skip
    listed = [own | {"name": name, "value": value} for own in sets for name, value in figures]
    return {"figures": listed, "by_training": apart}


def test_decoders_at_low_signal_share_data_and_trainings(tmp_path, monkeypatch):
    """A ratio and seed has one experiment, one Stage B for each MinD-Vis row, and pictures of each row apart."""
    monkeypatch.setattr("mindvis.chain.ablation._within_class", lambda folder: [])
    rows = [f"SNR {snr}, {name}" for snr in (0.1, 1) for name in ("MinD-Vis alone", "combined", "ridge to the class")]
    ablation = prepare(tmp_path, "hard", seeds=[1, 2], rows=rows)
    stages = FakeStages(results=hard_results)
    assert ablation.run(stages, lambda line: None)
    kinds = [name.split("/")[-1].split("-")[0] for name in stages.started]
    assert (kinds.count("simulate"), kinds.count("finetune_ldm"), kinds.count("baseline_ridge")) == (4, 8, 4)
    assert (kinds.count("generate"), kinds.count("evaluate")) == (2 * 2 * 4, 3 * 4)
    folders = {str(step.folder) for step in ablation.steps if step.stage == "evaluate"}
    assert len(folders) == 12
    experiments = {(step.settings["seed"], step.settings["snr"]) for step in ablation.steps if step.stage == "simulate"}
    assert experiments == {(seed, snr) for seed in (1, 2) for snr in (0.1, 1.0)}
    text = (tmp_path / "runs" / "hard.md").read_text()
    assert "10-way top-1, trained classes, shuffled, %" in text and "| SNR 1, combined | 40.0 [40.0, 40.0] |" in text


def test_within_a_class(rng):
    """Own pictures are found, those of the other one of the class are not; the only one of a class is left out."""
    stimuli = rng.integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    decoded = np.stack([stimuli[[0, 1, 3, 2, 4]], stimuli[[0, 1, 2, 3, 4]]], axis=1)
    found = within_class(DecodedSet(Path(), decoded, stimuli, list("01234"), [7, 7, 8, 8, 9]))
    np.testing.assert_allclose(found, [1, 1, 0.5, 0.5])


def test_rows_of_resting_subjects_take_as_many_steps(tmp_path):
    """Fewer subjects are seen more often: 1200 frames a subject beside the 2400 training rows of the demo."""
    steps = []
    for _, _, plan in prepare(tmp_path, "resting").plans:
        (settings,) = [step.settings for step in plan if step.stage == "pretrain_mbm"]
        rows = 0.95 * (2400 + 120 * (settings["data"]["num_subjects"] or 20))
        steps.append(settings["trainer"]["max_epochs"] * rows / settings["trainer"]["batch_size"])
    assert max(steps) < 1.1 * min(steps)


def test_settings_are_laid_over_before_the_rows(tmp_path):
    """One value for the whole table, where a row does not set it itself."""
    own = {"pretrain_mbm": {"trainer": {"max_epochs": 3}, "model": {"embed_dim": 5}}}
    plans = prepare(tmp_path, "embed_dim", settings=own, rows=["64"]).plans
    settings = plans[0][2][1].settings
    assert (settings["trainer"]["max_epochs"], settings["model"]["embed_dim"]) == (3, 4)


def test_interval_over_seeds():
    """The t interval of the mean; one seed keeps its own interval."""
    values = [0.2, 0.5, 0.3, 0.1]
    found = summarise([Figure("a", value) for value in values])
    expected = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert (found.low, found.high) == pytest.approx(expected)
    assert summarise([Figure("a", 0.2, 0.1, 0.3)]) == Figure("a", 0.2, 0.1, 0.3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"table": "width"}, "'width': none of that name; needed: one of condition, crop"),
        ({"scale": "huge"}, "one of god, demo"),
        ({"rows": ["48"]}, "setting rows names '48'; needed: some of '16', '32', '64'"),
        ({"seeds": []}, "at least one"),
        ({"jobs": 0}, "setting jobs is 0; needed: at least 1"),
        ({"settings": {"stage_b": {}}}, "no stage 'stage_b'"),
        ({"settings": {"pretrain_mbm": {"trainer": {"epochs": 3}}}}, "unknown setting trainer.epochs"),
    ],
)
def test_wrong_settings_are_one_line(settings, message):
    """Nothing is begun."""
    with pytest.raises(InputError, match=message):
        Ablation(AblateConfig(**{"table": "patch_size", "scale": "demo"} | settings))


def test_wrongly_edited_table_names_its_file(tmp_path, monkeypatch):
    """A row with a key that is none."""
    (tmp_path / "mine.yaml").write_text("{title: Mine, measures: {}, rows: [{name: 1, papr: 3}]}")
    monkeypatch.setattr(ablation_tables, "FOLDER", tmp_path)
    with pytest.raises(InputError, match="mine.yaml: .*papr.* needed: title, measures, rows"):
        load_table("mine")


def test_script_takes_the_table_as_first_word(tmp_path):
    """A dry run lists the steps; an unknown table is one line."""
    outcome = script_runner.run("ablate", "depth", "scale=demo", "dry_run=true", f"root={tmp_path}")
    assert outcome.status == 0 and outcome.out.count("-> ") == 7
    several = script_runner.run("ablate", "depth,patch_size", "scale=demo", "dry_run=true", f"root={tmp_path}")
    assert several.status == 0 and several.out.count("-> ") == 7 + 6 - 2  # depth 2 is patch size 16
    hard = script_runner.run("ablate", "hard", "scale=demo", "dry_run=true", f"root={tmp_path}")
    assert hard.status == 0 and hard.out.count("-> ") == 4 * (5 + 2 * 3 + 4 * 2) + 4  # another context at .1
    assert script_runner.run("ablate", "dpth").status == 2

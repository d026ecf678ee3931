"""The chain as one command: plan, skip, run again, go on after a failure, several subjects."""

import json
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import script_runner
import tiny_stages
from fake_stages import FakeStages
from omegaconf import OmegaConf

from mindvis.chain.execute import Runner, describe_plan, run_subjects
from mindvis.chain.overview import markdown_table, read_summaries, write_overview
from mindvis.chain.plan import TRAININGS, plan_chain
from mindvis.chain.processes import visible_devices
from mindvis.chain.record import Record, absent_inputs, locked
from mindvis.common.errors import InputError
from mindvis.config.tools import ChainConfig, StageConfig
from mindvis.evaluation.report import SCHEMA

ONE_SUBJECT = [name for name in TRAININGS if name != "pretrain_ldm"]  # which trains on several
BRIEF = ["trainer.max_steps=2", "trainer.figure_every_epochs=0", "trainer.checkpoint_every_steps=0"]


@pytest.fixture
def config(tmp_path):
    """A chain of every stage but simulate, for two subjects whose data is a few bytes."""
    data = tmp_path / "npz"
    data.mkdir()
    for subject in ("sbj_1", "sbj_2"):
        (data / f"{subject}.npz").write_text(subject)
    god = {"data": {"name": "god", "root": str(data)}}
    stages = {name: StageConfig(settings=god) for name in ONE_SUBJECT}
    stages |= {name: StageConfig() for name in ("score_mbm", "generate", "evaluate")}
    return ChainConfig(root=str(tmp_path / "runs"), subjects=["sbj_1", "sbj_2"], seed=7, **stages)


def go(config, stages, **naming):
    """Run a chain; returns its lines and the names of the steps that were started."""
    stages.started.clear()
    lines = []
    with locked(Path(config.root)):
        runner = Runner(Path(config.root), Record(Path(config.root)), stages, lines.append)
        run_subjects(runner, plan_chain(config, **naming), config.devices)
    return lines, list(stages.started)


OF_SUBJECT = ["finetune_mbm", "finetune_ldm", "generate", "generate_shuffled", "evaluate"]
ALL = ["pretrain_mbm", "score_mbm", *(f"sbj_{s}/{stage}" for s in (1, 2) for stage in OF_SUBJECT)]


def test_shared_steps_run_once_and_the_rest_by_subject(config):
    """Stage A first, then every stage of one subject after the other; each training takes the run before it."""
    _, started = go(config, FakeStages())
    assert started == ALL
    settings = {step.name: step.settings for step in plan_chain(config)}
    assert settings["sbj_2/finetune_ldm"]["encoder"] == f"{config.root}/sbj_2/finetune_mbm"
    assert settings["sbj_2/finetune_ldm"]["data"]["subjects"] == ["sbj_2"]
    assert settings["sbj_1/generate_shuffled"]["output"] == f"{config.root}/sbj_1/finetune_ldm/decoded/shuffled"
    assert settings["sbj_1/evaluate"]["decoded"] == f"{config.root}/sbj_1/finetune_ldm/decoded"
    assert {value["seed"] for value in settings.values()} == {7}


def absent(config) -> list[str]:
    steps = plan_chain(config)
    return absent_inputs(steps, steps)


def test_inputs_that_nobody_makes_are_told_beforehand(config, tmp_path):
    """The label-to-image model, a classifier's weights, data: each once, with its setting; what steps make is none."""
    config.evaluate.settings = {"classifier_weights": "vit.pth", "classifier": "vit_h_14"}
    ldm, vit = absent(config)
    assert ldm.startswith("pretrains/ldm/label2img/model.ckpt (ldm of finetune_ldm); published at https://")
    assert "in its place: ldm=demo" in ldm and vit == "vit.pth (classifier_weights of evaluate)"
    (tmp_path / "npz" / "sbj_2.npz").unlink()
    assert f"god data of sbj_2 in {tmp_path / 'npz'} (data.root of finetune_mbm)" in absent(config)


def test_a_chain_that_makes_its_data_and_uses_what_is_packaged_lacks_nothing(config, tmp_path):
    """Simulated data, the demo's model and classifier."""
    data = {"data": {"name": "god", "root": str(tmp_path / "simulated" / "GOD" / "npz")}}
    for name in ONE_SUBJECT:
        getattr(config, name).settings = data
    config.simulate = StageConfig(settings={"out": str(tmp_path / "simulated")})
    config.finetune_ldm.settings = data | {"ldm": "demo"}
    config.evaluate.settings = {"classifier": "demo"}
    assert absent(config) == []


def test_absent_weights_of_the_default_classifier_are_told(config, tmp_path, monkeypatch):
    """They would be in torch's cache; the line says where to put them."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (line,) = [line for line in absent(config) if "evaluate" in line]
    assert "classifier vit_h_14" in line and str(tmp_path) in line


def test_an_absent_input_ends_the_command_before_the_first_step(tmp_path, monkeypatch):
    """One line, status 2, nothing written; dry_run ends alike and lists them all."""
    shutil.copytree(tiny_stages.TESTS.parent / "configs", tmp_path / "configs")
    monkeypatch.chdir(tmp_path)  # where no data lies
    chain = ["--config", "configs/god.yaml", "root=runs"]
    outcome = script_runner.run("run_chain", *chain)
    assert outcome.status == 2 and len(outcome.err.splitlines()) == 1
    assert "data/HCP" in outcome.err and "more (dry_run=true lists them)" in outcome.err
    assert not (tmp_path / "runs").exists()
    listed = script_runner.run("run_chain", *chain, "dry_run=true")
    lines = [line for line in listed.out.splitlines() if line.startswith("absent")]
    assert (listed.status, listed.err) == (2, outcome.err)
    assert len(lines) >= 3 and any("label2img" in line for line in lines)


def test_files_named_in_a_file_are_looked_for_beside_it_and_in_the_project(tmp_path, monkeypatch):
    """From any working directory: first the file beside the chain's, then that of the project."""
    (tmp_path / "mine" / "configs").mkdir(parents=True)
    shutil.copy(tiny_stages.TESTS.parent / "configs" / "god.yaml", tmp_path / "mine" / "configs")
    (tmp_path / "mine" / "configs" / "pretrain_hcp.yaml").write_text("data: {name: hcp, root: own_resting_state}")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    outcome = script_runner.run("run_chain", "--config", tmp_path / "mine" / "configs" / "god.yaml", "dry_run=true")
    assert "absent hcp data in own_resting_state (data.root of pretrain_mbm)" in outcome.out
    assert "absent god data of sbj_1 in data/Kamitani/npz" in outcome.out


def test_done_steps_are_skipped(config):
    """The same command again starts nothing."""
    stages = FakeStages()
    go(config, stages)
    lines, started = go(config, stages)
    assert started == [] and lines == [f"{name}: done before" for name in ALL]


def test_changed_setting_runs_a_step_and_what_follows_again(config):
    """Stage B and what it feeds run again; the older run is kept beside the new one."""
    stages = FakeStages()
    go(config, stages)
    config.finetune_ldm.settings = config.finetune_ldm.settings | {"optim": {"lr": 1e-3}}
    lines, started = go(config, stages)
    assert started == [f"sbj_{s}/{stage}" for s in (1, 2) for stage in OF_SUBJECT[1:]]
    assert any("optim.lr (5.3e-05 -> 0.001)" in line for line in lines)
    assert (Path(config.root) / "sbj_1" / "finetune_ldm.old-1" / "checkpoints" / "last.ckpt").is_file()


@pytest.mark.parametrize("setting", ["resume_override", "logging", "trainer"])
def test_settings_without_effect_run_nothing_again(config, setting):
    """Workers, logging and the like are no part of a result."""
    stages = FakeStages()
    go(config, stages)
    free = {"resume_override": True, "logging": {"wandb": "disabled"}, "trainer": {"num_workers": 3}}
    config.finetune_ldm.settings = config.finetune_ldm.settings | {setting: free[setting]}
    assert go(config, stages)[1] == []


def test_changed_data_of_a_subject_run_its_steps_again(config, tmp_path):
    """Files count by what is in them: touching one does nothing, another content does, for its subject."""
    config.pretrain_mbm.settings = {"data": config.pretrain_mbm.settings["data"] | {"subjects": ["sbj_2"]}}
    stages = FakeStages()
    go(config, stages)
    for subject, content in (("sbj_1", "other"), ("sbj_2", "sbj_2")):
        (tmp_path / "npz" / f"{subject}.npz").write_text(content)
    lines, started = go(config, stages)
    assert "sbj_1/finetune_mbm" in started and not any("sbj_2" in name or "pretrain" in name for name in started)
    assert any("input changed: data" in line for line in lines)


def test_lost_result_is_made_again(config):
    """A run folder that was removed is not counted as done."""
    stages = FakeStages()
    go(config, stages)
    (Path(config.root) / "sbj_1" / "finetune_ldm" / "decoded" / "report.json").unlink()
    lines, started = go(config, stages)
    assert started == ["sbj_1/evaluate"] and any("is gone" in line for line in lines)


def test_failure_ends_one_subject_and_says_how_to_go_on(config):
    """The other subject runs to its end; one line names step, subject, cause, log; the next start continues."""
    lines, started = go(config, FakeStages(broken=["sbj_1/finetune_ldm"]))
    assert started == [name for name in ALL if name not in {f"sbj_1/{stage}" for stage in OF_SUBJECT[2:]}]
    (failure,) = [line for line in lines if "failed" in line]
    for part in ("finetune_ldm of sbj_1", "status 2", "error: it is broken", "logs/sbj_1-finetune_ldm.log", "again"):
        assert part in failure
    record = json.loads((Path(config.root) / "chain.json").read_text())["steps"]
    assert (record["sbj_1/finetune_ldm"]["state"], record["sbj_2/evaluate"]["state"]) == ("failed", "done")
    assert go(config, FakeStages())[1] == [f"sbj_1/{stage}" for stage in OF_SUBJECT[1:]]


def test_failing_shared_step_leaves_no_subject_to_run(config):
    """Nothing can follow a Stage A that failed, and nothing is counted as done."""
    go(config, FakeStages())
    config.pretrain_mbm.settings = config.pretrain_mbm.settings | {"mask": {"mask_ratio": 0.5}}
    runner = Runner(
        Path(config.root), Record(Path(config.root)), FakeStages(broken=["pretrain_mbm"]), lambda line: None
    )
    assert [step.name for step in run_subjects(runner, plan_chain(config), 1)] == ALL


def test_plan_names_what_would_run_and_why(config):
    """A dry run starts nothing, writes nothing and gives a reason for every step."""
    lines = describe_plan(plan_chain(config), Record(Path(config.root)))
    assert len(lines) == len(ALL) and "not run yet" in lines[0] and "after pretrain_mbm" in lines[2]
    assert not Path(config.root).exists()
    go(config, FakeStages())
    config.generate.settings = {"num_steps": 50}
    lines = describe_plan(plan_chain(config), Record(Path(config.root)))
    assert [line.startswith("skip") for line in lines] == [*[True] * 4, *[False] * 3, True, True, *[False] * 3]
    assert "num_steps (250 -> 50)" in lines[4]


def test_subjects_side_by_side_have_a_device_each(config, monkeypatch):
    """With two devices every subject sees one; in a row each sees all."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    config.devices = 2
    barrier, stages = threading.Barrier(2, timeout=20), FakeStages()

    def launch(step, *rest):
        if step.stage == "finetune_mbm":
            barrier.wait()  # passes only when both subjects are there at once
        return stages(step, *rest)

    runner = Runner(Path(config.root), Record(Path(config.root)), launch, lambda line: None)
    assert run_subjects(runner, plan_chain(config), config.devices) == []
    assert stages.devices[None] is None and {stages.devices["sbj_1"], stages.devices["sbj_2"]} == {"4", "6"}
    assert visible_devices(2) == ["4", "6"]


def test_chains_with_names_from_settings_share_equal_runs(config):
    """Two chains that differ in Stage B have Stage A in common."""
    stages = FakeStages()
    go(config, stages, by_settings=True)
    config.finetune_ldm.settings = config.finetune_ldm.settings | {"tune": "encoder"}
    _, started = go(config, stages, by_settings=True)
    assert {name.split("-")[0] for name in started} == {"finetune_ldm"}
    assert len(started) == 8 and len(list(Path(config.root).glob("finetune_ldm-*"))) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"subjects": []}, "subjects is empty"),
        ({"subjects": ["sbj_1", "sbj_1"]}, "each subject once"),
        ({"devices": 0}, "at least 1"),
        ({"devices": 2, "fork": True}, "fork is true with devices=2; needed: devices=1, or fork=false"),
        ({"finetune_ldm": StageConfig(settings={"optm": {"lr": 1}})}, "stage finetune_ldm .* nearest: optim"),
        ({"finetune_ldm": StageConfig(config="absent.yaml")}, "absent.yaml: no such config"),
        ({"pretrain_mbm": None, "score_mbm": None}, "stage finetune_mbm .* setting pretrained is not given"),
    ],
)
def test_wrong_chain_is_refused(config, changes, message):
    """One line that names the setting."""
    with pytest.raises(InputError, match=message):
        plan_chain(ChainConfig(**vars(config) | changes))


def test_two_chains_do_not_share_a_root(config):
    """The second one is refused while the first is at work."""
    with locked(Path(config.root)), pytest.raises(InputError, match="another chain"), locked(Path(config.root)):
        pass


def test_one_subject_may_have_no_folder_of_its_own(config):
    """Its runs lie in the root, where the demo has them; of several that would be a muddle."""
    config.subject_folders = False
    with pytest.raises(InputError, match="subject_folders is false with 2 subjects; needed: one subject"):
        plan_chain(config)
    config.subjects = ["sbj_1"]
    _, started = go(config, FakeStages())
    assert started == ["pretrain_mbm", "score_mbm", *OF_SUBJECT]
    assert (Path(config.root) / "finetune_ldm" / "decoded" / "report.json").is_file()


def test_data_follow_the_simulation_to_another_folder(config, tmp_path):
    """Folders in a stage's file below the simulated ones move along; others, and those of the chain's own, stay."""
    for name, text in {"simulate": "out: old", "pretrain_mbm": "data: {name: hcp, root: old/HCP/npz}"}.items():
        (tmp_path / f"{name}.yaml").write_text(text)
        setattr(config, name, StageConfig(config=str(tmp_path / f"{name}.yaml")))
    config.simulate.settings = {"out": "new"}
    config.finetune_mbm = StageConfig(str(tmp_path / "pretrain_mbm.yaml"), {"data": {"root": "old/mine"}})
    settings = {step.stage: step.settings for step in plan_chain(config)}
    assert settings["pretrain_mbm"]["data"]["root"] == "new/HCP/npz"
    assert settings["finetune_mbm"]["data"]["root"] == "old/mine"
    assert settings["finetune_ldm"]["data"]["root"] == str(tmp_path / "npz")


def test_scores_written_elsewhere_are_found(config, tmp_path):
    """`output` of evaluate is where its report is looked for, and where the demo's summary reads it."""
    config.evaluate.settings = {"output": str(tmp_path / "scores")}
    config.demo_summary, config.subjects = StageConfig(), ["sbj_1"]
    folders = {step.stage: step.folder for step in plan_chain(config)}
    assert folders["evaluate"] == folders["demo_summary"] == tmp_path / "scores"


def test_summary_is_made_again_when_the_report_changes(config, tmp_path):
    """It reads report.json, which is no setting."""
    config.demo_summary, config.subjects, stages = StageConfig(), ["sbj_1"], FakeStages()
    go(config, stages)
    config.evaluate.settings = {"num_bootstrap": 7}
    _, started = go(config, stages)
    assert started == ["sbj_1/evaluate", "sbj_1/demo_summary"]
    assert "demo_summary" not in read_summaries(plan_chain(config)[:-1])
    assert read_summaries(plan_chain(config)).startswith("{")


def test_overview_sets_subjects_side_by_side(config, tmp_path):
    """A row a subject and their mean in Markdown, all figures in CSV."""
    figure = {"name": "10_way_top_1/demo", "low": 0.1, "high": 0.4, "best": 0.3, "chance": 0.1, "n": 8}
    steps = [step for step in plan_chain(config) if step.stage == "evaluate"]
    for step, value in zip(steps, (0.2, 0.3), strict=True):
        step.folder.mkdir(parents=True)
        figures = [figure | {"set": "decoded", "value": value}, figure | {"set": "shuffled", "value": 0.09}]
        (step.folder / "report.json").write_text(json.dumps({"schema": SCHEMA, "figures": figures}))
    table = write_overview(Path(config.root), steps)
    assert "| sbj_1 | 0.200 [0.100, 0.400], shuffled 0.090 |" in table and "| mean | 0.250 |" in table
    assert "| chance | 0.100 |" in table and "paper" not in table
    assert len((Path(config.root) / "chain.csv").read_text().splitlines()) == 5


def test_overview_shows_n_way_and_pairwise_identification_once_each():
    """Docs tell users of few classes to judge by pairwise identification; sampled n-way repeats the exact one."""
    names = ["10_way_top_1/demo", "10_way_top_1_sampled_1000/demo", "pairwise_pcc", "pcc", "two_way_alexnet_2"]
    figures = [{"name": name, "set": "decoded", "value": 0.5, "low": None, "chance": None} for name in names]
    head = markdown_table({"mine": figures}).splitlines()[0]
    assert head == "| subject | 10_way_top_1/demo | pairwise_pcc | two_way_alexnet_2 |"


@pytest.mark.parametrize(
    ("name", "simulated", "rows"),
    [
        ("god", False, ["best of 5 sample sets | sbj_1 0.091, sbj_3 0.274 |", "mean of 5 sample sets | sbj_3 0.238 |"]),
        ("god", True, []),
        ("npz", False, []),
    ],
)
def test_overview_has_the_papers_values_of_real_subjects(config, tmp_path, name, simulated, rows):
    """Not of simulated ones, nor of other data whose subjects are called the same."""
    config.subjects, config.simulate = ["sbj_1", "sbj_3"], StageConfig() if simulated else None
    config.finetune_ldm.settings = {"data": {"name": name, "root": str(tmp_path)}}
    figure = {"name": "50_way_top_1/vit_h_14", "set": "decoded", "value": 0.2, "low": None, "chance": 0.02}
    steps = plan_chain(config)
    for step in steps:
        if step.stage == "evaluate":
            step.folder.mkdir(parents=True)
            (step.folder / "report.json").write_text(json.dumps({"schema": SCHEMA, "figures": [figure]}))
    table = write_overview(Path(config.root), steps)
    assert [line.partition("paper, ")[2] for line in table.splitlines() if "paper" in line] == rows
    assert "| chance | 0.020 |" in table


def in_this_process(step, settings, log, device):
    """A real stage without the cost of a process."""
    outcome = script_runner.run(step.stage, "--config", settings)
    log.open("a").write(outcome.out + outcome.err)
    return outcome.status


def tiny_chain(folder: Path, **settings) -> ChainConfig:
    """Every stage for two simulated subjects, seconds long; `settings` are the chain's own."""
    tiny_stages.simulate_experiment(folder)
    simulated = {"voxels": tiny_stages.VOXELS, "num_subjects": 2, "train_per_class": 3, "num_test": 8}
    simulated |= {"num_resting": 2, "num_frames": 400, "out": str(folder / "simulated")}
    stages = {"simulate": simulated}
    for stage in ONE_SUBJECT:
        dotlist = tiny_stages.command(stage, folder, folder / stage, "trainer.max_epochs=1", *BRIEF)[3:]
        stages[stage] = OmegaConf.to_container(OmegaConf.from_dotlist(dotlist))
        stages[stage]["data"]["root"] = str(folder / "simulated" / ("HCP" if "pre" in stage else "Kamitani") / "npz")
    stages["generate"] = {"num_samples": 2, "num_steps": 2, "sampler": "ddim", "device": "cpu"}
    stages["evaluate"] = {"classifier": "demo", "nsd_suite": False, "num_ways": [10], "num_bootstrap": 50}
    stages["evaluate"] |= {"logging": {"wandb": "disabled"}, "device": "cpu"}
    stages = {name: StageConfig(settings=content) for name, content in stages.items()}
    return ChainConfig(root=str(folder / "runs"), subjects=["sbj_1", "sbj_2"], **stages, **settings)


def test_real_stages_from_simulation_to_table(tmp_path):
    """Tiny stages of two subjects: a setting that evaluate refuses, put right, ends in the table of both."""
    config = tiny_chain(tmp_path)
    config.evaluate.settings["num_ways"] = [500]
    first, second, root = [], [], Path(config.root)
    root.mkdir()
    missing = run_subjects(Runner(root, Record(root), in_this_process, first.append), plan_chain(config), 1)
    assert [step.name for step in missing] == ["sbj_1/evaluate", "sbj_2/evaluate"], first
    assert all("num_ways: found 500" in line for line in first if "failed" in line)
    config.evaluate.settings["num_ways"] = [10]
    assert run_subjects(Runner(root, Record(root), in_this_process, second.append), plan_chain(config), 1) == []
    assert len([line for line in second if "done before" in line]) == 10
    assert "| sbj_2 | 0." in write_overview(root, plan_chain(config))


def test_script_shows_the_plan(tmp_path):
    """dry_run lists the steps of the shipped GOD chain."""
    outcome = script_runner.run(
        "run_chain", "--config", tiny_stages.TESTS.parent / "configs" / "demo.yaml", "dry_run=true", f"root={tmp_path}"
    )
    assert outcome.status == 0 and outcome.out.count("run ") >= 7 and not list(tmp_path.iterdir())


def several(config: ChainConfig, finetune_ldm: bool) -> dict:
    """Steps by name of a chain whose Stage B is trained on several subjects, then for one subject or not."""
    data = {"data": config.finetune_ldm.settings["data"] | {"subjects": ["sbj_1", "sbj_2"], "reference": "sbj_1"}}
    tuned = config.finetune_ldm if finetune_ldm else None
    changed = {"pretrain_ldm": StageConfig(settings=data), "finetune_mbm": None, "finetune_ldm": tuned}
    return {step.name: step for step in plan_chain(replace(config, **changed))}


def test_one_model_of_several_subjects_decodes_each(config):
    """Stage B runs once; the pictures of a subject are made from its rows in the space of that model."""
    steps = several(config, finetune_ldm=False)
    assert "sbj_1/finetune_ldm" not in steps and steps["pretrain_ldm"].script == "finetune_ldm"
    assert steps["pretrain_ldm"].settings["encoder"] == str(steps["pretrain_mbm"].folder)
    generate = steps["sbj_2/generate"].settings
    assert generate["run"] == str(steps["pretrain_ldm"].folder)
    assert (generate["data"]["subjects"], generate["data"]["reference"]) == (["sbj_2"], "sbj_1")
    assert generate["output"] == f"{generate['run']}/decoded_sbj_2"
    assert steps["sbj_2/evaluate"].settings["decoded"] == generate["output"]


def test_a_new_subject_starts_from_the_others(config):
    """Stage B of the subject goes on from that of several, encoder and all."""
    steps = several(config, finetune_ldm=True)
    own = steps["sbj_2/finetune_ldm"].settings
    assert own["start"] == str(steps["pretrain_ldm"].folder) and own["encoder"] is None
    assert own["data"]["subjects"] == ["sbj_2"]
    assert steps["sbj_2/generate"].settings["run"] == str(steps["sbj_2/finetune_ldm"].folder)


def test_stage_b_of_several_brings_its_encoder(config):
    """Stage A is not tuned for a subject beside it."""
    with pytest.raises(InputError, match="pretrain_ldm has its encoder; needed: finetune_mbm=null"):
        plan_chain(replace(config, pretrain_ldm=StageConfig()))

"""wandb's offline files, read back: curves, pictures, tables, artifacts and the links between the runs of a chain."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import tiny_stages
import toy
from PIL import Image
from script_runner import run
from wandb_files import OfflineRun, offline_runs

from mindvis.common.errors import InputError
from mindvis.config.schemas import LoggingConfig
from mindvis.training import wandb_runs
from mindvis.training.runs import create_run
from mindvis.training.wandb_runs import source_runs

STAGES = ("pretrain_mbm", "finetune_mbm", "finetune_ldm")
OFFLINE = LoggingConfig()
SHORT = ["logging.wandb=offline", "trainer.max_epochs=2"]
EVALUATE = ["classifier=demo", "num_ways=[2]", "top_k=[1]", "num_bootstrap=50", "nsd_suite=false", "metrics=[mse]"]


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """The wandb run of every stage of a tiny chain, and its folder under `path`."""
    folder = tmp_path_factory.mktemp("chain")
    tiny_stages.simulate_experiment(folder)
    for stage in STAGES:
        more = [f"encoder={folder / 'finetune_mbm'}"] if stage == "finetune_ldm" else []
        assert run(stage, *tiny_stages.command(stage, folder, folder / stage, *SHORT, *more)[2:]).status == 0
    small = ["num_samples=2", "num_steps=2", "sampler=ddim", "stimuli=[0,3,5]"]
    assert run("generate", f"run={folder / 'finetune_ldm'}", *small).status == 0
    decoded = folder / "finetune_ldm" / "decoded"
    assert run("evaluate", f"decoded={decoded}", *EVALUATE).status == 0
    runs = {stage: offline_runs(folder / stage)[0] for stage in STAGES}
    return {"path": folder, "evaluate": offline_runs(decoded)[0], **runs}


@pytest.mark.parametrize("stage", STAGES)
def test_curves_are_those_of_the_csv_file(chain, stage):
    """Every number of metrics.csv, at its step, to the last bit; nothing else but speed."""
    with (chain["path"] / stage / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    for name in rows[0].keys() - {"step", "epoch"}:
        assert chain[stage].curve(name) == [(int(row["step"]), float(row[name])) for row in rows if row[name]]
    shown = {name for point in chain[stage].history for name in point if not name.startswith(("_", "speed/"))}
    assert shown - {"masked_reconstruction", "decoded"} == rows[0].keys()


@pytest.mark.parametrize(
    ("stage", "name"),
    [(STAGES[0], "masked_reconstruction"), (STAGES[1], "masked_reconstruction"), (STAGES[2], "decoded")],
)
def test_pictures_are_those_of_the_run_folder(chain, stage, name):
    """A file a picture, pixel for pixel the figure of the same step."""
    files = chain[stage].pictures(name)
    figures = sorted((chain["path"] / stage / "figures").glob(f"{name}-*.png"))
    assert len(files) == len(figures) == 2
    for file, figure in zip(files, figures, strict=True):
        assert np.array_equal(np.asarray(Image.open(file)), np.asarray(Image.open(figure).convert("RGB")))
    steps = [point["step"] for point in chain[stage].history if name in point]
    assert steps == [int(figure.stem.split("-")[1]) for figure in figures]


def test_decoded_grids_say_that_the_stimulus_comes_first(chain):
    """The caption of the grid."""
    point = next(point for point in chain["finetune_ldm"].history if "decoded" in point)
    assert point["decoded"]["captions"][0].startswith("a row a stimulus: the stimulus first")


@pytest.mark.parametrize("stage", [*STAGES, "evaluate"])
def test_job_type_is_the_stage_and_the_group_that_of_the_chain(chain, stage):
    """One group from pretraining to the score, named by the first data set; the project as set."""
    described = chain[stage].run
    assert (described.project, described.run_group, described.job_type) == ("mindvis", "hcp", stage)


def test_a_run_names_the_runs_it_came_from(chain):
    """Nearest first, back to pretraining."""
    ids = {stage: chain[stage].run.run_id for stage in STAGES}
    for stage, before in {"pretrain_mbm": [], "finetune_ldm": STAGES[1::-1], "evaluate": STAGES[::-1]}.items():
        sources = chain[stage].config["sources"]
        assert [(source["stage"], source["id"]) for source in sources] == [(name, ids[name]) for name in before]
        assert [source["name"] for source in sources] == list(before)


def test_the_settings_are_the_config(chain):
    """As in config.yaml."""
    assert chain["finetune_ldm"].config["trainer"]["batch_size"] == 4
    assert chain["evaluate"].config["evaluate"]["num_ways"] == [2]


def test_the_final_table_shows_pictures_and_scores(chain):
    """A row a stimulus: its picture, its samples, and its score by every measure as in report.json."""
    folder = chain["path"] / "finetune_ldm" / "decoded"
    arrays, report = np.load(folder / "decoded.npz"), json.loads((folder / "report.json").read_text())
    rows, files = chain["evaluate"].table("evaluation/pictures")
    assert sorted(row["stimulus_id"] for row in rows) == ["0", "3", "5"]
    assert all(file.is_relative_to(folder / "wandb") for file in files.values())
    ids = arrays["stimulus_ids"].tolist()
    for row in rows:
        index = ids.index(int(row["stimulus_id"]))
        for column, picture in {"stimulus": arrays["stimuli"], "sample 1": arrays["decoded"][:, 1]}.items():
            assert np.array_equal(np.asarray(Image.open(files[row[column]["path"]])), picture[index])
        scores = report["per_stimulus"][index]["scores"]
        assert scores and {name: row[name] for name in scores} == scores


def test_the_figures_of_the_report_are_a_table(chain):
    """Values and intervals as in report.json."""
    report = json.loads((chain["path"] / "finetune_ldm" / "decoded" / "report.json").read_text())
    rows, _ = chain["evaluate"].table("evaluation/figures")
    assert [row["value"] for row in rows] == [figure["value"] for figure in report["figures"]]


def train(path: Path, settings: LoggingConfig = OFFLINE, **more) -> OfflineRun:
    """The toy training with wandb; its newest wandb run."""
    toy.train(path, logging=settings, **more)
    return offline_runs(path)[-1]


def test_checkpoints_are_artifacts_by_a_setting(tmp_path):
    """The last and the best; where they lie, without copies; none without the setting."""
    assert not train(tmp_path / "plain").artifacts
    [artifact] = train(tmp_path / "run", LoggingConfig(save_artifacts=True)).artifacts
    folder = tmp_path / "run" / "checkpoints"
    names = {"last.ckpt", *(path.name for path in folder.glob("best-*.ckpt"))}
    assert {item.path for item in artifact.manifest.contents} == names and len(names) == 2
    assert all(Path(item.local_path).parent == folder for item in artifact.manifest.contents)
    [source] = source_runs(tmp_path / "run")
    assert (artifact.type, artifact.name) == ("model", source["artifact"]) == ("model", f"pretrain_mbm-{source['id']}")


def test_a_resumed_run_keeps_its_id_and_its_csv_file(tmp_path):
    """Two starts, one wandb run; metrics.csv as of an uninterrupted run without wandb."""
    first = train(tmp_path / "run", max_epochs=1)
    again = train(tmp_path / "run", max_epochs=3, resume_override=True)
    assert first.run.run_id == again.run.run_id and len(offline_runs(tmp_path / "run")) == 2
    toy.train(tmp_path / "plain", max_epochs=3)
    whole, resumed = ((tmp_path / name / "metrics.csv").read_bytes() for name in ("plain", "run"))
    assert whole == resumed


SOURCE = {"stage": "finetune_ldm", "id": "a", "name": "n", "group": "g", "artifact": "finetune_ldm-a"}


def test_a_group_that_is_set_wins(tmp_path):
    """Over the group of the run it goes on from, and that over the data set."""
    data = {"name": "god"}
    assert wandb_runs.choose_group("mine", data, [SOURCE]) == "mine"
    assert wandb_runs.choose_group(None, data, [SOURCE]) == "g"
    assert wandb_runs.choose_group(None, data, []) == "god"


def test_own_data_has_a_group_of_its_own():
    """Named by its file, not by the public data set of the pretraining; a group that was chosen is kept."""
    data = {"name": "npz", "root": "study/visual.npz"}
    assert wandb_runs.choose_group(None, data, [SOURCE | {"group": "hcp"}]) == "visual"
    assert wandb_runs.choose_group(None, data, [SOURCE]) == "g"


@pytest.mark.parametrize(("mode", "needed"), [("online", "no key"), ("offline", "logging.wandb=disabled")])
def test_without_a_home_folder_it_is_one_line(monkeypatch, mode, needed):
    """As for a user of a container who has no passwd entry."""

    def home():
        raise RuntimeError("Could not determine home directory.")

    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(wandb_runs.Path, "home", home)
    with pytest.raises(InputError, match=needed):
        wandb_runs.check_logging(LoggingConfig(wandb=mode))


def test_runs_without_wandb_are_passed_over(tmp_path):
    """A chain with a gap stays one chain; a file or nothing at all has no sources."""
    for name, before, record in (
        ("a", None, {"id": "1", "name": "a", "group": None}),
        ("b", "a", None),
        ("c", "b", None),
    ):
        settings = {"pretrained": str(tmp_path / before)} if before else {}
        made = create_run(
            tmp_path / name, stage="finetune_mbm", settings=settings, resume="auto", resume_override=False
        )
        if record:
            made.record(wandb=record)
    assert [source["id"] for source in source_runs(tmp_path / "c")] == ["1"]
    assert source_runs(tmp_path / "fmri_encoder.pth") == source_runs(None) == []

"""metrics.csv, figures, and the loggers that settings add."""

import csv
import io
import sys

import numpy as np
import pytest
from PIL import Image
from toy import QUIET, train

from mindvis.common.errors import InputError
from mindvis.config.schemas import LoggingConfig
from mindvis.training.logging import MetricsFile, log_figure, make_loggers
from mindvis.training.runs import create_run


@pytest.fixture
def run(tmp_path):
    settings = {"data": {"name": "god"}}
    return create_run(tmp_path / "run", stage="pretrain_mbm", settings=settings, resume="auto", resume_override=False)


def write(metrics: MetricsFile, rows) -> None:
    for step, row in rows:
        metrics.log_metrics({"epoch": 0, **row}, step)


ROWS = [(0, {"train/loss": 0.1}), (1, {"train/loss": 1 / 3}), (1, {"val/loss": 2.0}), (2, {"train/loss": 0.5})]


def test_a_column_appears_with_its_metric_and_numbers_keep_every_bit(tmp_path):
    write(MetricsFile(tmp_path), ROWS)
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    assert lines == [
        "step,epoch,train/loss,val/loss",
        "1,0,0.1,",
        "2,0,0.3333333333333333,",
        "2,0,,2.0",
        "3,0,0.5,",
    ]


@pytest.mark.parametrize("kept", range(5))
def test_cut_back_and_written_again_the_file_is_the_same(tmp_path, kept):
    write(MetricsFile(tmp_path), ROWS)
    whole = (tmp_path / "metrics.csv").read_bytes()
    (tmp_path / "metrics.csv").write_bytes(whole[:-3])  # the last row was being written at the kill
    resumed = MetricsFile(tmp_path)
    resumed.truncate(min(kept, 3))
    write(resumed, ROWS[min(kept, 3) :])
    assert (tmp_path / "metrics.csv").read_bytes() == whole


def test_a_figure_is_a_file_named_by_its_step(run, rng):
    picture = rng.integers(0, 255, (4, 6, 3), dtype=np.uint8)
    log_figure([MetricsFile(run.path)], "val/grid", picture, 12)
    assert np.array_equal(np.asarray(Image.open(run.figures / "val_grid-00000012.png")), picture)


def test_disabled_means_csv_alone_and_wandb_is_not_imported(run):
    assert [logger.name for logger in make_loggers(run, QUIET, MetricsFile(run.path))] == ["csv"]


def test_a_training_without_wandb_does_not_load_it(tmp_path):
    before = "wandb" in sys.modules
    train(tmp_path, max_epochs=1)
    assert ("wandb" in sys.modules) == before


def test_online_without_a_key_is_refused_instead_of_asking(run, monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    with pytest.raises(InputError, match="logging.wandb is online but there is no key"):
        make_loggers(run, LoggingConfig(wandb="online"), MetricsFile(run.path))


def test_an_unknown_mode_is_refused(run):
    with pytest.raises(InputError, match="needed: one of offline, online, disabled"):
        make_loggers(run, LoggingConfig(wandb="on"), MetricsFile(run.path))


def test_a_missing_tensorboard_is_named(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match="pip install tensorboard"):
        make_loggers(run, LoggingConfig(wandb="disabled", tensorboard=True), MetricsFile(run.path))


def test_tensorboard_shows_the_curves_of_the_csv_file_and_the_pictures(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(tmp_path, max_epochs=2, logging=LoggingConfig(wandb="disabled", tensorboard=True))
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    for name in rows[0].keys() - {"step", "epoch"}:
        shown = [(point.step, point.value) for point in events.Scalars(name)]
        assert shown == [(int(row["step"]), np.float32(row[name])) for row in rows if row[name]]
    figures = sorted((tmp_path / "figures").glob("weights-*.png"))
    for shown, figure in zip(events.Images("weights"), figures, strict=True):
        assert shown.step == int(figure.stem.split("-")[1])
        picture = np.asarray(Image.open(io.BytesIO(shown.encoded_image_string)))
        assert np.array_equal(picture, np.asarray(Image.open(figure).convert("RGB")))

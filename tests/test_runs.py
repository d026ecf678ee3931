"""Run folders: begun, continued, refused, handed on."""

import json
import os
import subprocess

import pytest

from mindvis.common.errors import InputError
from mindvis.common.files import write_json
from mindvis.common.tensor_files import save_tensors
from mindvis.config.schemas import PretrainMBMConfig, TrainerConfig
from mindvis.training.fit import begin_run
from mindvis.training.runs import changed_settings, create_run, open_run

SETTINGS = {"seed": 1, "optim": {"lr": 5.3e-05}, "trainer": {"num_workers": 0}, "logging": {"wandb": "offline"}}


def create(path, settings=SETTINGS, *, stage="pretrain_mbm", resume="auto", override=False):
    return create_run(path, stage=stage, settings=settings, resume=resume, resume_override=override)


def save(run, name="last.ckpt", value=1):
    save_tensors({"value": value}, run.checkpoints / name)
    return run.checkpoints / name


def test_a_new_run_writes_its_settings_and_a_manifest(tmp_path):
    run = create(tmp_path / "a" / "run")
    run.record(data={"hash": "abc"})
    manifest = json.loads((run.path / "manifest.json").read_text())
    assert manifest["stage"] == "pretrain_mbm" and manifest["data"] == {"hash": "abc"}
    assert {"command", "versions", "git_revision", "started", "wall_seconds"} <= manifest.keys()
    assert "lr: 5.3e-05" in (run.path / "config.yaml").read_text()
    assert run.resume_from is None


def test_auto_continues_the_last_checkpoint(tmp_path):
    last = save(create(tmp_path))
    assert create(tmp_path).resume_from == last


def test_a_run_killed_before_its_first_checkpoint_begins_again(tmp_path):
    create(tmp_path)
    assert create(tmp_path, SETTINGS | {"seed": 2}).resume_from is None


def test_never_refuses_a_used_folder(tmp_path):
    create(tmp_path, resume="never")
    with pytest.raises(InputError, match="holds a run already"):
        create(tmp_path, resume="never")


def test_changed_settings_are_named_unless_overridden(tmp_path):
    last = save(create(tmp_path))
    changed = SETTINGS | {"optim": {"lr": 0.1}, "seed": 2}
    with pytest.raises(InputError, match=r"optim\.lr \(5.3e-05 -> 0\.1\)") as caught:
        create(tmp_path, changed)
    assert "seed (1 -> 2)" in str(caught.value) and "resume_override=true" in str(caught.value)
    assert create(tmp_path, changed, override=True).resume_from == last
    assert create(tmp_path, changed).resume_from == last  # the new settings are the run's from now on


def test_settings_that_change_no_result_may_change(tmp_path):
    save(create(tmp_path))
    create(tmp_path, SETTINGS | {"trainer": {"num_workers": 4}, "logging": {"wandb": "disabled"}, "resume": "auto"})


def test_a_setting_that_becomes_a_group_counts_as_changed():
    assert changed_settings({"extra": None}, {"extra": {"name": "god"}}) == [
        "extra (None -> absent)",
        "extra.name (absent -> god)",
    ]


def test_a_run_of_another_stage_is_refused(tmp_path):
    save(create(tmp_path))
    with pytest.raises(InputError, match="a run of pretrain_mbm"):
        create(tmp_path, stage="finetune_mbm")
    with pytest.raises(InputError, match="needed: one of finetune_mbm or finetune_ldm"):
        open_run(tmp_path, stages=("finetune_mbm", "finetune_ldm"))


def test_a_truncated_last_gives_way_to_the_one_before_with_a_warning(tmp_path, caplog):
    run = create(tmp_path)
    previous, last = save(run, "previous.ckpt"), save(run)
    last.write_bytes(last.read_bytes()[:-40])
    assert create(tmp_path).resume_from == previous
    assert "last.ckpt is truncated or corrupt" in caplog.text


def test_damaged_checkpoints_alone_are_an_error_not_a_new_beginning(tmp_path):
    save(create(tmp_path)).write_bytes(b"")
    with pytest.raises(InputError, match="last.ckpt is truncated"):
        create(tmp_path)


def test_resume_takes_a_path(tmp_path):
    other = save(create(tmp_path / "other"), "best-00000007.ckpt")
    assert create(tmp_path / "new", resume=str(other)).resume_from == other
    with pytest.raises(InputError, match="optim.lr"):
        create(tmp_path / "newer", SETTINGS | {"optim": {"lr": 1.0}}, resume=str(other))
    with pytest.raises(InputError, match="no such file"):
        create(tmp_path / "new", resume=str(tmp_path / "none.ckpt"))


def test_settings_that_cannot_be_leave_no_folder(tmp_path):
    """Neither a resume that leads nowhere nor a choice that is none."""
    with pytest.raises(InputError, match="no such file"):
        create(tmp_path / "new", resume="none.ckpt")
    for trainer in ({"precision": "8"}, {"accelerator": "tpu"}, {"strategy": "fsdp"}):
        config = PretrainMBMConfig(run_dir=str(tmp_path / "new"), trainer=TrainerConfig(**trainer))
        with pytest.raises(InputError, match=f"setting trainer.{next(iter(trainer))}"):
            begin_run(config, "pretrain_mbm")
    assert not list(tmp_path.iterdir())


def test_the_same_command_again_goes_on_with_what_came_of_the_path(tmp_path):
    other = save(create(tmp_path / "other"))
    own = save(create(tmp_path / "new", resume=str(other)))
    assert create(tmp_path / "new", resume=str(other)).resume_from == own


def test_a_checkpoint_of_another_run_does_not_enter_a_used_folder(tmp_path):
    other = save(create(tmp_path / "other"))
    save(create(tmp_path / "used"))
    with pytest.raises(InputError, match="holds another run"):
        create(tmp_path / "used", resume=str(other))


def test_temporaries_of_a_killed_process_are_removed(tmp_path):
    run = create(tmp_path)
    (run.checkpoints / "last.ckpt.tmp").write_bytes(b"half")
    create(tmp_path)
    assert not list(tmp_path.rglob("*.tmp"))


def test_open_run_gives_the_best_checkpoint_and_refuses_what_is_no_run(tmp_path):
    run = create(tmp_path)
    with pytest.raises(InputError, match="no checkpoint yet"):
        open_run(tmp_path, stages=("pretrain_mbm",))
    last, better, best = (save(run, name) for name in ("last.ckpt", "best-00000001.ckpt", "best-00000002.ckpt"))
    write_json(run.checkpoints / "best.json", {best.name: 0.25, better.name: 0.5})  # the best first
    run = open_run(tmp_path, stages=("pretrain_mbm",))
    assert (run.checkpoint("best"), run.checkpoint("last")) == (best, last)
    assert run.settings == SETTINGS
    best.write_bytes(b"")
    assert run.checkpoint("best") == better
    with pytest.raises(InputError, match="no run folder"):
        open_run(tmp_path / "checkpoints", stages=("pretrain_mbm",))


def test_a_selection_that_has_chosen_nothing_takes_the_last_and_says_so(tmp_path, caplog):
    """The published rule may never find a score that is high enough."""
    run = create(tmp_path)
    last = save(run, "last.ckpt")
    run.settings["selection"] = "test"
    assert run.checkpoint("selected") == last
    assert "has chosen no checkpoint" in caplog.text


@pytest.fixture
def read_only(tmp_path):
    """A folder nobody may write: by its rights, or for root by a read-only mount."""
    folder = tmp_path / "read_only"
    folder.mkdir(mode=0o500)
    mounted = os.geteuid() == 0
    if mounted and subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", folder], check=False).returncode:
        pytest.skip("root, without the right to mount")
    yield folder
    if mounted:
        subprocess.run(["umount", folder], check=True)


def test_a_read_only_folder_is_one_clear_line(read_only):
    with pytest.raises(InputError, match="cannot be written .*needed: a writable run_dir") as caught:
        create(read_only / "run")
    assert "\n" not in str(caught.value)


def test_a_file_in_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(InputError, match="run: cannot be written"):
        create(tmp_path / "run")


def test_the_cache_may_move_when_a_run_goes_on():
    """Where mapped rows are kept changes no result; where the data lies could."""
    old = {"data": {"root": "a", "cache_dir": None}, "extra_data": {"cache_dir": "x"}}
    new = {"data": {"root": "a", "cache_dir": "/scratch"}, "extra_data": {"cache_dir": "y"}}
    assert changed_settings(old, new) == []
    assert changed_settings(old, {"data": {"root": "b", "cache_dir": None}, "extra_data": {"cache_dir": "x"}}) == [
        "data.root (a -> b)"
    ]

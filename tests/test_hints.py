"""What is said of a name that is not known: the nearest one, wherever it is, or all that there are."""

import pytest

from mindvis.common.errors import InputError, beside, hint, nearest
from mindvis.config.loading import load_config
from mindvis.config.schemas import FinetuneLDMConfig


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("trainer.batchsize", "nearest: trainer.batch_size"),
        ("seeed", "nearest: seed"),
        ("batch", "nearest: trainer.batch_size"),
        ("epochs", "nearest: trainer.max_epochs"),
        ("lr_rate", "nearest: optim.lr"),
        ("learning_rate", "nearest: optim.lr"),
        ("trainer.lr", "nearest: optim.lr"),
    ],
)
def test_a_setting_is_found_in_its_group_or_in_another(given, wanted):
    """By its spelling, by a word it shares, or by initials."""
    with pytest.raises(InputError) as caught:
        load_config(FinetuneLDMConfig, None, [f"{given}=3"])
    assert f"unknown setting {given}; {wanted}" in str(caught.value)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [("augment.xyzzy", "known in augment: sparsify, crop_ratio"), ("xyzzy", "known: run_dir, encoder, ldm, model.*")],
)
def test_a_setting_that_is_near_none_is_answered_with_those_of_its_group(given, wanted):
    """In one line; nothing that is alike by accident is named."""
    with pytest.raises(InputError) as caught:
        load_config(FinetuneLDMConfig, None, [f"{given}=3"])
    assert wanted in str(caught.value) and "nearest" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_list_is_asked_for_as_it_is_typed():
    with pytest.raises(InputError, match=r"data.subjects is 'sbj_3'; needed: a list, such as \[sbj_3\]"):
        load_config(FinetuneLDMConfig, None, ["data.subjects=sbj_3"])


@pytest.mark.parametrize(("setting", "least"), [("seed", 0), ("trainer.batch_size", 1)])
def test_numbers_that_cannot_be_are_refused_where_they_are_read(setting, least):
    """Whatever the script."""
    with pytest.raises(InputError, match=f"setting {setting} is {least - 1}; needed: at least {least}"):
        load_config(FinetuneLDMConfig, None, [f"{setting}={least - 1}"])


def test_a_config_file_is_found_beside_a_misspelt_one(tmp_path):
    """Or those of the folder are named."""
    for name in ("finetune_god.yaml", "generate_god.yaml", "notes.txt"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match="finetune_gd.yaml: no such config file; nearest: .*finetune_god.yaml$"):
        load_config(FinetuneLDMConfig, tmp_path / "finetune_gd.yaml")
    with pytest.raises(InputError, match="holds finetune_god.yaml, generate_god.yaml$"):
        load_config(FinetuneLDMConfig, tmp_path / "q.yaml")


def test_a_folder_is_found_where_the_path_stops_to_exist(tmp_path):
    (tmp_path / "runs" / "finetune_ldm").mkdir(parents=True)
    assert beside(tmp_path / "rnus" / "finetune_ldm") == f"nearest: {tmp_path / 'runs'}"
    assert beside(tmp_path / "runs" / "finetune_lmd") == f"nearest: {tmp_path / 'runs' / 'finetune_ldm'}"
    assert beside(tmp_path / "runs") == ""  # it is there: something else is wrong with it


def test_names_that_are_alike_by_accident_are_not_near():
    assert nearest("path", ["depth", "name"], cutoff=0.7) == []
    assert hint("zzz", ["simulate", "evaluate"]) == "known: simulate, evaluate"

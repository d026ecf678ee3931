"""What a value of a setting may be: text stays text, numbers are in their range, references and `~` are followed."""

import math
import typing
from dataclasses import fields, is_dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindvis.chain.plan import StageConfig, stage_settings
from mindvis.common.errors import InputError
from mindvis.config import decoding, schemas, tools
from mindvis.config.conform import KEY, kind_of
from mindvis.config.decoding import EvaluateConfig, GenerateConfig
from mindvis.config.loading import find_config, load_config
from mindvis.config.schemas import FinetuneLDMConfig, PretrainMBMConfig

SCHEMAS = {
    part
    for module in (schemas, decoding, tools)
    for part in vars(module).values()
    if is_dataclass(part) and isinstance(part, type)
}
ODD_TEXTS = [
    "010",
    "NO",
    "12:30",
    "1_000",
    "0x10",
    "1e3",
    "yes",
    "null2",
    "a: b",
    "x #1",
    "*a",
    "&a",
    "!a",
    "%a",
    "-",
    "1.0",
]


def numeric_fields(schema: type) -> list:
    """Fields for a number, or for a list or dict of numbers."""
    hints = typing.get_type_hints(schema)
    kinds = {item.name: kind_of(hints[item.name]) for item in fields(schema)}
    return [item for item in fields(schema) if {int, float} & set(kinds[item.name])]


@pytest.mark.parametrize("schema", sorted(SCHEMAS, key=lambda schema: schema.__name__))
def test_every_number_has_a_range_in_which_its_default_lies(schema):
    """Declared at the field, for numbers alone and for those in lists and dicts."""
    for item in numeric_fields(schema):
        assert KEY in item.metadata, f"{schema.__name__}.{item.name} has no range"
        allowed = item.metadata[KEY]
        assert math.isfinite(allowed.least) and math.isfinite(allowed.most)
        default = getattr(schema, item.name, None)
        assert default is None or default == "???" or default in allowed


@pytest.mark.parametrize(
    ("schema", "item"),
    [
        (PretrainMBMConfig, "optim.lr=-1"),
        (PretrainMBMConfig, "optim.lr=nan"),
        (PretrainMBMConfig, "optim.lr=inf"),
        (PretrainMBMConfig, "optim.betas=[0.9, 1]"),
        (PretrainMBMConfig, "trainer.max_epochs=0"),
        (PretrainMBMConfig, "trainer.max_epochs=99999999999999999999"),
        (PretrainMBMConfig, "model.embed_dim=-8"),
        (PretrainMBMConfig, "mask.focus_range=[-1, 5]"),
        (PretrainMBMConfig, "seed=-1"),
        (FinetuneLDMConfig, "optim.head_lr=-0.1"),
        (FinetuneLDMConfig, "augment.crop_ratio=1"),
        (GenerateConfig, "guidance=nan"),
        (GenerateConfig, "stimuli=[-1]"),
        (EvaluateConfig, "num_ways=[1]"),
        (tools.LookInsideConfig, "num_stimuli=1"),
        (tools.SimulateConfig, "voxels.V1=0"),
    ],
)
def test_a_number_that_no_run_can_have_is_one_line_with_the_range(schema, item):
    """Negative, zero, NaN, infinite and huge ones."""
    with pytest.raises(
        InputError, match=r"setting [\w.\[\]]+ is .*; needed: (at least|more than) .* and (at most|less)"
    ):
        needed = [f"{name}=x" for name in ("run", "decoded") if getattr(schema, name, None) == "???"]
        load_config(schema, None, [*needed, item])


@pytest.mark.parametrize(
    ("schema", "item", "needed"),
    [
        (PretrainMBMConfig, "optim.betas=[0.9]", "2 numbers"),
        (PretrainMBMConfig, "mask.focus_range=[1, 2, 3]", "2 numbers"),
        (PretrainMBMConfig, "mask.focus_range=[]", "2 numbers"),
        (EvaluateConfig, "num_ways=[]", "one number at least"),
        (GenerateConfig, "stimuli=[]", "one number at least"),
    ],
)
def test_a_list_of_numbers_has_the_length_that_is_needed(schema, item, needed):
    """Declared at the field, too; none at all is never what is meant."""
    given = [f"{name}=x" for name in ("run", "decoded") if getattr(schema, name, None) == "???"]
    with pytest.raises(InputError, match=rf"setting [\w.]+ is \[.*\]; needed: {needed}"):
        load_config(schema, None, [*given, item])


@given(
    st.sampled_from(["seed", "optim.lr", "trainer.batch_size", "data.subjects", "run_dir", "mask.focus_range"]),
    st.text(),
)
def test_any_text_is_taken_or_refused_in_one_line(name, text):
    """Whatever is typed behind a setting."""
    try:
        load_config(PretrainMBMConfig, None, [f"{name}={text}"])
    except InputError as error:
        assert str(error)


@pytest.mark.parametrize("text", ODD_TEXTS)
def test_a_text_setting_keeps_its_text_on_the_command_line(text):
    """Alone, and in a list."""
    assert load_config(PretrainMBMConfig, None, [f"run_dir={text}"]).run_dir == text


@pytest.mark.parametrize("text", ["010", "NO", "12:30", "1_000", "0x10", "1e3", "1.0"])
def test_a_text_setting_keeps_its_text_in_lists_and_files(tmp_path, text):
    """YAML 1.1 would make numbers and booleans of these."""
    (tmp_path / "a.yaml").write_text(f"run_dir: {text}\ndata:\n  subjects: [{text}]\n")
    loaded = load_config(PretrainMBMConfig, tmp_path / "a.yaml")
    assert (loaded.run_dir, loaded.data.subjects) == (text, [text])
    assert load_config(PretrainMBMConfig, None, [f"data.subjects=[{text}]"]).data.subjects == [text]


def test_quotes_on_the_command_line_are_taken_off():
    """As YAML does it, for a text that begins with a bracket."""
    assert load_config(PretrainMBMConfig, None, ["run_dir='[a] b'"]).run_dir == "[a] b"


@pytest.mark.parametrize("text", ["010", "1_000", "0x10", "1e3", "1.0", "12:30", "true"])
def test_a_whole_number_is_plain_decimal(text):
    """Nothing is guessed."""
    with pytest.raises(InputError, match="a whole number in plain decimal"):
        load_config(PretrainMBMConfig, None, [f"seed={text}"])


@pytest.mark.parametrize(("text", "value"), [("1e-4", 1e-4), (".5", 0.5), ("3", 3.0), ("5.3E-5", 5.3e-5)])
def test_a_number_is_read_in_any_usual_form(text, value):
    assert load_config(PretrainMBMConfig, None, [f"optim.lr={text}"]).optim.lr == value


@pytest.mark.parametrize("text", ["true", "True", "yes", "on", "1"])
def test_a_switch_is_read_in_any_usual_form(text):
    assert load_config(PretrainMBMConfig, None, [f"trainer.compile={text}"]).trainer.compile is True


@pytest.mark.parametrize("text", ["2", "-1", "maybe", "1.0"])
def test_a_switch_is_nothing_else(text):
    """OmegaConf takes any number but 0 for true."""
    with pytest.raises(InputError, match=f"setting trainer.compile is '{text}'; needed: true or false"):
        load_config(PretrainMBMConfig, None, [f"trainer.compile={text}"])


@pytest.mark.parametrize("item", ["run_dir=null", "seed=", "data.subjects=[null]", "data=null", "trainer.compile=~"])
def test_nothing_in_the_place_of_a_value_says_what_is_needed(item):
    """Where the setting has to have one."""
    with pytest.raises(InputError, match=r"command line: setting [\w.\[\]]+ is None; needed: \w+"):
        load_config(PretrainMBMConfig, None, [item])


@pytest.mark.parametrize(
    "item",
    [
        "run_dir=${oc.env:NOT_SET}/r",
        "run_dir=${nothing}",
        "run_dir=${run_dir}",
        "seed=${oc.env:NOT_SET,abc}",
        "run_dir=${x",
    ],
)
def test_a_reference_that_leads_nowhere_names_the_setting(item):
    """An environment variable that is not set, an unknown name, itself, another type."""
    with pytest.raises(InputError, match=f"setting {item.partition('=')[0]}"):
        load_config(PretrainMBMConfig, None, [item])


def test_a_reference_is_followed(monkeypatch):
    """Also by a number, which then has its range."""
    monkeypatch.setenv("SCRATCH", "/scratch")
    monkeypatch.setenv("EPOCHS", "0")
    assert load_config(PretrainMBMConfig, None, ["run_dir=${oc.env:SCRATCH}/r"]).run_dir == "/scratch/r"
    with pytest.raises(InputError, match="max_epochs is 0"):
        load_config(PretrainMBMConfig, None, ["trainer.max_epochs=${oc.env:EPOCHS}"])


def test_the_home_folder_stands_for_a_tilde(tmp_path, monkeypatch):
    """In files and on the command line, alone and in lists."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.yaml").write_text("data: {root: ~/data}\n")
    loaded = load_config(PretrainMBMConfig, tmp_path / "a.yaml", ["run_dir=~/run"])
    assert (loaded.data.root, loaded.run_dir) == (f"{tmp_path}/data", f"{tmp_path}/run")
    assert load_config(EvaluateConfig, None, ["decoded=x", "controls=[~/c]"]).controls == [f"{tmp_path}/c"]


def test_a_stage_of_a_chain_has_the_same_rules(tmp_path):
    """Ranges, texts and references of settings that are laid over a stage."""
    (tmp_path / "s.yaml").write_text("data: {subjects: [010]}\n")
    found = stage_settings("pretrain_mbm", StageConfig(str(tmp_path / "s.yaml"), {"seed": "7"}))
    assert (found["data"]["subjects"], found["seed"]) == (["010"], 7)
    with pytest.raises(InputError, match="stage pretrain_mbm of the chain.*optim.lr is -1"):
        stage_settings("pretrain_mbm", StageConfig(None, {"optim": {"lr": -1}}))


def test_a_key_given_twice_is_refused(tmp_path):
    """YAML would take the last one in silence."""
    (tmp_path / "a.yaml").write_text("seed: 1\nseed: 2\n")
    with pytest.raises(InputError, match="'seed' is given twice"):
        load_config(PretrainMBMConfig, tmp_path / "a.yaml")


def test_an_empty_file_sets_nothing(tmp_path):
    """Nor does one of comments alone."""
    (tmp_path / "a.yaml").write_text("# later\n")
    assert load_config(PretrainMBMConfig, tmp_path / "a.yaml") == PretrainMBMConfig()


def test_a_byte_order_mark_is_passed_over(tmp_path):
    """As editors of other systems write it, with their line ends."""
    (tmp_path / "a.yaml").write_bytes(b"\xef\xbb\xbfseed: 7\r\nrun_dir: x\r\n")
    loaded = load_config(PretrainMBMConfig, tmp_path / "a.yaml")
    assert (loaded.seed, loaded.run_dir) == (7, "x")


def test_a_file_named_in_another_is_looked_for_beside_it(tmp_path, monkeypatch):
    """Then from the working directory, then in the project; nowhere: as it was given."""
    (tmp_path / "configs").mkdir()
    chain, stage = tmp_path / "configs" / "chain.yaml", tmp_path / "configs" / "stage.yaml"
    stage.write_text("seed: 1\n")
    monkeypatch.chdir("/")
    assert find_config("stage.yaml", beside=chain) == find_config("configs/stage.yaml", beside=chain) == stage
    assert find_config("configs/god.yaml", beside=chain).is_file()
    assert str(find_config("nowhere.yaml", beside=chain)) == "nowhere.yaml"


def test_a_setting_written_with_a_dot_in_a_file_says_how_it_is_written(tmp_path):
    """As on the command line; YAML nests."""
    (tmp_path / "a.yaml").write_text("mask.mask_ratio: .5\n")
    with pytest.raises(InputError, match=r"mask\.mask_ratio is written with a dot; .*mask: \{mask_ratio: "):
        load_config(PretrainMBMConfig, tmp_path / "a.yaml")

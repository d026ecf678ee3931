"""What a value of a setting may be: text stays text, numbers are in their range, references and `~` are followed."""

import math
import typing
from dataclasses import fields, is_dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindvis.chain.ablation import CHAINS
from mindvis.chain.plan import StageConfig, stage_settings
from mindvis.common.devices import MATMUL_PRECISIONS
from mindvis.common.errors import InputError
from mindvis.config import decoding, schemas, tools
from mindvis.config.conform import KEY, WORDS, check_values, kind_of, words_of
from mindvis.config.decoding import EvaluateConfig, GenerateConfig
from mindvis.config.loading import find_config, load_config
from mindvis.config.schemas import DataConfig, FinetuneLDMConfig, PretrainMBMConfig
from mindvis.data.voxels import PAD_MODES
from mindvis.dc_ldm.samplers import SAMPLERS
from mindvis.dc_ldm.schedule import PARAMETERIZATIONS
from mindvis.decoding.decode import DTYPES
from mindvis.decoding.decoder import SCALINGS
from mindvis.decoding.output import CONTROLS
from mindvis.decoding.ridge import INITS
from mindvis.evaluation.similarity import LARGER_IS_CLOSER
from mindvis.simulation.experiment import PROTOCOLS

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


CHOICES = sorted((part.__name__, item.name) for part in SCHEMAS for item in fields(part) if WORDS in item.metadata)


@pytest.mark.parametrize(("schema", "name"), CHOICES)
def test_a_text_of_a_few_words_is_one_of_them(schema, name):
    """Of every schema; so is its default, and those of a list."""
    settings = next(part for part in SCHEMAS if part.__name__ == schema)()
    default, words = getattr(settings, name), words_of(type(settings), name)
    assert set(default if isinstance(default, list) else [default] if default else []) <= set(words)
    setattr(settings, name, ["zzz"] if isinstance(default, list) else "zzz")
    with pytest.raises(InputError, match=f"here: setting {name} (is|names) 'zzz'; needed: (one|some) of {words[0]}"):
        check_values(settings, "here: ")


def test_the_words_are_those_that_the_library_knows():
    """Settings are read before it is imported."""
    assert words_of(GenerateConfig, "sampler") == tuple(SAMPLERS)
    assert words_of(GenerateConfig, "control") == CONTROLS
    assert words_of(GenerateConfig, "init") == INITS
    assert words_of(GenerateConfig, "scaling") == SCALINGS
    assert words_of(GenerateConfig, "precision") == tuple(DTYPES)
    assert words_of(GenerateConfig, "matmul_precision") == MATMUL_PRECISIONS
    assert words_of(EvaluateConfig, "metrics") == tuple(LARGER_IS_CLOSER)
    assert words_of(FinetuneLDMConfig, "objective") == PARAMETERIZATIONS
    assert words_of(DataConfig, "pad_mode") == PAD_MODES
    assert words_of(tools.SimulateConfig, "protocol") == tuple(sorted(PROTOCOLS))
    assert words_of(tools.AblateConfig, "scale") == tuple(CHAINS)


ENCODER = ["encoder=a", "start=b"]
CONFLICTS = {
    "a range without its rate": (PretrainMBMConfig, ["mask.focus_range=[0,16]"], "focus_rate is None; needed: both"),
    "a rate without its range": (PretrainMBMConfig, ["mask.focus_rate=.5"], "focus_range is None and"),
    "a subject twice": (PretrainMBMConfig, ["extra_data.subjects=[a,b,a]"], "extra_data.subjects names 'a' twice"),
    "a region twice": (PretrainMBMConfig, ["data.roi=[V1,V1]"], "data.roi names 'V1' twice; needed: each once"),
    "a setting of other data": (PretrainMBMConfig, ["data.name=god", "data.num_subjects=3"], "name=god has not"),
    "repeats of god": (FinetuneLDMConfig, ["data.average=false"], "data.name=mosaic or nsd, or the setting left out"),
    "rest has no pictures": (PretrainMBMConfig, ["data.name=hcp", "data.fraction=.5"], "fraction is 0.5, which data.n"),
    "a map into nobody's voxels": (FinetuneLDMConfig, ["data.adapter_steps=9"], "without data.reference; needed: both"),
    "a metric twice": (EvaluateConfig, ["decoded=d", "metrics=[pcc,pcc]"], "metrics names 'pcc' twice"),
    "a width that no head divides": (
        PretrainMBMConfig,
        ["model.num_heads=3"],
        "model.embed_dim is 1024 with model.num",
    ),
    "an odd width": (
        PretrainMBMConfig,
        ["model.decoder_embed_dim=1", "model.decoder_num_heads=1"],
        "decoder_embed_dim",
    ),
    "no hidden width": (FinetuneLDMConfig, ["model.mlp_ratio=.0001"], "mlp_ratio is 0.0001 of model.embed_dim=1024"),
    "an empty range": (PretrainMBMConfig, ["mask.focus_range=[16,16]", "mask.focus_rate=.5"], "the first below the"),
    "a search for a batch": (PretrainMBMConfig, ["trainer.find_batch_size=true", "trainer.devices=2"], "devices=1"),
    "two encoders": (FinetuneLDMConfig, ENCODER, "start=b and encoder=a; needed: one"),
    "nothing kept": (
        FinetuneLDMConfig,
        ["selection=test", "trainer.keep_best=0"],
        "keep_best is 0 with selection=test",
    ),
    "averages": (FinetuneLDMConfig, ["selection=validation", "ema=.9"], "ema is 0.9 with selection=validation"),
    "no scores": (FinetuneLDMConfig, ["selection=validation", "watch.every_epochs=0"], "watch.every_epochs is 0"),
    "weighed twice": (FinetuneLDMConfig, ["weighting=levels", "objective=v"], "weighting is levels with objective=v"),
    "a strength of nothing": (GenerateConfig, ["run=r", "strength=.3"], "strength is 0.3, but init is none"),
    "a control of a file": (GenerateConfig, ["run=r", "fmri=f", "control=shuffled"], "fmri=f has no pictures"),
    "two sources": (GenerateConfig, ["run=r", "fmri=f", "data.root=d"], "settings fmri and data name two sources"),
}


@pytest.mark.parametrize(("schema", "items", "message"), CONFLICTS.values(), ids=CONFLICTS)
def test_settings_that_do_not_go_together_are_refused(schema, items, message):
    """When they are read: nothing is opened or written yet."""
    with pytest.raises(InputError, match=message):
        load_config(schema, None, items)


@pytest.mark.parametrize("settings", [{"mask": {"focus_range": [0, 16]}}, {"trainer": {"precision": "8"}}])
def test_a_stage_of_a_chain_is_refused_when_the_chain_is_planned(settings):
    """So that `dry_run=true` refuses what the run would."""
    with pytest.raises(
        InputError, match=r"stage pretrain_mbm of the chain.*setting (mask.focus_range|trainer.precision)"
    ):
        stage_settings("pretrain_mbm", StageConfig(None, settings))

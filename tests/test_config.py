"""Settings: defaults, YAML, command line, and what is said of a wrong one."""

import pytest

from mindvis.common.errors import InputError
from mindvis.config.decoding import GenerateConfig
from mindvis.config.loading import flatten, load_config, plain
from mindvis.config.schemas import FinetuneLDMConfig, FinetuneMBMConfig, PretrainMBMConfig


def test_command_line_wins_over_yaml_wins_over_defaults(tmp_path):
    """Each layer overrides the one below, key by key."""
    yaml = tmp_path / "a.yaml"
    yaml.write_text("optim: {lr: 0.1, clip: 0.5}\n")
    settings = load_config(PretrainMBMConfig, yaml, ["optim.lr=0.2"])
    assert (settings.optim.lr, settings.optim.clip, settings.optim.weight_decay) == (0.2, 0.5, 0.05)


def test_optional_section_is_filled_with_its_defaults():
    """A section that is null by default takes the defaults of its dataclass once a key of it is given."""
    settings = load_config(PretrainMBMConfig, None, ["extra_data.subjects=[sbj_3]"])
    assert settings.extra_data.subjects == ["sbj_3"]
    assert settings.extra_data.name == "god"


def test_plain_settings_load_back_to_the_same(tmp_path):
    """What a run folder keeps gives the settings again."""
    settings = load_config(PretrainMBMConfig, None, ["mask.focus_range=[1,2]", "mask.focus_rate=0.5", "seed=7"])
    items = [f"{key}={'null' if value is None else value}" for key, value in flatten(plain(settings)).items()]
    assert load_config(PretrainMBMConfig, None, items) == settings


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("data.rot=x", "unknown setting data.rot; nearest: data.root"),
        ("optm.lr=1", "unknown setting optm; nearest: optim"),
        ("extra_data.subject=1", "nearest: extra_data.subjects"),
        ("trainer.batch_size=many", "trainer.batch_size is 'many'; needed: a whole number"),
        ("run_dir=''", "setting run_dir is ''; needed: a text that is not empty"),
        ("data=3", "setting data is '3'; needed: nested settings"),
        ("seed", "'seed' is no setting; needed: key=value"),
        ("data.root='", "cannot be read"),
        ("model.embed_dim=null", "model.embed_dim"),
    ],
)
def test_wrong_setting_is_named_with_what_is_needed(item, message):
    """An unknown key names the nearest; a wrong type names the value."""
    with pytest.raises(InputError, match=".*") as caught:
        load_config(PretrainMBMConfig, None, [item])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_required_setting_is_asked_for():
    """A stage that needs another stage's folder says so."""
    with pytest.raises(InputError, match="setting pretrained is not given"):
        load_config(FinetuneMBMConfig, None)
    assert load_config(GenerateConfig, None, ["run=x"]).num_steps == 250


@pytest.mark.parametrize("text", ["- 1\n- 2\n", "a: [1", "\tx: 1"])
def test_yaml_that_is_no_mapping_is_refused(tmp_path, text):
    """A list or a malformed file is named."""
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match="bad.yaml"):
        load_config(PretrainMBMConfig, path)


@pytest.mark.parametrize(("text", "roi"), [("V1", "V1"), ("[V1,V2]", ["V1", "V2"]), ("all", "all")])
def test_regions_are_a_name_or_a_list(text, roi):
    """`data.roi` on the command line."""
    config = load_config(FinetuneLDMConfig, None, [f"data.roi={text}"])
    assert config.data.roi == roi
    assert plain(config)["data"]["roi"] == roi

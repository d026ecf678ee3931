"""--help of every script: complete, with an example that works."""

import argparse

import pytest
from command_lines import ROOT, SCRIPTS, examples, parse_only, schema_of, setting_names, uses_settings
from script_runner import run

WITH_SETTINGS = [script for script in SCRIPTS if uses_settings(script)]
WITH_OPTIONS = [script for script in SCRIPTS if script not in WITH_SETTINGS]


def help_of(script) -> str:
    outcome = run(script.stem, "--help")
    assert outcome.status == 0, outcome.err
    return outcome.out


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_its_examples_are_commands_that_it_takes(script):
    """At least one of its own; every one is parsed by the script that it names."""
    found = examples(help_of(script))
    assert any(f"scripts/{script.name}" in command for command in found), "no example that begins with: python scripts/"
    for command in found:
        parse_only(command)


@pytest.mark.parametrize("script", WITH_SETTINGS, ids=lambda script: script.stem)
def test_it_names_every_setting_with_its_comment(script):
    """A line `name = default   what it is`; nested settings by their dotted name."""
    lines = {}
    for line in help_of(script).splitlines():
        name, _, rest = line.strip().partition(" = ")
        lines[name] = rest
    for name in setting_names(schema_of(script)):
        assert name in lines, f"{name} is not in --help"
        default, _, comment = lines[name].partition("  ")
        assert comment.strip(), f"{name} = {default}: the field has no trailing comment"


@pytest.mark.parametrize("script", WITH_SETTINGS, ids=lambda script: script.stem)
def test_what_must_be_given_is_called_required(script):
    """Not by the sign that stands for it inside."""
    assert "???" not in help_of(script)


def test_the_subcommand_has_help_of_its_own():
    """With an example, and every argument explained."""
    outcome = run("evaluate", "compare", "--help")
    assert outcome.status == 0 and not outcome.err
    assert "python scripts/evaluate.py compare runs/a" in outcome.out and "two or more folders" in outcome.out


@pytest.mark.parametrize("arguments", [("--rot", "data"), ("--datasets", "imagenet"), ("more",)])
def test_a_wrong_option_is_one_line(arguments):
    """Without the usage; a misspelt option is answered with the nearest."""
    outcome = run("check_data", *arguments)
    assert outcome.status == 2 and outcome.err.startswith("error: ") and outcome.err.count("\n") == 1
    assert ("nearest: --root" in outcome.err) == (arguments[0] == "--rot")


@pytest.mark.parametrize("script", WITH_OPTIONS, ids=lambda script: script.stem)
def test_every_option_is_explained(script, monkeypatch):
    """Options and positional arguments alike."""
    seen = []
    original = argparse.ArgumentParser.parse_args
    monkeypatch.setattr(
        argparse.ArgumentParser, "parse_args", lambda self, *args: seen.append(self) or original(self, *args)
    )
    help_of(script)
    [parser] = seen
    assert not [action.dest for action in parser._actions if not action.help]


@pytest.mark.parametrize("script", sorted((ROOT / "scripts").glob("*.sh")), ids=lambda script: script.stem)
def test_shell_scripts_open_with_what_they_do(script):
    """They are run without options; their head says how."""
    assert script.read_text().splitlines()[1 if script.read_text().startswith("#!") else 0].startswith("# ")

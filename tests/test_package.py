"""The package without its checkout: `python -m mindvis`, with the steps and the configs that a wheel carries."""

import shutil
import subprocess
import sys
import zipfile

import pytest
from command_lines import ROOT, SCRIPTS

from mindvis.__main__ import main


def test_without_a_step_all_are_listed(capsys):
    """Every script, with the first sentence of its docstring."""
    assert main([]) == 0
    listed = {line.split()[0]: line for line in capsys.readouterr().out.partition("steps:\n")[2].splitlines()}
    assert list(listed) == [script.stem for script in SCRIPTS]
    assert "masked brain model" in listed["pretrain_mbm"]


def test_a_step_runs_with_its_arguments(capsys):
    """And returns the status of its script."""
    assert main(["pretrain_mbm", "no_such=1"]) == 2
    assert "unknown setting no_such" in capsys.readouterr().err


def test_an_unknown_step_is_one_line(capsys):
    """With the nearest."""
    assert main(["finetune_lmd"]) == 2
    error = capsys.readouterr().err
    assert error == "error: command line: there is no step 'finetune_lmd'; nearest: finetune_ldm\n"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with what the wheel holds."""
    pytest.importorskip("setuptools", minversion="77", reason="building a wheel needs setuptools 77")
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("mindvis", "scripts", "configs"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    build = "from setuptools import build_meta; print(build_meta.build_wheel('.'))"
    done = subprocess.run([sys.executable, "-c", build], cwd=source, capture_output=True, text=True, check=True)
    with zipfile.ZipFile(source / done.stdout.split()[-1]) as wheel:
        wheel.extractall(target)
    return target


def run(installed, *arguments: str) -> subprocess.CompletedProcess:
    """`python -m mindvis ARGUMENTS` of the installed package, in a folder that holds nothing else."""
    command = [sys.executable, "-m", "mindvis", *arguments]
    environment = {"PYTHONPATH": str(installed), "PATH": "/usr/bin:/bin", "HOME": str(installed)}
    folder = installed.with_name("elsewhere")
    folder.mkdir(exist_ok=True)
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_a_wheel_lists_its_steps_and_knows_its_configs(installed):
    """All that a checkout has."""
    listed = run(installed, "--help").stdout.partition("steps:\n")[2].splitlines()
    assert [line.split()[0] for line in listed] == [script.stem for script in SCRIPTS]
    packed = {path.relative_to(installed / "mindvis") for path in (installed / "mindvis" / "configs").rglob("*.yaml")}
    assert packed == {path.relative_to(ROOT) for path in (ROOT / "configs").rglob("*.yaml")}


def test_help_of_an_installed_step_names_commands_that_work_there(installed):
    """`python -m mindvis generate`, not a script of the checkout."""
    text = run(installed, "generate", "--help").stdout
    assert text.startswith("usage: python -m mindvis generate")
    assert "python -m mindvis generate --config configs/generate_god.yaml" in text and "python scripts/" not in text


def test_a_chain_is_planned_outside_the_checkout(installed):
    """Its file and those that it names lie in the package."""
    done = run(installed, "run_chain", "--config", "configs/demo.yaml", "dry_run=true")
    assert done.returncode == 0, done.stderr
    assert "pretrain_mbm" in done.stdout and "evaluate" in done.stdout

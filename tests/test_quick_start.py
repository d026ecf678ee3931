"""--help and a wrong setting are answered before torch, timm and Lightning are imported: seconds, and a gigabyte."""

import subprocess
import sys

import pytest
from command_lines import ROOT, SCRIPTS, uses_settings

HEAVY = ("torch", "timm", "pytorch_lightning", "torchvision", "matplotlib", "scipy", "wandb")
# Runs a script as the shell does, then says what it has imported.
CHECK = f"""
import runpy, sys
script, *arguments = sys.argv[1:]
sys.argv = [script, *arguments]
status = 0
try:
    runpy.run_path(script, run_name="__main__")
except SystemExit as error:
    status = error.code or 0
print("imported:", [name for name in {HEAVY} if name in sys.modules], "status:", status)
"""


def last_line(script, *arguments: str) -> str:
    """What a script has imported, and its status."""
    command = [sys.executable, "-c", CHECK, str(script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout.splitlines()[-1]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_help_needs_nothing_heavy(script):
    """Whatever the script does."""
    assert last_line(script, "--help") == "imported: [] status: 0"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_wrong_setting_or_option_needs_nothing_heavy(script):
    """An unknown one, refused with status 2."""
    wrong = "no_such_setting=1" if uses_settings(script) else "--no-such-option"
    assert last_line(script, wrong) == "imported: [] status: 2"

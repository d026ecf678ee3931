"""Imports go downwards only: data, networks and evaluation know neither settings nor the rooms above them."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "mindvis"
# Each part may import the parts before it (and itself); parts on one line do not know each other.
LAYERS = [
    {"common"},
    {"config"},
    {"data", "training"},
    {"sc_mbm", "prepare"},
    {"dc_ldm"},
    {"checkpoints"},
    {"evaluation"},
    {"decoding"},
    {"simulation", "inspection"},
    {"figures"},
    {"chain", "benchmarks"},
]
WITHOUT_SETTINGS = {"data", "sc_mbm", "dc_ldm", "evaluation"}


def parts() -> list[str]:
    """Every module or package directly below mindvis."""
    own = [path for path in PACKAGE.iterdir() if not path.is_symlink()]  # links to scripts/ and configs/ are no rooms
    found = {path.stem for path in own if path.is_dir() or path.suffix == ".py"}
    return sorted(name for name in found if not name.startswith("__") and name != "assets")


def imports_of(part: str) -> set[str]:
    """Parts of the package that the files of a part import."""
    path = PACKAGE / part
    files = path.rglob("*.py") if path.is_dir() else [path.with_suffix(".py")]
    names = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("mindvis."):
                names.add(node.module.split(".")[1])
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("mindvis.")}
    return names - {part}


@pytest.mark.parametrize("part", parts())
def test_a_part_imports_only_from_below(part):
    """Nothing imports a layer above it or beside it."""
    level = next(index for index, layer in enumerate(LAYERS) if part in layer)
    below = set().union(*LAYERS[:level])
    assert imports_of(part) <= below


@pytest.mark.parametrize("part", sorted(WITHOUT_SETTINGS))
def test_libraries_take_plain_arguments(part):
    """Only `open.py` of a library, which opens things from settings, loads any; the others know dataclasses at most."""
    files = [file for file in (PACKAGE / part).rglob("*.py") if file.name != "open.py"]
    for file in files:
        assert not re.findall(r"mindvis\.config(?!\.(?:schemas|decoding) import)", file.read_text()), file
        assert not re.findall(r"import.*(load_config|plain|flatten)", file.read_text()), file


def test_scripts_are_thin():
    """An entry script wires and does nothing else."""
    scripts = sorted((PACKAGE.parent / "scripts").glob("*.py"))
    assert scripts
    assert not {path.name: n for path in scripts if (n := len(path.read_text().splitlines())) > 60}

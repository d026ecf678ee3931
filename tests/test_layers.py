"""Imports go downwards only: data, networks and evaluation know neither settings nor the layers above them."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "mindvis"
# Each part may import the parts before it (and itself); parts on one line do not know each other.
LAYERS = [
    {"errors", "hints", "progress"},
    {"settings", "safe_pickle"},
    {"config", "cli"},
    {"training"},
    {"data", "sc_mbm"},
    {"dc_ldm", "prepare"},
    {"checkpoints", "figures"},
    {"evaluation", "decoding"},
    {"baseline", "demo"},
    {"wiring"},
    {"memory_estimate", "paper_figures", "inspection", "chain"},
    {"ablation", "benchmarks"},
]
WITHOUT_SETTINGS = {"data", "sc_mbm", "dc_ldm", "evaluation"}


def parts() -> list[str]:
    """Every module or package directly below mindvis."""
    found = {path.stem if path.is_file() else path.name for path in PACKAGE.iterdir()}
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
    """Settings stop at the wiring."""
    assert not imports_of(part) & {"config", "settings", "cli", "wiring"}


def test_scripts_are_thin():
    """An entry script wires and does nothing else."""
    scripts = sorted((PACKAGE.parent / "scripts").glob("*.py"))
    assert scripts
    assert not {path.name: n for path in scripts if (n := len(path.read_text().splitlines())) > 60}

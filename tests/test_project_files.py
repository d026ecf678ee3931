"""CITATION.cff, CONTRIBUTING.md, CHANGELOG.md, the workflow, dependencies and what is packed with the package."""

import ast
import re
import sys
from pathlib import Path

import pytest
import yaml
from command_lines import PYPROJECT, ROOT
from test_layers import LAYERS

import mindvis

PACKAGE, PROJECT = ROOT / "mindvis", PYPROJECT["project"]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()
# What a package is called where it is imported, if not as where it is installed.
IMPORTED_AS = {"pillow": "PIL", "pyyaml": "yaml", "scikit-image": "skimage", "scikit-learn": "sklearn"}
COME_WITH = {"lightning_fabric": "pytorch_lightning"}  # imported, and installed by another


@pytest.fixture
def citation() -> dict:
    return yaml.safe_load((ROOT / "CITATION.cff").read_text())


def test_citation_has_what_the_format_asks_for(citation):
    """Version 1.2.0: message, title and authors, of the software and of the paper."""
    assert citation["cff-version"] == "1.2.0" and citation["type"] == "software"
    for work in (citation, citation["preferred-citation"]):
        assert work["title"] and work["authors"] and work["type"]
        assert all("name" in author or {"family-names", "given-names"} <= author.keys() for author in work["authors"])
    assert citation["message"]


def test_citation_is_of_this_version_and_licence(citation):
    """As pyproject.toml and LICENSE say."""
    assert citation["version"] == PROJECT["version"]
    assert (ROOT / "LICENSE").read_text().startswith(f"{citation['license']} License")


def test_citation_is_of_the_paper(citation):
    """Chen et al., CVPR 2023, arXiv 2211.06956."""
    paper = citation["preferred-citation"]
    assert (paper["authors"][0]["family-names"], paper["year"]) == ("Chen", 2023)
    assert paper["url"].endswith("2211.06956")


def test_contributing_names_files_that_are_there():
    """Every path in backticks without a placeholder."""
    named = {word for word in re.findall(r"`([\w./*]+/[\w./*]+)`", CONTRIBUTING) if "<" not in word}
    assert len(named) > 8
    assert not [path for path in named if not list(ROOT.glob(path))]


def test_contributing_installs_extras_that_exist():
    """Those of pyproject.toml."""
    extras = re.search(r"pip install -e \.\[([\w,]+)\]", CONTRIBUTING).group(1).split(",")
    assert set(extras) <= PROJECT["optional-dependencies"].keys()


def test_names_that_contributing_points_at_are_there():
    """Functions and tables that a new data set, metric or sampler is added to."""
    for module, name in re.findall(r"`(\w+)` of `(mindvis/[\w/]+\.py)`", CONTRIBUTING):
        assert re.search(rf"^(?:def |class )?{module}\b", (ROOT / name).read_text(), re.MULTILINE)
    assert "def save_npz" in (PACKAGE / "data" / "own.py").read_text()
    assert "def open_pairs" in (PACKAGE / "data" / "open.py").read_text()


def test_contributing_shows_every_room_in_the_order_of_imports():
    """A line a room, as `LAYERS` has them; those of one layer say so."""
    shown = re.findall(r"^  (\w+) {2,}(.*)", CONTRIBUTING, re.MULTILINE)
    rooms = [name for name, _ in shown]
    levels = [next(index for index, layer in enumerate(LAYERS) if name in layer) for name in rooms]
    assert set(rooms) == set().union(*LAYERS)
    assert levels == sorted(levels)
    besides = [name for (name, text), a, b in zip(shown[1:], levels[1:], levels, strict=False) if a == b]
    assert [name for name, text in shown if "(beside " in text] == besides


def test_changelog_begins_with_what_is_not_released():
    """Then the version of pyproject.toml."""
    versions = re.findall(r"^## \[(.+?)\]", CHANGELOG, re.MULTILINE)
    assert versions[:2] == ["Unreleased", PROJECT["version"]]


def named_packages(*requirements: str) -> set[str]:
    """Names under which required packages are imported."""
    names = {re.match(r"[\w-]+", requirement).group().lower() for requirement in requirements}
    return {IMPORTED_AS.get(name, name.replace("-", "_")) for name in names}


def imported_packages(*folders: str) -> set[str]:
    """Packages that the files of these folders import, without Python's own and this one."""
    nodes = [node for folder in folders for file in (ROOT / folder).rglob("*.py") for node in ast.walk(parsed(file))]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level}
    return {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - {"mindvis"}


def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


def test_what_is_imported_is_a_dependency():
    """Of the package or of an extra; nothing comes by chance with another package."""
    extras = [name for listed in PROJECT["optional-dependencies"].values() for name in listed]
    named = named_packages(*PROJECT["dependencies"], *extras) | COME_WITH.keys()
    assert imported_packages("mindvis", "scripts") <= named


def test_what_is_a_dependency_is_imported():
    """No package is installed for nothing."""
    assert named_packages(*PROJECT["dependencies"]) <= imported_packages("mindvis", "scripts")


def test_dependencies_have_lower_bounds_only():
    """So that an environment keeps the torch it has."""
    extras = [name for listed in PROJECT["optional-dependencies"].values() for name in listed]
    for requirement in [*PROJECT["dependencies"], *extras]:
        assert re.fullmatch(r"[\w-]+>=[\d.]+", requirement), requirement


def test_docker_and_conda_make_the_same_environment():
    """Python of one version, which is tested, and the same extras; both commands of the image are there."""
    docker, conda = (ROOT / "Dockerfile").read_text(), yaml.safe_load((ROOT / "environment.yml").read_text())
    python, _, pip = conda["dependencies"]
    (version,) = set(re.findall(r"python(3\.\d+)", docker))
    assert python == f"python={version}" and f"Python :: {version}" in " ".join(PROJECT["classifiers"])
    (installed,) = re.findall(r"pip install .*-e (\S+)", docker)
    assert pip["pip"] == [f"-e {installed}"]
    assert set(re.search(r"\[(.*)\]", installed)[1].split(",")) <= set(PROJECT["optional-dependencies"])
    assert re.search(r"^FROM nvidia/cuda:", docker, re.MULTILINE)
    assert 'CMD ["scripts/demo.sh"]' in docker and "python -m pytest -m gpu" in docker


def test_the_workflow_tests_the_python_versions_that_are_named():
    """Those of the classifiers, from the oldest that is allowed."""
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text())
    versions = workflow["jobs"]["tests"]["strategy"]["matrix"]["python-version"]
    classified = re.findall(r"Python :: (3\.\d+)", " ".join(PROJECT["classifiers"]))
    assert versions == classified
    assert PROJECT["requires-python"] == f">={versions[0]}"


def test_modules_that_the_type_check_leaves_out_exist():
    """So that the list in pyproject.toml gets shorter when they go."""
    for left_out in PYPROJECT["tool"]["mypy"].get("overrides", []):
        for module in left_out["module"]:
            path = ROOT / module.removesuffix(".*").replace(".", "/")
            assert path.is_dir() if module.endswith(".*") else path.with_suffix(".py").is_file(), module


def test_assets_are_packed_with_the_package():
    """The model card's template lies below a folder that pyproject.toml packs."""
    patterns = PYPROJECT["tool"]["setuptools"]["package-data"]["mindvis"]
    packed = {path for pattern in patterns for path in Path(mindvis.__file__).parent.glob(pattern)}
    assert PACKAGE / "assets" / "model_card.md" in packed
    assert PACKAGE / "py.typed" in packed

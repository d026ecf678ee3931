"""CITATION.cff, CONTRIBUTING.md and what is packed with the package."""

import re
from pathlib import Path

import pytest
import yaml
from command_lines import PYPROJECT, ROOT

import mindvis

PACKAGE, PROJECT = ROOT / "mindvis", PYPROJECT["project"]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()


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
        assert re.search(rf"^{module}\b", (ROOT / name).read_text(), re.MULTILINE)
    assert "def save_npz" in (PACKAGE / "data" / "own.py").read_text()
    assert "def open_pairs" in (PACKAGE / "data" / "open.py").read_text()


def test_assets_are_packed_with_the_package():
    """The model card's template lies below a folder that pyproject.toml packs."""
    patterns = PYPROJECT["tool"]["setuptools"]["package-data"]["mindvis"]
    packed = {path for pattern in patterns for path in Path(mindvis.__file__).parent.glob(pattern)}
    assert PACKAGE / "assets" / "model_card.md" in packed

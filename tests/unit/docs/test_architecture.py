"""The pages about the code name code and tests that exist, and every package."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "connector-architecture.md").read_text()
PLACES = sorted(
    set(re.findall(r"`((?:connector-sdk|connectors|operator|crds|charts|images|tests)/[^`]+)`", PAGE))
    - {"tests/unit/docs/test_architecture.py"}
)


def test_the_page_names_places() -> None:
    assert len(PLACES) > 50


@pytest.mark.parametrize("place", PLACES)
def test_a_place_exists(place: str) -> None:
    path, _, name = place.partition("::")
    assert (ROOT / path).is_file(), path
    if name:
        tree = ast.parse((ROOT / path).read_text())
        tests = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert name in tests, f"{path} has no {name}"


CODE = (ROOT / "docs" / "code.md").read_text()
OPERATOR = ROOT / "operator" / "src" / "penstock_operator"
SDK = ROOT / "connector-sdk" / "src" / "penstock_sdk"


def test_the_page_of_the_code_has_a_line_for_each_package_of_the_operator() -> None:
    section = CODE.split("## Packages of the SDK")[0]
    listed = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    packages = {path.stem for path in OPERATOR.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert sorted(listed) == sorted(packages - {"__init__"})


@pytest.mark.parametrize("named", sorted(set(re.findall(r"`([\w/]+\.py)`", CODE))))
def test_a_file_that_the_walks_name_exists(named: str) -> None:
    assert (OPERATOR / named).is_file() or (SDK / named).is_file(), named

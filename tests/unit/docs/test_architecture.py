"""The architecture's page names code and tests that exist."""

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

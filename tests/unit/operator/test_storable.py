"""What the registry cannot hold is named with its field before it gets there."""

from __future__ import annotations

from typing import Any

import pytest
from penstock_operator.resources.storable import storage_problems


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"streams": [{"name": "a\0b"}]}, "spec.streams[0].name: Invalid value: holds a character that is no text"),
        ({"config": {"x": "\ud800"}}, "spec.config.x: Invalid value: holds a character that is no text"),
        ({"config": {"x\0": 1}}, "spec.config.x\ufffd: Invalid value: holds a character that is no text"),
        ({"config": {"x": 10**400}}, "spec.config.x: Invalid value: the number does not fit into 64 bits"),
        ({"config": {"x": float("nan")}}, "spec.config.x: Invalid value: nan is no number that JSON has"),
        ({"config": {"x": float("inf")}}, "spec.config.x: Invalid value: inf is no number that JSON has"),
    ],
)
def test_it_is_named_with_its_field(spec: dict[str, Any], words: str) -> None:
    (problem,) = storage_problems(spec, "spec")
    assert problem.startswith(words)
    problem.encode()


def test_an_abyss_is_refused_and_not_fallen_into() -> None:
    found: Any = 1
    for _ in range(100_000):
        found = [found]
    (problem,) = storage_problems(found, "spec")
    assert "nested deeper than 64 levels" in problem


def test_everything_else_is_fine() -> None:
    assert storage_problems({"a": [1, 1.5, True, None, "\u00e9\n", {"b": 2**62}]}, "spec") == []

"""Version ranges."""

from __future__ import annotations

import pytest
from penstock_operator.resources.versions import matches, selectable


@pytest.mark.parametrize(
    ("version", "range_", "fits"),
    [
        ("1.2.3", "^1.2", True),
        ("2.0.0", "^1.2", False),
        ("1.1.9", "^1.2", False),
        ("0.2.9", "^0.2.1", True),
        ("0.3.0", "^0.2.1", False),
        ("0.0.4", "^0.0.3", False),
        ("1.2.9", "~1.2.0", True),
        ("1.3.0", "~1.2.0", False),
        ("9.0.0", ">=1.2", True),
        ("1.2.0", "1.2.0", True),
        ("1.2.1", "1.2.0", False),
        ("1.3.0-rc.1", "^1.2", False),
        ("1.3.0-rc.1", "1.3.0-rc.1", True),
        ("1.0.0", "*", True),
    ],
)
def test_a_range_means_what_npm_and_cargo_mean(version: str, range_: str, fits: bool) -> None:  # noqa: FBT001
    assert matches(version, range_) is fits


def test_the_newest_in_range_is_taken_by_number() -> None:
    certified = dict.fromkeys(["1.2.0", "1.10.0", "1.9.9", "2.0.0"], "certified")
    assert selectable(certified, "^1.2") == ["1.10.0", "1.9.9", "1.2.0"]
    assert selectable(certified, "^3") == []


@pytest.mark.parametrize(
    ("range_", "selected"),
    [
        ("*", ["1.1.0", "1.0.0"]),
        ("^1", ["1.1.0", "1.0.0"]),
        (">=1.2", ["1.2.0"]),
        ("~1.3.0", []),
        ("^1.4", []),
        ("1.3.0", ["1.3.0"]),
        ("1.2.0", ["1.2.0"]),
        ("1.4.0", []),
        ("1.5.0-rc.1", ["1.5.0-rc.1"]),
    ],
)
def test_a_range_selects_certified_versions_only_and_a_pin_also_a_preview(range_: str, selected: list[str]) -> None:
    stages = {
        "1.0.0": "certified",
        "1.1.0": "certified",
        "1.2.0": "deprecated",
        "1.3.0": "preview",
        "1.4.0": "withdrawn",
        "1.5.0-rc.1": "certified",
    }
    assert selectable(stages, range_) == selected

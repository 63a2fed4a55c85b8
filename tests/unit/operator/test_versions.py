"""Version ranges."""

from __future__ import annotations

import pytest
from penstock_operator.resources.versions import best_match, matches


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
    assert best_match(["1.2.0", "1.10.0", "1.9.9", "2.0.0"], "^1.2") == "1.10.0"
    assert best_match(["1.0.0"], "^2") is None

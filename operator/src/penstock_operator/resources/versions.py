"""Version ranges, as npm and cargo write them: '1.2.0', '^1.2', '~1.2.0', '>=1.2', '*'."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Version(NamedTuple):
    """A semantic version that sorts as semver says: a pre-release before its release."""

    major: int
    minor: int
    patch: int
    release: bool
    pre: tuple[tuple[int, int, str], ...]


def parse_version(text: str) -> Version:
    """Return the version; a missing minor or patch is 0."""
    core, _, pre = text.partition("-")
    numbers = [int(part) for part in core.split(".")] + [0, 0]
    parts = tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in pre.split(".") if part)
    return Version(numbers[0], numbers[1], numbers[2], not pre, parts)


def _upper(operator: str, wanted: Version, given: int) -> tuple[int, int, int] | None:
    if operator == "~" or (operator == "^" and wanted.major == 0 and given > 1):
        tight = operator == "^" and wanted.minor == 0 and given > 2  # noqa: PLR2004 - ^0.0.3 allows 0.0.3 only
        return (0, 0, wanted.patch + 1) if tight else (wanted.major, wanted.minor + 1, 0)
    return (wanted.major + 1, 0, 0) if operator == "^" else None


def matches(version: str, range_: str) -> bool:
    """Say whether the version is in the range. A pre-release is only matched by its exact pin."""
    if range_ == "*":
        return parse_version(version).release
    operator = next((prefix for prefix in (">=", "^", "~") if range_.startswith(prefix)), "")
    wanted, found = parse_version(range_[len(operator) :]), parse_version(version)
    if not operator:
        return found == wanted
    upper = _upper(operator, wanted, range_.count(".") + 1)
    return found.release and found >= wanted and (upper is None or found[:3] < upper)


def is_pin(range_: str) -> bool:
    """Say whether a range names one version exactly."""
    return range_ != "*" and not range_.startswith((">=", "^", "~"))


def selectable(stages: Mapping[str, str], range_: str) -> list[str]:
    """Return the versions that a range selects from, the newest first; `stages` is each version's.

    A range selects certified versions; where it has none, deprecated ones. A preview is only taken by its exact version,
    and a withdrawn version never.
    """
    reached = sorted((version for version in stages if matches(version, range_)), key=parse_version, reverse=True)
    if is_pin(range_):
        return [version for version in reached if stages[version] != "withdrawn"]
    certified = [version for version in reached if stages[version] == "certified"]
    return certified or [version for version in reached if stages[version] == "deprecated"]

"""The distributions that a connector needs: its own, and all that it requires in this environment."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def installed_dependencies(name: str) -> Iterator[metadata.Distribution]:
    """Yield a distribution and everything that it requires in this environment.

    Raises importlib.metadata.PackageNotFoundError; its `name` is the requirement that is not installed.
    """
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        current = canonicalize_name(waiting.pop())
        if current in seen:
            continue
        seen.add(current)
        found = metadata.distribution(current)
        yield found
        for line in found.requires or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting += [requirement.name, *_of_extras(requirement)]


def pinned(name: str, version: str) -> str:
    """Return a distribution as `name==version`."""
    return f"{canonicalize_name(name)}=={version}"


def _of_extras(requirement: Requirement) -> list[str]:
    """Return the requirements of the extras of a requirement, such as psycopg[binary]."""
    lines = metadata.distribution(requirement.name).requires or [] if requirement.extras else []
    parsed = [Requirement(line) for line in lines]
    return [
        optional.name
        for optional in parsed
        if optional.marker and any(optional.marker.evaluate({"extra": extra}) for extra in requirement.extras)
    ]

"""A project to begin with: whole, and passing its own tests."""

from __future__ import annotations

import re
from importlib import metadata, resources
from importlib.resources.abc import Traversable
from pathlib import Path

__all__ = ["METHODS", "ScaffoldError", "create"]

METHODS = ("rest",)
SUFFIX = ".tmpl"
NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
LONGEST_NAME = 40


class ScaffoldError(Exception):
    """The project cannot be made so; the message says what to change."""


def create(name: str, method: str, directory: Path | None = None) -> Path:
    """Make a project for a source and a method, and return its folder.

    Raises ScaffoldError when the name is no identifier, the method has no template, or the folder is not empty.
    """
    if not NAME.fullmatch(name) or len(name) > LONGEST_NAME:
        raise ScaffoldError(f"{name!r} is no name: lower-case letters, digits and single dashes, such as 'orders'")
    if method not in METHODS:
        raise ScaffoldError(f"there is no template for method {method!r}; there is: {', '.join(METHODS)}")
    place = directory or Path(f"{name}-{method}")
    if place.exists() and not place.is_dir():
        raise ScaffoldError(f"{place} is not a folder; name another with --directory")
    if place.exists() and any(place.iterdir()):
        raise ScaffoldError(f"{place} is not empty; name another with --directory")
    words = _words(name, method)
    for path, text in _templates(resources.files(__package__ or "") / method, ""):
        target = place / _filled(path.removesuffix(SUFFIX), words)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(_filled(text, words))
    return place


def _words(name: str, method: str) -> dict[str, str]:
    artifact = f"{name}-{method}"
    return {
        "name": name,
        "method": method,
        "artifact": artifact,
        "package": f"penstock_{artifact.replace('-', '_')}",
        "class": "".join(part.capitalize() for part in artifact.split("-")),
        "title": name.replace("-", " ").capitalize(),
        "sdk": metadata.version("penstock-sdk"),
    }


def _filled(text: str, words: dict[str, str]) -> str:
    return re.sub(r"@(\w+)@", lambda match: words[match[1]] if match[1] in words else match[0], text)


def _templates(folder: Traversable, prefix: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for each in sorted(folder.iterdir(), key=lambda entry: entry.name):
        path = f"{prefix}{each.name}"
        if each.is_dir():
            found += _templates(each, f"{path}/")
        elif each.name.endswith(SUFFIX):
            found.append((path, each.read_text()))
    return found

"""A project to begin with: whole, and passing its own tests."""

from __future__ import annotations

import json
import re
from difflib import get_close_matches
from importlib import metadata, resources
from importlib.resources.abc import Traversable
from pathlib import Path

import yaml

__all__ = ["METHODS", "ScaffoldError", "create"]

METHODS = ("rest",)
SUFFIX = ".tmpl"
NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
LONGEST_NAME = 40
LONGEST_TITLE = 80
PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9 .,-]*[A-Za-z0-9.]|[A-Za-z]")
READ_AS_BOOLEAN = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}
SUMMARIES = {"rest": "Items of {title} by its REST API, in full or by the moment of their last change."}


class ScaffoldError(Exception):
    """The project cannot be made so; the message says what to change."""


def create(name: str, method: str, directory: Path | None = None, title: str | None = None) -> Path:
    """Make a project for a source and a method, and return its folder. `title` is the source's name for people.

    Raises ScaffoldError when the name is no identifier, the title is no line of text, the method has no template, or the
    folder is not empty.
    """
    if not NAME.fullmatch(name) or len(name) > LONGEST_NAME:
        raise ScaffoldError(
            f"{name!r} is no name: up to {LONGEST_NAME} lower-case letters, digits and single dashes, such as 'orders'"
        )
    if method not in METHODS:
        near = get_close_matches(method, METHODS, 1)
        suggested = f"; did you mean {near[0]!r}?" if near else ""
        raise ScaffoldError(f"there is no template for method {method!r}{suggested} There is: {', '.join(METHODS)}")
    shown = name.replace("-", " ").capitalize() if title is None else title.strip()
    if not shown or not shown.isprintable() or len(shown) > LONGEST_TITLE:
        raise ScaffoldError(f"--title must be one line of text of up to {LONGEST_TITLE} characters, such as 'Orders'")
    place = directory or Path(f"{name}-{method}")
    if place.exists() and not place.is_dir():
        raise ScaffoldError(f"{place} is not a folder; name another with --directory")
    if place.exists() and any(place.iterdir()):
        raise ScaffoldError(f"{place} is not empty; name another with --directory")
    words = _words(name, method, shown)
    for path, text in _templates(resources.files(__package__ or "") / method, ""):
        target = place / _filled(path.removesuffix(SUFFIX), words)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(_filled(text, words), encoding="utf-8")
    return place


def _words(name: str, method: str, title: str) -> dict[str, str]:
    """Return what each token of the templates stands for: `@yaml_…@` is a value of YAML, `@text_…@` one of TOML."""
    artifact = f"{name}-{method}"
    described = f"{title} for Penstock."
    return {
        "name": name,
        "method": method,
        "artifact": artifact,
        "package": f"penstock_{artifact.replace('-', '_')}",
        "class": "".join(part.capitalize() for part in artifact.split("-")),
        "yaml_name": _yaml(name),
        "yaml_title": _yaml(title),
        "yaml_description": _yaml(SUMMARIES[method].format(title=title)),
        "text_description": _quoted(described),
        "markdown_description": re.sub(r"([\\`*_{}\[\]<>#|!])", r"\\\1", described),
        "sdk": metadata.version("penstock-sdk"),
    }


def _yaml(text: str) -> str:
    """Return text as a value of YAML, in quotes unless every parser reads it as the same text without them."""
    plain = PLAIN.fullmatch(text) and text.lower() not in READ_AS_BOOLEAN and yaml.safe_load(text) == text
    return text if plain else _quoted(text)


def _quoted(text: str) -> str:
    """Return printable text in double quotes, as JSON, YAML and TOML write it."""
    return json.dumps(text, ensure_ascii=False)


def _filled(text: str, words: dict[str, str]) -> str:
    return re.sub(r"@(\w+)@", lambda match: words[match[1]] if match[1] in words else match[0], text)


def _templates(folder: Traversable, prefix: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for each in sorted(folder.iterdir(), key=lambda entry: entry.name):
        path = f"{prefix}{each.name}"
        if each.is_dir():
            found += _templates(each, f"{path}/")
        elif each.name.endswith(SUFFIX):
            found.append((path, each.read_text(encoding="utf-8")))
    return found

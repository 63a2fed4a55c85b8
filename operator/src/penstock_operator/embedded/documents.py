"""The documents of YAML files, read as `kubectl apply` reads them. An error is one line that names the location."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import yaml
from penstock_sdk._safe_yaml import MAX_YAML_CHARACTERS, MAX_YAML_DEPTH, MAX_YAML_VALUES, TOO_MANY, LimitedLoader

MOST_FILES = 2_000
"""A folder that `up` follows is read every second; one with more is a mistake, such as / or a home directory."""
MALFORMED = (yaml.YAMLError, ValueError, RecursionError, AttributeError, LookupError, TypeError, ArithmeticError)
"""The errors that PyYAML raises for text that is no YAML, and for a value that does not fit its tag, such as `!!int x`."""


class FolderError(Exception):
    """A file of the folder cannot be used; the message names the file and the remedy."""


@dataclass(frozen=True)
class LocatedDocument:
    """One document, and its location for messages: the file, and which document of it where there are several."""

    location: str
    document: Any


class _Loader(LimitedLoader):
    """Reads a timestamp without quotes as text, as Kubernetes does, and refuses a key that is there twice."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in LimitedLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001 - PyYAML's signature
        seen = set[str]()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} is there twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def yaml_files(directory: Path) -> list[Path]:
    """Return all YAML files below a directory. Raises FolderError where it cannot be read."""
    below = (path for pattern in ("*.yaml", "*.yml") for path in directory.rglob(pattern))
    try:
        files = sorted(islice(below, MOST_FILES + 1))
    except OSError as error:
        raise FolderError(f"{directory}: cannot be read: {error.strerror}") from None
    if len(files) > MOST_FILES:
        raise FolderError(f"{directory}: holds more than {MOST_FILES:,} YAML files; name a folder of fewer")
    return files


def documents_of(path: Path) -> Iterator[LocatedDocument]:
    """Yield a file's documents, those of a List one by one. Raises FolderError."""
    loaded = list(_loaded(path))
    for number, document in enumerate(loaded, 1):
        location = f"{path}: document {number}" if len(loaded) > 1 else str(path)
        if document is None:
            continue
        if problem := _not_json(document):
            raise FolderError(f"{location}: {problem}")
        if isinstance(document, dict) and document.get("kind") == "List":
            yield from _items(document, location)
        else:
            yield LocatedDocument(location, document)


def _items(document: dict[str, Any], location: str) -> Iterator[LocatedDocument]:
    items = document.get("items")
    if not isinstance(items, list):
        raise FolderError(f"{location}: items: a List needs a list of documents, [] for none")
    for index, item in enumerate(items):
        yield LocatedDocument(f"{location}: items[{index}]", item)


def _loaded(path: Path) -> Iterator[Any]:
    try:
        size = path.stat().st_size
        if size > MAX_YAML_CHARACTERS:
            raise FolderError(f"{path}: has {size:,} bytes; a file may have {MAX_YAML_CHARACTERS:,}: split it")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise FolderError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise FolderError(f"{path}: not YAML: not UTF-8 from byte {error.start}") from None
    documents, number = _parsed(text), 0
    while True:
        number += 1
        try:
            document = next(documents)
        except StopIteration:
            return
        except RecursionError:
            raise FolderError(f"{path}: document {number}: not YAML: nested too deep") from None
        except MALFORMED as error:
            raise FolderError(f"{path}: document {number}: not YAML: {_said(error)}") from None
        yield document


def _parsed(text: str) -> Iterator[Any]:
    loader = _Loader(text)
    while loader.check_data():  # type: ignore[no-untyped-call]
        yield loader.get_data()


def _said(error: Exception) -> str:
    """Return a parser's message in one line, without its quotation of the file, which may hold a Secret's value."""
    if not isinstance(error, yaml.MarkedYAMLError):
        reason = getattr(error, "reason", None)
        return str(reason) if reason else "a value does not fit its tag; write it in quotes"
    mark = error.problem_mark or error.context_mark
    where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    return f"{error.problem or error.context}{where}"


def _not_json(document: Any) -> str | None:
    """Return why a document cannot be JSON, which is what Kubernetes makes of it; None when it can."""
    waiting, count = [(document, 0)], 0
    while waiting:
        value, depth = waiting.pop()
        count += 1
        if count > MAX_YAML_VALUES or depth > MAX_YAML_DEPTH:
            return TOO_MANY
        if isinstance(value, dict):
            if wrong := next((key for key in value if not isinstance(key, str)), None):
                return f"the key {str(wrong)[:40]!r} is not text; write it in quotes"
            waiting += [(inner, depth + 1) for inner in value.values()]
        elif isinstance(value, list):
            waiting += [(inner, depth + 1) for inner in value]
        elif not _scalar(value):
            return f"holds a value that JSON has not ({type(value).__name__}); write it in quotes"
    return None


def _scalar(value: object) -> bool:
    return value is None or isinstance(value, (str, int)) or (isinstance(value, float) and math.isfinite(value))

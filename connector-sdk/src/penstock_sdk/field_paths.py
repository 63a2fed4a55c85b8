"""Paths of nested fields, such as `address.street`, in one notation.

A path is the list of names that leads to the field, separated by dots. The items of a list have the path of the list:
`orders.email` is the email of each order. A name with a dot, a bracket or a quote is in double quotes, as in JSON.

`orders[].email`, `orders[*].email`, `/orders/email` (JSON Pointer) and `$.orders[*].email` (JSONPath) are accepted too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from penstock_sdk.json_types import JsonSchema

__all__ = [
    "format_path",
    "normal_path",
    "rewrite_hints",
    "top_level_field",
]

Names = tuple[str, ...]
PLAIN = re.compile(r"[^.\[\]\"]+")
STEP = re.compile(
    r'\.?(?:(?P<plain>[^.\[\]"]+)|(?P<quoted>"(?:[^"\\]|\\.)*"))|\[(?P<index>\*|[0-9]*|\'[^\']*\'|"[^"]*")\]'
)
DEEPEST = 20


def format_path(names: Iterable[str]) -> str:
    """Return the path of a field, given by its names."""
    return ".".join(name if PLAIN.fullmatch(name) else json.dumps(name, ensure_ascii=False) for name in names)


def top_level_field(path: str) -> str:
    """Return the top-level field with which a path begins."""
    return (_steps(path) or (path,))[0]


def normal_path(text: str, schema: JsonSchema) -> str:
    """Return the path of a field that is written in any accepted notation. A field that the schema has is preferred."""
    known = set(_known(schema, (), 0))
    readings = list(_readings(text))
    return format_path(next((names for names in readings if names in known), readings[0]))


def rewrite_hints(pii: Sequence[str], schema: JsonSchema) -> Iterator[str]:
    """Yield, for each path in another notation, how to write it."""
    for text in pii:
        path = normal_path(text, schema)
        if path != text:
            yield f"pii names the field {text!r}: write it as {path!r}"


def _readings(text: str) -> Iterator[Names]:
    """Yield the possible meanings of a path, the most likely first."""
    path = text.removeprefix("$") if text.startswith(("$.", "$[")) else text
    if text.startswith("/"):
        names = (name.replace("~1", "/").replace("~0", "~") for name in text[1:].split("/"))
        yield tuple(name for name in names if not name.isdigit() and name not in ("*", "-", ""))
    for notation in dict.fromkeys((path, text)):  # the name of a field may look like another notation
        if steps := _steps(notation):
            yield steps
    yield (text,)


def _steps(path: str) -> Names | None:
    names, at = list[str](), 0
    while at < len(path):
        step = STEP.match(path, at)
        if step is None or step.end() == at:
            return None
        at = step.end()
        if step["index"] and step["index"][0] in "'\"":
            names.append(step["index"][1:-1])
        elif step["quoted"]:
            names.append(_unquoted(step["quoted"]))
        elif step["plain"]:
            names.append(step["plain"])
    return tuple(names) or None


def _unquoted(text: str) -> str:
    try:
        return str(json.loads(text))
    except ValueError:
        return text[1:-1]


def _known(node: Any, path: Names, depth: int) -> Iterator[Names]:
    """Yield every field of a schema, objects included. The items of a list have the path of the list."""
    if not isinstance(node, Mapping) or depth > DEEPEST:
        return
    properties = node.get("properties")
    for name, child in properties.items() if isinstance(properties, Mapping) else ():
        yield (*path, name)
        yield from _known(child, (*path, name), depth + 1)
    yield from _known(node.get("items"), path, depth + 1)

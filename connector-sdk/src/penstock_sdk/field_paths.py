"""How a field that holds personal data is named: `address.street`, whatever way an author writes it.

The notation is the names on the way to the field, with dots between them. The items of a list have the path of the list:
`orders.email` is the email of each order. A name that has a dot, a bracket or a quote is in double quotes, as in JSON.

`orders[].email`, `orders[*].email`, `/orders/email` (JSON Pointer) and `$.orders[*].email` (JSONPath) are read as well.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

Names = tuple[str, ...]
PLAIN = re.compile(r"[^.\[\]\"]+")
STEP = re.compile(
    r'\.?(?:(?P<plain>[^.\[\]"]+)|(?P<quoted>"(?:[^"\\]|\\.)*"))|\[(?P<index>\*|[0-9]*|\'[^\']*\'|"[^"]*")\]'
)
DEEPEST = 20


def format_path(names: Iterable[str]) -> str:
    """Return the notation of a field."""
    return ".".join(name if PLAIN.fullmatch(name) else json.dumps(name, ensure_ascii=False) for name in names)


def top_level_field(path: str) -> str:
    """Return the name of the record's own field that a path begins with."""
    return (_steps(path) or (path,))[0]


def normal_path(text: str, schema: Mapping[str, Any]) -> str:
    """Return the notation of a field that is written in any of the ways; the one that the schema knows is taken."""
    known = set(_known(schema, (), 0))
    readings = list(_readings(text))
    return format_path(next((names for names in readings if names in known), readings[0]))


def rewrite_hints(pii: Sequence[str], schema: Mapping[str, Any]) -> Iterator[str]:
    """Say of each path in another notation how to write it."""
    for text in pii:
        path = normal_path(text, schema)
        if path != text:
            yield f"pii names the field {text!r}: write it as {path!r}"


def _readings(text: str) -> Iterator[Names]:
    """Yield what a path may mean, the likeliest first."""
    path = text.removeprefix("$") if text.startswith(("$.", "$[")) else text
    if text.startswith("/"):
        names = (name.replace("~1", "/").replace("~0", "~") for name in text[1:].split("/"))
        yield tuple(name for name in names if not name.isdigit() and name not in ("*", "-", ""))
    for notation in dict.fromkeys((path, text)):  # a field's own name may begin with what begins another notation
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
    """Yield every field of a schema, objects too; a list's items have the list's own path."""
    if not isinstance(node, Mapping) or depth > DEEPEST:
        return
    properties = node.get("properties")
    for name, child in properties.items() if isinstance(properties, Mapping) else ():
        yield (*path, name)
        yield from _known(child, (*path, name), depth + 1)
    yield from _known(node.get("items"), path, depth + 1)

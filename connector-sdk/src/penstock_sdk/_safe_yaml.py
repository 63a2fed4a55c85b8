"""YAML of authors and tenants, read within limits.

A few hundred bytes of YAML can stand for billions of values, because an alias repeats a value. PyYAML also needs quadratic time
for very long numbers. So the size of a document is counted with its aliases written out, before any value is made.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import yaml

from penstock_sdk.json_types import JsonValue

MAX_YAML_CHARACTERS: Final = 4 * 1024 * 1024
MAX_YAML_VALUES: Final = 200_000
MAX_YAML_DEPTH: Final = 100
MAX_NUMBER_CHARACTERS: Final = 100
TOO_MANY = f"holds more than {MAX_YAML_VALUES:,} values, or is nested deeper than {MAX_YAML_DEPTH}, with its aliases written out"
NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


class YamlLimitError(yaml.YAMLError):
    """A document is beyond a limit."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class LimitedLoader(yaml.SafeLoader):
    """Reads a document only if it has few enough values with its aliases written out. Otherwise raises YAMLError."""

    _values = 0
    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Compose a node, and count it."""
        self._values += 1
        self._depth += 1
        if self._values > MAX_YAML_VALUES or self._depth > MAX_YAML_DEPTH:
            raise YamlLimitError(TOO_MANY)
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def compose_document(self) -> yaml.Node | None:
        """Compose a document, and refuse it if it is too large with its aliases written out."""
        self._values = self._depth = 0
        node: yaml.Node | None = super().compose_document()
        size, depth = _extent(node, {}) if node is not None else (0, 0)
        if size > MAX_YAML_VALUES or depth > MAX_YAML_DEPTH:
            raise YamlLimitError(TOO_MANY)
        return node


def load_yaml(text: str) -> JsonValue:
    """Return the only document of a text. Raises yaml.YAMLError, or ValueError for a value that its tag does not fit."""
    _check_length(text)
    document: JsonValue = yaml.load(text, LimitedLoader)  # noqa: S506 - it is a SafeLoader
    return document


def _check_length(text: str) -> None:
    if len(text) > MAX_YAML_CHARACTERS:
        raise YamlLimitError(f"has {len(text):,} characters; at most {MAX_YAML_CHARACTERS:,} are accepted")


def _extent(node: yaml.Node, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """Return the number and the depth of the values of a node, with its aliases written out. Each node is visited once."""
    if id(node) in known:
        return known[id(node)]
    known[id(node)] = MAX_YAML_VALUES + 1, 1  # what a node has that contains itself
    extents = [_extent(inner, known) for inner in _inner(node)]
    known[id(node)] = 1 + sum(size for size, _ in extents), 1 + max((depth for _, depth in extents), default=0)
    return known[id(node)]


def _inner(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key
            yield value
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value
    elif node.tag in NUMBERS and len(node.value) > MAX_NUMBER_CHARACTERS:
        raise YamlLimitError(f"holds a number with more than {MAX_NUMBER_CHARACTERS} characters; write it in quotes")

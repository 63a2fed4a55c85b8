"""Fields that a verdict leaves out: they are removed from every record before it is encoded."""

from __future__ import annotations

from typing import Any

import msgspec

from penstock_sdk._runtime.encode import Chunk
from penstock_sdk.errors import SourceContractError

Tree = dict[str, Any]


class FieldRemover:
    """Removes fields, each given as the list of names that leads to it. The author's own records are not changed."""

    def __init__(self, paths: list[list[str]], stream: str) -> None:
        self._stream = stream
        self._tree: Tree = {}
        for path in paths:
            node = self._tree
            for step in path:
                node = node.setdefault(step, {})

    def __call__(self, chunk: Chunk) -> Chunk:
        """Return the chunk without the fields."""
        return Chunk([self._left(row) for row in chunk.rows], chunk.start)

    def _left(self, row: Any) -> Any:
        if not isinstance(row, msgspec.Raw):
            return _without(row, self._tree)
        try:
            return _without_raw(row, self._tree)
        except msgspec.DecodeError as error:
            message = f"stream {self._stream!r}: the source sent a record that is not JSON: {error}"
            raise SourceContractError(message) from None


def _without(value: Any, tree: Tree) -> Any:
    if isinstance(value, list | tuple):
        return [_without(item, tree) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: _without(item, tree[key]) if key in tree else item
        for key, item in value.items()
        if key not in tree or tree[key]
    }


def _without_raw(value: msgspec.Raw, tree: Tree) -> msgspec.Raw:
    """Remove fields from JSON. The other values stay as they are written: decoding would change a long number."""
    first = bytes(value).lstrip()[:1]
    if first == b"[":
        items = msgspec.json.decode(value, type=list[msgspec.Raw])
        return msgspec.Raw(msgspec.json.encode([_without_raw(item, tree) for item in items]))
    if first != b"{":
        return value
    left = {
        key: _without_raw(item, tree[key]) if key in tree else item
        for key, item in msgspec.json.decode(value, type=dict[str, msgspec.Raw]).items()
        if key not in tree or tree[key]
    }
    return msgspec.Raw(msgspec.json.encode(left))

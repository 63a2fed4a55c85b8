"""Resources in memory, with versions as an API server gives them."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from penstock_operator.controller.resource_client import (
    Document,
    Page,
    ResourceClient,
    StaleDocumentError,
    key_of,
    version_of,
)
from penstock_operator.controller.workqueue import Key
from penstock_operator.ids import NamespaceUid
from penstock_operator.resources.models import Kind

PAGE = 7


async def _nothing(_kind: Kind) -> None:
    pass


class FakeResources:
    """Keeps documents; a status is refused for a version that is not the newest.

    `before_write` and `before_list` are called before a status is written and before a kind is listed: a test changes
    documents there, or raises what an API server that does not answer would.
    """

    def __init__(self) -> None:
        self.documents: dict[Key, Document] = {}
        self.read: list[Key] = []
        self.written: list[Key] = []
        self.before_write: Callable[[Key], None] = lambda _: None
        self.before_list: Callable[[Kind], Awaitable[None]] = _nothing
        self._version = 0

    def put(self, document: Document) -> None:
        """Put a document there, under a new version."""
        self._version += 1
        document["metadata"]["resourceVersion"] = str(self._version)
        self.documents[key_of(document)] = document

    def change(self, key: Key, **spec: Any) -> str:
        """Change fields of a document's spec, and return its version."""
        document = copy.deepcopy(self.documents[key])
        document["spec"].update(spec)
        document["metadata"]["generation"] += 1
        self.put(document)
        return str(self._version)

    async def get(self, kind: Kind, namespace: str, name: str) -> Document | None:
        """Return one document."""
        self.read.append((kind, namespace, name))
        return copy.deepcopy(self.documents.get((kind, namespace, name)))

    async def pages(self, kind: Kind) -> AsyncIterator[Page]:
        """Yield the documents of a kind, some at a time."""
        await self.before_list(kind)
        found = [copy.deepcopy(document) for key, document in self.documents.items() if key[0] == kind]
        for start in range(0, len(found), PAGE):
            yield found[start : start + PAGE]

    async def namespace_uid(self, namespace: str) -> NamespaceUid | None:
        """Return the uid of a namespace."""
        return NamespaceUid(f"uid of {namespace}")

    async def write_status(self, document: Document, status: Document) -> str | None:
        """Write the status of a document that has not changed since it was read."""
        key = key_of(document)
        self.before_write(key)
        if version_of(self.documents[key]) != version_of(document):
            raise StaleDocumentError
        self.written.append(key)
        self.put({**self.documents[key], "status": status})
        return str(self._version)

    def reason(self, key: Key) -> str:
        """Return the reason of a document's Ready condition."""
        conditions: list[dict[str, str]] = self.documents[key].get("status", {}).get("conditions", [])
        return next((condition["reason"] for condition in conditions if condition["type"] == "Ready"), "")


_: ResourceClient = FakeResources()

"""Resources in memory, with versions as an API server gives them."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from penstock_operator.controller.resource_client import R, ResourceClient, StaleResourceError
from penstock_operator.controller.workqueue import Key
from penstock_operator.ids import NamespaceUid
from penstock_operator.resources.documents import Document, Resource, ResourceStatus, parse_resource, status_document
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
        self.documents[parse_resource(document).key] = document

    def change(self, key: Key, **spec: Any) -> str:
        """Change fields of a document's spec, and return its version."""
        document = copy.deepcopy(self.documents[key])
        document["spec"].update(spec)
        document["metadata"]["generation"] += 1
        self.put(document)
        return str(self._version)

    async def get(self, kind: type[R], namespace: str, name: str) -> R | None:
        """Return one resource."""
        key = (kind.KIND, namespace, name)
        self.read.append(key)
        return kind.parse(copy.deepcopy(self.documents[key])) if key in self.documents else None

    async def pages(self, kind: type[R]) -> AsyncIterator[list[R]]:
        """Yield the resources of a kind, some at a time."""
        await self.before_list(kind.KIND)
        documents = [document for key, document in self.documents.items() if key[0] == kind.KIND]
        found = [kind.parse(copy.deepcopy(document)) for document in documents]
        for start in range(0, len(found), PAGE):
            yield found[start : start + PAGE]

    async def namespace_uid(self, namespace: str) -> NamespaceUid | None:
        """Return the uid of a namespace."""
        return NamespaceUid(f"uid of {namespace}")

    async def write_status(self, resource: Resource, status: ResourceStatus) -> str | None:
        """Write the status of a resource that has not changed since it was read."""
        key = resource.key
        self.before_write(key)
        if self.version(key) != resource.metadata.version:
            raise StaleResourceError
        self.written.append(key)
        self.put({**self.documents[key], "status": status_document(status)})
        return str(self._version)

    def version(self, key: Key) -> str:
        """Return the version of a document."""
        version: str = self.documents[key]["metadata"]["resourceVersion"]
        return version

    def reason(self, key: Key) -> str:
        """Return the reason of a document's Ready condition."""
        conditions: list[dict[str, str]] = self.documents[key].get("status", {}).get("conditions", [])
        return next((condition["reason"] for condition in conditions if condition["type"] == "Ready"), "")


_: ResourceClient = FakeResources()

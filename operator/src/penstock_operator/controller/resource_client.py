"""Where the resources are: the API server, or a folder. The reconciler sees no difference."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Protocol

from penstock_operator.ids import NamespaceUid
from penstock_operator.resources.models import Kind

Document = dict[str, Any]
Page = list[Document]


class StaleDocumentError(Exception):
    """The resource has changed since it was read: what was found out about it may not hold any more."""


class ResourceClient(Protocol):
    """Reads resources and writes their status."""

    async def get(self, kind: Kind, namespace: str, name: str) -> Document | None:
        """Return one resource as it stands, None when there is none."""

    def pages(self, kind: Kind) -> AsyncIterator[Page]:
        """Yield all resources of a kind, some at a time."""

    async def namespace_uid(self, namespace: str) -> NamespaceUid | None:
        """Return the uid of a namespace: one that is deleted and made anew has another. None where it may not be read."""

    async def write_status(self, document: Document, status: Document) -> str | None:
        """Write the status of the resource as it was read, and return the version that it has now.

        Raises StaleDocumentError when it has changed meanwhile. One that is gone is no error.
        """


def version_of(document: Document) -> str | None:
    """Return the resource's version, None where there are no versions."""
    version: str | None = document["metadata"].get("resourceVersion")
    return version


def key_of(document: Document) -> tuple[str, str, str]:
    """Return kind, namespace and name."""
    meta = document["metadata"]
    return document["kind"], meta.get("namespace", ""), meta["name"]

"""Where the resources are: the API server, or a folder. The reconciler sees no difference."""

from __future__ import annotations

from typing import Any, Protocol

from penstock_operator.resources.models import Kind

Document = dict[str, Any]


class ResourceClient(Protocol):
    """Reads resources and writes their status."""

    async def get(self, kind: Kind, namespace: str, name: str) -> Document | None:
        """Return one resource as it stands, None when there is none."""

    async def list(self, kind: Kind) -> list[Document]:
        """Return all resources of a kind."""

    async def write_status(self, document: Document, status: Document) -> None:
        """Write a resource's status; one that is gone meanwhile is no error."""


def key_of(document: Document) -> tuple[str, str, str]:
    """Return kind, namespace and name."""
    meta = document["metadata"]
    return document["kind"], meta.get("namespace", ""), meta["name"]

"""The interface to the resources, which are at the API server or in a folder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol, TypeVar

from penstock_operator.ids import NamespaceUid
from penstock_operator.resources.documents import Resource, ResourceStatus

R = TypeVar("R", bound=Resource)


class StaleResourceError(Exception):
    """The resource has changed since it was read: a decision made from the version that was read may be wrong."""


class ResourceClient(Protocol):
    """Reads resources and writes their status."""

    async def get(self, kind: type[R], namespace: str, name: str) -> R | None:
        """Return one resource as it stands, None when there is none."""

    def pages(self, kind: type[R]) -> AsyncIterator[list[R]]:
        """Yield all resources of a kind, some at a time."""

    async def namespace_uid(self, namespace: str) -> NamespaceUid | None:
        """Return the uid of a namespace: one that is deleted and made anew has another. None where it may not be read."""

    async def write_status(self, resource: Resource, status: ResourceStatus) -> str | None:
        """Write the status of the resource as it was read, and return the version that it has now.

        Raises StaleResourceError when it has changed meanwhile. One that is gone is no error.
        """

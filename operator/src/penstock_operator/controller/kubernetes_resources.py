"""Resources and their status at the Kubernetes API server."""

from __future__ import annotations

import functools
import json
from collections.abc import AsyncIterator
from http import HTTPStatus

from kubernetes.aio import client
from kubernetes.aio.client.exceptions import ApiException

from penstock_operator.apiserver import PageReader, pages
from penstock_operator.controller.resource_client import R, StaleResourceError
from penstock_operator.ids import NamespaceUid
from penstock_operator.resources.documents import Definition, Resource, ResourceStatus
from penstock_operator.resources.models import API_VERSION, GROUP, PLURALS, Kind
from penstock_operator.resources.scope import EVERYTHING, Scope

ITEMS_OF_A_PAGE: dict[Kind, int] = {"ConnectorDefinition": 20, "TenantConnection": 100}
"""How many items a page of a list has. Tenants decide how large a connection is: up to 130 KB with what kubectl adds, which take
some 1 MB in memory. A definition may have a megabyte."""
MERGE_PATCH = "application/merge-patch+json"


class KubernetesResources:
    """The resource client of a cluster."""

    def __init__(self, api: client.ApiClient, scope: Scope = EVERYTHING) -> None:
        self._custom = client.CustomObjectsApi(api)
        self._core = client.CoreV1Api(api)
        self._scope = scope

    async def get(self, kind: type[R], namespace: str, name: str) -> R | None:
        """Read one resource; None when the API server says that there is none of that name."""
        plural = PLURALS[kind.KIND]
        try:
            if kind.KIND == Definition.KIND:
                found = await self._custom.get_cluster_custom_object(GROUP, API_VERSION, plural, name)
            else:
                found = await self._custom.get_namespaced_custom_object(GROUP, API_VERSION, namespace, plural, name)
        except ApiException as error:
            if _is_gone(error, name):
                return None
            raise
        return kind.parse(found)

    async def namespace_uid(self, namespace: str) -> NamespaceUid | None:
        """Return the uid of a namespace. None if this release has no right to read it, or if it is gone."""
        try:
            found = await self._core.read_namespace(namespace)
        except ApiException as error:
            if error.status in (HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND):
                return None
            raise
        return NamespaceUid(found.metadata.uid)

    async def pages(self, kind: type[R]) -> AsyncIterator[list[R]]:
        """Read all resources of a kind that are in the scope, page by page. Definitions belong to every scope."""
        for read in self._reads(kind):
            async for page in pages(read, ITEMS_OF_A_PAGE[kind.KIND]):
                # The items of a list do not name their kind.
                yield [kind.parse({**item, "kind": kind.KIND, "apiVersion": f"{GROUP}/{API_VERSION}"}) for item in page]

    def _reads(self, kind: type[Resource]) -> list[PageReader]:
        plural = PLURALS[kind.KIND]
        where = (GROUP, API_VERSION, plural)
        if kind.KIND == Definition.KIND:
            return [functools.partial(self._custom.list_cluster_custom_object, *where)]
        chosen = {"label_selector": self._scope.selector} if self._scope.selector else {}
        if not self._scope.namespaces:
            return [functools.partial(self._custom.list_cluster_custom_object, *where, **chosen)]
        listed, group = self._custom.list_namespaced_custom_object, (GROUP, API_VERSION)
        return [functools.partial(listed, *group, namespace, plural, **chosen) for namespace in self._scope.namespaces]

    async def write_status(self, resource: Resource, status: ResourceStatus) -> str | None:
        """Patch the status; a field that it does not have any more is removed, at every depth."""
        body, name, plural = resource.status_patch(status), resource.metadata.name, PLURALS[resource.KIND]
        try:
            if resource.KIND == Definition.KIND:
                written = await self._custom.patch_cluster_custom_object_status(
                    GROUP, API_VERSION, plural, name, body, _content_type=MERGE_PATCH
                )
            else:
                written = await self._custom.patch_namespaced_custom_object_status(
                    GROUP, API_VERSION, resource.metadata.namespace, plural, name, body, _content_type=MERGE_PATCH
                )
        except ApiException as error:
            if _is_gone(error, name):
                return None
            if error.status == HTTPStatus.CONFLICT:
                raise StaleResourceError from None
            raise
        version: str | None = written["metadata"].get("resourceVersion")
        return version


def _is_gone(error: ApiException, name: str) -> bool:
    """Return True if an error says that there is no such resource.

    An API server that does not know the kind, as while it starts, answers 404 too, but names no resource. Taking that
    answer for a deletion would end a connection's runs.
    """
    if error.status != HTTPStatus.NOT_FOUND:
        return False
    try:
        return bool(json.loads(error.body or "")["details"]["name"] == name)
    except (ValueError, KeyError, TypeError):
        return False

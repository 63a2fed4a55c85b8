"""Resources and their status, at the API server."""

from __future__ import annotations

import functools
import json
from collections.abc import AsyncIterator
from http import HTTPStatus

from kubernetes.aio import client
from kubernetes.aio.client.exceptions import ApiException

from penstock_operator.apiserver import PageReader, pages
from penstock_operator.controller.resource_client import Document, Page, StaleDocumentError, version_of
from penstock_operator.ids import NamespaceUid
from penstock_operator.resources.models import API_VERSION, GROUP, PLURALS, Kind
from penstock_operator.resources.scope import EVERYTHING, Scope

MERGE_PATCH = "application/merge-patch+json"


class KubernetesResources:
    """The resource client of a cluster."""

    def __init__(self, api: client.ApiClient, scope: Scope = EVERYTHING) -> None:
        self._custom = client.CustomObjectsApi(api)
        self._core = client.CoreV1Api(api)
        self._scope = scope

    async def get(self, kind: Kind, namespace: str, name: str) -> Document | None:
        """Read one resource; None when the API server says that there is none of that name."""
        try:
            if kind == "ConnectorDefinition":
                found = await self._custom.get_cluster_custom_object(GROUP, API_VERSION, PLURALS[kind], name)
            else:
                found = await self._custom.get_namespaced_custom_object(
                    GROUP, API_VERSION, namespace, PLURALS[kind], name
                )
        except ApiException as error:
            if _is_gone(error, name):
                return None
            raise
        return dict(found)

    async def namespace_uid(self, namespace: str) -> NamespaceUid | None:
        """Return the uid of a namespace. None where it may not be read, as by a release of another version, or is gone."""
        try:
            found = await self._core.read_namespace(namespace)
        except ApiException as error:
            if error.status in (HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND):
                return None
            raise
        return NamespaceUid(found.metadata.uid)

    async def pages(self, kind: Kind) -> AsyncIterator[Page]:
        """Read all resources of a kind that are in the scope, page by page. Definitions are everybody's."""
        for read in self._reads(kind):
            async for page in pages(read):
                yield [{**document, "kind": kind, "apiVersion": f"{GROUP}/{API_VERSION}"} for document in page]

    def _reads(self, kind: Kind) -> list[PageReader]:
        where = (GROUP, API_VERSION, PLURALS[kind])
        if kind == "ConnectorDefinition":
            return [functools.partial(self._custom.list_cluster_custom_object, *where)]
        chosen = {"label_selector": self._scope.selector} if self._scope.selector else {}
        if not self._scope.namespaces:
            return [functools.partial(self._custom.list_cluster_custom_object, *where, **chosen)]
        listed, group = self._custom.list_namespaced_custom_object, (GROUP, API_VERSION)
        return [
            functools.partial(listed, *group, namespace, PLURALS[kind], **chosen)
            for namespace in self._scope.namespaces
        ]

    async def write_status(self, document: Document, status: Document) -> str | None:
        """Patch the status; what it does not have any more is removed, at every depth."""
        patch = merge_patch(document.get("status", {}), status)
        body = {"metadata": {"resourceVersion": version_of(document)}, "status": patch}
        meta, plural = document["metadata"], PLURALS[document["kind"]]
        try:
            if document["kind"] == "ConnectorDefinition":
                written = await self._custom.patch_cluster_custom_object_status(
                    GROUP, API_VERSION, plural, meta["name"], body, _content_type=MERGE_PATCH
                )
            else:
                written = await self._custom.patch_namespaced_custom_object_status(
                    GROUP, API_VERSION, meta["namespace"], plural, meta["name"], body, _content_type=MERGE_PATCH
                )
        except ApiException as error:
            if _is_gone(error, meta["name"]):
                return None
            if error.status == HTTPStatus.CONFLICT:
                raise StaleDocumentError from None
            raise
        return version_of(written)


def merge_patch(before: Document, after: Document) -> Document:
    """Return the JSON merge patch (RFC 7396) that makes `after` of `before`; no field of `after` is None.

    A merge keeps each field that the patch does not name, also inside of an object: a run that replaces another in
    `lastRun` would keep the end of the one before.
    """
    patch: Document = {key: None for key in before if key not in after}
    for key, value in after.items():
        known = before.get(key)
        if isinstance(value, dict) and isinstance(known, dict):
            inner = merge_patch(known, value)
            if inner:
                patch[key] = inner
        elif key not in before or known != value:
            patch[key] = value
    return patch


def _is_gone(error: ApiException, name: str) -> bool:
    """Say whether an error says that there is no such resource.

    An API server that does not know the kind, as while it starts, answers 404 too, and names no resource: to take that
    for a deletion would end a connection's runs.
    """
    if error.status != HTTPStatus.NOT_FOUND:
        return False
    try:
        return bool(json.loads(error.body or "")["details"]["name"] == name)
    except (ValueError, KeyError, TypeError):
        return False

"""Reconciles of documents, for tests that write resources and read statuses as an API server has them."""

from __future__ import annotations

from penstock_operator.controller.identity import NamespaceUidReader, one_namespace
from penstock_operator.controller.reconcile import reconcile_connection, reconcile_definition
from penstock_operator.registry.database import Pool
from penstock_operator.resources.documents import Connection, Document, parse_resource, status_document


async def reconcile(pool: Pool, document: Document, namespace_uid: NamespaceUidReader = one_namespace) -> Document:
    """Reconcile a document of either kind, and return its new status."""
    resource = parse_resource(document)
    if isinstance(resource, Connection):
        return status_document(await reconcile_connection(pool, resource, namespace_uid))
    return status_document(await reconcile_definition(pool, resource))

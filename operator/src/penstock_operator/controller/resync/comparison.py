"""Which of many connections need a reconcile: one read of the registry for a page of them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from penstock_operator import definitions
from penstock_operator.connections import connection_store
from penstock_operator.connections.connection_store import ConnectionSummary
from penstock_operator.controller.resource_client import Document, Page
from penstock_operator.controller.status import row_fields
from penstock_operator.definitions import DefinitionVersion
from penstock_operator.ids import ConnectionUid, DefinitionName, DefinitionUid
from penstock_operator.registry.database import DatabaseConnection
from penstock_operator.resources.models import REQUESTED_AT, ConnectionSpec, ConnectorReference, Stage
from penstock_operator.resources.versions import selectable
from penstock_operator.state.annotations import requests


class UsableDefinitions:
    """The definitions that new runs may use, read once for a sweep."""

    def __init__(self, versions: Iterable[DefinitionVersion]) -> None:
        self._versions: dict[tuple[str, str], dict[str, DefinitionUid]] = {}
        self._stages: dict[tuple[str, str], dict[str, Stage]] = {}
        self._matches: dict[tuple[str, str, str], DefinitionUid | None] = {}
        self._names = dict[DefinitionUid, DefinitionName]()
        for version in versions:
            self._names[version.uid] = version.name
            connector = (version.connector, version.method)
            self._versions.setdefault(connector, {})[version.version] = version.uid
            self._stages.setdefault(connector, {})[version.version] = version.stage

    @classmethod
    async def read(cls, db: DatabaseConnection) -> UsableDefinitions:
        """Return the registry's."""
        return cls(await definitions.list_versions(db))

    def match(self, connector: ConnectorReference) -> DefinitionUid | None:
        """Return the uid of the definition that `spec.connector` resolves to; None when there is none."""
        name, method, reach = connector.name, connector.method, connector.version
        if (name, method, reach) not in self._matches:
            found = selectable(self._stages.get((name, method), {}), reach)
            self._matches[name, method, reach] = self._versions[name, method][found[0]] if found else None
        return self._matches[name, method, reach]

    def name_of(self, uid: DefinitionUid | None) -> DefinitionName | None:
        """Return a definition's name."""
        return self._names.get(uid) if uid else None


async def rows_of(db: DatabaseConnection, page: Page) -> dict[ConnectionUid, ConnectionSummary]:
    """Return the registry's rows of the page's connections, by uid."""
    uids = [ConnectionUid(document["metadata"]["uid"]) for document in page]
    return {row.uid: row for row in await connection_store.connections_by_uid(db, uids)}


def is_settled(document: Document, row: ConnectionSummary | None, catalog: UsableDefinitions) -> bool:
    """Say whether a reconcile of the document would find its row as it ought to be. Pure."""
    meta = document["metadata"]
    if row is None or not row.ready or row.deleted_at or row.generation != meta.get("generation", 1):
        return False
    connector = ConnectionSpec.parse(document["spec"]).connector
    if row.definition_uid != catalog.match(connector) or _passes(document, row):
        return False
    annotations = meta.get("annotations") or {}
    requested = annotations.get(REQUESTED_AT) or None
    return requested in (None, row.handled_request) and all(
        request.token == row.handled_state_request(request.action) for request in requests(annotations)
    )


def is_reported(document: Document, row: ConnectionSummary, catalog: UsableDefinitions) -> bool:
    """Say whether the status tells what the settled row does, so that a process which never saw it need not write it. Pure.

    What runs and alerts have to say comes by the outbox, whoever was there when it was posted.
    """
    status = document.get("status") or {}
    if status.get("observedGeneration") != document["metadata"].get("generation", 1):
        return False
    if "Ready" not in {condition["type"] for condition in status.get("conditions", [])}:
        return False
    told = {**row_fields(row, datetime.now(UTC)), "definition": catalog.name_of(row.definition_uid)}
    return all(status.get(field) == value for field, value in told.items())


def _passes(document: Document, row: ConnectionSummary) -> bool:
    """Say whether the status tells of something that others, or the clock, may have ended since."""
    told = {condition["type"] for condition in (document.get("status") or {}).get("conditions", [])}
    return row.upstream_reason is not None or "Paused" in told

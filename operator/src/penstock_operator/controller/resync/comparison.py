"""Compares a page of connections with the registry, to find those that need a reconcile."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from penstock_operator import definitions
from penstock_operator.connections import connection_store
from penstock_operator.connections.connection_store import ConnectionSummary
from penstock_operator.controller.status import recorded_fields
from penstock_operator.definitions import DefinitionVersion
from penstock_operator.ids import ConnectionUid, DefinitionName, DefinitionUid
from penstock_operator.registry.database import DatabaseConnection
from penstock_operator.resources.documents import Connection
from penstock_operator.resources.models import REQUESTED_AT, ConnectorReference, Stage
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
        """Return the definitions of the registry."""
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


async def rows_of(db: DatabaseConnection, page: list[Connection]) -> dict[ConnectionUid, ConnectionSummary]:
    """Return the registry's rows of the page's connections, by uid."""
    uids = [connection.uid for connection in page]
    return {row.uid: row for row in await connection_store.connections_by_uid(db, uids)}


def is_settled(connection: Connection, row: ConnectionSummary | None, catalog: UsableDefinitions) -> bool:
    """Return True if a reconcile of the connection would change nothing in its row. Pure."""
    metadata = connection.metadata
    if row is None or not row.ready or row.deleted_at or row.generation != metadata.generation:
        return False
    if row.definition_uid != catalog.match(connection.spec.connector) or _may_have_ended(connection, row):
        return False
    requested = metadata.annotations.get(REQUESTED_AT) or None
    return requested in (None, row.handled_request) and all(
        request.token == row.handled_state_request(request.action) for request in requests(metadata.annotations)
    )


def is_reported(connection: Connection, row: ConnectionSummary, catalog: UsableDefinitions) -> bool:
    """Return True if the status shows the fields of the settled row, so that a process which never saw it need not write it.

    Pure. Changes of runs and alerts are reported by the outbox, to whichever process leads when they are posted.
    """
    status = connection.status
    if status.observed_generation != connection.metadata.generation:
        return False
    if "Ready" not in {condition.type for condition in status.conditions}:
        return False
    recorded = recorded_fields(row, catalog.name_of(row.definition_uid), datetime.now(UTC))
    return all(getattr(status, field) == getattr(recorded, field) for field in recorded.model_fields_set)


def _may_have_ended(connection: Connection, row: ConnectionSummary) -> bool:
    """Return True if the status reports something that others, or the clock, may have ended since."""
    reported = {condition.type for condition in connection.status.conditions}
    return row.upstream_reason is not None or "Paused" in reported

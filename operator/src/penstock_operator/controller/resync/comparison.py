"""Which of many connections need a reconcile: one read of the registry for a page of them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from penstock_operator import definitions
from penstock_operator.connections import connection_store
from penstock_operator.controller.resource_client import Document, Page
from penstock_operator.controller.status import told_of
from penstock_operator.registry.database import DatabaseConnection, Row
from penstock_operator.resources.models import REQUESTED_AT
from penstock_operator.resources.versions import selectable
from penstock_operator.state.annotations import requests


class UsableDefinitions:
    """The definitions that new runs may use, read once for a sweep."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._versions: dict[tuple[str, str], dict[str, str]] = {}
        self._stages: dict[tuple[str, str], dict[str, str]] = {}
        self._matches: dict[tuple[str, str, str], str | None] = {}
        self._names = dict[str, str]()
        for row in rows:
            self._names[row["uid"]] = row["name"]
            connector = (row["connector"], row["method"])
            self._versions.setdefault(connector, {})[row["version"]] = row["uid"]
            self._stages.setdefault(connector, {})[row["version"]] = row["stage"]

    @classmethod
    async def read(cls, db: DatabaseConnection) -> UsableDefinitions:
        """Return the registry's."""
        return cls(await definitions.list_definitions(db))

    def match(self, wanted: Document) -> str | None:
        """Return the uid of the definition that `spec.connector` resolves to; None when there is none."""
        name, method, reach = wanted.get("name", ""), wanted.get("method", ""), wanted.get("version", "*")
        if (name, method, reach) not in self._matches:
            found = selectable(self._stages.get((name, method), {}), reach)
            self._matches[name, method, reach] = self._versions[name, method][found[0]] if found else None
        return self._matches[name, method, reach]

    def name_of(self, uid: str) -> str | None:
        """Return a definition's name."""
        return self._names.get(uid)


async def rows_of(db: DatabaseConnection, page: Page) -> dict[str, Row]:
    """Return the registry's rows of the page's connections, by uid."""
    uids = [each["metadata"]["uid"] for each in page]
    return {row["uid"]: row for row in await connection_store.connections_by_uid(db, uids)}


def is_settled(document: Document, row: Row | None, catalog: UsableDefinitions) -> bool:
    """Say whether a reconcile of the document would find its row as it ought to be. Pure."""
    meta = document["metadata"]
    if row is None or not row["ready"] or row["deleted_at"] or row["generation"] != meta.get("generation", 1):
        return False
    if row["definition_uid"] != catalog.match(document["spec"]["connector"]) or _passes(document, row):
        return False
    annotations = meta.get("annotations") or {}
    asked = {"handled_request": annotations.get(REQUESTED_AT) or None}
    asked |= {f"handled_{each.action}": each.token for each in requests(annotations)}
    return all(token is None or row[column] == token for column, token in asked.items())


def is_told(document: Document, row: Row, catalog: UsableDefinitions) -> bool:
    """Say whether the status tells what the settled row does, so that a process which never saw it need not write it. Pure.

    What runs and alerts have to say comes by the outbox, whoever was there when it was posted.
    """
    status = document.get("status") or {}
    if status.get("observedGeneration") != document["metadata"].get("generation", 1):
        return False
    if "Ready" not in {each["type"] for each in status.get("conditions", [])}:
        return False
    told = {**told_of(row, datetime.now(UTC)), "definition": catalog.name_of(row["definition_uid"])}
    return all(status.get(field) == value for field, value in told.items())


def _passes(document: Document, row: Row) -> bool:
    """Say whether the status tells of something that others, or the clock, may have ended since."""
    told = {each["type"] for each in (document.get("status") or {}).get("conditions", [])}
    return row["upstream_reason"] is not None or "Paused" in told

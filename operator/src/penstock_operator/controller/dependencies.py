"""`spec.after` of one connection, recorded and checked."""

from __future__ import annotations

from datetime import datetime

from penstock_operator.controller.resource_client import Document
from penstock_operator.registry.database import DatabaseConnection, Row
from penstock_operator.resources.conditions import Finding
from penstock_operator.scheduling import upstream_store
from penstock_operator.scheduling.upstreams import upstream_problem


async def record_upstreams(db: DatabaseConnection, row: Row, spec: Document, now: datetime) -> None:
    """Apply a changed `after`, note what is wrong with it, and see whether what it waits for has happened."""
    names = [each["name"] for each in spec.get("after", [])]
    if names != row["upstreams"]:
        await upstream_store.set_upstreams(db, row["uid"], names)
    if not names and row["upstream_reason"] is None:
        return
    edges = {each["name"]: each["upstreams"] for each in await upstream_store.followers(db, row["namespace"])}
    missing = await upstream_store.missing_upstreams(db, row["namespace"], names)
    problem = upstream_problem(row["namespace"], row["name"], edges, missing) if names else None
    await upstream_store.set_upstream_problem(db, row["uid"], *(problem or (None, "")))
    await upstream_store.wake_followers(db, row["namespace"], now)


def upstream_finding(row: Row) -> Finding | None:
    """Return what keeps a connection from following its upstreams; it can still be run by request."""
    if row["upstream_reason"] is None:
        return None
    return Finding("stalled", row["upstream_reason"], row["upstream_message"])


async def affected(db: DatabaseConnection, document: Document) -> list[str]:
    """Return the connections that may have to look at their upstreams again, now that this one has been reconciled.

    After a change, all that follow anybody; always, those that missed this one.
    """
    meta = document["metadata"]
    changed = document.get("status", {}).get("observedGeneration") != meta.get("generation", 1)
    return [
        row["name"]
        for row in await upstream_store.followers(db, meta["namespace"])
        if row["name"] != meta["name"]
        and (changed or (row["upstream_reason"] == "UpstreamNotFound" and meta["name"] in row["upstreams"]))
    ]

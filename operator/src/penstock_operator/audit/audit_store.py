"""audit_events: events are added in the transaction of what they record. Nothing changes or deletes them but their expiry."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime

from penstock_operator.audit.callers import current_actor
from penstock_operator.audit.events import Action, AuditedObject, AuditEvent, Result
from penstock_operator.registry.database import DatabaseConnection, execute, fetch_value
from penstock_operator.resources.storable import shown_text

MAX_REASON = 500
MAX_NAME = 320
MAX_ID = 253


async def record(
    db: DatabaseConnection, action: Action, audited: AuditedObject, result: Result = "allowed", reason: str = ""
) -> None:
    """Record what the caller of this task does, in the transaction that is open."""
    await record_all(db, [AuditEvent(action, audited, result, reason, current_actor())])


async def record_all(db: DatabaseConnection, events: Sequence[AuditEvent]) -> None:
    """Record events, all in one statement."""
    if not events:
        return
    await execute(
        db,
        """
        INSERT INTO penstock.audit_events (actor_kind, actor, actor_uid, actor_groups, address, action, object_kind,
            namespace, namespace_uid, name, object_id, result, reason, events)
        SELECT t.kind, t.actor, t.uid, ARRAY(SELECT jsonb_array_elements_text(t.groups)), t.address, t.action, t.object,
            coalesce(t.namespace, c.namespace), coalesce(c.namespace_uid, (
                SELECT n.namespace_uid FROM penstock.tenant_connections n WHERE n.namespace = t.namespace
                ORDER BY n.deleted_at DESC NULLS FIRST LIMIT 1)), coalesce(t.name, c.name), t.id, t.result, t.reason, t.events
        FROM unnest(%(kinds)s::text[], %(actors)s::text[], %(uids)s::text[], %(groups)s::jsonb[], %(addresses)s::text[],
            %(actions)s::text[], %(objects)s::text[], %(namespaces)s::text[], %(names)s::text[], %(ids)s::text[],
            %(results)s::text[], %(reasons)s::text[], %(events)s::integer[], %(connections)s::text[])
            WITH ORDINALITY AS t (kind, actor, uid, groups, address, action, object, namespace, name, id, result, reason,
                events, connection, line)
        LEFT JOIN penstock.tenant_connections c ON c.uid = t.connection ORDER BY t.line
        """,
        kinds=[event.actor.kind for event in events],
        actors=[_short(event.actor.name, MAX_NAME) or "" for event in events],
        uids=[_short(event.actor.uid, MAX_ID) for event in events],
        groups=[_json_texts(event.actor.groups) for event in events],
        addresses=[event.actor.address for event in events],
        actions=[event.action.value for event in events],
        objects=[event.object.kind for event in events],
        namespaces=[_short(event.object.namespace, MAX_ID) for event in events],
        names=[_short(event.object.name, MAX_NAME) for event in events],
        ids=[_short(event.object.id, MAX_ID) for event in events],
        results=[event.result for event in events],
        reasons=[_short(event.reason, MAX_REASON) or "" for event in events],
        events=[event.events for event in events],
        connections=[event.object.connection_uid for event in events],
    )


async def expire(db: DatabaseConnection, before: datetime, most: int) -> int:
    """Delete at most `most` events that are older than `before`, and return how many."""
    gone = await fetch_value(
        db, int, "SELECT penstock.expire_audit_events(%(before)s, %(most)s)", before=before, most=most
    )
    return gone or 0


def _short(text: str | None, most: int) -> str | None:
    """Return a text that can be stored and is not too long."""
    return None if text is None else shown_text(text)[:most]


def _json_texts(texts: tuple[str, ...]) -> str:
    return json.dumps([_short(text, MAX_NAME) for text in texts])

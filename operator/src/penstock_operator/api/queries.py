"""Statements of the read API: each selects the columns of its model, and nothing else, a page at a time."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from penstock_sdk.protocol import ObjectKind
from pydantic import TypeAdapter

from penstock_operator.api.models import (
    AlertView,
    AttemptView,
    AuditEventView,
    CheckpointView,
    ConnectionView,
    DefinitionView,
    ObjectView,
    RunDetailView,
    RunStreamView,
    RunView,
    StateChangeView,
    StreamView,
)
from penstock_operator.api.paging import Page, PageRequest
from penstock_operator.audit.events import Action, Result
from penstock_operator.errors import NotFound
from penstock_operator.ids import ConnectionUid, Namespace, NamespaceUid, RunId
from penstock_operator.limits import MAX_PAGE_BYTES, MAX_PAGE_ITEMS
from penstock_operator.registry.database import DatabaseConnection, fetch_one, fetch_value, fetch_within
from penstock_operator.runs.run_store import RUNS, SHOWN_COLUMNS

ONE_TEXT = TypeAdapter(tuple[str])
TWO_TEXTS = TypeAdapter(tuple[str, str])
ONE_NUMBER = TypeAdapter(tuple[int])
OBJECT_KEY = TypeAdapter(tuple[str, int, str, int])
CHECKPOINT_KEY = TypeAdapter(tuple[datetime, int, str])


async def list_definitions(db: DatabaseConnection, page: PageRequest) -> Page[DefinitionView]:
    """Return the definitions that are not deleted, by name."""
    after = page.after(ONE_TEXT)
    rows = await fetch_within(
        db,
        DefinitionView,
        MAX_PAGE_BYTES,
        f"""
        SELECT name, connector, method, version, image, stage, manifest, generation, created_at
        FROM penstock.connector_definitions
        WHERE deleted_at IS NULL {"AND name > %(name)s" if after else ""} ORDER BY name LIMIT %(rows)s
        """,  # noqa: S608 - a constant
        name=after[0] if after else None,
        rows=page.rows,
    )
    return page.page(rows, lambda row: (row.name,))


OF_TENANT = "coalesce(c.namespace_uid, %(tenant)s) = %(tenant)s"
"""The connection is of the namespace with this uid, and not of an earlier one of its name."""
CONNECTION_COLUMNS = """
    c.uid, c.namespace, c.name, c.generation, d.name AS definition, c.spec, c.ready, c.suspended, c.schedule, c.time_zone,
    c.jitter_seconds, c.next_run_at, c.last_scheduled_at, c.last_success_at, c.last_success_run, c.failures,
    c.paused_until, c.upstreams, c.upstream_reason, c.upstream_message, c.stalled_message, c.created_at, c.updated_at
"""


async def list_connections(
    db: DatabaseConnection, page: PageRequest, namespace: Namespace | None, tenant: NamespaceUid | None = None
) -> Page[ConnectionView]:
    """Return the connections of one namespace or of all, by namespace and name."""
    after = page.after(TWO_TEXTS)
    rows = await fetch_within(
        db,
        ConnectionView,
        MAX_PAGE_BYTES,
        f"""
        SELECT {CONNECTION_COLUMNS} FROM penstock.tenant_connections c
        LEFT JOIN penstock.connector_definitions d ON d.uid = c.definition_uid
        WHERE c.deleted_at IS NULL AND c.released_at IS NULL {"AND c.namespace = %(namespace)s" if namespace else ""}
          {f"AND {OF_TENANT}" if tenant is not None else ""}
          {"AND (c.namespace, c.name) > (%(after_namespace)s, %(after_name)s)" if after else ""}
        ORDER BY c.namespace, c.name LIMIT %(rows)s
        """,  # noqa: S608 - constants
        namespace=namespace,
        tenant=tenant,
        after_namespace=after[0] if after else None,
        after_name=after[1] if after else None,
        rows=page.rows,
    )
    return page.page(rows, lambda row: (row.namespace, row.name))


async def list_streams(db: DatabaseConnection, page: PageRequest, connection: ConnectionUid) -> Page[StreamView]:
    """Return the streams of a connection by name, each with its newest schema, its state and its committed records."""
    after = page.after(ONE_TEXT)
    rows = await fetch_within(
        db,
        StreamView,
        MAX_PAGE_BYTES,
        f"""
        WITH page AS (
            SELECT DISTINCT ON (stream) stream, coalesce(display_name, stream) AS display_name, version, schema,
                primary_key, cursor_field, modes, pii, pii_suggested, first_seen_at
            FROM penstock.stream_registry
            WHERE connection_uid = %(uid)s {"AND stream > %(stream)s" if after else ""}
            ORDER BY stream, version DESC LIMIT %(rows)s)
        SELECT p.stream, p.display_name, p.version, p.schema, p.primary_key, p.cursor_field, p.modes, p.pii,
            p.pii_suggested, p.first_seen_at, s.cursor, s.checkpoint, s.generation, s.run_id, s.updated_at,
            jsonb_path_query_first(c.spec, '$.streams[*] ? (@.name == $name).mode',
                jsonb_build_object('name', p.display_name)) #>> '{{}}' AS mode,
            (SELECT coalesce(sum(o.records), 0)::bigint FROM penstock.bronze_objects o
             WHERE o.connection_uid = c.uid AND o.stream = p.stream AND o.committed_at IS NOT NULL AND o.kind = 'data'
               AND o.generation = coalesce(s.generation, greatest(o.generation, c.first_generation))
               AND o.granted_at >= coalesce(c.purge_started_at, '-infinity')) AS records
        FROM page p JOIN penstock.tenant_connections c ON c.uid = %(uid)s
        LEFT JOIN penstock.connector_run_state s ON s.connection_uid = c.uid AND s.stream = p.stream
        ORDER BY p.stream
        """,  # noqa: S608 - a constant
        uid=connection,
        stream=after[0] if after else None,
        rows=page.rows,
    )
    return page.page(rows, lambda row: (row.stream,))


class ObjectFilter(NamedTuple):
    """Which objects are listed: all that the fields which are not None describe."""

    namespace: Namespace | None = None
    name: str | None = None
    stream: str | None = None
    run: str | None = None
    kind: ObjectKind = "data"
    tenant: NamespaceUid | None = None


async def list_objects(db: DatabaseConnection, page: PageRequest, filters: ObjectFilter) -> Page[ObjectView]:
    """Return the committed objects of live generations in the order in which they were committed.

    A reset reads a stream anew into its next generation; with the ones before it, each record would be there twice. So it
    would with those of another connection that had the name before.
    """
    after = page.after(OBJECT_KEY) or (None, None, None, None)
    conditions = {
        "c.namespace = %(namespace)s": filters.namespace,
        OF_TENANT: filters.tenant,
        "c.name = %(name)s": filters.name,
        "o.stream = %(stream)s": filters.stream,
        "o.run_id = %(run)s": filters.run,
        "(o.run_id, o.attempt, o.stream, o.sequence)"
        " > (%(after_run)s, %(after_attempt)s, %(after_stream)s, %(after_sequence)s)": page.cursor,
    }
    if filters.run is None:
        newest = """c.uid = (
            SELECT n.uid FROM penstock.tenant_connections n WHERE n.namespace = c.namespace AND n.name = c.name
            ORDER BY n.deleted_at DESC NULLS FIRST, n.first_generation DESC LIMIT 1)"""
        conditions[newest] = "always"
    given = "".join(f" AND {condition}" for condition, value in conditions.items() if value is not None)
    rows = await fetch_within(
        db,
        ObjectView,
        MAX_PAGE_BYTES,
        f"""
        SELECT o.key, c.namespace, c.name, o.stream, o.generation, o.run_id, o.attempt, o.sequence, o.checkpoint,
            o.records, o.bytes, o.schema_version, o.kind, o.committed_at
        FROM penstock.bronze_objects o JOIN penstock.tenant_connections c ON c.uid = o.connection_uid
        LEFT JOIN penstock.connector_run_state s ON s.connection_uid = o.connection_uid AND s.stream = o.stream
        WHERE o.committed_at IS NOT NULL AND o.kind = %(kind)s
          AND o.generation = coalesce(s.generation, greatest(o.generation, c.first_generation))
          AND o.granted_at >= coalesce(c.purge_started_at, '-infinity') {given}
        ORDER BY o.run_id, o.attempt, o.stream, o.sequence LIMIT %(rows)s
        """,  # noqa: S608 - constants
        **filters._asdict(),
        **dict(zip(("after_run", "after_attempt", "after_stream", "after_sequence"), after, strict=True)),
        rows=page.rows,
    )
    return page.page(rows, lambda row: (row.run_id, row.attempt, row.stream, row.sequence))


RUN_COLUMNS = f"{SHOWN_COLUMNS}, r.estimate, r.metrics"


async def list_runs(
    db: DatabaseConnection,
    page: PageRequest,
    namespace: Namespace | None = None,
    name: str | None = None,
    tenant: NamespaceUid | None = None,
) -> Page[RunView]:
    """Return runs, newest first, of one namespace and connection name or of all."""
    after = page.after(ONE_TEXT)
    conditions = {
        "c.namespace = %(namespace)s": namespace,
        OF_TENANT: tenant,
        "c.name = %(name)s": name,
        "r.id < %(after)s": after and after[0],
    }
    given = " AND ".join(condition for condition, value in conditions.items() if value is not None)
    rows = await fetch_within(
        db,
        RunView,
        MAX_PAGE_BYTES,
        f"SELECT {RUN_COLUMNS} FROM {RUNS} WHERE {given or 'true'} ORDER BY r.id DESC LIMIT %(rows)s",  # noqa: S608
        namespace=namespace,
        tenant=tenant,
        name=name,
        after=after[0] if after else None,
        rows=page.rows,
    )
    return page.page(rows, lambda row: (row.id,))


async def run_detail(db: DatabaseConnection, run_id: RunId) -> RunDetailView:
    """Return a run with its streams and attempts. Raises NotFound."""
    run = await fetch_one(db, RunView, f"SELECT {RUN_COLUMNS} FROM {RUNS} WHERE r.id = %(run)s", run=run_id)  # noqa: S608
    if run is None:
        raise NotFound(f"there is no run {run_id}")
    streams = await fetch_within(
        db,
        RunStreamView,
        MAX_PAGE_BYTES,
        "SELECT stream, attempt, outcome, error_class, message, records, deletes, rejected FROM penstock.run_streams"
        " WHERE run_id = %(run)s ORDER BY outcome = 'failed' DESC, stream LIMIT %(limit)s",
        run=run_id,
        limit=MAX_PAGE_ITEMS + 1,
    )
    attempts = await fetch_within(
        db,
        AttemptView,
        MAX_PAGE_BYTES,
        """
        SELECT run_id, attempt, phase, job_name, streams, incremental, refused, launched_at, started_at, heartbeat_at,
            finished_at, exit_code, reason, error_class, message, metrics, log_key, log_bytes, log_note
        FROM penstock.run_attempts WHERE run_id = %(run)s ORDER BY attempt DESC LIMIT %(limit)s
        """,
        run=run_id,
        limit=MAX_PAGE_ITEMS + 1,
    )
    return RunDetailView(
        **dict(run),
        streams=tuple(streams.rows[:MAX_PAGE_ITEMS]),
        more_streams=streams.more or len(streams.rows) > MAX_PAGE_ITEMS,
        attempts=tuple(reversed(attempts.rows[:MAX_PAGE_ITEMS])),
        more_attempts=attempts.more or len(attempts.rows) > MAX_PAGE_ITEMS,
    )


ALERTS = """
    SELECT a.id, c.namespace, c.name, a.stream, a.kind, a.path, a.message, a.baseline, a.run_id, a.opened_at, a.resolved_at,
        a.acknowledged_at, a.acknowledged_by, a.note
    FROM penstock.compat_alerts a JOIN penstock.tenant_connections c ON c.uid = a.connection_uid
"""


async def list_alerts(
    db: DatabaseConnection,
    page: PageRequest,
    namespace: Namespace | None = None,
    tenant: NamespaceUid | None = None,
    *,
    resolved: bool = False,
) -> Page[AlertView]:
    """Return the open alerts, or those that are resolved, newest first, of one namespace or of all."""
    after = page.after(ONE_NUMBER)
    rows = await fetch_within(
        db,
        AlertView,
        MAX_PAGE_BYTES,
        f"""{ALERTS}
        WHERE (a.resolved_at IS NOT NULL) = %(resolved)s {"AND c.namespace = %(namespace)s" if namespace else ""}
          {f"AND {OF_TENANT}" if tenant is not None else ""}
          {"AND a.id < %(after)s" if after else ""}
        ORDER BY a.id DESC LIMIT %(rows)s
        """,
        namespace=namespace,
        tenant=tenant,
        resolved=resolved,
        after=after[0] if after else None,
        rows=page.rows,
    )
    return page.page(rows, lambda row: (row.id,))


async def alert_by_id(db: DatabaseConnection, alert: int) -> AlertView:
    """Return an alert. Raises NotFound."""
    row = await fetch_one(db, AlertView, f"{ALERTS} WHERE a.id = %(id)s", id=alert)
    if row is None:
        raise NotFound(f"there is no alert {alert}")
    return row


async def connection_of_alert(db: DatabaseConnection, alert: int) -> ConnectionUid:
    """Return the connection of an alert. Raises NotFound."""
    sql = "SELECT connection_uid FROM penstock.compat_alerts WHERE id = %(id)s"
    uid = await fetch_value(db, ConnectionUid, sql, id=alert)
    if uid is None:
        raise NotFound(f"there is no alert {alert}")
    return uid


class AuditFilter(NamedTuple):
    """Which events are listed: all that the fields which are not None describe."""

    namespace: Namespace | None = None
    actor: str | None = None
    action: Action | None = None
    result: Result | None = None
    since: datetime | None = None
    until: datetime | None = None
    tenant: NamespaceUid | None = None


async def list_audit_events(db: DatabaseConnection, page: PageRequest, filters: AuditFilter) -> Page[AuditEventView]:
    """Return the events of the audit, newest first. A tenant's answer has neither uids nor groups."""
    after = page.after(ONE_NUMBER)
    conditions = {
        "namespace = %(namespace)s": filters.namespace,
        "coalesce(namespace_uid, %(tenant)s) = %(tenant)s": filters.tenant,
        "actor = %(actor)s": filters.actor,
        "action = %(action)s": filters.action,
        "result = %(result)s": filters.result,
        "occurred_at >= %(since)s": filters.since,
        "occurred_at < %(until)s": filters.until,
        "id < %(after)s": after,
    }
    given = " AND ".join(condition for condition, value in conditions.items() if value is not None)
    hidden = filters.namespace is not None
    who = "NULL::text AS actor_uid, '{}'::text[] AS actor_groups" if hidden else "actor_uid, actor_groups"
    rows = await fetch_within(
        db,
        AuditEventView,
        MAX_PAGE_BYTES,
        f"""
        SELECT id, occurred_at, actor_kind, actor, {who}, address, action, object_kind, namespace, name, object_id, result,
            reason, events
        FROM penstock.audit_events WHERE {given or "true"} ORDER BY id DESC LIMIT %(rows)s
        """,  # noqa: S608 - constants
        **filters._asdict(),
        after=after[0] if after else None,
        rows=page.rows,
    )
    return page.page(rows, lambda row: (row.id,))


async def list_checkpoints(
    db: DatabaseConnection, page: PageRequest, connection: ConnectionUid, stream: str | None = None
) -> Page[CheckpointView]:
    """Return the checkpoints of a connection, newest first, of one stream or of all."""
    after = page.after(CHECKPOINT_KEY)
    rows = await fetch_within(
        db,
        CheckpointView,
        MAX_PAGE_BYTES,
        f"""
        SELECT stream, checkpoint, generation, cursor, state_version, run_id, attempt, done, committed_at
        FROM penstock.stream_checkpoints
        WHERE connection_uid = %(uid)s {"AND stream = %(stream)s" if stream is not None else ""}
          {"AND (committed_at, checkpoint, stream) < (%(at)s, %(checkpoint)s, %(after)s)" if after else ""}
        ORDER BY committed_at DESC, checkpoint DESC, stream DESC LIMIT %(rows)s
        """,  # noqa: S608 - constants
        uid=connection,
        stream=stream,
        at=after[0] if after else None,
        checkpoint=after[1] if after else None,
        after=after[2] if after else None,
        rows=page.rows,
    )
    return page.page(rows, lambda row: (row.committed_at.isoformat(), row.checkpoint, row.stream))


async def list_state_changes(
    db: DatabaseConnection, page: PageRequest, connection: ConnectionUid
) -> Page[StateChangeView]:
    """Return the audit of a connection's state changes, newest first."""
    after = page.after(ONE_NUMBER)
    rows = await fetch_within(
        db,
        StateChangeView,
        MAX_PAGE_BYTES,
        f"""
        SELECT id, stream, action, changed_by, reason, before, after, fenced_runs, changed_at FROM penstock.state_changes
        WHERE connection_uid = %(uid)s {"AND id < %(after)s" if after else ""} ORDER BY id DESC LIMIT %(rows)s
        """,  # noqa: S608 - a constant
        uid=connection,
        after=after[0] if after else None,
        rows=page.rows,
    )
    return page.page(rows, lambda row: (row.id,))

"""Every hot statement finds its rows by an index, in a registry as a platform with a history has it."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from penstock_operator import alerts, outbox
from penstock_operator.api import queries
from penstock_operator.api.paging import PageRequest
from penstock_operator.connections import connection_store
from penstock_operator.ids import ConnectionUid, Namespace, RunId
from penstock_operator.registry.database import DatabaseConnection, Pool
from penstock_operator.retention import purge, statements
from penstock_operator.runs import (
    attempt_store,
    bronze_objects,
    run_store,
    state_store,
    stream_outcomes,
    stream_reads,
    window_states,
)
from penstock_operator.scheduling import fairness, upstream_store
from penstock_operator.schemas import schema_store
from penstock_operator.settings import Quotas
from psycopg import AsyncCursor

from tests.integration.world import MANIFEST

NOW = datetime(2026, 6, 1, tzinfo=UTC)
HISTORY = """
INSERT INTO penstock.connector_definitions (uid, name, connector, method, version, image, stage, manifest, generation)
VALUES ('d', 'faker-generate-0.1.0', 'faker', 'generate', '0.1.0', 'i', 'certified', $manifest$MANIFEST$manifest$, 1);
INSERT INTO penstock.tenant_connections (uid, namespace, name, generation, spec, definition_uid, ready, suspended,
    schedule, time_zone, next_run_at)
SELECT 'c' || n, 'team-' || n % 50, 'connection-' || n, 1, '{}', 'd', true, false, '@hourly', 'Etc/UTC',
    timestamptz '2026-06-02' + n * interval '1 s' FROM generate_series(1, 3000) n;
UPDATE penstock.tenant_connections SET upstreams = ARRAY['connection-8'], schedule = NULL, next_run_at = NULL
WHERE uid IN (SELECT 'c' || n * 100 FROM generate_series(1, 30) n);
INSERT INTO penstock.connector_runs (id, connection_uid, definition_uid, spec, trigger, scheduled_at, phase, attempt)
SELECT lpad(n::text, 12, '0'), 'c' || n % 3000 + 1, 'd', '{"connector": {"name": "faker", "method": "generate"}}', 'schedule', timestamptz '2026-01-01' + n * interval '1 min',
    CASE WHEN n % 3001 = 7 THEN 'running' ELSE 'succeeded' END, 1 FROM generate_series(1, 30000) n;
INSERT INTO penstock.run_attempts (run_id, attempt, job_name, token_sha256, finished_at, phase)
SELECT id, 1, 'penstock-' || id || '-1', sha256(id::bytea), CASE WHEN phase = 'succeeded' THEN now() END,
    CASE WHEN phase = 'succeeded' THEN 'succeeded' ELSE 'running' END FROM penstock.connector_runs;
INSERT INTO penstock.connector_run_state (connection_uid, stream, state_version, checkpoint, run_id, attempt, done)
SELECT uid, 'stream-' || n, 1, 1, 'r', 1, true FROM penstock.tenant_connections, generate_series(1, 5) n;
INSERT INTO penstock.stream_registry (connection_uid, stream, version, fingerprint, schema, primary_key, modes, pii)
SELECT uid, 'stream-' || n, 1, 'f', '{}', '[]', '[]', '[]' FROM penstock.tenant_connections, generate_series(1, 5) n;
INSERT INTO penstock.bronze_objects (key, connection_uid, stream, generation, run_id, attempt, sequence, records, committed_at)
SELECT 'k' || id, connection_uid, 'stream-1', 1, id, 1, 1, 10, now() FROM penstock.connector_runs;
INSERT INTO penstock.outbox (kind, payload, available_at)
SELECT 'status', '{}', now() + interval '1 h' FROM generate_series(1, 3000);
INSERT INTO penstock.compat_alerts (connection_uid, stream, kind, message, run_id, resolved_at, acknowledged_at)
SELECT uid, 'stream-' || n, 'FieldRemoved', 'm', 'r', CASE WHEN n > 1 THEN now() END, CASE WHEN n > 2 THEN now() END
FROM penstock.tenant_connections, generate_series(1, 5) n;
INSERT INTO penstock.stream_reads (connection_uid, stream, mode, recent, run_id)
SELECT uid, 'stream-' || n, 'full', '{1}', 'r' FROM penstock.tenant_connections, generate_series(1, 5) n;
INSERT INTO penstock.connector_runs
    (id, connection_uid, definition_uid, spec, trigger, token, tenant, source_host, next_attempt_at)
SELECT 'p' || n, 'c' || n % 3000 + 1, 'd', '{"connector": {"name": "faker", "method": "generate"}}', 'request', 'p' || n, 'team-' || n % 50, 'host-' || n % 700,
    timestamptz '2026-05-01' + n * interval '1 s' FROM generate_series(1, 2000) n;
INSERT INTO penstock.stream_checkpoints (connection_uid, stream, checkpoint, generation, state_version, run_id, attempt, done)
SELECT uid, 'stream-1', n, 1, 1, 'r', 1, true FROM penstock.tenant_connections, generate_series(1, 10) n;
INSERT INTO penstock.state_changes (connection_uid, stream, action, changed_by, before, after)
SELECT uid, 'stream-' || n, 'reset', 'x', '{}',
    '{"cursor": null, "state_version": 1, "generation": 2, "checkpoint": 2, "run_id": null}' FROM penstock.tenant_connections, generate_series(1, 3) n;
INSERT INTO penstock.window_states (run_id, stream, state_version, checkpoint, attempt, done)
SELECT id, 'stream-' || n, 1, 1, 1, true FROM penstock.connector_runs, generate_series(1, 2) n WHERE trigger = 'schedule';
INSERT INTO penstock.run_streams (run_id, stream, attempt, outcome)
SELECT id, 'stream-' || n, 1, 'succeeded' FROM penstock.connector_runs, generate_series(1, 2) n WHERE trigger = 'schedule';
UPDATE penstock.connector_run_state SET generation = 2 WHERE connection_uid LIKE '%77';
ANALYZE;
""".replace("MANIFEST", json.dumps(MANIFEST))
QUOTAS = Quotas(runs_per_tenant=20, tenants={"team-1": 5}, runs_per_host=3)
SMALL = {"connector_definitions", "due", "taken", "tenant_turns"}


class Explaining:
    """A connection that runs each statement and keeps its plan."""

    def __init__(self, db: DatabaseConnection) -> None:
        self._connection = db
        self.scanned: set[str] = set()

    def transaction(self) -> Any:
        """Open one."""
        return self._connection.transaction()

    async def execute(self, sql: bytes, values: Any = None) -> Any:
        """Explain the statement, then run it."""
        await self.explain(sql, values)
        return await self._connection.execute(sql, values)

    @asynccontextmanager
    async def cursor(self, row_factory: Any) -> AsyncIterator[ExplainingCursor]:
        """Open a cursor that explains its statements too."""
        async with self._connection.cursor(row_factory=row_factory) as cursor:
            yield ExplainingCursor(self, cursor)

    async def explain(self, sql: bytes, values: Any) -> None:
        """Keep which tables the statement reads whole."""
        plan = await self._connection.execute(b"EXPLAIN " + sql, values)
        lines = "\n".join(str(row["QUERY PLAN"]) for row in await plan.fetchall())
        self.scanned |= set(re.findall(r"Seq Scan on (\w+)", lines)) - SMALL


class ExplainingCursor:
    """A cursor that explains each statement before it runs it."""

    def __init__(self, explaining: Explaining, cursor: AsyncCursor[Any]) -> None:
        self._explaining = explaining
        self._cursor = cursor
        self.fetchone = cursor.fetchone
        self.fetchall = cursor.fetchall

    async def execute(self, sql: bytes, values: Any) -> None:
        """Explain the statement, then run it."""
        await self._explaining.explain(sql, values)
        await self._cursor.execute(sql, values)


HOT: dict[str, Callable[[Any], Awaitable[object]]] = {
    "claim_due": lambda c: connection_store.claim_due(c, NOW, 50),
    "claim_for_request": lambda c: connection_store.claim_for_request(c, "c8"),
    "wake_followers": lambda c: upstream_store.wake_followers(c, "team-0", NOW),
    "followers": lambda c: upstream_store.followers(c, "team-0"),
    "missing_upstreams": lambda c: upstream_store.missing_upstreams(c, "team-0", ["connection-50", "x"]),
    "successes_to_follow": lambda c: upstream_store.successes_to_follow(c, "c100"),
    "connection_by_name": lambda c: connection_store.connection_by_name(c, "team-7", "connection-7"),
    "connections_by_uid": lambda c: connection_store.connections_by_uid(c, ["c8", "c9"]),
    "claim_runs": lambda c: fairness.claim_runs(c, NOW, 20),
    "claim_runs within quotas": lambda c: fairness.claim_runs(c, NOW, 20, QUOTAS),
    "tell_waiting": lambda c: fairness.tell_waiting(c, NOW, 200, QUOTAS),
    "page_end": lambda c: statements.page_end(c, ConnectionUid("c100"), 50),
    "orphan_keys": lambda c: statements.orphan_keys(c, NOW, 500),
    "superseded_keys": lambda c: statements.superseded_keys(c, NOW, 500),
    "old_runs": lambda c: statements.old_runs(c, ConnectionUid("c100"), 50, NOW, 500),
    "forget_checkpoints": lambda c: statements.forget_checkpoints(c, ConnectionUid("c100"), 50, 200, 500),
    "forget_schemas": lambda c: statements.forget_schemas(c, ConnectionUid("c100"), 50, 50, 500),
    "attempts_of_jobs": lambda c: statements.attempts_of_jobs(c, ["penstock-000000000007-1"]),
    "known_keys": lambda c: statements.known_keys(c, ["k000000000007"]),
    "purges_under_way": purge.purges_under_way,
    "objects_to_purge": lambda c: purge.objects_to_purge(c, ConnectionUid("c8"), 500),
    "attempts_to_purge": lambda c: purge.attempts_to_purge(c, ConnectionUid("c8"), NOW, 500),
    "log_of_attempt": lambda c: attempt_store.log_of_attempt(c, "000000000007", 1),
    "active_runs": lambda c: run_store.active_runs(c, "c8"),
    "runs_of_deleted_connections": run_store.runs_of_deleted_connections,
    "newest_run": lambda c: run_store.newest_run(c, "c8"),
    "waiting_count": lambda c: run_store.waiting_count(c, "c8"),
    "lock_replaceable": lambda c: run_store.lock_replaceable(c, "c8"),
    "ticks_made": lambda c: run_store.ticks_made(c, "c8", NOW - timedelta(days=3), NOW),
    "run_by_id": lambda c: run_store.run_by_id(c, "000000000008"),
    "list_runs": lambda c: run_store.list_runs(c, None, None, 20),
    "hold_run": lambda c: run_store.hold_run(c, "000000000007", 1),
    "attempt_to_launch": lambda c: attempt_store.attempt_to_launch(c, "000000000007", 1),
    "attempts_to_launch": lambda c: attempt_store.attempts_to_launch(c, [("000000000007", 1)]),
    "attempt_by_job": lambda c: attempt_store.attempt_by_job(c, "penstock-000000000007-1"),
    "attempt_by_token": lambda c: attempt_store.attempt_by_token(c, b"0" * 32),
    "live_attempts": attempt_store.live_attempts,
    "heartbeat": lambda c: attempt_store.heartbeat(c, "000000000007", 1, {}),
    "states_of": lambda c: state_store.states_of(c, "c8"),
    "states_of_run": lambda c: window_states.states_of_run(c, "000000000008"),
    "lock_window": lambda c: window_states.lock_state(c, "000000000008", "people"),
    "stream_heads": lambda c: schema_store.stream_heads(c, "c8"),
    "stream_versions": lambda c: schema_store.stream_versions(c, "c8", {("stream-1", 1)}),
    "open_alerts_of": lambda c: alerts.open_alerts_of(c, "c8"),
    "acknowledged_alerts_of": lambda c: alerts.acknowledged_alerts_of(c, "c8"),
    "run_counts": lambda c: bronze_objects.run_counts(c, "000000000008"),
    "reads_of": lambda c: stream_reads.reads_of(c, "c8"),
    "counts_by_op": lambda c: bronze_objects.counts_by_op(c, "000000000008", 1),
    "has_progressed": lambda c: bronze_objects.has_progressed(c, "000000000008", 1),
    "run_streams": lambda c: stream_outcomes.record(c, "000000000008", 1, {}),
    "committed_counts": lambda c: bronze_objects.committed_counts(c, "000000000008", 1),
    "the page of runs": lambda c: queries.list_runs(c, PageRequest(20)),
    "the page of connections": lambda c: queries.list_connections(c, PageRequest(20), Namespace("team-7")),
    "the page of streams": lambda c: queries.list_streams(c, PageRequest(20), ConnectionUid("c8")),
    "the page of objects": lambda c: queries.list_objects(c, PageRequest(20), queries.ObjectFilter(run="000000000008")),
    "the page of checkpoints": lambda c: queries.list_checkpoints(c, PageRequest(20), ConnectionUid("c8")),
    "the page of state changes": lambda c: queries.list_state_changes(c, PageRequest(20), ConnectionUid("c8")),
    "the detail of a run": lambda c: queries.run_detail(c, RunId("000000000008")),
    "take": lambda c: outbox.take(c, 100),
}


@pytest.fixture
async def history(pool: Pool) -> AsyncIterator[DatabaseConnection]:
    async with pool.connection() as db:
        await db.execute(HISTORY.encode())
        yield db


async def test_no_hot_statement_reads_a_whole_table(history: DatabaseConnection) -> None:
    scanned = {}
    for name, call in HOT.items():
        explaining = Explaining(history)
        await call(explaining)
        if explaining.scanned:
            scanned[name] = explaining.scanned
    assert not scanned


async def test_the_explanation_sees_a_whole_table_read(history: DatabaseConnection) -> None:
    explaining = Explaining(history)
    await explaining.execute(b"SELECT * FROM penstock.connector_runs WHERE message = 'x'")
    assert explaining.scanned == {"connector_runs"}

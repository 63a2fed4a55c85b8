"""Who is next: fairly among tenants, within what the platform allows to each tenant and to each source.

A tenant's share is what it has under way and what it has had lately; who has least is next. Limits hold whoever claims:
claims take turns by an advisory lock, and only a claim makes a run active.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from penstock_operator.ids import AttemptNumber, ConnectionUid, RunId
from penstock_operator.registry.database import DatabaseConnection, execute, fetch_all, fetch_values
from penstock_operator.settings import NO_QUOTAS, Quotas

CLAIM_LOCK = 0x70656E7374636C6D  # "penstclm"
FADING_SECONDS = 60.0
PATIENCE_SECONDS = 5.0


class ClaimedAttempt(NamedTuple):
    """An attempt that a claim has begun."""

    run_id: RunId
    attempt: AttemptNumber


# A connection's runs share its state, so they take turns: one that has begun goes on to its end, then comes what is due,
# oldest first, and a backfill when nothing else waits. `w` is the run that wants its turn.
TURN = """
    NOT EXISTS (
        SELECT 1 FROM penstock.connector_runs o
        WHERE o.connection_uid = w.connection_uid AND o.phase IN ('pending', 'running') AND o.id <> w.id
          AND (o.attempt = 0, o.trigger = 'backfill', coalesce(o.scheduled_at, o.created_at), o.id)
            < (w.attempt = 0, w.trigger = 'backfill', coalesce(w.scheduled_at, w.created_at), w.id))
"""

ACTIVE = """
    limits AS (SELECT * FROM unnest(%(tenants)s::text[], %(allowances)s::int[]) AS l (tenant, allowed)),
    active AS MATERIALIZED (
        SELECT tenant, source_host, count(*) AS n FROM penstock.connector_runs WHERE phase = 'running' GROUP BY 1, 2),
    tenants AS (SELECT tenant, sum(n)::int AS n FROM active GROUP BY 1),
    hosts AS (SELECT source_host, sum(n)::int AS n FROM active WHERE source_host IS NOT NULL GROUP BY 1)
"""

# The first runs of a tenant's line, without those whose source is full, or that their connections let wait.
FIRST = """
    SELECT w.id, w.source_host, w.next_attempt_at FROM penstock.connector_runs w
    WHERE w.phase = 'pending' AND w.tenant = {tenant} AND w.next_attempt_at <= greatest(%(now)s::timestamptz, now()) AND {turn}
      AND (w.source_host IS NULL OR w.source_host <> ALL(coalesce((SELECT names FROM full_hosts), '{{}}')))
    ORDER BY w.next_attempt_at, w.id LIMIT {limit}
"""

# Only the tenants that had least are looked at, as many as there are runs to claim, and of each only as many runs: no
# other can be among the first. Then each step leaves runs out and lets none in, so that no limit is exceeded: what its
# source has no room for, what its tenant has no room for, and what another tenant's run comes before at the same source.
# What a later step leaves out may have kept another run waiting: the next claim, which follows at once, sees the room
# taken, and there is always a first one that is chosen.
CLAIM = """
WITH RECURSIVE {active},
full_hosts AS MATERIALIZED (SELECT array_agg(source_host) AS names FROM hosts WHERE n >= %(per_host)s),
line AS (
    (SELECT tenant FROM penstock.connector_runs WHERE phase = 'pending' ORDER BY tenant LIMIT 1)
    UNION ALL
    SELECT (SELECT r.tenant FROM penstock.connector_runs r WHERE r.phase = 'pending' AND r.tenant > line.tenant
            ORDER BY r.tenant LIMIT 1)
    FROM line WHERE line.tenant IS NOT NULL),
standing AS (
    SELECT line.tenant, coalesce(t.n, 0) AS under_way, coalesce(l.allowed, %(per_tenant)s) AS allowed,
        coalesce(s.served * exp(-least(greatest(extract(epoch FROM %(now)s - s.at), 0) / %(fading)s, 100)), 0) AS served
    FROM line
    LEFT JOIN tenants t ON t.tenant = line.tenant
    LEFT JOIN limits l ON l.tenant = line.tenant
    LEFT JOIN penstock.tenant_turns s ON s.tenant = line.tenant
    WHERE line.tenant IS NOT NULL),
nearest AS MATERIALIZED (
    SELECT n.* FROM standing n CROSS JOIN LATERAL ({first}) f
    WHERE n.allowed IS NULL OR n.under_way < n.allowed
    ORDER BY n.under_way + n.served, f.next_attempt_at, f.id LIMIT %(limit)s),
waiting AS (
    SELECT n.*, w.id, w.source_host, w.next_attempt_at, coalesce(h.n, 0) AS at_source,
        CASE WHEN w.source_host IS NULL THEN 1
             ELSE row_number() OVER (PARTITION BY n.tenant, w.source_host ORDER BY w.next_attempt_at, w.id) END AS in_host
    FROM nearest n CROSS JOIN LATERAL ({several}) w LEFT JOIN hosts h ON h.source_host = w.source_host),
admitted AS (
    SELECT w.*, row_number() OVER (PARTITION BY w.tenant ORDER BY w.in_host, w.next_attempt_at, w.id) AS in_tenant
    FROM waiting w
    WHERE w.source_host IS NULL OR %(per_host)s::int IS NULL OR w.at_source + w.in_host <= %(per_host)s),
fair AS (
    SELECT a.*, a.under_way + a.served + a.in_tenant AS share,
        row_number() OVER (PARTITION BY a.source_host
                           ORDER BY a.under_way + a.served + a.in_tenant, a.next_attempt_at, a.id) AS at_host
    FROM admitted a WHERE a.allowed IS NULL OR a.under_way + a.in_tenant <= a.allowed),
chosen AS MATERIALIZED (
    SELECT id FROM fair
    WHERE source_host IS NULL OR %(per_host)s::int IS NULL OR at_source + at_host <= %(per_host)s
    ORDER BY share, next_attempt_at, id LIMIT %(limit)s),
due AS (
    SELECT r.id FROM penstock.connector_runs r
    WHERE r.id = ANY(ARRAY(SELECT id FROM chosen)) AND r.phase = 'pending' FOR UPDATE SKIP LOCKED),
taken AS (
    UPDATE penstock.connector_runs r SET phase = 'running', attempt = r.attempt + 1, waits = '', waits_reason = NULL,
        started_at = coalesce(r.started_at, now())
    FROM due WHERE r.id = due.id RETURNING r.id, r.attempt, r.tenant),
served AS (
    INSERT INTO penstock.tenant_turns AS s (tenant, served, at)
    SELECT tenant, count(*), %(now)s FROM taken WHERE tenant IS NOT NULL GROUP BY tenant
    ON CONFLICT (tenant) DO UPDATE SET at = excluded.at, served = excluded.served
        + s.served * exp(-least(greatest(extract(epoch FROM excluded.at - s.at), 0) / %(fading)s, 100)))
INSERT INTO penstock.run_attempts (run_id, attempt, job_name)
SELECT id, attempt, 'penstock-' || id || '-' || attempt FROM taken RETURNING run_id, attempt
"""

WAITS = """
WITH {active},
told AS (
    SELECT w.id, CASE
        WHEN NOT {turn} THEN 'another run of the connection goes first'
        WHEN t.n >= coalesce(l.allowed, %(per_tenant)s)
            THEN 'tenant ' || w.tenant || ' has ' || t.n || ' of ' || coalesce(l.allowed, %(per_tenant)s) || ' runs'
        WHEN h.n >= %(per_host)s THEN 'source ' || w.source_host || ' has ' || h.n || ' of ' || %(per_host)s || ' runs'
        ELSE '' END AS waits
    FROM penstock.connector_runs w
    LEFT JOIN tenants t ON t.tenant = w.tenant
    LEFT JOIN limits l ON l.tenant = w.tenant
    LEFT JOIN hosts h ON h.source_host = w.source_host
    WHERE w.phase = 'pending' AND w.next_attempt_at <= %(now)s - %(patience)s * interval '1 s'),
changed AS (
    SELECT r.id, told.waits FROM told JOIN penstock.connector_runs r ON r.id = told.id
    WHERE r.waits <> told.waits ORDER BY r.id LIMIT %(limit)s FOR UPDATE OF r SKIP LOCKED)
UPDATE penstock.connector_runs r SET waits = changed.waits FROM changed
WHERE r.id = changed.id AND r.phase = 'pending' RETURNING r.connection_uid
"""


def _values(now: datetime, limit: int, quotas: Quotas) -> dict[str, Any]:
    return {
        "now": now,
        "limit": limit,
        "tenants": list(quotas.tenants),
        "allowances": list(quotas.tenants.values()),
        "per_tenant": quotas.runs_per_tenant,
        "per_host": quotas.runs_per_host,
    }


def _statement() -> str:
    first = FIRST.format(tenant="n.tenant", turn=TURN, limit="1")
    several = FIRST.format(tenant="n.tenant", turn=TURN, limit="%(limit)s")
    return CLAIM.format(active=ACTIVE, first=first, several=several)


async def claim_runs(
    db: DatabaseConnection, now: datetime, limit: int, quotas: Quotas = NO_QUOTAS
) -> list[ClaimedAttempt]:
    """Start the next attempts of at most `limit` runs, fairly among tenants and within the quotas, and return them.

    Two callers never get the same run. A run's wait ends when either `now` or the registry's clock has reached its time,
    so a process whose clock is behind delays nothing.
    """
    async with db.transaction():
        await execute(db, "SELECT pg_advisory_xact_lock(%(lock)s)", lock=CLAIM_LOCK)
        await name_tenants(db)
        values = {**_values(now, limit, quotas), "fading": FADING_SECONDS}
        return await fetch_all(db, ClaimedAttempt, _statement(), **values)


async def name_tenants(db: DatabaseConnection) -> int:
    """Fill in the tenant of runs that a replica of the version before has made."""
    return await execute(
        db,
        "UPDATE penstock.connector_runs r SET tenant = (SELECT c.namespace FROM penstock.tenant_connections c"
        " WHERE c.uid = r.connection_uid) WHERE r.tenant IS NULL AND r.phase IN ('pending', 'running')",
    )


async def tell_waiting(db: DatabaseConnection, now: datetime, limit: int, quotas: Quotas) -> list[ConnectionUid]:
    """Note why runs wait that have waited for a while, and return the connections of those whose reason changed."""
    values = {**_values(now, limit, quotas), "patience": PATIENCE_SECONDS}
    return sorted(set(await fetch_values(db, ConnectionUid, WAITS.format(active=ACTIVE, turn=TURN), **values)))

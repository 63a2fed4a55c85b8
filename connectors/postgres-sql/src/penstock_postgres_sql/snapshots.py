"""What has changed in a table since an earlier read, as Postgres itself knows it: by the transaction that wrote each row.

Every row version carries the id of its transaction (`xmin`), and ids only grow. A read keeps the first id that had not
been given out, and the ids below it that could still commit (`pending`). What the next read has to look at are the rows
of exactly these. No value of the row takes part, so late commits, ties, backdated values and coarse clocks make no
difference. docs/design/0009-changes-by-transaction.md argues each step.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import psycopg
from penstock_sdk import TransientError
from psycopg import errors, sql

log = logging.getLogger("penstock")

EPOCH = 1 << 32
MOST_RANGES = 500
MOST_CHECKED = 50_000_000
FLUSH_SECONDS, FLUSH_POLL_SECONDS = 60, 0.05

# Live, not by a snapshot: whoever is not under way when this looks at it has ended before a snapshot taken afterwards.
# pg_current_snapshot() alone would not do: it does not list the ids of savepoints, nor anything at all on a standby.
UNDER_WAY = """
SELECT id FROM unnest({starts}::bigint[], {ends}::bigint[]) AS checked (first, past), generate_series(first, past - 1) AS id
WHERE txid_status(id) = 'in progress'
"""
LEAVES = """
WITH RECURSIVE tree AS (
    SELECT {oid}::oid AS relation UNION ALL SELECT i.inhrelid FROM tree t JOIN pg_inherits i ON i.inhparent = t.relation
)
SELECT c.oid::bigint, coalesce(pg_stat_get_tuples_inserted(c.oid) + pg_stat_get_tuples_updated(c.oid), 0)
FROM tree t JOIN pg_class c ON c.oid = t.relation WHERE c.relkind <> 'p' ORDER BY 1
"""
SERVER = "SELECT system_identifier::text, pg_is_in_recovery(), (SELECT oid::text FROM pg_database WHERE datname = current_database()) FROM pg_control_system()"
TIMELINE = "SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)"
STANDBY_TIMELINE = """
SELECT lpad(to_hex(greatest(c.timeline_id, r.min_recovery_end_timeline,
       (SELECT max(received_tli) FROM pg_stat_get_wal_receiver()))), 8, '0')
FROM pg_control_checkpoint() c, pg_control_recovery() r
"""


class Snapshot(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A moment of a server: transactions below `next` have ended, but for those in the half-open ranges of `pending`.

    `server` names the server's history: system, timeline and database. `relations` are the oids of the tables that hold
    the rows; `writes` is how many the server had counted, which estimates need.
    """

    server: str
    next: int
    pending: tuple[tuple[int, int], ...]
    relations: tuple[int, ...]
    writes: int = 0


def server_of(session: psycopg.Connection[Any]) -> str:
    """Return what stays the same for as long as transaction ids mean the same: a failover or a restore changes it."""
    system, standby, database = _row(session, SERVER)
    timeline = _row(session, STANDBY_TIMELINE if standby else TIMELINE)[0]
    return f"{system}/{timeline}/{database}"


def is_standby(session: psycopg.Connection[Any]) -> bool:
    """Say whether the server is a standby."""
    return bool(_row(session, "SELECT pg_is_in_recovery()")[0])


def leaves_of(session: psycopg.Connection[Any], oid: int) -> list[tuple[int, int]]:
    """Return the tables that hold a relation's rows, each with how many rows the server has counted as written."""
    return session.execute(sql.SQL(LEAVES).format(oid=oid)).fetchall()


def under_way(session: psycopg.Connection[Any], base: Snapshot | None) -> tuple[int, list[tuple[int, int]]]:
    """Return the next id, and which ids below it are under way; call it before the snapshot is taken.

    What `base` knows to have ended is not asked for again.
    """
    oldest, following = _row(
        session, "SELECT txid_snapshot_xmin(s), txid_snapshot_xmax(s) FROM txid_current_snapshot() s"
    )
    known = [*base.pending, (base.next, following)] if base else [(0, following)]
    asked = [(max(first, oldest), past) for first, past in known if past > max(first, oldest)]
    if sum(past - first for first, past in asked) > MOST_CHECKED:
        log.warning("a transaction is open for more than %d others: rows read now are read again", MOST_CHECKED)
        return following, asked
    statement = sql.SQL(UNDER_WAY).format(starts=[first for first, _ in asked], ends=[past for _, past in asked])
    return following, ranges_of(row[0] for row in session.execute(statement).fetchall())


def take(
    session: psycopg.Connection[Any], oid: int, checked: tuple[int, list[tuple[int, int]]], server: str
) -> Snapshot:
    """Return the snapshot of the transaction that is open, whose first statement this is.

    Ids given out between `under_way` and now are taken as pending: at the worst their rows are read twice.
    """
    looked_at, pending = checked
    following = _row(session, "SELECT txid_snapshot_xmax(txid_current_snapshot())")[0]
    leaves = leaves_of(session, oid)
    found = [*pending, *([(looked_at, following)] if following > looked_at else [])]
    relations = tuple(leaf for leaf, _ in leaves)
    return Snapshot(server, following, tuple(coarsened(found)), relations, sum(count for _, count in leaves))


def wait_until_durable(session: psycopg.Connection[Any]) -> None:
    """Return when a crash of the server can no longer undo what the open snapshot sees.

    With `synchronous_commit = off` rows are visible before they are on disk, and a crash would give their ids out again.
    """
    if is_standby(session):
        return  # a standby replays what it has written
    written = sql.SQL("SELECT pg_current_wal_flush_lsn() >= {}::pg_lsn").format(
        _row(session, "SELECT pg_current_wal_insert_lsn()::text")[0]
    )
    deadline = time.monotonic() + FLUSH_SECONDS
    while not _row(session, written)[0]:
        if time.monotonic() > deadline:
            raise TransientError(f"the database has not written its log to disk for {FLUSH_SECONDS} s")
        time.sleep(FLUSH_POLL_SECONDS)


def not_usable(base: Snapshot, now: Snapshot, *, standby: bool) -> str:
    """Say why a base tells nothing of what changed; nothing when it does."""
    if base.server != now.server:
        return "the server, its timeline or the database is another one (a restore, a failover, an upgrade)"
    if now.next < base.next and not standby:
        return "the server's transaction ids went back (a restored disk)"
    return ""


def changed(base: Snapshot, now: Snapshot) -> sql.Composed | None:
    """Return the condition for rows that `base` has not seen; None when that is every row."""
    if not set(now.relations) & set(base.relations):
        return None
    spans = ranges_of_spans([*base.pending, (base.next, max(base.next, now.next))])
    start = min((first for first, _ in spans), default=base.next)
    width = max(base.next, now.next) - start
    if width >= EPOCH:
        return None
    offset = sql.SQL("((xmin::text::bigint - {}::bigint) & 4294967295::bigint)").format(start % EPOCH)
    condition = sql.SQL("{} < {}::bigint").format(offset, width)
    if spans != [
        (start, start + width)
    ]:  # the number of borders at or below an offset is odd within a range: a binary search
        borders = [border - start for span in spans for border in span]
        condition += sql.SQL(" AND width_bucket({}, {}::bigint[]) % 2 = 1").format(offset, borders)
    added = sorted(set(now.relations) - set(base.relations))
    if added:
        return sql.SQL("(({}) OR tableoid = ANY ({}::bigint[]::oid[]))").format(condition, added)
    return sql.SQL("({})").format(condition)


def ranges_of(ids: Iterable[int]) -> list[tuple[int, int]]:
    """Return ids as half-open ranges."""
    return ranges_of_spans((each, each + 1) for each in ids)


def ranges_of_spans(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return ranges in order, those that touch as one, and none that is empty."""
    found = list[tuple[int, int]]()
    for first, past in sorted(span for span in spans if span[0] < span[1]):
        if found and first <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], past))
        else:
            found.append((first, past))
    return found


def coarsened(spans: Sequence[tuple[int, int]], most: int = MOST_RANGES) -> list[tuple[int, int]]:
    """Return at most so many ranges that hold the given ones, as a cursor must stay small; what is between is read again."""
    found = ranges_of_spans(spans)
    if len(found) <= most:
        return found
    gaps = sorted(later[0] - earlier[1] for earlier, later in itertools.pairwise(found))
    closed = gaps[len(found) - most - 1]
    wider = [(first, past + closed) for first, past in found]
    merged = ranges_of_spans(wider)
    return [(first, past - closed) for first, past in merged]


def _row(session: psycopg.Connection[Any], statement: str | sql.Composed) -> tuple[Any, ...]:
    query = sql.SQL(statement) if isinstance(statement, str) else statement
    found: tuple[Any, ...] | None = session.execute(query).fetchone()
    if found is None:
        raise errors.NoDataFound("the server gave no row")
    return found

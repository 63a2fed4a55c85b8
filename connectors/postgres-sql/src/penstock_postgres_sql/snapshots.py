"""Finds the rows of a table that changed since an earlier read, by the transaction that wrote each row.

Every row version carries the id of the transaction that wrote it (`xmin`), and ids only grow. A read keeps the next id
that the server had not yet assigned, and the ids below it that could still commit (`pending`). The next read reads the
rows that exactly these transactions wrote. The values of the row are not used. So late commits, equal values, backdated
values and coarse clocks make no difference. docs/design/0009-changes-by-transaction.md argues each step.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import psycopg
from penstock_sdk import TransientError
from psycopg import errors, sql
from psycopg.rows import TupleRow

log = logging.getLogger("penstock")

XID_EPOCH = 1 << 32
"""A row stores the lower 32 bits of a transaction's id: the stored ids repeat after so many transactions."""
MOST_SPANS = 500
"""Spans of pending ids that a cursor holds at most."""
MOST_IDS_CHECKED = 50_000_000
"""Ids whose state is looked up, one by one, before a read; beyond that all of them count as pending."""
FLUSH_SECONDS, FLUSH_POLL_SECONDS = 60, 0.05

IdSpan = tuple[int, int]
"""Consecutive transaction ids: the first one, and the one after the last."""

# This asks for the current state, not for that of a snapshot: a transaction that is not in progress now has ended before
# any snapshot that is taken later. pg_current_snapshot() alone is not enough: it does not list the ids of savepoints, and
# on a standby it lists no ids.
IDS_IN_PROGRESS = """
SELECT id FROM unnest({starts}::bigint[], {ends}::bigint[]) AS checked (first, past), generate_series(first, past - 1) AS id
WHERE txid_status(id) = 'in progress'
"""
LEAF_TABLES = """
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
    """A moment of a server: the transactions with ids below `next_xid` have ended, except those in `pending`.

    `server` identifies the server's history: system, timeline and database. `relations` are the oids of the tables that
    hold the rows. `rows_written` is how many rows the server had counted as written to them; estimates use it.
    """

    server: str
    next_xid: int = msgspec.field(name="next")
    pending: tuple[IdSpan, ...]
    relations: tuple[int, ...]
    rows_written: int = msgspec.field(name="writes", default=0)


@dataclass(frozen=True, slots=True)
class IdsInProgress:
    """The next id that the server will assign, and the ids below it whose transactions have not ended."""

    next_xid: int
    spans: list[IdSpan]


@dataclass(frozen=True, slots=True)
class LeafTable:
    """A table that holds rows of a relation, and how many rows the server has counted as written to it."""

    oid: int
    rows_written: int


def server_history(session: psycopg.Connection[TupleRow]) -> str:
    """Return what identifies the history of the server's transaction ids. A failover or a restore changes it."""
    system, standby, database = _row(session, SERVER)
    timeline = _row(session, STANDBY_TIMELINE if standby else TIMELINE)[0]
    return f"{system}/{timeline}/{database}"


def is_standby(session: psycopg.Connection[TupleRow]) -> bool:
    """Return True if the server is a standby."""
    return bool(_row(session, "SELECT pg_is_in_recovery()")[0])


def leaf_tables(session: psycopg.Connection[TupleRow], oid: int) -> list[LeafTable]:
    """Return the tables that hold a relation's rows: the relation itself, or its partitions and children."""
    rows = session.execute(sql.SQL(LEAF_TABLES).format(oid=oid)).fetchall()
    return [LeafTable(leaf_oid, rows_written) for leaf_oid, rows_written in rows]


def ids_in_progress(session: psycopg.Connection[TupleRow], base: Snapshot | None) -> IdsInProgress:
    """Return the ids whose transactions are in progress. Call this before the read takes its snapshot.

    Ids whose transactions had ended at `base` are not looked up again.
    """
    oldest, next_xid = _row(
        session, "SELECT txid_snapshot_xmin(s), txid_snapshot_xmax(s) FROM txid_current_snapshot() s"
    )
    candidates = [*base.pending, (base.next_xid, next_xid)] if base else [(0, next_xid)]
    checked = [(max(first, oldest), past) for first, past in candidates if past > max(first, oldest)]
    if sum(past - first for first, past in checked) > MOST_IDS_CHECKED:
        log.warning(
            "a transaction has been open for more than %d others: the rows of this read are read again by the next one",
            MOST_IDS_CHECKED,
        )
        return IdsInProgress(next_xid, checked)
    statement = sql.SQL(IDS_IN_PROGRESS).format(
        starts=[first for first, _ in checked], ends=[past for _, past in checked]
    )
    return IdsInProgress(next_xid, id_spans(row[0] for row in session.execute(statement).fetchall()))


def take_snapshot(session: psycopg.Connection[TupleRow], oid: int, in_progress: IdsInProgress, server: str) -> Snapshot:
    """Return the snapshot of the open transaction; this must be its first statement.

    Ids that the server assigned after `ids_in_progress` count as pending. At worst, their rows are read twice.
    """
    next_xid = _row(session, "SELECT txid_snapshot_xmax(txid_current_snapshot())")[0]
    leaves = leaf_tables(session, oid)
    newer = [(in_progress.next_xid, next_xid)] if next_xid > in_progress.next_xid else []
    pending = tuple(limited_spans([*in_progress.spans, *newer]))
    rows_written = sum(leaf.rows_written for leaf in leaves)
    return Snapshot(server, next_xid, pending, tuple(leaf.oid for leaf in leaves), rows_written)


def wait_until_durable(session: psycopg.Connection[TupleRow]) -> None:
    """Wait until a crash of the server can no longer undo a transaction that the open snapshot sees.

    With `synchronous_commit = off`, rows are visible before they are on disk. After a crash the server would assign their
    transactions' ids again.
    """
    if is_standby(session):
        return  # a standby replays only what it has written to disk
    flushed = sql.SQL("SELECT pg_current_wal_flush_lsn() >= {}::pg_lsn").format(
        _row(session, "SELECT pg_current_wal_insert_lsn()::text")[0]
    )
    deadline = time.monotonic() + FLUSH_SECONDS
    while not _row(session, flushed)[0]:
        if time.monotonic() > deadline:
            raise TransientError(
                f"the database has not written its log to disk for {FLUSH_SECONDS} s; check the server's disk"
            )
        time.sleep(FLUSH_POLL_SECONDS)


def unusable_reason(base: Snapshot, now: Snapshot, *, standby: bool) -> str:
    """Return why changes since `base` cannot be found; empty if they can."""
    if base.server != now.server:
        return "the server, its timeline or the database is another one (a restore, a failover, an upgrade)"
    if now.next_xid < base.next_xid and not standby:
        return "the server's transaction ids went back (a restored disk)"
    return ""


def changed_condition(base: Snapshot, now: Snapshot) -> sql.Composed | None:
    """Return the condition that selects the rows that changed after `base`; None if every row may have changed."""
    if not set(now.relations) & set(base.relations):
        return None
    spans = merged_spans([*base.pending, (base.next_xid, max(base.next_xid, now.next_xid))])
    start = min((first for first, _ in spans), default=base.next_xid)
    width = max(base.next_xid, now.next_xid) - start
    if width >= XID_EPOCH:
        return None
    offset = sql.SQL("((xmin::text::bigint - {}::bigint) & 4294967295::bigint)").format(start % XID_EPOCH)
    condition = sql.SQL("{} < {}::bigint").format(offset, width)
    if spans != [(start, start + width)]:
        # width_bucket is a binary search: an offset lies within a span if the number of bounds up to it is odd.
        bounds = [bound - start for span in spans for bound in span]
        condition += sql.SQL(" AND width_bucket({}, {}::bigint[]) % 2 = 1").format(offset, bounds)
    added = sorted(set(now.relations) - set(base.relations))
    if added:
        return sql.SQL("(({}) OR tableoid = ANY ({}::bigint[]::oid[]))").format(condition, added)
    return sql.SQL("({})").format(condition)


def id_spans(ids: Iterable[int]) -> list[IdSpan]:
    """Return ids as spans."""
    return merged_spans((id_, id_ + 1) for id_ in ids)


def merged_spans(spans: Iterable[IdSpan]) -> list[IdSpan]:
    """Return spans in order, without empty ones; spans that touch or overlap become one."""
    merged = list[IdSpan]()
    for first, past in sorted(span for span in spans if span[0] < span[1]):
        if merged and first <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], past))
        else:
            merged.append((first, past))
    return merged


def limited_spans(spans: Sequence[IdSpan], maximum: int = MOST_SPANS) -> list[IdSpan]:
    """Return at most `maximum` spans that cover the given ones, so that a cursor stays small.

    The smallest gaps are closed; rows of transactions within them are read again.
    """
    merged = merged_spans(spans)
    if len(merged) <= maximum:
        return merged
    gaps = sorted(later[0] - earlier[1] for earlier, later in itertools.pairwise(merged))
    closed = gaps[len(merged) - maximum - 1]
    widened = merged_spans([(first, past + closed) for first, past in merged])
    return [(first, past - closed) for first, past in widened]


def _row(session: psycopg.Connection[TupleRow], statement: str | sql.Composed) -> tuple[Any, ...]:
    query = sql.SQL(statement) if isinstance(statement, str) else statement
    row: tuple[Any, ...] | None = session.execute(query).fetchone()
    if row is None:
        raise errors.NoDataFound("the server returned no row")
    return row

"""The connector: each stream is read in one read-only transaction, and its cursors skip no row."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from penstock_sdk import (
    Batch,
    Connector,
    ConnectorError,
    Cursor,
    Estimate,
    Partition,
    SourceContractError,
    Stream,
    TransientError,
)
from psycopg import sql
from psycopg.rows import TupleRow

from penstock_postgres_sql import partitioning, snapshots
from penstock_postgres_sql.catalog import CatalogOptions, Relation, did_you_mean, read_catalog, unknown_table_streams
from penstock_postgres_sql.config import PostgresConfig, PostgresCredentials
from penstock_postgres_sql.error_mapping import mapped_errors
from penstock_postgres_sql.not_offered import why_not_offered
from penstock_postgres_sql.planner import explain
from penstock_postgres_sql.select_statement import RowSelection, select_statement
from penstock_postgres_sql.session import connect
from penstock_postgres_sql.snapshots import Snapshot
from penstock_postgres_sql.table_cursor import TableCursor, end_cursor, parse_cursor
from penstock_postgres_sql.watermark import find_watermark

__all__ = ["PostgresConfig", "PostgresCredentials", "PostgresSql"]

log = logging.getLogger("penstock")

BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
ESTIMATE_LOCK_TIMEOUT = "SET LOCAL lock_timeout = '1s'"
"""All streams are estimated before the first one is read, so an estimate does not wait long for a locked table."""
MOST_LOGGED = 100
"""Streams that can only be read in full are logged up to this number."""
IDLE = psycopg.pq.TransactionStatus.IDLE


@dataclass(frozen=True, slots=True)
class _TableRead:
    """One read of a relation: the stream as it was asked for, and the cursor that the read resumes from."""

    relation: Relation
    stream: Stream
    since: datetime | None
    cursor: TableCursor

    @property
    def has_xmin(self) -> bool:
        """Whether changes can be found by transaction. A window is always read by the values of its cursor column."""
        return self.relation.has_xmin and bool(self.relation.order) and self.stream.window is None


class PostgresSql(Connector[PostgresConfig, PostgresCredentials]):
    """Reads tables and views of a PostgreSQL database."""

    _connection: psycopg.Connection[TupleRow] | None = None
    _relations: dict[str, Relation] | None = None
    _session_uses = 0

    def authenticate(self) -> None:
        """Connect to the database."""
        self._connection = connect(self.config, self.credentials)

    @property
    def _session(self) -> psycopg.Connection[TupleRow]:
        """The database session. If the server closed it while one stream was read, the next stream gets a new one."""
        if self._connection is None:
            message = "authenticate() comes before discover() and read()"
            raise RuntimeError(message)
        if self._connection.closed:
            self.authenticate()
            self._read_catalog()
        return self._connection

    @property
    def _uses_snapshots(self) -> bool:
        return self.config.change_tracking == "snapshot"

    def discover(self) -> list[Stream]:
        """Return a stream for each relation that the user may read."""
        self._read_catalog()
        relations = list((self._relations or {}).values())
        full_only = [relation for relation in relations if relation.only_full]
        for relation in full_only[:MOST_LOGGED]:
            log.info("%s is offered in full only: %s", relation.name, relation.only_full)
        for relation in relations:
            if relation.ungranted:
                log.info("%s is read without %s: not granted", relation.name, ", ".join(relation.ungranted))
        streams = [relation.stream() for relation in relations]
        streams += unknown_table_streams(self.config.cursor_fields, self._relations or {})
        for stream in streams:
            if stream.unavailable:
                log.warning("stream %r is unavailable: %s", stream.name, stream.unavailable.message)
        return streams

    def not_offered(self, name: str) -> ConnectorError | None:
        """Return an error that names the missing grant, the table of which it is a partition, or its schema."""
        with self._mapped_errors(f"stream {name!r}"):
            return why_not_offered(self._idle_session(), name, self.config.schemas)

    def _read_catalog(self) -> None:
        config = self.config
        options = CatalogOptions(config.schemas, config.cursor_fields, uses_snapshots=self._uses_snapshots)
        with self._mapped_errors("the catalog"):
            self._relations = read_catalog(self._idle_session(), options)

    def read(self, stream: Stream, since: datetime | None, cursor: Cursor | None) -> Iterator[Batch]:
        """Yield rows in the order of cursor field and primary key: all rows, or those that changed since an earlier read.

        A cursor holds the values of the last row read, and the read's snapshot. The last cursor holds the snapshot only.
        A relation without a primary key is read in one query, and has no cursor.
        """
        if stream.unavailable:
            raise stream.unavailable
        relation = self._relation(stream)
        table_read = _TableRead(relation, stream, since, self._table_cursor(relation, cursor))
        with self._mapped_errors(f"stream {stream.name!r}"):
            yield from self._read_rows(table_read)

    def partitions(
        self, stream: Stream, since: datetime | None, cursor: Cursor | None, known: Sequence[Partition]
    ) -> Sequence[Partition]:
        """Return partitions by the first column of the primary key, for a table with enough rows.

        Partitions of an earlier run are kept: with other bounds, rows would be read again.
        """
        del since
        relation = self._relation(stream)
        for partition in known:
            partitioning.parse_bounds(relation, partition)
        if known or cursor is not None or not relation.order:
            return known
        with self._mapped_errors(f"stream {stream.name!r}"):
            return partitioning.make_partitions(
                self._idle_session(), relation, self.config.partitions, self.config.partition_rows
            )

    def estimate(self, stream: Stream, since: datetime | None, cursor: Cursor | None) -> Estimate:
        """Estimate a read of all rows with the query planner, and limit it to the rows written since the cursor."""
        relation = self._relation(stream)
        table_read = _TableRead(relation, stream, since, self._table_cursor(relation, cursor))
        base = table_read.cursor.changed_since
        selection = RowSelection(stream, since, table_read.cursor.values)
        with self._mapped_errors(f"stream {stream.name!r}"):
            session = self._idle_session()
            with session.transaction():
                session.execute(ESTIMATE_LOCK_TIMEOUT)
                plan = explain(session, select_statement(relation, selection))
                written = _rows_written_since(session, relation, base) if base and table_read.has_xmin else plan.rows
        rows = min(plan.rows, written)
        return Estimate(records=rows, bytes=rows * plan.width)

    def close(self) -> None:
        """Close the session."""
        if self._connection is not None:
            self._connection.close()

    def _mapped_errors(self, subject: str) -> AbstractContextManager[None]:
        return mapped_errors(subject, self.credentials.username)

    def _idle_session(self) -> psycopg.Connection[TupleRow]:
        """Return the session without an open transaction; a read that was abandoned may have left one."""
        session = self._session
        self._session_uses += 1
        if session.info.transaction_status != IDLE:
            session.execute("ROLLBACK")
        return session

    def _relation(self, stream: Stream) -> Relation:
        if self._relations is None:
            self.discover()
        relations = self._relations or {}
        relation = relations.get(stream.name)
        if relation is None:
            raise SourceContractError(
                f"stream {stream.name!r}: the table does not exist any more, or the user may not read it any more; remove"
                f" it from spec.streams, or grant SELECT on it{did_you_mean(stream.name, relations)}"
            )
        if relation.problem:
            raise SourceContractError(f"stream {stream.name!r}: {relation.problem}")
        return relation

    def _table_cursor(self, relation: Relation, cursor: Cursor | None) -> TableCursor:
        """Parse a cursor. Raises SourceContractError if the table is ordered by other columns now."""
        table_cursor = parse_cursor(cursor, relation.name)
        if table_cursor.values is None:
            return table_cursor
        if table_cursor.columns != relation.order or len(table_cursor.values) != len(relation.order):
            raise SourceContractError(
                f"stream {relation.name!r}: the state is ordered by {table_cursor.columns}, and the table is now ordered by"
                f" {relation.order}: reset the state"
            )
        return table_cursor

    def _read_rows(self, table_read: _TableRead) -> Iterator[Batch]:
        session = self._idle_session()
        session_use = self._session_uses
        try:
            if table_read.has_xmin and self._uses_snapshots:
                yield from self._rows_by_snapshot(session, table_read)
            else:
                yield from self._rows_by_value(session, table_read)
        finally:
            is_current = self._session_uses == session_use
            if is_current and not session.closed and session.info.transaction_status != IDLE:
                session.execute("ROLLBACK")

    def _rows_by_snapshot(self, session: psycopg.Connection[TupleRow], table_read: _TableRead) -> Iterator[Batch]:
        """Read the rows that changed since the cursor's base snapshot, or all rows.

        A read that takes several attempts ends with the snapshot of its first attempt.
        """
        relation, cursor = table_read.relation, table_read.cursor
        server, standby = snapshots.server_history(session), snapshots.is_standby(session)
        base = cursor.changed_since
        trusted_base = base if base and base.server == server and not standby else None
        in_progress = snapshots.ids_in_progress(session, trusted_base)
        session.execute(BEGIN)
        now = snapshots.take_snapshot(session, relation.oid, in_progress, server)
        snapshots.wait_until_durable(session)
        first_snapshot = cursor.snapshot if cursor.values is not None else None
        for earlier in filter(None, (base, first_snapshot)):
            if reason := snapshots.unusable_reason(earlier, now, standby=standby):
                log.warning("%s is read from its start again: %s", relation.name, reason)
                cursor, base, first_snapshot = TableCursor(), None, None
                break
        first_snapshot = first_snapshot or now
        if cursor.values is not None and cursor.snapshot is None:
            log.info("%s resumes after the last row that an earlier version of the connector read", relation.name)
        changed_condition = snapshots.changed_condition(base, now) if base else None
        selection = RowSelection(table_read.stream, table_read.since, cursor.values, changed_condition)
        for rows, values in self._fetch(session, relation, selection):
            yield Batch(rows, cursor=TableCursor(relation.order, values, base, first_snapshot).to_json())
        yield Batch([], cursor=end_cursor(relation.order, first_snapshot))

    def _rows_by_value(self, session: psycopg.Connection[TupleRow], table_read: _TableRead) -> Iterator[Batch]:
        """Read the rows after the cursor's last row, in the order of the order columns."""
        relation, cursor, stream = table_read.relation, table_read.cursor, table_read.stream
        if cursor.changed_since is not None and stream.window is None:
            log.warning(
                "%s is read from its start again: its state was made with changeTracking: snapshot", relation.name
            )
            cursor = TableCursor()
        watermark = None
        if not self._uses_snapshots and relation.follows_time and stream.window is None and not relation.only_full:
            watermark = find_watermark(session, self.credentials.username, self.config.cursor_lag_seconds)
        session.execute(BEGIN)
        selection = RowSelection(stream, table_read.since, cursor.values, None, watermark)
        for rows, values in self._fetch(session, relation, selection):
            yield Batch(rows, cursor=TableCursor(relation.order, values).to_json() if values else None)

    def _fetch(
        self, session: psycopg.Connection[TupleRow], relation: Relation, selection: RowSelection
    ) -> Iterator[tuple[list[dict[str, Any]], list[str]]]:
        """Yield pages of rows, each with the texts of the order columns in its last row, from a cursor on the server."""
        names, session_use = [column.name for column in relation.columns], self._session_uses
        width = len(names)
        session.execute(sql.SQL("DECLARE penstock NO SCROLL CURSOR FOR ") + select_statement(relation, selection))
        fetch = sql.SQL("FETCH FORWARD {} FROM penstock").format(self.config.fetch_size)
        while rows := session.execute(fetch).fetchall():
            yield [dict(zip(names, row, strict=False)) for row in rows], list(rows[-1][width:])
            if self._session_uses != session_use:
                raise TransientError(f"stream {relation.name!r}: another read began before this one ended")


def _rows_written_since(session: psycopg.Connection[TupleRow], relation: Relation, base: Snapshot) -> int:
    """Return how many rows the server counted as written since `base`; if its counters were reset, all it has counted."""
    written = sum(leaf.rows_written for leaf in snapshots.leaf_tables(session, relation.oid))
    return written - base.rows_written if written >= base.rows_written else max(written, base.rows_written)

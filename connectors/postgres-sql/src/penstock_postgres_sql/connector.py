"""The connector: one read-only transaction a stream, and cursors that pass no row over."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
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

from penstock_postgres_sql import partitioning, snapshots
from penstock_postgres_sql.catalog import Relation, Wanted, nearest, read_catalog, unknown_tables
from penstock_postgres_sql.config import Config, Credentials
from penstock_postgres_sql.error_mapping import translated
from penstock_postgres_sql.places import Place, finished, place_of
from penstock_postgres_sql.planner import planned
from penstock_postgres_sql.session import connect
from penstock_postgres_sql.settling import settled_before
from penstock_postgres_sql.snapshots import Snapshot
from penstock_postgres_sql.statements import Asked, statement
from penstock_postgres_sql.withheld import withheld

__all__ = ["Config", "Credentials", "PostgresSql"]

log = logging.getLogger("penstock")

BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
ESTIMATE_WAITS = "SET LOCAL lock_timeout = '1s'"
"""All streams are estimated before one is read: a locked table's estimate is not waited for."""
IDLE = psycopg.pq.TransactionStatus.IDLE


@dataclass(frozen=True)
class _Reading:
    """One read of a relation: how it was asked for, where it stands, and in which way changes are found."""

    relation: Relation
    stream: Stream
    since: datetime | None
    place: Place

    @property
    def tracked(self) -> bool:
        """Whether changes are found by transaction; a window that is read again is read by its values."""
        return self.relation.tracked and bool(self.relation.order) and self.stream.window is None


class PostgresSql(Connector[Config, Credentials]):
    """Reads tables and views."""

    _connection: psycopg.Connection[Any] | None = None
    _relations: dict[str, Relation] | None = None
    _reads = 0

    def authenticate(self) -> None:
        """Open the session."""
        self._connection = connect(self.config, self.credentials)

    @property
    def _session(self) -> psycopg.Connection[Any]:
        """The session; one that the server has closed is opened again, as one stream's failure is not the next one's."""
        if self._connection is None:
            message = "authenticate() comes before discover() and read()"
            raise RuntimeError(message)
        if self._connection.closed:
            self.authenticate()
            self._read_catalog()
        return self._connection

    @property
    def _is_tracking(self) -> bool:
        return self.config.change_tracking == "snapshot"

    def discover(self) -> list[Stream]:
        """Return every relation that the credentials may read."""
        self._read_catalog()
        found = (self._relations or {}).values()
        limited = [relation for relation in found if relation.only_full]
        for relation in limited[:100]:
            log.info("%s is offered in full only: %s", relation.name, relation.only_full)
        for relation in (each for each in found if each.hidden):
            log.info("%s is read without %s: not granted", relation.name, ", ".join(relation.hidden))
        streams = [relation.stream() for relation in found]
        streams += unknown_tables(self.config.cursor_fields, self._relations or {})
        for stream in streams:
            if stream.unavailable:
                log.warning("stream %r is unavailable: %s", stream.name, stream.unavailable.message)
        return streams

    def not_offered(self, name: str) -> ConnectorError | None:
        """Say what of a table's rights is missing, of which table it is a part, or in which schema it is."""
        with self._translated(f"stream {name!r}"):
            return withheld(self._idle_session(), name, self.config.schemas)

    def _read_catalog(self) -> None:
        config = self.config
        wanted = Wanted(config.schemas, config.cursor_fields, tracked=self._is_tracking)
        with self._translated("the catalog"):
            self._relations = read_catalog(self._idle_session(), wanted)

    def read(self, stream: Stream, since: datetime | None, cursor: Cursor | None) -> Iterator[Batch]:
        """Yield the rows in the order of cursor field and primary key: all, or those changed since an earlier read.

        A cursor names the last row read and what the read began with; the last cursor names what the read has seen. A
        relation without a primary key is read in one go, and has no cursor.
        """
        if stream.unavailable:
            raise stream.unavailable
        relation = self._relation(stream)
        reading = _Reading(relation, stream, since, self._place(relation, cursor))
        with self._translated(f"stream {stream.name!r}"):
            yield from self._read(reading)

    def partitions(
        self, stream: Stream, since: datetime | None, cursor: Cursor | None, known: Sequence[Partition]
    ) -> Sequence[Partition]:
        """Return ranges of the first column of the primary key, for a table that has rows enough.

        Ranges of an earlier run stay as they are: another split would have rows read again.
        """
        del since
        relation = self._relation(stream)
        for partition in known:
            partitioning.check(relation, partition)
        if known or cursor is not None or not relation.order:
            return known
        with self._translated(f"stream {stream.name!r}"):
            return partitioning.split(
                self._idle_session(), relation, self.config.partitions, self.config.partition_rows
            )

    def estimate(self, stream: Stream, since: datetime | None, cursor: Cursor | None) -> Estimate:
        """Return what the planner expects of a read of everything, at most what the server counted as written since."""
        relation = self._relation(stream)
        reading = _Reading(relation, stream, since, self._place(relation, cursor))
        place = reading.place
        asked = Asked(stream, since, place.values)
        with self._translated(f"stream {stream.name!r}"):
            session = self._idle_session()
            with session.transaction():
                session.execute(ESTIMATE_WAITS)
                plan = planned(session, statement(relation, asked))
                base = place.changed_since
                written = _written_since(session, relation, base) if base and reading.tracked else plan.rows
        rows = min(plan.rows, written)
        return Estimate(records=rows, bytes=rows * plan.width)

    def close(self) -> None:
        """Close the session."""
        if self._connection is not None:
            self._connection.close()

    def _translated(self, what: str) -> Any:
        return translated(what, self.credentials.username)

    def _idle_session(self) -> psycopg.Connection[Any]:
        """Return the session without a transaction; a read that was given up may have left one open."""
        session = self._session
        self._reads += 1
        if session.info.transaction_status != IDLE:
            session.execute("ROLLBACK")
        return session

    def _relation(self, stream: Stream) -> Relation:
        if self._relations is None:
            self.discover()
        known = self._relations or {}
        relation = known.get(stream.name)
        if relation is None:
            raise SourceContractError(
                f"stream {stream.name!r}: the table is gone, or the credentials may not read it any more"
                f"{nearest(stream.name, known)}"
            )
        if relation.problem:
            raise SourceContractError(f"stream {stream.name!r}: {relation.problem}")
        return relation

    def _place(self, relation: Relation, cursor: Cursor | None) -> Place:
        """Return where a cursor stands; one that was made in one order is not read in another."""
        place = place_of(cursor, relation.name)
        if place.values is None:
            return place
        if place.columns != relation.order or len(place.values) != len(relation.order):
            raise SourceContractError(
                f"stream {relation.name!r}: the state follows {place.columns}, the table now {relation.order}: reset the state"
            )
        return place

    def _read(self, reading: _Reading) -> Iterator[Batch]:
        session = self._idle_session()
        mine = self._reads
        try:
            if reading.tracked and self._is_tracking:
                yield from self._changes(session, reading)
            else:
                yield from self._rows(session, reading)
        finally:
            if self._reads == mine and not session.closed and session.info.transaction_status != IDLE:
                session.execute("ROLLBACK")

    def _changes(self, session: psycopg.Connection[Any], reading: _Reading) -> Iterator[Batch]:
        """Read what changed since the place's snapshot, or everything; the read that was begun first decides the next one."""
        relation, place = reading.relation, reading.place
        server, standby = snapshots.server_of(session), snapshots.is_standby(session)
        base = place.changed_since
        sure = base if base and base.server == server and not standby else None
        checked = snapshots.under_way(session, sure)
        session.execute(BEGIN)
        now = snapshots.take(session, relation.oid, checked, server)
        snapshots.wait_until_durable(session)
        begun = place.snapshot if place.values is not None else None
        for earlier in filter(None, (base, begun)):
            if why := snapshots.not_usable(earlier, now, standby=standby):
                log.warning("%s is read from its start again: %s", relation.name, why)
                place, base, begun = Place(), None, None
                break
        begun = begun or now
        if place.values is not None and place.snapshot is None:
            log.info("%s goes on after the last row that an earlier version of the connector read", relation.name)
        changed = snapshots.changed(base, now) if base else None
        asked = Asked(reading.stream, reading.since, place.values, changed)
        for rows, values in self._fetched(session, relation, asked):
            yield Batch(rows, cursor=Place(relation.order, values, base, begun).as_cursor())
        yield Batch([], cursor=finished(relation.order, begun))

    def _rows(self, session: psycopg.Connection[Any], reading: _Reading) -> Iterator[Batch]:
        """Read what comes after the place's last row, in the order's own terms."""
        relation, place = reading.relation, reading.place
        if place.changed_since is not None and reading.stream.window is None:
            log.warning("%s is read from its start again: it was followed by snapshot before", relation.name)
            place = Place()
        settled = None
        if not self._is_tracking and relation.follows_time and reading.stream.window is None and not relation.only_full:
            settled = settled_before(session, self.credentials.username, self.config.cursor_lag_seconds)
        session.execute(BEGIN)
        asked = Asked(reading.stream, reading.since, place.values, None, settled)
        for rows, values in self._fetched(session, relation, asked):
            yield Batch(rows, cursor=Place(relation.order, values).as_cursor() if values else None)

    def _fetched(
        self, session: psycopg.Connection[Any], relation: Relation, asked: Asked
    ) -> Iterator[tuple[list[dict[str, Any]], list[str]]]:
        """Yield rows by the page, with the order's texts of the last one. The cursor is the server's, in the transaction."""
        names, mine = [column.name for column in relation.columns], self._reads
        width = len(names)
        session.execute(sql.SQL("DECLARE penstock NO SCROLL CURSOR FOR ") + statement(relation, asked))
        fetch = sql.SQL("FETCH FORWARD {} FROM penstock").format(self.config.fetch_size)
        while fetched := session.execute(fetch).fetchall():
            yield [dict(zip(names, row, strict=False)) for row in fetched], list(fetched[-1][width:])
            if self._reads != mine:
                raise TransientError(f"stream {relation.name!r}: another read began before this one ended")


def _written_since(session: psycopg.Connection[Any], relation: Relation, base: Snapshot) -> int:
    """Return how many rows the server counted as written; all that it knows of when its counters were reset."""
    leaves = snapshots.leaves_of(session, relation.oid)
    written = sum(count for _, count in leaves)
    return written - base.writes if written >= base.writes else max(written, base.writes)

"""The connector: one read-only transaction a stream, a server-side cursor, and cursors that lose nothing at a border."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import msgspec
import psycopg
from penstock_sdk import (
    AuthenticationError,
    Batch,
    ConfigError,
    Connector,
    Cursor,
    Estimate,
    Partition,
    SourceContractError,
    Stream,
    TransientError,
)
from psycopg import errors, sql
from psycopg.rows import tuple_row

from penstock_postgres_sql import splitting
from penstock_postgres_sql.catalog import Relation, read_catalog
from penstock_postgres_sql.planner import planned
from penstock_postgres_sql.values import keep_values

CONNECT_SECONDS = 15


class Config(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """What a connection may set."""

    host: str
    database: str
    port: int = 5432
    sslmode: str = "prefer"
    schemas: list[str] | None = None
    fetch_size: int = 2000
    partitions: int = 8
    partition_rows: int = 250_000
    cursor_fields: dict[str, str] = {}
    cursor_lag_seconds: float = 0.0
    statement_timeout_seconds: float | None = None


class Credentials(msgspec.Struct):
    """The Secret's keys."""

    password: str
    username: str = "postgres"


class PostgresSql(Connector[Config, Credentials]):
    """Reads tables and views."""

    _connection: psycopg.Connection[Any] | None = None
    _relations: dict[str, Relation] | None = None

    def authenticate(self) -> None:
        """Open the session."""
        config, where = self.config, self._where
        try:
            self._connection = psycopg.connect(
                host=config.host,
                port=config.port,
                dbname=config.database,
                user=self.credentials.username,
                password=self.credentials.password,
                sslmode=config.sslmode,
                connect_timeout=CONNECT_SECONDS,
                application_name="penstock",
                client_encoding="UTF8",
                autocommit=True,
                row_factory=tuple_row,
            )
        except psycopg.OperationalError as error:
            raise _refusal(str(error), where) from None
        with _translated(where):
            keep_values(self._connection)
            if config.statement_timeout_seconds:
                milliseconds = max(1, int(config.statement_timeout_seconds * 1000))  # 0 would be no limit
                self._connection.execute(sql.SQL("SET statement_timeout = {}").format(milliseconds))

    @property
    def _where(self) -> str:
        config = self.config
        return f"{self.credentials.username}@{config.host}:{config.port}/{config.database}"

    @property
    def _session(self) -> psycopg.Connection[Any]:
        if self._connection is None:
            message = "authenticate() comes before discover() and read()"
            raise RuntimeError(message)
        return self._connection

    def discover(self) -> list[Stream]:
        """Return every relation that the credentials may read."""
        with _translated("the catalog"):
            self._relations = read_catalog(self._session, self.config.schemas, self.config.cursor_fields)
        return [relation.stream(self.config.cursor_lag_seconds) for relation in self._relations.values()]

    def read(self, stream: Stream, since: datetime | None, cursor: Cursor | None) -> Iterator[Batch]:
        """Yield the rows in the order of cursor field and primary key.

        A cursor holds the values of these columns in the last row read, so that rows which share the cursor field's
        value are neither lost nor doubled. A relation without a primary key is read in one go, without promises.
        """
        relation = self._relation(stream)
        order = self._order(relation, cursor)
        query = self._query(relation, order, stream, since, cursor)
        with _translated(f"stream {stream.name!r}"):
            yield from self._batches(relation, order, query)

    def partitions(
        self, stream: Stream, since: datetime | None, cursor: Cursor | None, known: Sequence[Partition]
    ) -> Sequence[Partition]:
        """Return ranges of the first column of the primary key, for a table that has rows enough.

        Ranges of an earlier run stay as they are: another split would have rows read again.
        """
        del since
        relation = self._relation(stream)
        for each in known:
            splitting.check(relation, each)
        if known or cursor is not None or not relation.primary_key:
            return known
        with _translated(f"stream {stream.name!r}"):
            return splitting.split(self._session, relation, self.config.partitions, self.config.partition_rows)

    def _relation(self, stream: Stream) -> Relation:
        if self._relations is None:
            self.discover()
        relation = (self._relations or {}).get(stream.name)
        if relation is None:
            message = f"stream {stream.name!r}: the table is gone, or the credentials may not read it any more"
            raise SourceContractError(message)
        return relation

    def estimate(self, stream: Stream, since: datetime | None, cursor: Cursor | None) -> Estimate:
        """Return what the planner expects of the very statement that `read` would run."""
        relation = self._relation(stream)
        query = self._query(relation, self._order(relation, cursor), stream, since, cursor)
        with _translated(f"stream {stream.name!r}"):
            plan = planned(self._session, query)
        return Estimate(records=plan.rows, bytes=plan.rows * plan.width)

    def _order(self, relation: Relation, cursor: Cursor | None) -> list[str]:
        """Return the columns that order the read; a cursor made in one order is not read in another."""
        field = relation.cursor_field
        first = [field] if field else []
        order = [*first, *(name for name in relation.primary_key if name != field)]
        if cursor is not None and cursor["columns"] != order:
            message = f"stream {relation.name!r}: the state follows {cursor['columns']}, the table now {order}: reset the state"
            raise SourceContractError(message)
        return order

    def _query(
        self,
        relation: Relation,
        order: list[str],
        stream: Stream,
        since: datetime | None,
        cursor: Cursor | None,
    ) -> sql.Composed:
        """Compose the statement; without parameters, as with them a `%` in a name would be read as one."""
        names = [sql.Identifier(column.name) for column in relation.columns]
        marks = [
            sql.SQL("{}::text AS {}").format(sql.Identifier(name), sql.Identifier(f"penstock:{name}"[:63]))
            for name in order
        ]
        where = self._where_clauses(relation, order, since, cursor)
        where += splitting.conditions(relation, stream.partition)
        if stream.window and relation.cursor_field:
            where.append(sql.SQL("{} < {}").format(sql.Identifier(relation.cursor_field), stream.window.end))
        query = sql.SQL("SELECT {} FROM {}").format(
            sql.SQL(", ").join([*names, *marks]), sql.Identifier(relation.schema, relation.table)
        )
        if where:
            query += sql.SQL(" WHERE ") + sql.SQL(" AND ").join(where)
        if order:
            query += sql.SQL(" ORDER BY ") + sql.SQL(", ").join(map(sql.Identifier, order))
        return query

    def _where_clauses(
        self, relation: Relation, order: list[str], since: datetime | None, cursor: Cursor | None
    ) -> list[sql.Composed]:
        where, field = list[sql.Composed](), relation.cursor_field
        if cursor is not None:
            types = {column.name: sql.SQL(column.type) for column in relation.columns}
            left = sql.SQL(", ").join(map(sql.Identifier, order))
            values = zip(cursor["values"], order, strict=True)
            right = sql.SQL(", ").join(sql.SQL("{}::{}").format(value, types[name]) for value, name in values)
            where.append(sql.SQL("({}) > ({})").format(left, right))
        if field and relation.follows_time:
            if since is not None and cursor is None:
                where.append(sql.SQL("{} >= {}").format(sql.Identifier(field), since))
            if self.config.cursor_lag_seconds:
                lag = sql.SQL("{} <= now() - {} * interval '1 second'")
                where.append(lag.format(sql.Identifier(field), self.config.cursor_lag_seconds))
        return where

    def _batches(self, relation: Relation, order: list[str], query: sql.Composed) -> Iterator[Batch]:
        names, session = [column.name for column in relation.columns], self._session
        width = len(names)
        with session.transaction():
            session.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            with session.cursor(name="penstock", scrollable=False) as rows:
                rows.execute(query)
                while fetched := rows.fetchmany(self.config.fetch_size):
                    last = fetched[-1][width:]
                    promise = {"columns": order, "values": list(last)} if order else None
                    yield Batch([dict(zip(names, row, strict=False)) for row in fetched], cursor=promise)

    def close(self) -> None:
        """Close the session."""
        if self._connection is not None:
            self._connection.close()


def _refusal(text: str, where: str) -> Exception:
    """Return what a refused connection asks for; libpq gives its text and no code."""
    if re.search(
        'FATAL: +(.* )?authentication failed|FATAL: +role ".*" (does not exist|is not permitted)|no password supplied',
        text,
    ):
        return AuthenticationError(
            f"{where}: the database refuses user or password; correct the Secret that spec.secretRef names"
        )
    if re.search('FATAL: +database ".*" does not exist', text):
        return ConfigError(f"spec.config.database: {where}: the server has no such database")
    if "permission denied for database" in text:
        return AuthenticationError(f"{where}: the user may not enter the database; grant CONNECT on it")
    if "no pg_hba.conf entry" in text:
        return AuthenticationError(
            f"{where}: the server's pg_hba.conf does not let this user in from here, or wants TLS (spec.config.sslmode)"
        )
    if "does not support SSL, but SSL was required" in text:
        return ConfigError(f"spec.config.sslmode: {where}: the server does not speak TLS")
    reason = text.strip().splitlines()[0] if text.strip() else "no answer"
    return TransientError(f"{where}: the database cannot be reached: {reason}")


@contextmanager
def _translated(what: str) -> Iterator[None]:
    """Turn the database's errors into the classes that say what to do."""
    try:
        yield
    except errors.InsufficientPrivilege as error:
        raise AuthenticationError(f"{what}: {error.diag.message_primary}; grant SELECT to the user") from None
    except (errors.QueryCanceled, errors.ObjectNotInPrerequisiteState) as error:
        raise TransientError(f"{what}: {error.diag.message_primary}") from None
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise TransientError(f"{what}: the database went away: {reason}") from None
    except (psycopg.ProgrammingError, psycopg.DataError) as error:
        reason = error.diag.message_primary or str(error)
        raise SourceContractError(f"{what}: {reason}; it was changed after discovery, or cannot be read") from None
    except UnicodeDecodeError:
        raise SourceContractError(f"{what}: there is text that is not in the database's encoding") from None

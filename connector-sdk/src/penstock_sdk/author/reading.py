"""A read without a platform: records to the terminal, or into a file to query."""

from __future__ import annotations

import json
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Protocol

import msgspec

from penstock_sdk.author.project import ProjectError
from penstock_sdk.contract import Connector, Cursor, Op, Record, Records, rows_of


class Target(Protocol):
    """Where records go."""

    def write(self, records: list[Record]) -> None:
        """Take records."""

    def close(self) -> None:
        """Take no more."""


class Lines:
    """One JSON object a line."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, records: list[Record]) -> None:
        """Print them."""
        self._stream.write(msgspec.json.Encoder().encode_lines(records).decode())

    def close(self) -> None:
        """Print nothing more."""
        self._stream.flush()


class DuckDbFile:
    """A table of a DuckDB file, named as the stream; one that exists is replaced."""

    def __init__(self, path: Path, table: str) -> None:
        self._path, self._table = path, table
        self._lines = tempfile.NamedTemporaryFile("w", suffix=".jsonl")  # noqa: SIM115 - closed by close()

    def write(self, records: list[Record]) -> None:
        """Keep them as lines: DuckDB finds the types over all of them."""
        self._lines.write(msgspec.json.Encoder().encode_lines(records).decode())

    def close(self) -> None:
        """Make the table."""
        try:
            import duckdb
        except ImportError:
            raise ProjectError("--duckdb needs DuckDB: pip install 'penstock-sdk[author]'") from None
        self._lines.flush()
        name = '"' + self._table.replace('"', '""') + '"'
        with duckdb.connect(str(self._path)) as database, self._lines:
            database.execute(
                f"CREATE OR REPLACE TABLE {name} AS SELECT * FROM read_json(?, format='newline_delimited', sample_size=-1)",  # noqa: S608 - quoted above
                [self._lines.name],
            )


class _Enough(Exception):  # noqa: N818 - no error
    """So many records were wanted."""


class _Counting:
    """The sink: it stops a read that has given enough."""

    def __init__(self, target: Target, limit: int | None) -> None:
        self._target, self._limit = target, limit
        self.count = 0
        self.cursor: Cursor | None = None

    def emit(self, records: Records, op: Op) -> None:
        """Pass records on."""
        del op
        rows = list(rows_of(records))
        wanted = rows if self._limit is None else rows[: self._limit - self.count]
        self._target.write(wanted)
        self.count += len(wanted)
        if self._limit is not None and self.count >= self._limit:
            raise _Enough

    def checkpoint(self, state: Cursor) -> None:
        """Keep the promise."""
        self.cursor = state

    def reject(self, data: Any, message: str) -> None:
        """Say what was put aside, and not what it holds."""
        del data
        print(f"rejected: {message}", file=sys.stderr)  # noqa: T201 - standard output is the records'


def read_stream(
    connector: Connector[Any, Any],
    name: str,
    target: Target,
    *,
    since: datetime | None = None,
    cursor: str | None = None,
    limit: int | None = None,
) -> tuple[int, Cursor | None]:
    """Read a stream; return how many records came, and the last cursor that covers what came before."""
    offered = {stream.name: stream for stream in connector.discover()}
    if name not in offered:
        raise ProjectError(f"the source offers no stream {name!r}; it offers: {', '.join(sorted(offered)) or 'none'}")
    sink = _Counting(target, limit)
    connector.sink = sink
    moment = since.replace(tzinfo=UTC) if since and since.tzinfo is None else since
    try:
        for batch in connector.read(offered[name], moment, json.loads(cursor) if cursor else None):
            connector.emit(batch.records, batch.op)
            if batch.cursor is not None:
                connector.checkpoint(batch.cursor)
    except _Enough:
        pass
    target.close()
    return sink.count, sink.cursor

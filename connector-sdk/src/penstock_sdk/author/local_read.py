"""A read without a platform: records to the terminal, or to a file that can be queried."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Protocol

import msgspec
from msgspec.structs import replace

from penstock_sdk._contract_checks import check_cursor, check_op, check_records, checked_batches, checked_streams
from penstock_sdk._runtime.encode import Chunker, Envelope
from penstock_sdk._runtime.partition_plan import PartitionProgress, is_partitioned, new_plan, plan_from_cursor
from penstock_sdk._runtime.pipeline import timestamp_now
from penstock_sdk._runtime.rejects import RecordValidator
from penstock_sdk.author.command_errors import did_you_mean, printable
from penstock_sdk.author.project import ProjectError
from penstock_sdk.contract import Connector, Cursor, Op, Records, Stream
from penstock_sdk.protocol import RejectRules

Row = Any
"""The JSON of one record, as bytes."""
ENVELOPE = Envelope(tenant="", connection="", connector="", stream="", run="", attempt=0, schema_version=0)
MOST_PRINTED = 20
"""So many rejected records are printed; the summary counts all of them."""


class RecordOutput(Protocol):
    """The destination of records."""

    def write(self, rows: Sequence[Row]) -> None:
        """Write records."""

    def close(self) -> None:
        """Finish the output."""


def lines_of(rows: Sequence[Row]) -> str:
    """Return records as JSON Lines."""
    return "".join(f"{bytes(row).decode()}\n" for row in rows)


class JsonLinesOutput:
    """Writes one JSON object per line."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, rows: Sequence[Row]) -> None:
        """Write records."""
        self._stream.write(lines_of(rows))

    def close(self) -> None:
        """Flush the stream."""
        self._stream.flush()


class DuckDbFile:
    """Writes a table of a DuckDB file with the name of the stream. An existing table is replaced."""

    def __init__(self, path: Path, table: str) -> None:
        self._path, self._table = path, table
        self._lines = tempfile.NamedTemporaryFile("w", suffix=".jsonl")  # noqa: SIM115 - closed by close()

    def write(self, rows: Sequence[Row]) -> None:
        """Store records as lines, because DuckDB infers the types from all of them."""
        self._lines.write(lines_of(rows))

    def close(self) -> None:
        """Create the table."""
        try:
            import duckdb
        except ImportError:
            raise ProjectError("--duckdb needs DuckDB: pip install 'penstock-sdk[author]'") from None
        self._lines.flush()
        try:
            self._make(duckdb)
        except duckdb.Error as error:
            raise ProjectError(f"--duckdb {self._path}: {error}") from None

    def _make(self, duckdb: Any) -> None:
        name = '"' + self._table.replace('"', '""') + '"'
        with duckdb.connect(str(self._path)) as database, self._lines:
            database.execute(
                f"CREATE OR REPLACE TABLE {name} AS SELECT * FROM read_json(?, format='newline_delimited', sample_size=-1)",  # noqa: S608 - quoted above
                [self._lines.name],
            )


@dataclass(frozen=True)
class ReadSummary:
    """The numbers of records, of deletes among them, and of rejected records, and the last cursor."""

    count: int
    deletes: int
    rejected: int
    cursor: Cursor | None


class _Enough(Exception):  # noqa: N818 - not an error
    """The limit of records is reached."""


class _Counting:
    """The sink: checks records like a pod, and stops the read at the limit."""

    def __init__(self, target: RecordOutput, limit: int | None, stream: Stream) -> None:
        self._target, self._limit, self._name = target, limit, stream.name
        self._validator = RecordValidator(ENVELOPE, stream, RejectRules(), timestamp_now)
        self._validator.send_to(self._print_rejection)
        self._chunker = Chunker(stream.name, self._validator.reject_line)
        self.count = self.deletes = 0
        self.cursor: Cursor | None = None

    @property
    def rejected(self) -> int:
        """The number of rejected records."""
        return self._validator.counts.rejected

    def emit(self, records: Records, op: Op) -> None:
        """Write the valid records. Records of a delete batch get the field `_op`."""
        check_op(op, self._name)
        check_records(records, self._name)
        self._validator.op = op
        for chunk in self._chunker.chunks(records):
            left = len(chunk.rows) if self._limit is None else self._limit - self.count
            rows = self._validator.rows(chunk)[:left]
            self._target.write([_deleted(row) for row in rows] if op == "delete" else rows)
            self.count += len(rows)
            self.deletes += len(rows) if op == "delete" else 0
            if self.count == self._limit:
                raise _Enough
        self._validator.op = "upsert"

    def checkpoint(self, state: Cursor) -> None:
        """Store the cursor."""
        if state is not None:
            check_cursor(state, self._name)
        self.cursor = state

    def reject(self, data: Any, message: str) -> None:
        """Count data that the connector rejects."""
        self._validator.reject_data(data, message)

    def _print_rejection(self, line: bytes) -> None:
        """Print why a record was rejected, without its values."""
        if self.rejected <= MOST_PRINTED:
            document = json.loads(line)
            said = printable(f"rejected: {document['reason']}: {document['message']}")
            print(said, file=sys.stderr)  # noqa: T201 - standard output is for records


def _deleted(row: Row) -> Row:
    """Return a deleted record with the field `_op`. Its other values stay as they are written."""
    return msgspec.json.encode({"_op": "delete", **msgspec.json.decode(row, type=dict[str, msgspec.Raw])})


def read_stream(
    connector: Connector[Any, Any],
    name: str,
    target: RecordOutput,
    *,
    since: datetime | None = None,
    cursor: str | None = None,
    limit: int | None = None,
    partition: str | None = None,
) -> ReadSummary:
    """Read a stream, or one of its partitions, and return a summary with the last cursor."""
    stream, moment = _offered(connector, name), _aware(since)
    start = _cursor(cursor) if cursor else None
    if partition is not None:
        stream, start = _one_partition(connector, stream, moment, start, partition)
    elif is_partitioned(start):
        raise ProjectError("--cursor is the cursor of a partitioned stream; name a partition with --partition")
    sink = _Counting(target, limit, stream)
    connector.sink = sink
    try:
        for batch in checked_batches(connector.read(stream, moment, start), stream.name):
            connector.emit(batch.records, batch.op)
            if batch.cursor is not None:
                connector.checkpoint(batch.cursor)
    except _Enough:
        pass
    target.close()
    return ReadSummary(sink.count, sink.deletes, sink.rejected, sink.cursor)


def _cursor(text: str) -> Cursor:
    try:
        cursor: Cursor = json.loads(text)
    except (ValueError, RecursionError):
        raise ProjectError("--cursor is not JSON: give the cursor as a read prints it, in single quotes") from None
    return cursor


def planned_partitions(
    connector: Connector[Any, Any], name: str, *, since: datetime | None = None
) -> tuple[PartitionProgress, ...]:
    """Return the partitions of a stream; none if it is read as a whole."""
    return _planned(connector, _offered(connector, name), _aware(since))


def _planned(connector: Connector[Any, Any], stream: Stream, since: datetime | None) -> tuple[PartitionProgress, ...]:
    found = connector.partitions(stream, since, None, ()) if stream.partitioned else ()
    return new_plan("", found, None, stream.name).progress


def _one_partition(
    connector: Connector[Any, Any], stream: Stream, since: datetime | None, cursor: Cursor | None, name: str
) -> tuple[Stream, Cursor | None]:
    """Return the stream with one partition set, as `read` takes it, and the cursor of the partition."""
    has_plan = is_partitioned(cursor)
    partitions = plan_from_cursor(cursor, stream.name).progress if has_plan else _planned(connector, stream, since)
    found = next((partition for partition in partitions if partition.id == name), None)
    if found is None:
        known = ", ".join(partition.id for partition in partitions) or "none"
        raise ProjectError(f"--partition: stream {stream.name!r} has no partition {name!r}; it has: {known}")
    return replace(stream, partition=found.partition), found.cursor if has_plan else cursor


def _offered(connector: Connector[Any, Any], name: str) -> Stream:
    offered = {stream.name: stream for stream in checked_streams(connector.discover())}
    if name not in offered:
        known = ", ".join(sorted(offered)) or "none"
        raise ProjectError(f"the source offers no stream {name!r}{did_you_mean(name, offered)}; it offers: {known}")
    found = offered[name]
    if found.unavailable:
        raise found.unavailable
    return found


def _aware(since: datetime | None) -> datetime | None:
    return since.replace(tzinfo=UTC) if since and since.tzinfo is None else since

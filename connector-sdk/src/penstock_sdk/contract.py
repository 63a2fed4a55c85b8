"""The contract of a connector: the class that an author writes, and the types that it uses.

The author writes three functions: `authenticate`, `discover` and `read`. The platform has two of its own, `emit` and
`checkpoint`; the runtime calls them for every batch that `read` yields. Nothing here needs a platform:
`list(connector.read(stream, None, None))` works in a test.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeAlias, TypeVar, cast, get_args, get_origin
from uuid import UUID

import msgspec

from penstock_sdk.errors import ConnectorError, DefectError
from penstock_sdk.json_types import JsonSchema, JsonValue

__all__ = [
    "ArrowBatch",
    "Batch",
    "CollectingSink",
    "Connector",
    "Cursor",
    "CursorCare",
    "Drift",
    "Estimate",
    "FieldValue",
    "JsonSchema",
    "Mode",
    "Op",
    "Partition",
    "Record",
    "Records",
    "Sink",
    "Stream",
    "Window",
    "first_rows",
    "rows_of",
]

Mode = Literal["full", "incremental"]
"""How a stream is read: all of it in each run, or only what the last run has not read."""
Op = Literal["upsert", "delete"]
"""What happened to the records of a batch in the source: they exist with these values, or they were deleted.

Of a deleted record only the key counts.
"""
CursorCare = Literal["ties", "settled", "nulls", "order"]
"""A way in which a cursor can lose records, and which the connector's `read` prevents (`Stream.cursor_care`)."""
Cursor: TypeAlias = JsonValue
"""Where a read can resume: any JSON value. The platform stores it and does not look into it."""
if TYPE_CHECKING:
    from penstock_sdk.auth.base import Auth

    FieldValue: TypeAlias = (
        JsonValue
        | datetime
        | date
        | time
        | timedelta
        | Decimal
        | UUID
        | bytes
        | Sequence["FieldValue"]
        | Mapping[str, "FieldValue"]
    )
    """The value of one field: JSON, or a value that the SDK writes as JSON."""
    Record: TypeAlias = Mapping[str, FieldValue]
    """One row, by field name."""
else:  # msgspec cannot build a validator from a type that contains itself
    FieldValue = Any
    Record = Mapping[str, Any]

ConfigT_co = TypeVar("ConfigT_co", covariant=True)
CredentialsT_co = TypeVar("CredentialsT_co", covariant=True)


class ArrowBatch(Protocol):
    """The method of `pyarrow.RecordBatch` and `pyarrow.Table` that the SDK needs."""

    def to_pylist(self) -> Sequence[Record]:
        """Return the rows as dictionaries."""


Records = Sequence[Record] | bytes | ArrowBatch
"""Records in one of three forms: a sequence of dicts, the bytes of one JSON page (an array, or one object a line), or an
Arrow batch."""


class Partition(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a stream that can be read by itself, such as an interval of keys.

    `id` identifies the partition from run to run: its cursor is stored under this id, so the id must mean the same
    records as long as it exists. `bounds` is any JSON value from which `read` knows which records belong to the partition.
    It is stored in the state beside the cursor, so it must not hold a secret.
    """

    id: str
    bounds: JsonValue = None


class Window(msgspec.Struct, frozen=True):
    """A time span from `start` (inclusive) to `end` (exclusive). Both are aware datetimes in UTC."""

    start: datetime
    end: datetime

    def dates(self, zone: tzinfo) -> tuple[date, date]:
        """Return the first and the last local date of the window, both inclusive, for a source that is queried by day."""
        last = (self.end - timedelta(microseconds=1)).astimezone(zone)
        return self.start.astimezone(zone).date(), last.date()


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """An entity that the source offers.

    Required are `name` and `schema`, the JSON Schema (2020-12) of one record.

    - `primary_key`: the fields that identify a record.
    - `cursor_field`: the field that an incremental read follows, if there is one.
    - `modes`: the ways in which the stream can be read.
    - `pii`: the fields that hold personal data; a nested field is written as `address.street`.
    - `pii_suggested`: fields that may hold personal data, each with its class. The runtime adds fields whose names suggest
      it; `penstock_sdk.pii.suggest_fields(schema, rows)` also looks at sample records.
    - `id`: an identifier that stays the same when the entity is renamed in the source. State and Bronze use it. Without an
      id they use the name.
    - `partitioned`: True if `Connector.partitions` can divide the stream.
    - `cursor_care`: the ways of losing records that `read` prevents. `ties`: records that share the last value are
      distinguished by their keys. `settled`: a value is read only when no further record can get it. `nulls`: records
      without a value are read in another way. `order`: the source itself compares the values, and none is rounded.
    - `windows`: True if `read` can be limited to a time span, to read that span again. `read` then gets the stream with
      `window` set, the window's start as `since`, and cursors of that read only.
    - `only_full`: why the stream cannot be read incrementally, and what the user can change.
    - `unavailable`: the error with which a read of this stream would fail. `discover` returns the stream with this error
      instead of raising it, so only this stream fails, and only if it is selected. Its schema is not compared with earlier
      schemas.

    The runtime sets two more fields for `read`: `partition` is the partition to read, None for the whole stream; `window`
    is the time span to read again.
    """

    name: str
    schema: JsonSchema
    primary_key: tuple[str, ...] = ()
    cursor_field: str | None = None
    modes: tuple[Mode, ...] = ("full",)
    pii: tuple[str, ...] = ()
    id: str | None = None
    pii_suggested: Mapping[str, str] = {}
    partitioned: bool = False
    partition: Partition | None = None
    cursor_care: tuple[CursorCare, ...] = ()
    windows: bool = False
    window: Window | None = None
    only_full: str = ""
    unavailable: ConnectorError | None = None

    @property
    def identity(self) -> str:
        """What state and Bronze call the stream."""
        return self.id or self.name


class Batch(msgspec.Struct, frozen=True):
    """Records, and the cursor that covers them.

    A read that resumes from `cursor` must yield every record after this batch, and no record of this batch or before it.
    With None, the records are committed together with the next batch that has a cursor, or at the end of the stream.
    """

    records: Records
    cursor: Cursor | None = None
    op: Op = "upsert"


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """The expected cost of a read: counts, and bytes before compression. None means unknown."""

    records: int | None = None
    bytes: int | None = None
    api_calls: int | None = None


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """A change that the source announces, such as a field that will be removed or an API version that will end.

    `stream` is the stream's id, or its name if it has no id. `field` is the path of the field, empty for the whole stream.
    """

    stream: str
    message: str
    field: str = ""


class Sink(Protocol):
    """The receiver of `emit`, `checkpoint` and `reject`: the runtime's pipeline in a pod, a `CollectingSink` in a test."""

    def emit(self, records: Records, op: Op) -> None:
        """Receive records of the stream that is being read."""

    def checkpoint(self, state: Cursor) -> None:
        """Receive the cursor that covers everything emitted so far."""

    def reject(self, data: object, message: str) -> None:
        """Receive data of the stream that is being read and that cannot become a record."""


class CollectingSink:
    """The sink of a connector that runs without a platform: it collects everything in lists.

    `records` holds the rows, `states` the cursors in their order, `rejected` pairs of data and message.
    """

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.states: list[Cursor] = []
        self.rejected: list[tuple[object, str]] = []

    def emit(self, records: Records, op: Op) -> None:
        """Add the records, decoded. `op` is not stored."""
        del op
        self.records.extend(rows_of(records))

    def checkpoint(self, state: Cursor) -> None:
        """Add the cursor."""
        self.states.append(state)

    def reject(self, data: object, message: str) -> None:
        """Add the data with its message."""
        self.rejected.append((data, message))


def rows_of(records: Records) -> Sequence[Record]:
    """Return records of any of the three forms as dicts. Raises msgspec.DecodeError for a page that is not JSON."""
    if isinstance(records, bytes):
        if records.lstrip()[:1] == b"[":
            return msgspec.json.decode(records, type=list[dict[str, Any]])
        return msgspec.json.Decoder(dict[str, Any]).decode_lines(records)
    to_rows = getattr(records, "to_pylist", None)
    return cast("Sequence[Record]", to_rows() if to_rows else records)


def first_rows(records: Records, count: int) -> Sequence[Record]:
    """Return the first `count` records of any of the three forms as dicts; nothing for a page that is not JSON."""
    part = getattr(records, "slice", None)
    try:
        return rows_of(part(0, count) if part else records)[:count]
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return ()


class Connector(ABC, Generic[ConfigT_co, CredentialsT_co]):
    """One method of getting data from one kind of source.

    Parametrize the class with the types of its config and its credentials: `msgspec.Struct`s, or `dict`. Structs are
    validated before the first call; a mismatch is a ConfigError that names the field. An instance serves one attempt, in
    one thread. The runtime calls `authenticate`, `health`, `discover`, `drift`, `estimate` for each stream to read, `read`
    for one stream after the other, and `close`.

    Where partitions of a stream are read in parallel, each worker has its own instance, created and authenticated in the
    worker's thread. The runtime calls only `authenticate`, `read` and `close` on these instances.
    """

    def __init__(self, config: ConfigT_co, credentials: CredentialsT_co, sink: Sink | None = None) -> None:
        self.config = config
        self.credentials = credentials
        self.sink: Sink = sink or CollectingSink()
        self.keep_credential_hook: Callable[[str, str], None] | None = None
        self.authentication_hook: Callable[[], Auth] | None = None
        self._authentication: Auth | None = None

    @property
    def authentication(self) -> Auth:
        """The login that the manifest describes, an `httpx.Auth`. `authentication.client(base_url=...)` is a client with it.

        It raises the same errors as `authenticate`. In a unit test, set it to `penstock_sdk.auth.auth_for(...)`, or to any
        other `httpx.Auth` that the test needs.
        """
        if self._authentication is None:
            if self.authentication_hook is None:
                raise DefectError("no login: the runtime builds it; in a unit test, set connector.authentication first")
            self._authentication = self.authentication_hook()
        return self._authentication

    @authentication.setter
    def authentication(self, login: Auth) -> None:
        self._authentication = login

    @abstractmethod
    def authenticate(self) -> None:
        """Open the session with the source.

        Raise AuthenticationError when the source refuses the credentials (the message says what to fix), TransientError
        when the source cannot be reached now, ConfigError when the config cannot be right.
        """

    @abstractmethod
    def discover(self) -> Iterable[Stream]:
        """Return the streams that the source offers to these credentials, in any order, each name once.

        Called once per attempt, after `authenticate`. While the source does not change, return the same streams with the
        same schemas, down to the order of the fields: every difference from the registry is reported as drift. Raise the
        same errors as `authenticate`.
        """

    @abstractmethod
    def read(self, stream: Stream, since: datetime | None, cursor: Cursor | None) -> Iterator[Batch]:
        """Yield the stream's records with the cursors that cover them.

        `since` is the earliest time that is wanted (aware, UTC, inclusive). It only limits a read without a cursor. For a
        stream with `windows`, `stream.window` limits any read: yield nothing before its start, and nothing at or after its
        end. `cursor` is the cursor of an earlier batch as JSON returns it (a tuple has become a list), or None to read from
        the start. Where `stream.partition` is set, yield only that partition; `cursor` is then the partition's own.

        The runtime decides which cursors are committed, so a connector never counts records. The runtime takes the next
        batch only when it has room, so a generator that holds one page in memory never holds more. Raise any
        ConnectorError: records that a cursor covers at that time are committed.
        """

    def partitions(
        self, stream: Stream, since: datetime | None, cursor: Cursor | None, known: Sequence[Partition]
    ) -> Sequence[Partition]:
        """Return the partitions of a stream, to be read in parallel. Without partitions the stream is read as a whole.

        Each record belongs to exactly one partition, records that do not exist yet included. Called for streams with
        `partitioned`, if the connection allows parallel reads. `cursor` is the cursor of an earlier read of the whole
        stream: return no partitions unless they leave out what that cursor covers. `known` are the partitions of the
        previous run, whose cursors are stored. A partition that is returned again resumes from its cursor, one that is not
        returned is forgotten, and a new one is read from its start. So return all of `known` if other partitions would read
        records again.
        """
        del stream, since, cursor, known
        return ()

    def emit(self, records: Records, op: Op = "upsert") -> None:
        """Deliver records to Bronze in the standard envelope. Call it directly for a source that pushes its records.

        The runtime calls it for each yielded batch.
        """
        self.sink.emit(records, op)

    def checkpoint(self, state: Cursor) -> None:
        """Declare that the cursor `state` covers everything emitted so far, so that it can be committed.

        The runtime calls it for each yielded batch that has a cursor.
        """
        self.sink.checkpoint(state)

    def reject(self, data: object, message: str) -> None:
        """Set aside data that cannot be a record, such as a line that does not parse, and continue to read.

        The data goes to the stream's rejected objects with the next commit, and is counted. If the count exceeds the
        connection's threshold, the run fails. Call it before you yield the batch whose cursor covers the data. `message`
        says where the data was found and why it is not valid; it must not hold a value of the data.
        """
        self.sink.reject(data, message)

    def keep_credential(self, name: str, value: str) -> None:
        """Store a credential that the source has replaced, such as a rotated refresh token. Call it before you use the value.

        It returns when the platform has stored the value, encrypted. A crash after that loses nothing: `credentials` of the
        next attempt hold the new value. `name` is one of the manifest's credentials. If the owner changes the value in the
        Secret, the value of the Secret is used again. Without a platform the value is stored nowhere.
        """
        if not isinstance(name, str) or not isinstance(value, str):
            kind = type(value if isinstance(name, str) else name).__name__
            raise DefectError(f"keep_credential(name, value) got a {kind}; both must be text")
        if self.keep_credential_hook:
            self.keep_credential_hook(name, value)

    def health(self) -> None:
        """Check that the source can serve a run, at little cost. Raise the same errors as `authenticate`.

        Called after `authenticate`, for problems that do not depend on credentials: a replica that lags behind, a
        maintenance window, a quota that is used up.
        """
        return

    def estimate(self, stream: Stream, since: datetime | None, cursor: Cursor | None) -> Estimate | None:
        """Return the expected cost of `read` with the same arguments, or None if it is unknown.

        Called for each stream to read, before the first record is read. The run is refused if the sum exceeds the
        connection's budget. A ConnectorError does not fail the run: the stream then has no estimate.
        """
        del stream, since, cursor
        return None

    def not_offered(self, name: str) -> ConnectorError | None:
        """Return why `discover` did not return a selected stream, or None if the connector knows nothing of this name.

        Called for each stream that the connection selects and `discover` did not return. For example, the stream exists
        but these credentials may not see it, or the name is not a stream by itself. The stream fails with this error; the
        others are read.
        """
        del name
        return None

    def drift(self, streams: Sequence[Stream]) -> Iterable[Drift]:
        """Return the changes that the source announces for the streams of `discover`, in each run as long as it announces them.

        Do not return changes that have already happened: the platform finds them when it compares the schemas.
        """
        del streams
        return ()

    def close(self) -> None:
        """Release what `authenticate` opened. Called once, also after an error, and also if `authenticate` failed."""
        return

    @classmethod
    def argument_types(cls) -> tuple[type[object], type[object]]:
        """Return the config type and the credentials type with which the class was parametrized."""
        for base in cls.__mro__:
            for generic in getattr(base, "__orig_bases__", ()):
                arguments = get_args(generic)
                if (
                    isinstance(get_origin(generic), type)
                    and issubclass(get_origin(generic), Connector)
                    and len(arguments) > 1
                ):
                    return arguments[0], arguments[1]
        return dict, dict

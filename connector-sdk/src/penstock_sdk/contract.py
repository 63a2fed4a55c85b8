"""The contract: what an author writes, and what the platform calls.

Five functions: `authenticate`, `discover` and `read` are the author's; `emit` and `checkpoint` are the
platform's own and are called by the runtime for every batch that `read` yields. Nothing here needs a
platform: `list(connector.read(stream, None, None))` works in a test.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta, tzinfo
from typing import Any, Generic, Literal, Protocol, TypeVar, cast, get_args, get_origin

import msgspec

from penstock_sdk.errors import ConnectorError, DefectError

Mode = Literal["full", "incremental"]
"""How a stream is read: everything each time, or on from where the last run stood."""
Op = Literal["upsert", "delete"]
"""What a batch's records say of the source: they are there as they stand, or they are gone and only their keys count."""
CursorCare = Literal["ties", "settled", "nulls", "order"]
"""What a connector says that its `read` takes care of, where a cursor would lose records otherwise (`Stream.cursor_care`)."""
Cursor = Any
"""Where a stream's read stands: any JSON value; opaque to the platform."""
Record = Mapping[str, Any]
"""One row, by field; values are whatever JSON can hold, and moments, dates, decimals, UUIDs and bytes."""

ConfigT = TypeVar("ConfigT")
CredentialsT = TypeVar("CredentialsT")


class ArrowBatch(Protocol):
    """What the SDK needs of a `pyarrow.RecordBatch` or `pyarrow.Table`."""

    def to_pylist(self) -> list[dict[str, Any]]:
        """Return the rows as dictionaries."""


Records = Sequence[Record] | bytes | ArrowBatch
"""Rows as dictionaries, as one page of JSON (an array, or one object a line), or as an Arrow batch."""


class Partition(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a stream that can be read by itself, such as a range of keys.

    `id` names the part for as long as it means the same records: its cursor is kept under it from run to run. `bounds`
    is whatever `read` needs to know it by, as JSON, and never a secret: it is kept in the state beside the cursor.
    """

    id: str
    bounds: Any = None


class Window(msgspec.Struct, frozen=True):
    """A span of time from `start`, included, to `end`, excluded; both aware, in UTC."""

    start: datetime
    end: datetime

    def dates(self, zone: tzinfo) -> tuple[date, date]:
        """Return the first and the last local date of the window, both included, as reports by the day are asked for."""
        last = (self.end - timedelta(microseconds=1)).astimezone(zone)
        return self.start.astimezone(zone).date(), last.date()


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """An entity that the source offers.

    `schema` is a JSON Schema (2020-12) of one record; `primary_key` names the fields that identify a record;
    `cursor_field` is the field an incremental read follows, where there is one; `modes` are the ways it can be
    read; `pii` names the fields that hold personal data, a nested one as `address.street`. `id` is what stays the
    same when the source's people rename the entity: state and Bronze follow it. Without one they follow the name.
    `pii_suggested` are fields that look like personal data, each with its class; what their names suggest the runtime
    adds by itself, what samples suggest `penstock_sdk.pii.suggest_fields(schema, rows)` says. `partitioned` says that
    `Connector.partitions` can split the stream. `partition` is the part that `read` is asked for, and None when it is
    asked for all: the runtime sets it.

    `cursor_care` declares what `read` takes care of where a cursor would lose records otherwise: `ties` (records that
    share the last value are told apart by key), `settled` (a value is read only once nothing more can get it), `nulls`
    (records without a value are read in another way), `order` (the source itself compares the values, none is rounded).

    `windows` says that `read` can be limited to a span of time, to read it again: it gets the stream with `window` set
    then, the window's start as `since`, and cursors that are of that reading alone.

    `only_full` says why the stream cannot be read incrementally, and what to change, for whoever asks for that.

    `unavailable` is the error that a read of this stream would end with: `discover` met it, and returns the stream all the
    same. It fails this stream alone, and only where it is selected; its schema is not compared with an earlier one then.
    """

    name: str
    schema: dict[str, Any]
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
    """Records, and the promise that goes with them.

    `cursor` is a promise: a read resumed from it yields everything after this batch and nothing before it. None
    promises nothing: the records are committed with the next batch that does, or at the stream's end.
    """

    records: Records
    cursor: Cursor | None = None
    op: Op = "upsert"


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """What a read is expected to cost: counts, and bytes before compression; None where it cannot be said."""

    records: int | None = None
    bytes: int | None = None
    api_calls: int | None = None


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """A change that the source itself announces: a field that will go, a version of its API that will end.

    `stream` is the stream's id, or its name where it has none; `field` the field's path, empty for the whole stream.
    """

    stream: str
    message: str
    field: str = ""


class Sink(Protocol):
    """Where `emit` and `checkpoint` lead: the runtime's pipeline in a pod, a list in a test."""

    def emit(self, records: Records, op: Op) -> None:
        """Take records of the stream being read."""

    def checkpoint(self, state: Cursor) -> None:
        """Take the state that covers everything emitted so far."""

    def reject(self, data: Any, message: str) -> None:
        """Take what could not become a record of the stream being read."""


class CollectingSink:
    """The sink of a connector that runs without a platform: it keeps what it was given.

    `records` are the rows, `states` the promises in their order, `rejected` pairs of data and message.
    """

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.states: list[Cursor] = []
        self.rejected: list[tuple[Any, str]] = []

    def emit(self, records: Records, op: Op) -> None:
        """Keep the records, decoded; `op` is not kept."""
        del op
        self.records.extend(rows_of(records))

    def checkpoint(self, state: Cursor) -> None:
        """Keep the state."""
        self.states.append(state)

    def reject(self, data: Any, message: str) -> None:
        """Keep it with its message."""
        self.rejected.append((data, message))


def rows_of(records: Records) -> Sequence[Record]:
    """Return any of the three forms of `Records` as dictionaries.

    Raises msgspec.DecodeError when a JSON page is not JSON.
    """
    if isinstance(records, bytes):
        if records.lstrip()[:1] == b"[":
            return msgspec.json.decode(records, type=list[dict[str, Any]])
        return msgspec.json.Decoder(dict[str, Any]).decode_lines(records)
    to_rows = getattr(records, "to_pylist", None)
    return cast("Sequence[Record]", to_rows() if to_rows else records)


def first_rows(records: Records, count: int) -> Sequence[Record]:
    """Return the first of any of the three forms of `Records` as dictionaries; none of a page that is not JSON."""
    part = getattr(records, "slice", None)
    try:
        return rows_of(part(0, count) if part else records)[:count]
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return ()


class Connector(ABC, Generic[ConfigT, CredentialsT]):
    """One method of getting data from one kind of source.

    Parametrize it with the types of its config and credentials: `msgspec.Struct`s (validated before the first
    call: a mismatch is a ConfigError that names the field), or `dict`. An instance serves one attempt, in one thread;
    what it is told is `self.config` and `self.credentials`. The runtime calls `authenticate`, `health`, `discover`,
    `drift`, `estimate` for each stream that is to be read, `read` for one stream after the other, and `close`.
    Where parts of a stream are read side by side, each worker has an instance of its own, made and authenticated in its
    own thread; only the first one is asked for anything but `read`.
    """

    def __init__(self, config: ConfigT, credentials: CredentialsT, sink: Sink | None = None) -> None:
        self.config = config
        self.credentials = credentials
        self.sink: Sink = sink or CollectingSink()
        self.keep_credential_hook: Callable[[str, str], None] | None = None

    @abstractmethod
    def authenticate(self) -> None:
        """Open the session with the source.

        Raise AuthenticationError (saying what to fix) when the source refuses the credentials, TransientError when
        it cannot be reached now, ConfigError when the config cannot be right.
        """

    @abstractmethod
    def discover(self) -> Iterable[Stream]:
        """Return the streams that the source offers to these credentials, in any order, each name once.

        Called once an attempt, after `authenticate`; the answer must be the same as long as the source is, down to the
        order of a schema's fields, as every difference from the registry is drift. Raises as `authenticate` does.
        """

    @abstractmethod
    def read(self, stream: Stream, since: datetime | None, cursor: Cursor | None) -> Iterator[Batch]:
        """Yield the stream's records with the cursors that cover them.

        `since` is the oldest moment that is wanted (aware, UTC, inclusive), and only bounds a read that has no cursor; of a
        stream that says `windows`, a `stream.window` bounds any read: nothing at or after its end, nor before its start.
        `cursor` is a cursor of an earlier batch as JSON gives it back (a tuple is a list then), None for a read from the
        start. The runtime decides which promises become commits, so a connector never counts records. It takes the next
        batch only when there is room, so a generator that holds one page holds one page. Raise any ConnectorError:
        what is promised by then stays. Where `stream.partition` is set, only that part is wanted, and `cursor` is the
        part's own.
        """

    def partitions(
        self, stream: Stream, since: datetime | None, cursor: Cursor | None, known: Sequence[Partition]
    ) -> Sequence[Partition]:
        """Return parts of a stream that can be read side by side; none has it read in one.

        Each record belongs to exactly one part, those to come included. Asked of streams that say `partitioned`, and
        only where the connection allows parallel reads. `cursor` is where an earlier read in one stood: return none
        unless the parts leave out what it covers. `known` are the parts of the run before, whose cursors are kept: a
        part that is returned again goes on there, one that is left out is forgotten, a new one is read from its start.
        So return all of `known` where a changed split would have records read again.
        """
        del stream, since, cursor, known
        return ()

    def emit(self, records: Records, op: Op = "upsert") -> None:
        """Deliver records to Bronze in the standard envelope; for a source that pushes.

        The runtime calls it for each yielded batch.
        """
        self.sink.emit(records, op)

    def checkpoint(self, state: Cursor) -> None:
        """Promise that `state` covers everything emitted so far, so that it may be committed.

        The runtime calls it for each yielded batch that has a cursor.
        """
        self.sink.checkpoint(state)

    def reject(self, data: Any, message: str) -> None:
        """Put aside what the source gave and cannot be a record, such as a line that does not parse, and read on.

        It goes to the stream's rejected objects with the next commit, is counted, and past the connection's threshold
        the run fails; so call it before the batch whose cursor covers it is yielded. `message` says where it was found
        and why it does not fit, and never holds a value of it: `data` does.
        """
        self.sink.reject(data, message)

    def keep_credential(self, name: str, value: str) -> None:
        """Keep a credential that the source has replaced, such as a rotated refresh token; call it before using it.

        It returns once the platform has it, encrypted, so that a crash a moment later loses nothing: the next attempt's
        `credentials` hold it. `name` is one of the manifest's credentials. A new value in the Secret goes before it.
        Without a platform it is kept nowhere.
        """
        if not isinstance(name, str) or not isinstance(value, str):
            kind = type(value if isinstance(name, str) else name).__name__
            raise DefectError(f"keep_credential(name, value) was given a {kind}; both must be text")
        if self.keep_credential_hook:
            self.keep_credential_hook(name, value)

    def health(self) -> None:
        """Check cheaply that the source can serve a run; called after `authenticate`. Raise as it does.

        For what credentials do not say: a replica that lags behind, a maintenance window, a quota that is used up.
        """
        return

    def estimate(self, stream: Stream, since: datetime | None, cursor: Cursor | None) -> Estimate | None:
        """Say what `read` with the same arguments would cost; None where that is not known.

        Called before the first record is read, for each stream that will be; the run is refused when the sum exceeds
        the connection's budget. A ConnectorError fails no run: that stream counts for nothing.
        """
        del stream, since, cursor
        return None

    def not_offered(self, name: str) -> ConnectorError | None:
        """Return why a stream is not among those that `discover` returned; None where nothing is known of such a name.

        Called for each stream that the connection selects and the source does not offer: it may be there and withheld
        from these credentials, or be no stream by itself. The stream fails with this error, the others are read.
        """
        del name
        return None

    def drift(self, streams: Sequence[Stream]) -> Iterable[Drift]:
        """Return what the source announces of the streams that `discover` returned; told for as long as it says so.

        What has changed already needs no word: the platform compares schemas by itself.
        """
        del streams
        return ()

    def close(self) -> None:
        """Release what `authenticate` opened; called once, whatever happened, an `authenticate` that failed included."""
        return

    @classmethod
    def argument_types(cls) -> tuple[type[Any], type[Any]]:
        """Return the types of config and credentials that the class was parametrized with."""
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

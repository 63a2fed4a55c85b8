"""Connectors that do one thing wrong each. They are put beside the project's own connector and inherit from it.

Not imported by the tests: each is copied into a package of its own and run by the suite, as an author's would be.
"""

from __future__ import annotations

import base64
import ctypes
import os
import signal
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

import httpx
import msgspec
from penstock_sdk import (
    AuthenticationError,
    Batch,
    ConfigError,
    Cursor,
    Partition,
    SourceContractError,
    Stream,
    TransientError,
)
from penstock_sdk.http import Client, ClientLimits, Response
from penstock_trial_rest.connector import STREAMS, Config, TrialRest

Read = Iterator[Batch]


class FailsOnAPage(TrialRest):
    """reads: fails on a record that it does not expect."""

    def read(self, stream: Stream, since: datetime | None, cursor: Cursor | None) -> Read:
        for batch in super().read(stream, since, cursor):
            if any(row["id"] == 50 for row in batch.records):
                raise KeyError("colour")
            yield batch


class SaysLessThanItDoes(TrialRest):
    """manifest: the manifest declares full reads only (the test changes the manifest)."""


class WiderConfig(Config):
    """What the class of the next connector reads."""

    region: str = "eu"


class ReadsAnotherConfig(TrialRest):
    """manifest: the config class has a key that the manifest does not declare."""

    @classmethod
    def argument_types(cls) -> tuple[type[Any], type[Any]]:
        return WiderConfig, super().argument_types()[1]


class DatesItsCatalog(TrialRest):
    """catalog: the schema contains the time of the call."""

    def discover(self) -> tuple[Stream, ...]:
        (items,) = STREAMS
        return (msgspec.structs.replace(items, schema={**items.schema, "title": f"as of {time.time_ns()}"}),)


class ShufflesItsCatalog(TrialRest):
    """catalog: the fields come from a set, whose order differs between processes."""

    def discover(self) -> tuple[Stream, ...]:
        (items,) = STREAMS
        names = list({f"tag-{number}" for number in range(20)})
        return (msgspec.structs.replace(items, schema={**items.schema, "examples": names}),)


class Changing(TrialRest):
    """Changes records on their way."""

    def change(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        raise NotImplementedError

    def read(self, stream: Stream, since: datetime | None, cursor: Cursor | None) -> Read:
        for batch in super().read(stream, since, cursor):
            yield Batch([new for row in batch.records for new in self.change(row)], cursor=batch.cursor)


class WritesNumbersAsText(Changing):
    """schema: prices are text."""

    def change(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        return [{**row, "price": str(row["price"])}] if row["id"] == 7 else [row]


class AddsAField(Changing):
    """schema: records have a field that the schema does not declare."""

    def change(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        return [{**row, "colour": "red"}] if row["id"] == 7 else [row]


class SaysItTwice(Changing):
    """keys: the source joins tables, and a record occurs twice."""

    def change(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        return [row, row] if row["id"] == 50 else [row]


class StampsRecords(Changing):
    """reread: every read yields different records."""

    def change(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        return [{**row, "name": f"{row['name']} read at {time.time_ns()}"}]


class LeaksIntoRecords(Changing):
    """secrets: a record contains a link with the token."""

    def change(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        link = f"https://source.test/{row['id']}?token={self.credentials.token}"
        return [{**row, "name": link}] if row["id"] == 7 else [row]


class PrintsItsHeader(TrialRest):
    """secrets: writes the token in base64, as in a header, to the descriptor of standard output; in a pod the parent masks it."""

    def authenticate(self) -> None:
        os.write(1, base64.b64encode(self.credentials.token.encode()) + b"\n")
        super().authenticate()


class PromisesAhead(TrialRest):
    """resume: one cursor in the middle covers records that are yielded after it."""

    def read(self, stream: Stream, since: datetime | None, cursor: Cursor | None) -> Read:
        for batch in super().read(stream, since, cursor):
            ahead = {**batch.cursor, "seen": [*batch.cursor["seen"], [batch.cursor["at"], [[76]]]]}
            yield Batch(batch.records, cursor=ahead if batch.records[-1]["id"] == 75 else batch.cursor)


class RepeatsTheLastMoment(TrialRest):
    """boundary: the last cursor forgets the keys seen at the last timestamp."""

    def read(self, stream: Stream, since: datetime | None, cursor: Cursor | None) -> Read:
        last = None
        for batch in super().read(stream, since, cursor):
            last = batch.cursor
            yield batch
        if last:
            yield Batch([], cursor={**last, "seen": []})


class LeavesTheFirstMomentOut(TrialRest):
    """boundary: `since` is exclusive."""

    def read(self, stream: Stream, since: datetime | None, cursor: Cursor | None) -> Read:
        for batch in super().read(stream, since, cursor):
            moments = [datetime.fromisoformat(row["updated_at"]) for row in batch.records]
            rows = [row for row, moment in zip(batch.records, moments, strict=True) if since is None or moment > since]
            yield Batch(rows, cursor=batch.cursor)


class ReadsPastTheWindow(TrialRest):
    """boundary: a window that is read again has no end (the test declares windows in the manifest)."""

    def discover(self) -> tuple[Stream, ...]:
        (items,) = STREAMS
        return (msgspec.structs.replace(items, windows=True),)


class SaysNothingOfWindows(ReadsPastTheWindow):
    """manifest: the manifest does not declare windows, although the stream offers them."""

    def read(self, stream: Stream, since: datetime | None, cursor: Cursor | None) -> Read:
        end = stream.window.end if stream.window else None
        for batch in super().read(stream, since, cursor):
            rows = [row for row in batch.records if end is None or datetime.fromisoformat(row["updated_at"]) < end]
            yield Batch(rows, cursor=batch.cursor)


class MissesLateTies(TrialRest):
    """tie: the next run does not read the last timestamp again."""

    def read(self, stream: Stream, since: datetime | None, cursor: Cursor | None) -> Read:
        over = cursor["at"] if cursor and any([99] in keys for _, keys in cursor["seen"]) else None
        for batch in super().read(stream, since, cursor):
            yield Batch([row for row in batch.records if row["updated_at"] != over], cursor=batch.cursor)


class Following(TrialRest):
    """Follows another field, or says other things of it (the test changes the manifest where it must)."""

    field: ClassVar[str] = "updated_at"
    schema: ClassVar[dict[str, Any]] = {}
    known: ClassVar[dict[str, Any]] = {}

    def discover(self) -> tuple[Stream, ...]:
        (items,) = STREAMS
        properties = {**items.schema["properties"], **({self.field: self.schema} if self.schema else {})}
        required = {*items.schema["required"], self.field} & properties.keys()
        schema = {**items.schema, "properties": properties, "required": sorted(required)}
        return (msgspec.structs.replace(items, **{"schema": schema, "cursor_field": self.field, **self.known}),)


class FollowsWhatNobodyDeclared(Following):
    """cursor-safety: the cursor field is not in the schema."""

    field = "changed_at"


class FollowsWhatMayBeNull(Following):
    """cursor-safety: items that were never changed have no timestamp."""

    schema = {"type": ["string", "null"], "format": "date-time"}


class FollowsWhatMayBeMissing(TrialRest):
    """cursor-safety: the cursor field is optional."""

    def discover(self) -> tuple[Stream, ...]:
        (items,) = STREAMS
        return (msgspec.structs.replace(items, schema={**items.schema, "required": ["id"]}),)


class FollowsAnything(Following):
    """cursor-safety: the cursor field may have any type."""

    schema = {"description": "when it was changed"}


class FollowsAFloat(Following):
    """cursor-safety: the cursor field is a price, a float."""

    field = "price"


class FollowsText(Following):
    """cursor-safety: the cursor field is a name; source and connector sort it differently."""

    field = "name"


class FollowsAFlag(Following, Changing):
    """cursor-safety: the cursor field is a boolean."""

    field = "done"
    schema = {"type": "boolean"}

    def change(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        return [{**row, "done": row["id"] < 50}]


class FollowsADate(Following, Changing):
    """cursor-safety: the cursor field is a date; changes later on that day are lost."""

    field = "day"
    schema = {"type": "string", "format": "date"}
    known = {"cursor_care": ("ties",)}

    def change(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        return [{**row, "day": row["updated_at"][:10]}]


class FollowsWithoutAKey(Following):
    """cursor-safety: there is no primary key, so tied records cannot be distinguished."""

    known = {"primary_key": (), "cursor_care": ("ties",)}


class SaysNothingOfTies(Following):
    """cursor-safety: its items share timestamps, and it does not declare `ties`."""

    known = {"cursor_care": ()}


class SaysNothingOfWholeSeconds(Following):
    """cursor-safety: no two of its items share a timestamp yet, but all are whole seconds."""

    known = {"cursor_care": ()}

    def read(self, stream: Stream, since: datetime | None, cursor: Cursor | None) -> Read:
        for batch in super().read(stream, None, cursor):
            rows = [{**row, "updated_at": self.moment(row["id"])} for row in batch.records]
            kept = [row for row in rows if since is None or datetime.fromisoformat(row["updated_at"]) >= since]
            yield Batch(kept, cursor=batch.cursor)

    def moment(self, number: int) -> str:
        return f"2026-01-01T{number // 60:02}:{number % 60:02}:00+00:00"


class NeedsAFirstPage(TrialRest):
    """empty: expects at least one record."""

    def read(self, stream: Stream, since: datetime | None, cursor: Cursor | None) -> Read:
        batches = super().read(stream, since, cursor)
        if cursor is None:
            yield next(batches)
        yield from batches


class BlamesTheConfig(TrialRest):
    """wrong-credentials: reports wrong credentials as ConfigError."""

    def authenticate(self) -> None:
        try:
            super().authenticate()
        except AuthenticationError as error:
            raise ConfigError(error.message) from None


class TakesRevocationForTheEnd(TrialRest):
    """revoked-credentials: treats a refused page as the end of the data."""

    def read(self, stream: Stream, since: datetime | None, cursor: Cursor | None) -> Read:
        with suppress(AuthenticationError):
            yield from super().read(stream, since, cursor)


class CatchingClient(Client):
    """A client that never waits, and gives what is not available to its connector."""

    def __init__(self, connector: CatchesErrors) -> None:
        super().__init__(
            connector.config.base_url,
            headers={"Authorization": f"Bearer {connector.credentials.token}"},
            limits=ClientLimits(timeout=connector.config.timeout_seconds, longest_wait=0),
        )
        self._connector = connector

    def request(self, method: str, path: str, **options: Any) -> Response:
        while True:
            try:
                return super().request(method, path, **options)
            except TransientError as error:
                caught = self._connector.catch(error, path)
                if caught is not None:
                    return caught


class CatchesErrors(TrialRest):
    """Does something else with a TransientError."""

    def catch(self, error: TransientError, path: str) -> Response | None:
        """Return a response in place of the error; None to send the request again."""
        raise NotImplementedError

    def open_client(self) -> Client:
        return CatchingClient(self)


class LosesTheWish(CatchesErrors):
    """throttling: does not report Retry-After."""

    def catch(self, error: TransientError, path: str) -> Response | None:
        raise TransientError(error.message) from None


class TakesThrottlingForTheEnd(CatchesErrors):
    """throttling: treats a refused page as the end of the data."""

    def catch(self, error: TransientError, path: str) -> Response | None:
        if error.retry_after is None or path == "me":
            raise error
        return Response(200, httpx.Headers(), b'{"items": []}', httpx.URL(self.config.base_url), path)


class AsksAgainAtOnce(CatchesErrors):
    """throttling: repeats the request at once until it gets a response."""

    def catch(self, error: TransientError, path: str) -> Response | None:
        if error.retry_after is None:
            raise error
        return None


class BlamesTheSource(CatchesErrors):
    """slow-source: reports a missing response as SourceContractError."""

    def catch(self, error: TransientError, path: str) -> Response | None:
        if error.retry_after is not None:
            raise error
        raise SourceContractError(error.message) from None


class WaitsForEver(TrialRest):
    """slow-source: sets no timeout."""

    def open_client(self) -> Client:
        self.config = msgspec.structs.replace(self.config, timeout_seconds=100_000.0)
        return super().open_client()


class KeepsADirectory(TrialRest):
    """local-writes: creates a folder in the home directory; it opens no file for writing, so the write guard does not see it."""

    def authenticate(self) -> None:
        (Path.home() / ".trial").mkdir()
        super().authenticate()


class KeepsAFile(TrialRest):
    """local-writes: writes its cursor to a file, which the runtime refuses."""

    def read(self, stream: Stream, since: datetime | None, cursor: Cursor | None) -> Read:
        for batch in super().read(stream, since, cursor):
            Path("cursor.json").write_text(str(batch.cursor))
            yield batch


class CallsHome(TrialRest):
    """egress: contacts a host to count its users, with a C library and for a short time."""

    def authenticate(self) -> None:
        library = ctypes.CDLL(None)
        number = library.socket(socket.AF_INET, socket.SOCK_STREAM, 0)
        address = struct.pack("=H", socket.AF_INET) + struct.pack("!H", 9) + socket.inet_aton("127.0.0.1") + bytes(8)
        library.connect(number, address, len(address))
        library.close(number)
        super().authenticate()


class AsksForAName(TrialRest):
    """egress: sends data in a host name that it looks up."""

    def discover(self) -> tuple[Stream, ...]:
        with suppress(OSError):
            socket.getaddrinfo("telemetry.invalid", 443)
        return super().discover()


class CollectsPages(TrialRest):
    """memory: collects all pages before it yields the first batch."""

    def read(self, stream: Stream, since: datetime | None, cursor: Cursor | None) -> Read:
        yield from list(super().read(stream, since, cursor))


class IgnoresSignals(TrialRest):
    """sigterm: has its own signal handler."""

    def authenticate(self) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        super().authenticate()


class Splits(TrialRest):
    """Reads its stream in two ranges of ids, side by side; nothing is wrong with it."""

    middle: tuple[int, int] = (50, 50)

    def discover(self) -> tuple[Stream, ...]:
        (items,) = STREAMS
        return (msgspec.structs.replace(items, partitioned=True),)

    def partitions(
        self, stream: Stream, since: datetime | None, cursor: Cursor | None, known: Sequence[Partition]
    ) -> Sequence[Partition]:
        if known or cursor:
            return known
        end, start = self.middle
        return [Partition(id="low", bounds=[None, end]), Partition(id="high", bounds=[start, None])]

    def read(self, stream: Stream, since: datetime | None, cursor: Cursor | None) -> Read:
        low, high = stream.partition.bounds if stream.partition else (None, None)
        for batch in super().read(stream, since, cursor):
            rows = [
                row for row in batch.records if (low is None or row["id"] >= low) and (high is None or row["id"] < high)
            ]
            yield Batch(rows, cursor=batch.cursor)


class LeavesAGap(Splits):
    """partitions: the boundary belongs to no partition."""

    middle = (50, 51)


class Overlaps(Splits):
    """partitions: the boundary belongs to both partitions."""

    middle = (51, 50)


class NamesItsRangesAnew(Splits):
    """partitions: the same partitions have different ids each time, so no cursor is found again."""

    def partitions(
        self, stream: Stream, since: datetime | None, cursor: Cursor | None, known: Sequence[Partition]
    ) -> Sequence[Partition]:
        parts = super().partitions(stream, since, cursor, known)
        return (
            parts
            if known
            else [msgspec.structs.replace(partition, id=f"{partition.id}-{time.time_ns()}") for partition in parts]
        )

"""Connectors that do one thing wrong each. They are put beside the project's own connector and inherit from it.

Not imported by the tests: each is copied into a package of its own and run by the suite, as an author's would be.
"""

from __future__ import annotations

import base64
import ctypes
import signal
import socket
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

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
from penstock_trial_rest.connector import STREAMS, Config, TrialRest

Read = Iterator[Batch]


class FailsOnAPage(TrialRest):
    """reads: a record that it did not expect."""

    def read(self, stream: Stream, since: datetime | None, cursor: Cursor | None) -> Read:
        for batch in super().read(stream, since, cursor):
            if any(row["id"] == 50 for row in batch.records):
                raise KeyError("colour")
            yield batch


class SaysLessThanItDoes(TrialRest):
    """manifest: it is said to read in full only (the test changes the manifest)."""


class WiderConfig(Config):
    """What the class of the next connector reads."""

    region: str = "eu"


class ReadsAnotherConfig(TrialRest):
    """manifest: the class knows a key that the manifest does not."""

    @classmethod
    def argument_types(cls) -> tuple[type[Any], type[Any]]:
        return WiderConfig, super().argument_types()[1]


class DatesItsCatalog(TrialRest):
    """catalog: the schema says when it was asked for."""

    def discover(self) -> tuple[Stream, ...]:
        (items,) = STREAMS
        return (msgspec.structs.replace(items, schema={**items.schema, "title": f"as of {time.time_ns()}"}),)


class ShufflesItsCatalog(TrialRest):
    """catalog: the fields come from a set, whose order is another in each process."""

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
    """schema: a price in quotes."""

    def change(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        return [{**row, "price": str(row["price"])}] if row["id"] == 7 else [row]


class AddsAField(Changing):
    """schema: a field that nobody declared."""

    def change(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        return [{**row, "colour": "red"}] if row["id"] == 7 else [row]


class SaysItTwice(Changing):
    """keys: the source joins, and a record comes twice."""

    def change(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        return [row, row] if row["id"] == 50 else [row]


class StampsRecords(Changing):
    """reread: every read gives other records."""

    def change(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        return [{**row, "name": f"{row['name']} read at {time.time_ns()}"}]


class LeaksIntoRecords(Changing):
    """secrets: a link that opens the source is a record's value."""

    def change(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        link = f"https://source.test/{row['id']}?token={self.credentials.token}"
        return [{**row, "name": link}] if row["id"] == 7 else [row]


class PrintsItsHeader(TrialRest):
    """secrets: the token in base64, as a header has it, which no mask knows."""

    def authenticate(self) -> None:
        print(base64.b64encode(self.credentials.token.encode()).decode())
        super().authenticate()


class PromisesAhead(TrialRest):
    """resume: one cursor in the middle covers records that come after it."""

    def read(self, stream: Stream, since: datetime | None, cursor: Cursor | None) -> Read:
        for batch in super().read(stream, since, cursor):
            ahead = {**batch.cursor, "seen": [*batch.cursor["seen"], [batch.cursor["at"], [[76]]]]}
            yield Batch(batch.records, cursor=ahead if batch.records[-1]["id"] == 75 else batch.cursor)


class RepeatsTheLastMoment(TrialRest):
    """boundary: what it says at the very end forgets what was seen at the last moment."""

    def read(self, stream: Stream, since: datetime | None, cursor: Cursor | None) -> Read:
        last = None
        for batch in super().read(stream, since, cursor):
            last = batch.cursor
            yield batch
        if last:
            yield Batch([], cursor={**last, "seen": []})


class LeavesTheFirstMomentOut(TrialRest):
    """boundary: `since` is taken as after, and not as at or after."""

    def read(self, stream: Stream, since: datetime | None, cursor: Cursor | None) -> Read:
        for batch in super().read(stream, since, cursor):
            moments = [datetime.fromisoformat(row["updated_at"]) for row in batch.records]
            rows = [row for row, moment in zip(batch.records, moments, strict=True) if since is None or moment > since]
            yield Batch(rows, cursor=batch.cursor)


class ReadsPastTheWindow(TrialRest):
    """boundary: what is to be read again has no end for it (the test says in the manifest that it can)."""

    def discover(self) -> tuple[Stream, ...]:
        (items,) = STREAMS
        return (msgspec.structs.replace(items, windows=True),)


class SaysNothingOfWindows(ReadsPastTheWindow):
    """manifest: a command that would read a window again is refused, though the stream could."""

    def read(self, stream: Stream, since: datetime | None, cursor: Cursor | None) -> Read:
        end = stream.window.end if stream.window else None
        for batch in super().read(stream, since, cursor):
            rows = [row for row in batch.records if end is None or datetime.fromisoformat(row["updated_at"]) < end]
            yield Batch(rows, cursor=batch.cursor)


class MissesLateTies(TrialRest):
    """tie: when it comes back, the last moment is over for it."""

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
    """cursor-safety: a field that is not in the schema."""

    field = "changed_at"


class FollowsWhatMayBeNull(Following):
    """cursor-safety: items that were never changed have no moment."""

    schema = {"type": ["string", "null"], "format": "date-time"}


class FollowsWhatMayBeMissing(TrialRest):
    """cursor-safety: not every item need have the field."""

    def discover(self) -> tuple[Stream, ...]:
        (items,) = STREAMS
        return (msgspec.structs.replace(items, schema={**items.schema, "required": ["id"]}),)


class FollowsAnything(Following):
    """cursor-safety: any value will do."""

    schema = {"description": "when it was changed"}


class FollowsAFloat(Following):
    """cursor-safety: prices grow, mostly."""

    field = "price"


class FollowsText(Following):
    """cursor-safety: names have an order here, and another one there."""

    field = "name"


class FollowsAFlag(Following, Changing):
    """cursor-safety: true comes after false."""

    field = "done"
    schema = {"type": "boolean"}

    def change(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        return [{**row, "done": row["id"] < 50}]


class FollowsADate(Following, Changing):
    """cursor-safety: what is changed later that day is passed; telling ties apart does not help."""

    field = "day"
    schema = {"type": "string", "format": "date"}
    known = {"cursor_care": ("ties",)}

    def change(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        return [{**row, "day": row["updated_at"][:10]}]


class FollowsWithoutAKey(Following):
    """cursor-safety: ties cannot be told apart."""

    known = {"primary_key": (), "cursor_care": ("ties",)}


class SaysNothingOfTies(Following):
    """cursor-safety: its items share moments."""

    known = {"cursor_care": ()}


class SaysNothingOfWholeSeconds(Following):
    """cursor-safety: no two of its items share a moment yet, and each is a whole second."""

    known = {"cursor_care": ()}

    def read(self, stream: Stream, since: datetime | None, cursor: Cursor | None) -> Read:
        for batch in super().read(stream, None, cursor):
            rows = [{**row, "updated_at": self.moment(row["id"])} for row in batch.records]
            kept = [row for row in rows if since is None or datetime.fromisoformat(row["updated_at"]) >= since]
            yield Batch(kept, cursor=batch.cursor)

    def moment(self, number: int) -> str:
        return f"2026-01-01T{number // 60:02}:{number % 60:02}:00+00:00"


class NeedsAFirstPage(TrialRest):
    """empty: there is always something, is there not?"""

    def read(self, stream: Stream, since: datetime | None, cursor: Cursor | None) -> Read:
        batches = super().read(stream, since, cursor)
        if cursor is None:
            yield next(batches)
        yield from batches


class BlamesTheConfig(TrialRest):
    """wrong-credentials: the source's refusal is the config's fault."""

    def authenticate(self) -> None:
        try:
            super().authenticate()
        except AuthenticationError as error:
            raise ConfigError(error.message) from None


class TakesRevocationForTheEnd(TrialRest):
    """revoked-credentials: a page that is refused is the last."""

    def read(self, stream: Stream, since: datetime | None, cursor: Cursor | None) -> Read:
        with suppress(AuthenticationError):
            yield from super().read(stream, since, cursor)


class LosesTheWish(TrialRest):
    """throttling: for how long the source wants to be left alone is not passed on."""

    def _get(self, path: str, parameters: Mapping[str, str | int]) -> list[dict[str, Any]]:
        try:
            return super()._get(path, parameters)
        except TransientError as error:
            raise TransientError(error.message) from None


class TakesThrottlingForTheEnd(TrialRest):
    """throttling: a page that is refused is the last."""

    def _get(self, path: str, parameters: Mapping[str, str | int]) -> list[dict[str, Any]]:
        try:
            return super()._get(path, parameters)
        except TransientError as error:
            if error.retry_after is None or path == "me":
                raise
            return []


class AsksAgainAtOnce(TrialRest):
    """throttling: it asks until it is answered."""

    def _get(self, path: str, parameters: Mapping[str, str | int]) -> list[dict[str, Any]]:
        while True:
            try:
                return super()._get(path, parameters)
            except TransientError as error:
                if error.retry_after is None:
                    raise


class BlamesTheSource(TrialRest):
    """slow-source: silence is said to be for good."""

    def _get(self, path: str, parameters: Mapping[str, str | int]) -> list[dict[str, Any]]:
        try:
            return super()._get(path, parameters)
        except TransientError as error:
            if error.retry_after is not None:
                raise
            raise SourceContractError(error.message) from None


class WaitsForEver(TrialRest):
    """slow-source: no timeout."""

    def authenticate(self) -> None:
        super().authenticate()
        self._session.timeout = None


class KeepsADirectory(TrialRest):
    """local-writes: what it makes at home is not opened for writing, so that no guard in the process sees it."""

    def authenticate(self) -> None:
        (Path.home() / ".trial").mkdir()
        super().authenticate()


class KeepsAFile(TrialRest):
    """local-writes: a note of where it stands, which the runtime itself refuses."""

    def read(self, stream: Stream, since: datetime | None, cursor: Cursor | None) -> Read:
        for batch in super().read(stream, since, cursor):
            Path("cursor.json").write_text(str(batch.cursor))
            yield batch


class CallsHome(TrialRest):
    """egress: it counts its users, through a library in C and for a moment only."""

    def authenticate(self) -> None:
        library = ctypes.CDLL(None)
        number = library.socket(socket.AF_INET, socket.SOCK_STREAM, 0)
        address = struct.pack("=H", socket.AF_INET) + struct.pack("!H", 9) + socket.inet_aton("127.0.0.1") + bytes(8)
        library.connect(number, address, len(address))
        library.close(number)
        super().authenticate()


class AsksForAName(TrialRest):
    """egress: a name that it looks up is a message, too."""

    def discover(self) -> tuple[Stream, ...]:
        with suppress(OSError):
            socket.getaddrinfo("telemetry.invalid", 443)
        return super().discover()


class CollectsPages(TrialRest):
    """memory: everything first, then the first batch."""

    def read(self, stream: Stream, since: datetime | None, cursor: Cursor | None) -> Read:
        yield from list(super().read(stream, since, cursor))


class IgnoresSignals(TrialRest):
    """sigterm: it has a handler of its own."""

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
    """partitions: the border belongs to no range."""

    middle = (50, 51)


class Overlaps(Splits):
    """partitions: the border belongs to both."""

    middle = (51, 50)


class NamesItsRangesAnew(Splits):
    """partitions: the same ranges have other names each time, so no cursor is ever found again."""

    def partitions(
        self, stream: Stream, since: datetime | None, cursor: Cursor | None, known: Sequence[Partition]
    ) -> Sequence[Partition]:
        parts = super().partitions(stream, since, cursor, known)
        return parts if known else [msgspec.structs.replace(each, id=f"{each.id}-{time.time_ns()}") for each in parts]

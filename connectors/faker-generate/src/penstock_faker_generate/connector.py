"""The connector. Record n of a stream depends on seed, stream and n only, so missing and repeated records can be proven.

Records share their nested values, which are made once: a source that costs almost nothing shows what the platform costs.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import lru_cache

import msgspec
from penstock_sdk import Batch, ConfigError, Connector, Cursor, Estimate, Partition, Record, Stream, TransientError
from penstock_sdk.json_types import JsonSchema

BLOCK = 500
MOST_RECORDS = 10**15
MOST_IN_BATCH = 100_000
MOST_PARTITIONS = 100
LONGEST_PAUSE = 86_400
PAUSE_STEP_SECONDS = 0.2
BEGAN = 1_700_000_000
"""The time of the first event, in seconds since 1970; each event is one second after the one before."""
FIRST = ("Ada", "Grace", "Alan", "Edsger", "Barbara", "Donald", "Leslie", "Margaret", "Tim", "Radia", "Ken", "Frances")
LAST = ("Lovelace", "Hopper", "Turing", "Dijkstra", "Liskov", "Knuth", "Lamport", "Hamilton", "Lee", "Perlman", "Allen")
CITIES = (
    "Paris",
    "Lagos",
    "Lima",
    "Osaka",
    "Oslo",
    "Quito",
    "Hanoi",
    "Cairo",
    "Perth",
    "Turin",
    "Leeds",
    "Kyiv",
    "Pune",
)
KINDS = ("viewed", "ordered", "paid", "shipped", "returned")
NOTES = tuple(
    f"a note of some length, number {index:03d}, which makes the record as long as real ones are" for index in range(64)
)
NAMES = tuple({"first": first, "last": last} for first in FIRST for last in LAST)
ADDRESSES = tuple(
    {"street": f"{number % 512} Main Street", "city": CITIES[number % 13], "zip": f"{number * 21 % 90_000 + 10_000}"}
    for number in range(4096)
)
TAGS = tuple([kind, city] for kind in KINDS for city in CITIES[:7])
STREAMS = ("people", "events")

TEXT, NUMBER = {"type": "string"}, {"type": "integer"}
SCHEMAS: dict[str, JsonSchema] = {
    "people": {
        "type": "object",
        "properties": {
            "n": NUMBER,
            "name": {"type": "object", "properties": {"first": TEXT, "last": TEXT}},
            "email": TEXT,
            "address": {"type": "object", "properties": {"street": TEXT, "city": TEXT, "zip": TEXT}},
            "balance": {"type": "number"},
            "active": {"type": "boolean"},
            "tags": {"type": "array", "items": TEXT},
            "note": TEXT,
        },
        "required": ["n"],
    },
    "events": {
        "type": "object",
        "properties": {"n": NUMBER, "kind": TEXT, "person": NUMBER, "at": NUMBER, "payload": {"type": "object"}},
        "required": ["n"],
    },
}


class FakerConfig(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """The options in `spec.config`. `records` is per stream; `partitions` is for runs with spec.parallelism.

    For trials, `fail_after` ends a read from the start after so many records, and `pause_after` pauses it for
    `pause_seconds`, so that a run can be disturbed after its first records are committed.
    """

    records: int = 1000
    seed: int = 0
    batch_size: int = BLOCK
    partitions: int = 1
    fail_after: int | None = None
    delay_seconds: float = 0.0
    pause_after: int | None = None
    pause_seconds: float = 60.0


@lru_cache(maxsize=4)  # a batch may be smaller than a block
def _block(seed: int, stream: str, block: int) -> list[int]:
    bits = random.Random(f"{seed}/{stream}/{block}").getrandbits(32 * BLOCK)  # noqa: S311 - not a secret
    return memoryview(bits.to_bytes(4 * BLOCK, "little")).cast("I").tolist()


def _people(first: int, numbers: list[int]) -> list[Record]:
    return [
        {
            "n": n,
            "name": NAMES[r % 132],
            "email": f"user{n}@example.com",
            "address": ADDRESSES[r & 4095],
            "balance": r / 100,
            "active": r & 1 == 0,
            "tags": TAGS[r % 35],
            "note": NOTES[r & 63],
        }
        for n, r in enumerate(numbers, first)
    ]


def _events(first: int, numbers: list[int]) -> list[Record]:
    return [
        {
            "n": n,
            "kind": KINDS[r % 5],
            "person": r % 1000,
            "at": BEGAN + n,
            "payload": {"amount": r / 100, "city": CITIES[r % 13], "note": NOTES[r & 63]},
        }
        for n, r in enumerate(numbers, first)
    ]


MAKERS = {"people": _people, "events": _events}


def records(seed: int, stream: str, start: int, stop: int) -> list[Record]:
    """Return the records start (included) to stop (excluded)."""
    make, made = MAKERS[stream], list[Record]()
    for block in range(start // BLOCK, (stop + BLOCK - 1) // BLOCK):
        first = block * BLOCK
        low, high = max(start - first, 0), min(stop - first, BLOCK)
        made += make(first + low, _block(seed, stream, block)[low:high])
    return made


_Bounds = tuple[int, int | None]
"""The bounds of a partition: its first record number, and the one after its last, or None for no end."""


class _Next(msgspec.Struct, frozen=True):
    """A cursor: the number of the next record."""

    next: int


class FakerGenerate(Connector[FakerConfig, dict[str, str]]):
    """Generates records."""

    def authenticate(self) -> None:
        """Check the config; there are no credentials."""
        config = self.config
        for name, value, least, most in (
            ("records", config.records, 0, MOST_RECORDS),
            ("batchSize", config.batch_size, 1, MOST_IN_BATCH),
            ("partitions", config.partitions, 1, MOST_PARTITIONS),
            ("failAfter", config.fail_after or 0, 0, MOST_RECORDS),
            ("delaySeconds", config.delay_seconds, 0, LONGEST_PAUSE),
            ("pauseAfter", 1 if config.pause_after is None else config.pause_after, 1, MOST_RECORDS),
            ("pauseSeconds", config.pause_seconds, 0, LONGEST_PAUSE),
        ):
            if not least <= value <= most:
                raise ConfigError(f"spec.config.{name}: it must be from {least} to {most}")

    def discover(self) -> list[Stream]:
        """Return the two streams."""
        return [
            Stream(
                name=name,
                schema=SCHEMAS[name],
                primary_key=("n",),
                cursor_field="n",
                modes=("full", "incremental"),
                partitioned=True,
                windows=name == "events",
            )
            for name in STREAMS
        ]

    def partitions(
        self, stream: Stream, since: datetime | None, cursor: Cursor | None, known: Sequence[Partition]
    ) -> Sequence[Partition]:
        """Return partitions of equal length, by record number. The last one has no end: later records are in it."""
        del stream, since
        if known or cursor or self.config.partitions == 1 or not self.config.records:
            return known
        length = -(-self.config.records // self.config.partitions)
        starts = range(0, self.config.records, length) if length else ()
        ends = [*starts[1:], None]
        return [Partition(id=f"from-{start}", bounds=[start, end]) for start, end in zip(starts, ends, strict=True)]

    def _span(self, stream: Stream, cursor: Cursor | None) -> tuple[int, int]:
        """Return the first record number to read, and the one after the last."""
        start, end = msgspec.convert(stream.partition.bounds, _Bounds) if stream.partition else (0, None)
        if stream.window:
            spans = (math.ceil(moment.timestamp()) - BEGAN for moment in (stream.window.start, stream.window.end))
            start, end = (min(self.config.records, max(0, number)) for number in spans)
        return msgspec.convert(cursor, _Next).next if cursor else start, self.config.records if end is None else end

    def estimate(self, stream: Stream, since: datetime | None, cursor: Cursor | None) -> Estimate:
        """Return how many records are left; the number is exact."""
        del since
        start, end = self._span(stream, cursor)
        return Estimate(records=max(0, end - start))

    def read(self, stream: Stream, since: datetime | None, cursor: Cursor | None) -> Iterator[Batch]:
        """Yield the records from the cursor on. A cursor is the number of the next record."""
        del since
        number, end = self._span(stream, cursor)
        first, size, fail_after = number, self.config.batch_size, self.config.fail_after
        while number < end:
            stop = min(number + size, end)
            if fail_after is not None and cursor is None and stop - first > fail_after:
                message = f"failing after {fail_after} records, as spec.config.failAfter says"
                raise TransientError(message)
            yield Batch(records(self.config.seed, stream.name, number, stop), cursor={"next": stop})
            number = stop
            if self.config.delay_seconds:
                time.sleep(self.config.delay_seconds)
            if self._pauses(cursor, stop):
                yield from self._pause(stop)

    def _pauses(self, cursor: Cursor | None, number: int) -> bool:
        after = self.config.pause_after
        return cursor is None and after is not None and number - self.config.batch_size < after <= number

    def _pause(self, number: int) -> Iterator[Batch]:
        """Pause between batches, with empty batches, so that a run can be cancelled meanwhile."""
        end = time.monotonic() + self.config.pause_seconds
        while time.monotonic() < end:
            time.sleep(PAUSE_STEP_SECONDS)
            yield Batch([], cursor={"next": number})

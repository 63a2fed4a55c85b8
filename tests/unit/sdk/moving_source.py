"""A source that changes while it is read, and a platform that is killed: what a reading must survive."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st
from penstock_sdk import Batch, Cursor

BASE = datetime(2026, 3, 1, tzinfo=UTC)
LATE, SIZE, MOST_TIES = 4, 5, 3
"""Seconds by which a record may come late; records of a page; records that may share a moment."""
Row = dict[str, Any]
Read = Callable[["Source", Cursor | None], Iterator[Batch]]
Action = tuple[str, int]


def at(seconds: int) -> datetime:
    return BASE + timedelta(seconds=seconds)


def seconds(row: Row) -> int:
    return int((datetime.fromisoformat(row["at"]) - BASE).total_seconds())


@dataclass
class Source:
    """Rows with a key, the second of their last change, and a version that tells each change from every other."""

    story: list[list[Action]]
    clock: int = 10
    rows: dict[int, Row] = field(default_factory=dict)
    versions: int = 0

    def __post_init__(self) -> None:
        for number in range(8):
            self._put(number, number // 2)

    def _put(self, key: int, second: int) -> None:
        ties = [row for row in self.rows.values() if seconds(row) == second and row["id"] != key]
        if len(ties) >= MOST_TIES:
            self.clock += 1
            return
        self.versions += 1
        self.rows[key] = {"id": key, "at": at(second).isoformat(), "version": self.versions}

    def act(self, action: Action) -> None:
        """Change: a record comes (late), is changed, is deleted; or time goes by."""
        what, number = action
        keys = sorted(self.rows)
        if what == "pass":
            self.clock += number
        elif what == "insert":
            self._put(100 + self.versions, self.clock - number % (LATE + 1))
        elif keys and what == "update":
            self._put(keys[number % len(keys)], self.clock)
        elif keys:
            del self.rows[keys[number % len(keys)]]

    def tell(self) -> None:
        """Go on with the story: called before each answer."""
        for action in self.story.pop(0) if self.story else []:
            self.act(action)

    def now(self) -> datetime:
        return at(self.clock)

    def sorted_page(self, start: datetime | None) -> list[Row]:
        """Answer as a source does that filters by >= and sorts."""
        self.tell()
        return self.found(start)[:SIZE]

    def found(self, start: datetime | None, end: datetime | None = None) -> list[Row]:
        rows = [
            row
            for row in self.rows.values()
            if (start is None or row["at"] >= start.isoformat()) and (end is None or row["at"] < end.isoformat())
        ]
        return sorted(rows, key=lambda row: (row["at"], row["id"]))

    def unsorted_pages(self, start: datetime | None) -> Iterator[list[Row]]:
        """Answer page by page in the order of the keys, hashed; a row is where its key is, whatever becomes of it."""
        last = -1
        while True:
            self.tell()
            rows = sorted((row for row in self.found(start) if _place(row) > last), key=_place)[:SIZE]
            if not rows:
                return
            last = _place(rows[-1])
            yield rows


def _place(row: Row) -> int:
    return (row["id"] * 7919) % 104_729


@dataclass
class Told:
    """What came of a story: what is committed, in order, and the source as it stands at the end."""

    source: Source
    committed: list[Row]

    def missing(self, *fields: str) -> list[Row]:
        """Return rows that stand in the source and were never committed as they are."""
        names = fields or ("id", "at")
        had = {tuple(row[name] for name in names) for row in self.committed}
        return [row for row in self.source.rows.values() if tuple(row[name] for name in names) not in had]

    def doubles(self) -> list[Any]:
        """Return what was committed more than once, with the same value."""
        counted = Counter((row["id"], row["at"]) for row in self.committed)
        return [item for item, count in counted.items() if count > 1]


@dataclass(frozen=True)
class Story:
    """What happens before each answer, after how many batches each attempt is killed, and which promises are committed."""

    actions: list[list[Action]]
    kills: list[int]
    every: int

    def tell(self, read: Read) -> Told:
        """Carry attempts until one reads to the end after everything has happened."""
        source = Source([list(action) for action in self.actions])
        committed: list[Row] = []
        cursor: Cursor | None = None
        for kill in [*self.kills, 0]:
            cursor = _attempt(source, read, cursor, committed, kill, self.every)
        while source.story:
            source.tell()
        source.clock += 10 * LATE
        _attempt(source, read, cursor, committed, 0, self.every)
        return Told(source, committed)


def _attempt(source: Source, read: Read, cursor: Cursor | None, committed: list[Row], kill: int, every: int) -> Cursor:
    """Read, commit at promises, and be killed after so many batches: what no commit covers is lost."""
    pending: list[Row] = []
    promises, promised = 0, cursor
    for number, batch in enumerate(read(source, cursor), 1):
        pending += [dict(row) for row in batch.records]  # type: ignore[union-attr, arg-type]
        if batch.cursor is not None:
            promises, promised = promises + 1, json.loads(json.dumps(batch.cursor))
            if promises % every == 0:
                committed += pending
                cursor, pending = promised, []
        if number == kill:
            return cursor
    committed += pending
    return promised


ACTIONS = st.one_of(
    st.tuples(st.just("insert"), st.integers(0, LATE)),
    st.tuples(st.just("update"), st.integers(0, 20)),
    st.tuples(st.just("delete"), st.integers(0, 20)),
    st.tuples(st.just("pass"), st.integers(1, 6)),
)
STORIES = st.builds(
    Story,
    st.lists(st.lists(ACTIONS, max_size=5), max_size=14),
    st.lists(st.integers(1, 4), max_size=4),
    st.integers(1, 3),
)

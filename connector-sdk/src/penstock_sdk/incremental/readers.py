"""Three ways to read on: a sorted source, one in any order, and one in the order of its key."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from penstock_sdk.contract import Batch, Cursor, Record
from penstock_sdk.errors import SourceContractError
from penstock_sdk.incremental.record_checks import Key, RecordCheck, Reject, RepeatGuard, key_values, one_kind
from penstock_sdk.incremental.timestamps import Value, has_clock
from penstock_sdk.incremental.watermark import CursorField, Watermark

Rows = Sequence[Record]
Placed = list[tuple[Value, Record]]
"""Records with their values."""
SHORTEST_LIMIT = 10


def follow(
    fetch: Callable[[Value], Rows],
    cursor_field: CursorField,
    cursor: Cursor | None,
    *,
    size: int,
    since: Value = None,
    until: Value = None,
    reject: Reject | None = None,
) -> Iterator[Batch]:
    """Read a source that filters and sorts by the trail's field, up to `until` (excluded).

    `fetch(value)` returns the first `size` records whose field is at or after `value` (None: of all), in its order. It
    is always asked by value and never by page number, so that records which are changed or deleted meanwhile shift
    nothing; what it gives from before `value` is dropped. An overlap over numbers or local times needs `until`, the
    highest there was when the read began. A record without its key or value goes to `reject` (give `self.reject`).
    Raises SourceContractError without `reject`, when the source is not sorted or ignores `value`, or when more than a
    page share one value.
    """
    watermark, passed = cursor_field.watermark(cursor), dict[Key, Value]()
    check = RecordCheck(
        cursor_field.comparable_value,
        reject,
        one_kind(watermark.at, {"since": since, "until": until}),
        cursor_field.name,
    )
    start, limit = watermark.start_since(since), _PageLimit(size)
    while rows := fetch(start):
        placed = check(rows)
        if not placed:
            check.finish()
            limit.refuse_full(cursor_field, rows)
            return
        values = [value for value, _ in placed]
        if values != sorted(values):
            raise SourceContractError(f"the source does not sort by {cursor_field.name!r}: read it with scan()")
        if cursor_field.overlap is not None and until is None and not has_clock(values[-1]):
            raise ValueError("until: say the highest value there is now; no clock tells what comes during the read")
        wanted = [row for value, row in placed if _within(value, start, until)]
        fresh = [
            row for row in watermark.unseen(wanted) if passed.get(cursor_field.key_of(row)) != cursor_field.value(row)
        ]
        watermark = watermark.advanced(fresh)
        if fresh:
            yield Batch(fresh, cursor=watermark.cursor)
        passed = {cursor_field.key_of(row): value for value, row in placed if value == values[-1]}
        if (until is not None and values[-1] >= until) or not limit.goes_on(cursor_field, start, values, len(rows)):
            return
        start = values[-1]


def _within(value: Value, start: Value, until: Value) -> bool:
    return (start is None or value >= start) and (until is None or value < until)


@dataclass
class _PageLimit:
    """How many records a full page has: `size`, or fewer where the source has shown that it gives fewer at a time."""

    size: int
    _before: int = 0
    _equal: int = 0

    def goes_on(self, cursor_field: CursorField, start: Value, values: list[Value], count: int) -> bool:
        """Say whether there is more to ask for. Raises SourceContractError where what follows a page cannot be asked for."""
        if start is None or values[-1] > start:
            self._learn(count)
            return True
        if count >= self.full:
            if values[0] < start:
                raise SourceContractError(
                    f"the source was asked for records from a value of {cursor_field.name!r} on, and gives a full page from"
                    " before it: its filter is coarser than the values, or ignored; read it with scan()"
                )
            raise SourceContractError(
                f"{count} records or more share one value of {cursor_field.name!r}, and what follows them cannot be asked for:"
                " make the pages larger, or read with keyset() or in_windows()"
            )
        return False

    def refuse_full(self, cursor_field: CursorField, rows: Rows) -> None:
        """Raise SourceContractError for a full page of records that cannot be placed: nothing leads past it."""
        if len(rows) >= self.full:
            raise SourceContractError(
                f"no record of a full page has its key and a value of {cursor_field.name!r} to go on from"
            )

    @property
    def full(self) -> int:
        """The records of a full page: pages of one length that others followed show a smaller limit of the source."""
        return self._before if self._equal > 1 and self._before >= SHORTEST_LIMIT else self.size

    def _learn(self, count: int) -> None:
        self._equal = self._equal + 1 if count == self._before else 0
        self._before = count


def scan(
    pages: Callable[[Value], Iterable[Rows]],
    cursor_field: CursorField,
    cursor: Cursor | None,
    *,
    until: Value,
    since: Value = None,
    disorder: Any = None,
    reject: Reject | None = None,
) -> Iterator[Batch]:
    """Read a source that gives its records in any order, up to `until` (excluded).

    `pages(value)` yields the pages of all records at or after `value` (None: of all); one may be empty. Nothing is
    promised before the end, so `until` must be a moment that is over (`settled`): what is written during the scan comes
    after it. With `disorder`, by how much a record may come too late in the order, each page is promised but for as
    much. A record without its key or value goes to `reject` (give `self.reject`). Raises SourceContractError without
    `reject`, and when the source gives the same page again and again.
    """
    wider = (
        cursor_field
        if disorder is None
        else replace(cursor_field, overlap=disorder + (cursor_field.overlap or 0 * disorder))
    )
    watermark = wider.watermark(cursor)
    check = RecordCheck(
        wider.comparable_value, reject, one_kind(watermark.at, {"since": since, "until": until}), cursor_field.name
    )
    if watermark.at is not None and until <= watermark.at:
        return
    found = _placed(pages(watermark.start_since(since)), check, wider)
    yield from (
        _to_the_end(found, watermark, until) if disorder is None else _nearly_sorted(found, watermark, until, disorder)
    )


def _placed(pages: Iterable[Rows], check: RecordCheck, cursor_field: CursorField) -> Iterator[Placed]:
    guard = RepeatGuard("page")
    for page in pages:
        placed = check(page)
        guard([(cursor_field.key_of(row), value) for value, row in placed])
        if placed:
            yield placed
    check.finish()


def _to_the_end(pages: Iterable[Placed], before: Watermark, until: Value) -> Iterator[Batch]:
    read = before
    for page in pages:
        wanted = (row for value, row in page if value < until)
        fresh = read.unseen(before.unseen(wanted))
        read = read.advanced(fresh)
        if fresh:
            yield Batch(fresh)
    if read.at is not None:
        yield Batch([], cursor=read.cursor)


def _nearly_sorted(pages: Iterable[Placed], watermark: Watermark, until: Value, disorder: Any) -> Iterator[Batch]:
    highest = None
    for page in pages:
        wanted = [(value, row) for value, row in page if value < until]
        for value, _ in wanted:
            highest = value if highest is None else max(highest, value)
            if value < highest - disorder:
                raise SourceContractError(
                    f"a record's {watermark.cursor_field.name!r} is more out of order than the {disorder} that was declared"
                )
        fresh = watermark.unseen(row for _, row in wanted)
        watermark = watermark.advanced(fresh)
        if fresh:
            yield Batch(fresh, cursor=watermark.cursor)


def keyset(
    fetch: Callable[[tuple[Any, ...] | None], Rows],
    key: tuple[str, ...],
    cursor: Cursor | None,
    *,
    reject: Reject | None = None,
) -> Iterator[Batch]:
    """Read all of a source in the order of its key, while records come and go.

    `fetch(after)` returns the next records whose key is greater than `after` (None: the first), in the key's order; a
    moment, UUID or decimal in `after` is text, as in the cursor. A page number would lose as many records as are
    deleted before it; a key that is never changed loses none. A record without its key goes to `reject` (give
    `self.reject`). Raises SourceContractError without `reject`, and when the source does not go on after a key.
    """
    check = RecordCheck(lambda row: _numbered(row, key), reject, None, ", ".join(key))
    after, guard = _after(cursor, key), RepeatGuard("keys")
    while rows := fetch(after):
        placed = [row for _, row in check(rows)]
        if not placed:
            check.finish()
            raise SourceContractError(f"no record of a page has its key {key}: nothing leads past it")
        last = key_values(placed[-1], key)
        if last == after:
            raise SourceContractError(
                f"the source gives the record {key} it was to go on after: filter by >, not by >="
            )
        guard(last)
        after = last
        yield Batch(placed, cursor={"after": list(after)})


def _numbered(row: Record, key: tuple[str, ...]) -> int:
    """Return the same value for every record that has its key: only the key counts here."""
    key_values(row, key)
    return 0


def _after(cursor: Cursor | None, key: tuple[str, ...]) -> Key | None:
    if cursor is None:
        return None
    try:
        after = tuple(cursor["after"])
    except (TypeError, KeyError):
        after = ()
    if len(after) != len(key):
        raise SourceContractError("the state is not one of this reading: reset the stream's state")
    return after

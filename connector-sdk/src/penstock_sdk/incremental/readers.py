"""The incremental reads of a sorted source, of an unsorted source, and of a source in the order of its key."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from penstock_sdk.contract import Batch, Cursor, Record
from penstock_sdk.errors import SourceContractError
from penstock_sdk.incremental.record_checks import Key, RecordCheck, Reject, RepeatGuard, key_values, one_kind
from penstock_sdk.incremental.timestamps import Value, has_clock
from penstock_sdk.incremental.watermark import CursorField, Watermark

Rows = Sequence[Record]
Valid = list[tuple[Value, Record]]
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
    """Read a source that filters and sorts by the cursor field, up to `until` (exclusive).

    `fetch(value)` returns the first `size` records whose field is at or after `value`, in the order of the field; with None,
    the first records of all. The source is always queried by value and never by page number, so records that change or are
    deleted during the read shift nothing. Records from before `value` are dropped. An overlap over numbers or local times
    needs `until`: the highest value when the read began. A record without its key or value goes to `reject` (pass
    `self.reject`). Raises SourceContractError for such a record without `reject`, if the source is not sorted or ignores
    `value`, and if more records share one value than a page holds.
    """
    watermark, passed = cursor_field.watermark(cursor), dict[Key, Value]()
    check = RecordCheck(
        cursor_field.comparable_value,
        reject,
        one_kind(watermark.at, since=since, until=until),
        cursor_field.name,
    )
    start, limit = watermark.start_since(since), _PageLimit(size)
    while rows := fetch(start):
        valid = check(rows)
        if not valid:
            check.finish()
            limit.refuse_full(cursor_field, rows)
            return
        values = [value for value, _ in valid]
        if values != sorted(values):
            raise SourceContractError(f"the source does not sort by {cursor_field.name!r}; read it with scan()")
        if cursor_field.overlap is not None and until is None and not has_clock(values[-1]):
            raise ValueError(
                "until: give the highest value that exists now; the values are not timestamps, so the clock cannot limit the read"
            )
        wanted = [row for value, row in valid if _within(value, start, until)]
        fresh = [
            row for row in watermark.unseen(wanted) if passed.get(cursor_field.key_of(row)) != cursor_field.value(row)
        ]
        watermark = watermark.advanced(fresh)
        if fresh:
            yield Batch(fresh, cursor=watermark.cursor)
        passed = {cursor_field.key_of(row): value for value, row in valid if value == values[-1]}
        if (until is not None and values[-1] >= until) or not limit.goes_on(cursor_field, start, values, len(rows)):
            return
        start = values[-1]


def _within(value: Value, start: Value, until: Value) -> bool:
    return (start is None or value >= start) and (until is None or value < until)


@dataclass
class _PageLimit:
    """The number of records of a full page: `size`, or fewer if the source has shown a smaller limit of its own."""

    size: int
    _before: int = 0
    _equal: int = 0

    def goes_on(self, cursor_field: CursorField, start: Value, values: list[Value], count: int) -> bool:
        """Return True if the next page can be fetched. Raises SourceContractError if no value leads past this page."""
        if start is None or values[-1] > start:
            self._learn(count)
            return True
        if count >= self.full:
            if values[0] < start:
                raise SourceContractError(
                    f"the source was asked for records from a value of {cursor_field.name!r} on, and returns a full page from"
                    " before it: its filter is less precise than the values, or ignored; read it with scan()"
                )
            raise SourceContractError(
                f"{count} records or more share one value of {cursor_field.name!r}, and what follows them cannot be asked for:"
                " use larger pages, or read with keyset() or in_windows()"
            )
        return False

    def refuse_full(self, cursor_field: CursorField, rows: Rows) -> None:
        """Raise SourceContractError for a full page of invalid records: no value leads past it."""
        if len(rows) >= self.full:
            raise SourceContractError(
                f"no record of a full page has its key and a value of {cursor_field.name!r} from which to continue"
            )

    @property
    def full(self) -> int:
        """The records of a full page. Several pages of equal length, each followed by another, show the source's limit."""
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
    """Read a source that returns its records in any order, up to `until` (exclusive).

    `pages(value)` yields the pages of all records at or after `value`, or of all records with None; a page may be empty. The
    cursor moves only at the end of the scan, so `until` must be in the past (`settled`): records that are written during the
    scan have later values. With `disorder`, the largest distance by which a record is out of order, the cursor moves after
    each page, reduced by that distance. A record without its key or value goes to `reject` (pass `self.reject`). Raises
    SourceContractError for such a record without `reject`, and if the source returns the same page again and again.
    """
    wider = (
        cursor_field
        if disorder is None
        else replace(cursor_field, overlap=disorder + (cursor_field.overlap or 0 * disorder))
    )
    watermark = wider.watermark(cursor)
    check = RecordCheck(
        wider.comparable_value, reject, one_kind(watermark.at, since=since, until=until), cursor_field.name
    )
    if watermark.at is not None and until <= watermark.at:
        return
    found = _valid_pages(pages(watermark.start_since(since)), check, wider)
    yield from (
        _to_the_end(found, watermark, until) if disorder is None else _nearly_sorted(found, watermark, until, disorder)
    )


def _valid_pages(pages: Iterable[Rows], check: RecordCheck, cursor_field: CursorField) -> Iterator[Valid]:
    guard = RepeatGuard("page")
    for page in pages:
        valid = check(page)
        guard([(cursor_field.key_of(row), value) for value, row in valid])
        if valid:
            yield valid
    check.finish()


def _to_the_end(pages: Iterable[Valid], before: Watermark, until: Value) -> Iterator[Batch]:
    read = before
    for page in pages:
        wanted = (row for value, row in page if value < until)
        fresh = read.unseen(before.unseen(wanted))
        read = read.advanced(fresh)
        if fresh:
            yield Batch(fresh)
    if read.at is not None:
        yield Batch([], cursor=read.cursor)


def _nearly_sorted(pages: Iterable[Valid], watermark: Watermark, until: Value, disorder: Any) -> Iterator[Batch]:
    highest = None
    for page in pages:
        wanted = [(value, row) for value, row in page if value < until]
        for value, _ in wanted:
            highest = value if highest is None else max(highest, value)
            if value < highest - disorder:
                raise SourceContractError(
                    f"a record's {watermark.cursor_field.name!r} is out of order by more than the declared disorder of {disorder}"
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
    """Read a whole source in the order of its key, while records are added and deleted.

    `fetch(after)` returns the next records whose key is greater than `after`, in the order of the key; with None, the first
    records. Timestamps, UUIDs and decimals in `after` are text, as in the cursor. A page number would skip one record for
    each record that is deleted before it; a key skips none, provided that keys never change. A record without its key goes to
    `reject` (pass `self.reject`). Raises SourceContractError for such a record without `reject`, and if the source does not
    continue after a key.
    """
    check = RecordCheck(lambda row: _constant_value(row, key), reject, None, ", ".join(key))
    after, guard = _after(cursor, key), RepeatGuard("keys")
    while rows := fetch(after):
        valid = [row for _, row in check(rows)]
        if not valid:
            check.finish()
            raise SourceContractError(
                f"no record of a page has its key {key}, so the read cannot continue after the page"
            )
        last = key_values(valid[-1], key)
        if last == after:
            raise SourceContractError(
                f"the source returns the record after which it should continue, by {key}; filter by >, not by >="
            )
        guard(last)
        after = last
        yield Batch(valid, cursor={"after": list(after)})


def _constant_value(row: Record, key: tuple[str, ...]) -> int:
    """Return the same value for every record with a key: only the key matters here."""
    key_values(row, key)
    return 0


class _CommittedKey(msgspec.Struct, frozen=True):
    """The key of the last record read, as it stands in a cursor."""

    after: list[Any]


def _after(cursor: Cursor | None, key: tuple[str, ...]) -> Key | None:
    if cursor is None:
        return None
    try:
        after = tuple(msgspec.convert(cursor, _CommittedKey).after)
    except msgspec.ValidationError:
        after = ()
    if len(after) != len(key):
        raise SourceContractError("the state is not from this kind of read; reset the stream's state")
    return after

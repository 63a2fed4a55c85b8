"""Three ways to read on: a sorted source, one in any order, and one in the order of its key."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from penstock_sdk.contract import Batch, Cursor, Record
from penstock_sdk.errors import SourceContractError
from penstock_sdk.reading.border import Border, Key, Trail
from penstock_sdk.reading.moments import Value, has_clock

Rows = Sequence[Record]


def follow(
    fetch: Callable[[Value], Rows],
    trail: Trail,
    cursor: Cursor | None,
    *,
    size: int,
    since: Value = None,
    until: Value = None,
) -> Iterator[Batch]:
    """Read a source that filters and sorts by the trail's field, up to `until` (excluded).

    `fetch(value)` returns the first `size` records whose field is at or after `value` (None: of all), in its order. It
    is always asked by value and never by page number, so that records which are changed or deleted meanwhile shift
    nothing. An overlap over numbers or local times needs `until`, the highest there was when the read began. Raises
    SourceContractError when the source is not sorted, or more than a page share one value.
    """
    border, passed = trail.border(cursor), dict[Key, Value]()
    start = border.start_since(since)
    while rows := fetch(start):
        values = [trail.value(row) for row in rows]
        if values != sorted(values):
            raise SourceContractError(f"the source does not sort by {trail.field!r}: read it with scan()")
        if trail.overlap is not None and until is None and not has_clock(values[-1]):
            raise ValueError("until: say the highest value there is now; no clock tells what comes during the read")
        wanted = [row for row, value in zip(rows, values, strict=True) if until is None or value < until]
        fresh = [row for row in border.fresh(wanted) if passed.get(trail.key_of(row)) != trail.value(row)]
        border = border.after(fresh)
        if fresh:
            yield Batch(fresh, cursor=border.cursor)
        passed = {trail.key_of(row): value for row, value in zip(rows, values, strict=True) if value == values[-1]}
        if len(wanted) < len(rows) or not _goes_on(trail, start, values, size):
            return
        start = values[-1]


def _goes_on(trail: Trail, start: Value, values: list[Value], size: int) -> bool:
    """Say whether there is more to ask for; a page that is full of one value hides what comes after it."""
    if start is None or values[-1] > start:
        return True
    if len(values) >= size:
        raise SourceContractError(
            f"{size} records or more share one value of {trail.field!r}, and what follows them cannot be asked for:"
            " make the pages larger, or read with keyset() or in_windows()"
        )
    return False


def scan(
    pages: Callable[[Value], Iterable[Rows]],
    trail: Trail,
    cursor: Cursor | None,
    *,
    until: Value,
    since: Value = None,
    disorder: Any = None,
) -> Iterator[Batch]:
    """Read a source that gives its records in any order, up to `until` (excluded).

    `pages(value)` yields the pages of all records at or after `value` (None: of all). Nothing is promised before the
    end, so `until` must be a moment that is over (`settled`): what is written during the scan comes after it. With
    `disorder`, by how much a record may come too late in the order, each page is promised but for as much.
    """
    wider = trail if disorder is None else replace(trail, overlap=disorder + (trail.overlap or 0 * disorder))
    border = wider.border(cursor)
    if border.at is not None and until <= border.at:
        return
    found = pages(border.start_since(since))
    yield from _to_the_end(found, border, until) if disorder is None else _nearly_sorted(found, border, until, disorder)


def _to_the_end(pages: Iterable[Rows], before: Border, until: Value) -> Iterator[Batch]:
    after = before
    for page in pages:
        wanted = (row for row in page if before.trail.value(row) < until)
        fresh = after.fresh(before.fresh(wanted))
        after = after.after(fresh)
        if fresh:
            yield Batch(fresh)
    if after.at is not None:
        yield Batch([], cursor=after.cursor)


def _nearly_sorted(pages: Iterable[Rows], border: Border, until: Value, disorder: Any) -> Iterator[Batch]:
    value, highest = border.trail.value, None
    for page in pages:
        wanted = [row for row in page if value(row) < until]
        for each in map(value, wanted):
            highest = each if highest is None else max(highest, each)
            if each < highest - disorder:
                raise SourceContractError(
                    f"a record's {border.trail.field!r} is more out of order than the {disorder} that was declared"
                )
        fresh = border.fresh(wanted)
        border = border.after(fresh)
        if fresh:
            yield Batch(fresh, cursor=border.cursor)


def keyset(
    fetch: Callable[[tuple[Any, ...] | None], Rows], key: tuple[str, ...], cursor: Cursor | None
) -> Iterator[Batch]:
    """Read all of a source in the order of its key, while records come and go.

    `fetch(after)` returns the next records whose key is greater than `after` (None: the first), in the key's order. A
    page number would lose as many records as are deleted before it; a key that is never changed loses none.
    """
    after = tuple(cursor["after"]) if cursor else None
    while rows := fetch(after):
        last = tuple(rows[-1][name] for name in key)
        if last == after:
            raise SourceContractError(
                f"the source gives the record {key} it was to go on after: filter by >, not by >="
            )
        after = last
        yield Batch(rows, cursor={"after": list(after)})

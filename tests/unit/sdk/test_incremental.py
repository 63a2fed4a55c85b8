"""Readings over a source that changes while they read and are killed; beside each, the naive one that loses records."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st
from penstock_sdk import Batch, Cursor, SourceContractError
from penstock_sdk.incremental import (
    CursorField,
    Window,
    follow,
    in_windows,
    keyset,
    local_time,
    scan,
    settled,
    to_utc,
    windows,
)

from tests.unit.sdk.moving_source import BASE, LATE, SIZE, STORIES, Read, Row, Source, Story, Told

PLENTY = settings(
    max_examples=int(os.environ.get("PENSTOCK_STORIES", "150")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
SEARCH = settings(
    max_examples=5000,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
LAG = timedelta(seconds=LATE)


def cursor_field(source: Source, **known: Any) -> CursorField:
    return CursorField(name="at", key=("id",), clock=source.now, **known)


def caught(read: Read, wrong: Callable[[Told], list[Any]]) -> Story:
    """Return a story in which a reading goes wrong; the same search that finds none for ours."""
    return find(STORIES, lambda story: bool(wrong(story.tell(read))), settings=SEARCH)


# ---- a sorted source, late and tied records


def overlapping(source: Source, cursor: Cursor | None) -> Iterator[Batch]:
    return follow(source.sorted_page, cursor_field(source, overlap=LAG), cursor, size=SIZE)


def lagging(source: Source, cursor: Cursor | None) -> Iterator[Batch]:
    return follow(source.sorted_page, cursor_field(source), cursor, size=SIZE, until=settled(LAG, source.now()))


def forgetful(source: Source, cursor: Cursor | None) -> Iterator[Batch]:
    return follow(source.sorted_page, cursor_field(source, overlap=LAG, remember=2), cursor, size=SIZE)


def without_either(source: Source, cursor: Cursor | None) -> Iterator[Batch]:
    return follow(source.sorted_page, cursor_field(source), cursor, size=SIZE)


def after_the_last(source: Source, cursor: Cursor | None) -> Iterator[Batch]:
    """Naive: what is greater than the last value."""
    last = cursor
    while rows := [row for row in source.sorted_page(to_utc(last) if last else None) if not last or row["at"] > last]:
        last = rows[-1]["at"]
        yield Batch(rows, cursor=last)


def from_the_last(source: Source, cursor: Cursor | None) -> Iterator[Batch]:
    """Naive: what is at the last value or after it, again and again."""
    last = cursor
    while rows := source.sorted_page(to_utc(last) if last else None):
        if rows[-1]["at"] == last:
            return
        last = rows[-1]["at"]
        yield Batch(rows, cursor=last)


def by_page_number(source: Source, cursor: Cursor | None) -> Iterator[Batch]:
    """Naive: a page is a number of records to skip."""
    watermark = cursor_field(source, overlap=LAG).watermark(cursor)
    start = watermark.start
    for number in count():
        source.tell()
        rows = source.found(start)[number * SIZE :][:SIZE]
        if not rows:
            return
        fresh = watermark.unseen(rows)
        watermark = watermark.advanced(fresh)
        yield Batch(fresh, cursor=watermark.cursor)


@PLENTY
@given(STORIES)
def test_an_overlap_finds_late_and_tied_records_once(story: Story) -> None:
    told = story.tell(overlapping)
    assert not told.missing()
    assert not told.doubles()


@PLENTY
@given(STORIES)
def test_a_lag_finds_each_record_as_it_is_in_the_end_once(story: Story) -> None:
    told = story.tell(lagging)
    assert not told.missing("id", "version")  # two changes within one second, too
    assert not told.doubles()


@PLENTY
@given(STORIES)
def test_keys_that_a_cursor_forgets_come_again_and_nothing_is_lost(story: Story) -> None:
    assert not story.tell(forgetful).missing()


def test_a_cursor_holds_no_more_keys_than_it_may() -> None:
    track = CursorField(name="at", key=("id",), remember=3)
    rows = [{"id": number, "at": 7} for number in range(5)]
    (batch,) = follow(lambda _start: rows, track, None, size=9)
    assert [len(keys) for _, keys in batch.cursor["seen"]] == [3]


def test_the_naive_ways_of_following_are_caught() -> None:
    caught(after_the_last, Told.missing)
    caught(from_the_last, Told.doubles)
    caught(without_either, Told.missing)
    caught(by_page_number, Told.missing)
    caught(overlapping, lambda told: told.missing("id", "version"))  # the documented limit: use a lag for it
    caught(forgetful, Told.doubles)  # and this one


def capped_too_late(source: Source, cursor: Cursor | None) -> Iterator[Batch]:
    """Naive: an overlap before the last record, though it was written during the read."""
    watermark = cursor_field(source, overlap=LAG).watermark(cursor)
    start = watermark.start
    while rows := source.sorted_page(start):
        fresh = watermark.unseen(rows)
        watermark = dataclasses.replace(watermark, began=source.now()).advanced(fresh)
        yield Batch(fresh, cursor=watermark.cursor)
        if start and to_utc(rows[-1]["at"]) <= start:
            return
        start = to_utc(rows[-1]["at"])


def test_an_overlap_is_counted_from_when_the_read_began() -> None:
    caught(capped_too_late, Told.missing)
    with pytest.raises(ValueError, match="until: give the highest value that exists now"):
        list(follow(lambda _start: [{"id": 1, "at": 1}], CursorField(name="at", key=("id",), overlap=5), None, size=5))


# ---- any order


def scanning(source: Source, cursor: Cursor | None) -> Iterator[Batch]:
    return scan(source.unsorted_pages, cursor_field(source), cursor, until=settled(LAG, source.now()))


def scanning_overlap(source: Source, cursor: Cursor | None) -> Iterator[Batch]:
    return scan(source.unsorted_pages, cursor_field(source, overlap=LAG), cursor, until=source.now())


def test_a_scan_stands_at_the_highest_value_and_finds_what_comes_there_later() -> None:
    rows: list[Row] = [{"id": 2, "at": 7}, {"id": 1, "at": 5}]
    track = CursorField(name="at", key=("id",))
    assert list(scan(lambda _start: [[]], track, None, until=100)) == []
    *_, last = scan(lambda _start: [rows], track, None, until=100)
    assert last.cursor == {"at": 7, "seen": [[7, [[2]]]]}
    rows.append({"id": 3, "at": 7})
    first, _ = scan(lambda _start: [rows[2:], rows[:1]], track, last.cursor, until=100)
    assert ids_of(first) == [3]


def promising_each_page(source: Source, cursor: Cursor | None) -> Iterator[Batch]:
    """Naive: the highest value so far."""
    watermark = cursor_field(source, overlap=LAG).watermark(cursor)
    for rows in source.unsorted_pages(watermark.start):
        fresh = watermark.unseen(rows)
        watermark = watermark.advanced(fresh)
        yield Batch(fresh, cursor=watermark.cursor)


def promising_the_highest(source: Source, cursor: Cursor | None) -> Iterator[Batch]:
    """Naive: promised at the end only, but up to what was written during the scan."""
    watermark = cursor_field(source, overlap=LAG).watermark(cursor)
    for rows in source.unsorted_pages(watermark.start):
        fresh = watermark.unseen(rows)
        watermark = dataclasses.replace(watermark, began=source.now()).advanced(fresh)
        yield Batch(fresh)
    if watermark.at:
        yield Batch([], cursor=watermark.cursor)


@PLENTY
@given(STORIES)
def test_a_scan_in_any_order_finds_each_record_once(story: Story) -> None:
    told = story.tell(scanning)
    assert not told.missing("id", "version")
    assert not told.doubles()
    assert not story.tell(scanning_overlap).missing()


def test_the_naive_ways_of_scanning_are_caught() -> None:
    caught(promising_each_page, Told.missing)
    caught(promising_the_highest, Told.missing)


SHUFFLES = st.tuples(st.lists(st.integers(0, 6), min_size=20, max_size=20), st.lists(st.integers(1, 3), max_size=5))


def nearly_sorted(shifts: list[int]) -> list[Row]:
    """Records in the order in which they came: each dated up to six before its place."""
    return [{"id": place, "at": place * 2 - shift} for place, shift in enumerate(shifts)]


def in_fours(rows: list[Row], start: int | None) -> Iterator[list[Row]]:
    found = [row for row in rows if start is None or row["at"] >= start]
    return (found[place : place + 4] for place in range(0, len(found), 4))


def resumed(rows: list[Row], kills: list[int], disorder: int) -> list[int]:
    """Read with a kill after so many batches, each promise committed."""
    ids: list[int] = []
    cursor: Cursor | None = None
    for kill in [*kills, 99]:
        reading = scan(
            partial(in_fours, rows), CursorField(name="at", key=("id",)), cursor, until=1000, disorder=disorder
        )
        for batch, _ in zip(reading, range(kill), strict=False):
            ids += ids_of(batch)
            cursor = batch.cursor
    return ids


@PLENTY
@given(SHUFFLES)
def test_a_declared_disorder_is_kept_back_from_each_cursor(drawn: tuple[list[int], list[int]]) -> None:
    shifts, kills = drawn
    assert sorted(resumed(nearly_sorted(shifts), kills, 6)) == list(range(20))


def test_a_disorder_that_was_declared_too_small_is_refused_and_not_lost() -> None:
    rows = nearly_sorted([0] * 10 + [6] + [0] * 9)
    assert sorted(resumed(rows, [1], 6)) == list(range(20))
    with pytest.raises(SourceContractError, match="out of order by more than the declared disorder of 2"):
        resumed(rows, [], 2)


# ---- windows


def windowed(source: Source, cursor: Cursor | None) -> Iterator[Batch]:
    until = settled(LAG, source.now())
    return in_windows(
        lambda window: _inclusive(source, window),
        lambda start: windows(start, until, timedelta(seconds=3)),
        cursor,
        since=BASE,
        inclusive=cursor_field(source),
    )


def _inclusive(source: Source, window: Window) -> Iterator[list[Row]]:
    """A source whose end is included, in any order, one page after the other by key."""
    last = -1
    while True:
        source.tell()
        rows = source.found(window.start, window.end + timedelta(seconds=1))
        page = sorted((row for row in rows if row["id"] > last), key=lambda row: row["id"])[:SIZE]
        if not page:
            return
        last = page[-1]["id"]
        yield page[::-1]


def windows_to_now(source: Source, cursor: Cursor | None) -> Iterator[Batch]:
    """Naive: up to now, when late records are still to come."""
    return in_windows(
        lambda window: _inclusive(source, window),
        lambda start: windows(start, source.now(), timedelta(seconds=3)),
        cursor,
        since=BASE,
        inclusive=cursor_field(source),
    )


def ends_left_as_they_are(source: Source, cursor: Cursor | None) -> Iterator[Batch]:
    """Naive: the end belongs to both windows."""
    until = settled(LAG, source.now())
    return in_windows(
        lambda window: _inclusive(source, window),
        lambda start: windows(start, until, timedelta(seconds=3)),
        cursor,
        since=BASE,
    )


@PLENTY
@given(STORIES)
def test_windows_over_inclusive_ends_hold_each_record_once(story: Story) -> None:
    told = story.tell(windowed)
    assert not told.missing("id", "version")
    assert not told.doubles()


def test_the_naive_windows_are_caught() -> None:
    caught(windows_to_now, Told.missing)
    caught(ends_left_as_they_are, Told.doubles)


# ---- a whole read of what changes


def by_key(source: Source, cursor: Cursor | None) -> Iterator[Batch]:
    def fetch(after: tuple[Any, ...] | None) -> list[Row]:
        source.tell()
        rows = (row for row in source.rows.values() if after is None or row["id"] > after[0])
        return sorted(rows, key=lambda row: row["id"])[:SIZE]

    return keyset(fetch, ("id",), cursor)


def by_offset(source: Source, cursor: Cursor | None) -> Iterator[Batch]:
    """Naive: how many were read is where to go on."""
    skipped = cursor or 0
    while True:
        source.tell()
        rows = sorted(source.rows.values(), key=lambda row: row["id"])[skipped : skipped + SIZE]
        if not rows:
            return
        skipped += len(rows)
        yield Batch(rows, cursor=skipped)


def _by_id(told: Told) -> list[Row]:
    return told.missing("id")


@PLENTY
@given(STORIES)
def test_the_keys_order_gives_what_stays_once_while_others_come_and_go(story: Story) -> None:
    told = story.tell(by_key)
    assert not told.missing("id")
    ids = [row["id"] for row in told.committed]
    assert len(ids) == len(set(ids))


def test_page_numbers_over_what_is_deleted_are_caught() -> None:
    caught(by_offset, _by_id)


# ---- what is refused, and what is dated oddly


def by_time(rows: list[Row], order: Callable[[Any], datetime]) -> Callable[[datetime | None], list[Row]]:
    def fetch(start: datetime | None) -> list[Row]:
        return sorted(
            (row for row in rows if start is None or order(row["at"]) >= start), key=lambda row: str(row["at"])
        )

    return fetch


def ids_of(batch: Batch) -> list[int]:
    return [row["id"] for row in batch.records]  # type: ignore[union-attr, index]


def test_a_record_that_is_dated_in_the_future_moves_nothing() -> None:
    rows: list[Row] = [{"id": 1, "at": "2026-03-01T00:00:01Z"}, {"id": 2, "at": "2099-01-01T00:00:00Z"}]
    track = CursorField(name="at", key=("id",), clock=lambda: datetime(2026, 3, 2, tzinfo=UTC))
    (first,) = follow(by_time(rows, to_utc), track, None, size=5)
    assert ids_of(first) == [1, 2]
    assert first.cursor["at"] == "2026-03-02T00:00:00+00:00"
    rows.append({"id": 3, "at": "2026-03-02T00:00:05Z"})
    (second,) = follow(by_time(rows, to_utc), track, first.cursor, size=5)
    assert ids_of(second) == [3]


def test_a_local_clock_that_goes_back_is_read_twice_for_an_hour() -> None:
    with pytest.raises(ValueError, match="local clocks go back one hour"):
        CursorField(name="at", key=("id",), order=local_time)
    track = CursorField(name="at", key=("id",), order=local_time, overlap=timedelta(hours=1))
    rows: list[Row] = [{"id": 1, "at": "2026-10-25T02:45:00"}]
    end = local_time("2026-10-25T03:30:00")
    (first,) = follow(by_time(rows, local_time), track, None, size=5, until=end)
    rows.append({"id": 2, "at": "2026-10-25T02:15:00"})  # half an hour later, by the sun
    (second,) = follow(by_time(rows, local_time), track, first.cursor, size=5, until=end)
    assert ids_of(second) == [2]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"id": 1, "at": None}], "has no value of 'at', so no cursor ever finds it"),
        ([{"id": 1, "at": float("nan")}], "not a finite number"),
        ([{"id": 1, "at": "yesterday"}], "not a timestamp"),
        ([{"id": 1, "at": "2026-01-01T00:00:00"}], "has no offset from UTC"),
        ([{"id": 1, "at": True}], "not a timestamp: it is of type bool"),
        ([{"id": 1, "at": 2}, {"id": 2, "at": 1}], "does not sort by 'at'; read it with scan"),
    ],
)
def test_what_has_no_safe_order_is_refused(rows: list[Row], said: str) -> None:
    with pytest.raises(SourceContractError, match=said):
        list(follow(lambda _start: rows, CursorField(name="at", key=("id",)), None, size=5))


def test_a_page_that_is_full_of_one_value_is_refused_and_not_passed_over() -> None:
    rows = [{"id": number, "at": 1} for number in range(9)]
    with pytest.raises(SourceContractError, match="5 records or more share one value of 'at'"):
        list(follow(lambda _start: rows[:5], CursorField(name="at", key=("id",)), None, size=5))


def test_a_cursor_field_needs_a_key_and_a_state_of_its_own() -> None:
    with pytest.raises(ValueError, match="without them records that share a value are lost"):
        CursorField(name="at", key=())
    with pytest.raises(SourceContractError, match="reset the stream's state"):
        list(follow(lambda _start: [], CursorField(name="at", key=("id",)), {"page": 3}, size=5))
    with pytest.raises(SourceContractError, match="filter by >, not by >="):
        list(keyset(lambda _after: [{"id": 1}], ("id",), {"after": [1]}))


def test_an_overlap_does_not_reach_behind_since() -> None:
    track, asked = CursorField(name="at", key=("id",), overlap=10), list[Any]()

    def fetch(start: Any) -> list[Row]:
        asked.append(start)
        return []

    for since in (20, 30):
        list(follow(fetch, track, {"at": 25, "seen": []}, size=5, since=since))
    assert asked == [20, 15]

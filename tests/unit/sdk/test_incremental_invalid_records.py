"""Records that cannot be placed, and sources that do not go on: put aside or refused by name, never lost, never a trace."""

from __future__ import annotations

import json
import math
import os
import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from itertools import repeat
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock_sdk import SourceContractError
from penstock_sdk.incremental import CursorField, Window, follow, in_windows, keyset, local_time, scan, to_utc

MANY = settings(max_examples=int(os.environ.get("PENSTOCK_STORIES", "200")), deadline=None)
CURSOR_FIELD = CursorField(name="at", key=("id",))
END = datetime(2027, 1, 1, tzinfo=UTC)
ZONES = st.builds(lambda hours: timezone(timedelta(hours=hours)), st.integers(-12, 14))
MOMENTS = st.datetimes(datetime(2026, 1, 1), datetime(2026, 12, 1), timezones=ZONES).map(  # noqa: DTZ001 - hypothesis adds the zone
    lambda found: found.replace(microsecond=found.microsecond // 1000 * 1000)
)
NAIVE = datetime(2026, 1, 1)  # noqa: DTZ001 - that is it
NO_MOMENTS = ["", "soon", "2026-13-01", "7", "2026-01-01", "2026-01-01T00:00:00", "0001-01-01T00:00:00+14:00"]
OF_OTHER_TYPES = [None, math.nan, math.inf, True, 7, 7.5, [], {}, NAIVE.date(), NAIVE, Decimal(3), b"2026"]
NO_VALUES = st.sampled_from([*NO_MOMENTS, *OF_OTHER_TYPES])
NO_KEYS = st.sampled_from([None, math.nan, [], {}, {"a": 1}, object()])
Row = dict[str, Any]


def sorted_by(rows: list[Any], start: datetime | None, size: int) -> list[Any]:
    """Answer as a lenient source: what has no moment comes with everything."""

    def place(row: Any) -> datetime:
        try:
            return to_utc(row["at"])
        except (SourceContractError, KeyError, TypeError):
            return END

    found = [row for row in rows if start is None or place(row) >= start]
    return sorted(found, key=place)[:size]


GOOD = st.lists(st.one_of(MOMENTS, MOMENTS.map(datetime.isoformat)), min_size=1, max_size=20)
BAD = st.lists(
    st.one_of(
        st.builds(lambda value: {"id": "of-no-moment", "at": value}, NO_VALUES),
        st.just({"id": "without-one"}),
        st.just({"at": "2026-05-01T00:00:00Z"}),
        st.builds(lambda key: {"id": key, "at": "2026-05-01T00:00:00Z"}, NO_KEYS),
        st.sampled_from([None, 3, "text", ["id", "at"]]),
    ),
    max_size=6,
)


@MANY
@given(GOOD, BAD)
def test_each_record_is_read_once_or_put_aside_once(good: list[Any], bad: list[Any]) -> None:
    rows = [{"id": number, "at": value} for number, value in enumerate(good)]
    mixed = [*bad, *rows]
    ways = {
        "follow": lambda reject: follow(
            lambda start: sorted_by(mixed, start, 40), CURSOR_FIELD, None, size=40, until=END, reject=reject
        ),
        "scan": lambda reject: scan(
            lambda _start: iter([mixed[:2], [], mixed[2:]]), CURSOR_FIELD, None, until=END, reject=reject
        ),
        "in_windows": lambda reject: in_windows(
            lambda _window: iter([mixed]),
            lambda start: [Window(start, END)],
            None,
            since=datetime(2020, 1, 1, tzinfo=UTC),
            inclusive=CURSOR_FIELD,
            reject=reject,
        ),
    }
    for way, read in ways.items():
        aside: list[Any] = []
        batches = list(read(lambda row, message: aside.append((row, message))))  # noqa: B023 - called here
        assert sorted(row["id"] for batch in batches for row in batch.records) == list(range(len(rows))), way
        assert {repr(row) for row, _ in aside} == {repr(row) for row in bad}, way
        assert len(aside) == len({repr(row) for row in bad}), way
        assert all(message for _, message in aside)
        json.dumps([batch.cursor for batch in batches])


@MANY
@given(BAD.filter(bool))
def test_without_a_place_for_it_such_a_record_ends_the_read_by_name(bad: list[Any]) -> None:
    with pytest.raises(SourceContractError, match=r"record|'at'"):
        list(follow(lambda _start: bad, CURSOR_FIELD, None, size=99, until=END))
    with pytest.raises(SourceContractError, match=r"record|'at'"):
        list(scan(lambda _start: [bad], CURSOR_FIELD, None, until=END))


KEYS = [uuid.UUID(int=7), Decimal("1.50"), datetime(2026, 1, 1, tzinfo=UTC), date(2026, 1, 1), b"\x00\xff", "1", 1, 1.5]


@pytest.mark.parametrize("key", KEYS, ids=lambda key: type(key).__name__)
def test_a_key_of_any_type_is_known_again_after_a_resume(key: Any) -> None:
    rows = [{"id": key, "at": 7}]
    (first,) = follow(lambda _start: rows, CURSOR_FIELD, None, size=9)
    assert list(follow(lambda _start: rows, CURSOR_FIELD, json.loads(json.dumps(first.cursor)), size=9)) == []
    (page,) = keyset(lambda after: [] if after else rows, ("id",), None)
    asked: list[Any] = []
    list(keyset(lambda after: asked.append(after) or [], ("id",), json.loads(json.dumps(page.cursor))))  # type: ignore[func-returns-value]
    assert asked == [tuple(page.cursor["after"])]


def test_a_record_of_another_kind_of_value_is_put_aside_and_a_whole_stream_of_it_refused() -> None:
    aside: list[str] = []
    rows = [{"id": 1, "at": 5}, {"id": 2, "at": "2026-01-01T00:00:00Z"}, {"id": 3, "at": 6}]
    batches = list(
        follow(lambda _start: rows, CURSOR_FIELD, None, size=9, reject=lambda _row, said: aside.append(said))
    )
    assert [row["id"] for batch in batches for row in batch.records] == [1, 3]
    assert aside == ["the values of 'at' are timestamps, where numbers are expected"]
    with pytest.raises(SourceContractError, match="reset the stream's state"):
        list(follow(lambda _start: rows[1:2], CURSOR_FIELD, batches[-1].cursor, size=9, reject=lambda *_: None))
    with pytest.raises(SourceContractError, match="reset the stream's state"):
        list(scan(lambda _start: [], CURSOR_FIELD, batches[-1].cursor, until=END))
    with pytest.raises(ValueError, match=r"since \(local times\) and until \(timestamps\) cannot be compared"):
        list(follow(lambda _start: [], CURSOR_FIELD, None, size=9, since=NAIVE, until=END))


def test_a_page_of_one_value_is_refused_also_where_the_source_gives_less_than_was_asked_for() -> None:
    rows = [{"id": number, "at": number // 40} for number in range(200)]

    def capped(start: Any) -> list[Row]:
        return [row for row in rows if start is None or row["at"] >= start][:30]

    with pytest.raises(SourceContractError, match="30 records or more share one value"):
        list(follow(capped, CURSOR_FIELD, None, size=30))
    spread = [{"id": number, "at": number} for number in range(90)] + [{"id": 900 + n, "at": 500} for n in range(40)]

    def silently(start: Any) -> list[Row]:
        return [row for row in spread if start is None or row["at"] >= start][:30]

    with pytest.raises(SourceContractError, match="30 records or more share one value"):
        list(follow(silently, CURSOR_FIELD, None, size=1000))


PAGE = [{"id": number, "at": number} for number in range(10)]


def test_a_source_that_gives_the_same_page_for_ever_is_refused() -> None:
    with pytest.raises(SourceContractError, match="less precise than the values, or ignored"):
        list(follow(lambda _start: PAGE, CURSOR_FIELD, None, size=10))
    for pages in (repeat(PAGE), cycled(PAGE[:5], PAGE[5:]), cycled(*([row] for row in PAGE))):
        with pytest.raises(SourceContractError, match="same page again and again"):
            list(scan(lambda _start, pages=pages: pages, CURSOR_FIELD, None, until=100))  # type: ignore[misc]
    with pytest.raises(SourceContractError, match="same page again and again"):
        list(
            in_windows(
                lambda _window: repeat(PAGE), lambda start: [Window(start, END)], None, since=END - timedelta(days=1)
            )
        )
    turns = cycled(PAGE[:5], PAGE[5:])
    with pytest.raises(SourceContractError, match="same keys again and again"):
        list(keyset(lambda _after: next(turns), ("id",), None))


def cycled(*pages: list[Row]) -> Iterator[list[Row]]:
    while True:
        yield from pages


def test_what_comes_from_before_the_start_is_dropped() -> None:
    days = [{"id": number, "at": number} for number in range(30)]
    (_, last) = (
        follow(
            lambda start: [row for row in days if row["at"] >= (start or 0) // 10 * 10], CURSOR_FIELD, None, size=99
        ),
        0,
    )
    ids = [row["id"] for batch in _ for row in batch.records]
    assert ids == list(range(30))
    assert last == 0


def test_an_empty_page_in_the_middle_ends_no_scan() -> None:
    batches = list(scan(lambda _start: [PAGE[:3], [], [], PAGE[3:]], CURSOR_FIELD, None, until=100))
    assert [row["id"] for batch in batches for row in batch.records] == list(range(10))


def test_a_keyset_puts_aside_what_has_no_key() -> None:
    aside: list[Any] = []
    answers = iter([[{"id": 1}, {"name": "x"}], []])
    (page,) = keyset(lambda _after: next(answers), ("id",), None, reject=lambda row, _said: aside.append(row))
    assert (page.cursor, aside) == ({"after": [1]}, [{"name": "x"}])
    with pytest.raises(SourceContractError, match="cannot continue after the page"):
        list(keyset(lambda _after: [{"name": "x"}], ("id",), None, reject=lambda *_: None))
    with pytest.raises(SourceContractError, match="reset the stream's state"):
        list(keyset(lambda _after: [], ("id",), {"after": [1, 2]}))


def test_an_order_of_the_authors_own_gives_what_can_be_compared() -> None:
    with pytest.raises(ValueError, match="must be a number or a datetime, not str"):
        list(
            follow(lambda _start: [{"id": 1, "at": "a"}], CursorField(name="at", key=("id",), order=str), None, size=9)
        )
    odd = CursorField(name="at", key=("id",), order=lambda value: value["x"])
    with pytest.raises(SourceContractError, match="cannot be compared: TypeError"):
        list(follow(lambda _start: [{"id": 1, "at": 3}], odd, None, size=9))


def test_an_overlap_before_the_calendars_beginning_is_its_beginning() -> None:
    first = {"id": 1, "at": "0001-01-01T00:00:01"}
    track = CursorField(name="at", key=("id",), order=local_time, overlap=timedelta(days=1))
    (batch,) = follow(lambda _start: [first], track, None, size=9, until=datetime(2, 1, 1))  # noqa: DTZ001 - local
    assert track.watermark(batch.cursor).start == datetime.min  # noqa: DTZ901 - local

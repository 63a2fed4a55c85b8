"""Pages that are empty or equal: how many a source may give, and which are a paging that does not go on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import repeat
from typing import Any

import pytest
from penstock_sdk import SourceContractError
from penstock_sdk.incremental import CursorField, Window, in_windows, scan
from penstock_sdk.incremental.record_checks import MOST_EMPTY

BEGIN, UNTIL = datetime(2026, 3, 1, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC)
SPAN = Window(BEGIN, BEGIN + timedelta(days=1))
CURSOR_FIELD = CursorField(name="at", key=("id",))


def test_empty_pages_are_passed_over_and_an_endless_row_of_them_is_refused() -> None:
    rows: list[list[dict[str, Any]]] = [[{"id": number, "at": BEGIN}] for number in range(2)]
    pages = [[], rows[0], *[[]] * 200, rows[1]]
    batches = list(scan(lambda _start: pages, CURSOR_FIELD, None, until=UNTIL))
    assert [row["id"] for batch in batches for row in batch.records] == [0, 1]  # type: ignore[union-attr, index]
    with pytest.raises(SourceContractError, match=f"{MOST_EMPTY} responses in a row are empty"):
        list(scan(lambda _start: repeat([]), CURSOR_FIELD, None, until=UNTIL))
    with pytest.raises(SourceContractError, match=f"{MOST_EMPTY} responses in a row are empty"):
        list(in_windows(lambda _window: repeat([]), lambda _start: [SPAN], None, since=BEGIN))


def test_records_without_a_key_may_be_equal() -> None:
    pages = [[{"clicks": 1}]] * 20
    batches = list(in_windows(lambda _window: pages, lambda _start: [SPAN], None, since=BEGIN))
    assert sum(len(batch.records) for batch in batches) == 20  # type: ignore[arg-type]


def test_a_page_list_that_the_author_fills_again_is_no_repeated_page() -> None:
    def fetch(_window: Window) -> Any:
        page: list[dict[str, int]] = []
        for number in range(300):
            page[:] = [{"id": number}]
            yield page

    batches = list(in_windows(fetch, lambda _start: [SPAN], None, since=BEGIN))
    assert len(batches) == 301


def test_a_page_that_comes_again_and_again_is_refused() -> None:
    with pytest.raises(SourceContractError, match="again and again"):
        list(in_windows(lambda _window: repeat([{"id": 1}]), lambda _start: [SPAN], None, since=BEGIN))

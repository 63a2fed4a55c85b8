"""An attempt that reads a window again: what `read` and `estimate` get, and what the records say."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from penstock_sdk import Batch, Stream, Window
from penstock_sdk import protocol as wire

START, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 8, tzinfo=UTC)


def test_a_window_reaches_the_connector_and_every_record(attempt: Any, platform: Any) -> None:
    window = wire.ReadWindow(start=START, end=END)
    platform.selected = [wire.SelectedStream(name="people", mode="incremental", cursor=4, window=window)]
    got: list[Any] = []

    def estimate(stream: Stream, cursor: Any) -> None:
        got.append((stream.window, cursor))

    def read(stream: Stream, cursor: Any) -> Iterator[Batch]:
        got.append((stream.window, cursor))
        yield Batch([{"n": 1}], cursor=5)

    assert attempt(read, estimate=estimate) == 0
    assert got == [(Window(START, END), 4)] * 2
    (line,) = platform.lines()
    assert line["window"] == {"start": "2026-01-01T00:00:00Z", "end": "2026-01-08T00:00:00Z"}


def test_no_other_read_knows_of_windows(attempt: Any, platform: Any) -> None:
    def read(stream: Stream, _: Any) -> Iterator[Batch]:
        assert stream.window is None
        yield Batch([{"n": 1}], cursor=1)

    assert attempt(read) == 0
    assert "window" not in platform.lines()[0]
    (body,) = [body for path, body in platform.calls if path == "streams"]
    assert "window" in body["abilities"]
    assert body["streams"][0]["windows"] is False

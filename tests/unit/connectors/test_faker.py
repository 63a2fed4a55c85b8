"""Record n is the same whoever asks for it, and from wherever the read goes on."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock_faker_generate import FakerGenerate
from penstock_faker_generate.connector import BEGAN, FakerConfig
from penstock_sdk import ConfigError, TransientError, Window


def read(config: FakerConfig, cursor: object = None, stream: int = 0) -> list[dict[str, object]]:
    connector = FakerGenerate(config, {})
    return [record for batch in connector.read(connector.discover()[stream], None, cursor) for record in batch.records]  # type: ignore[misc]


@given(total=st.integers(0, 2500), size=st.integers(1, 999), at=st.integers(0, 2500), stream=st.integers(0, 1))
def test_a_read_resumed_anywhere_gives_what_follows(total: int, size: int, at: int, stream: int) -> None:
    whole = read(FakerConfig(records=total), stream=stream)
    assert [record["n"] for record in whole] == list(range(total))
    assert read(FakerConfig(records=total, batch_size=size), {"next": at}, stream) == whole[at:]


def test_another_seed_gives_other_records() -> None:
    assert read(FakerConfig(records=5)) != read(FakerConfig(records=5, seed=1))


def test_it_fails_when_asked_to() -> None:
    with pytest.raises(TransientError):
        read(FakerConfig(records=1000, fail_after=100))


def test_a_config_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ConfigError):
        FakerGenerate(FakerConfig(batch_size=0), {}).authenticate()


numbers = st.one_of(st.integers(-5, 5), st.sampled_from([10**9, 10**18, 10**30, -(10**30)]))
seconds = st.one_of(st.floats(), st.just(0.0))


@given(numbers, numbers, numbers, numbers, st.none() | numbers, seconds)
def test_no_config_is_a_defect(
    records: int, seed: int, size: int, partitions: int, fail_after: int | None, delay: float
) -> None:
    config = FakerConfig(
        records=records, seed=seed, batch_size=size, partitions=partitions, fail_after=fail_after, delay_seconds=delay
    )
    connector = FakerGenerate(config, {})
    try:
        connector.authenticate()
    except ConfigError:
        return
    connector.config.delay_seconds = 0.0
    for stream in connector.discover():
        connector.partitions(stream, None, None, ())
        connector.estimate(stream, None, None)
        with suppress(TransientError):
            next(connector.read(stream, None, None), None)


def test_a_read_from_the_start_stands_still_where_it_was_asked_to() -> None:
    config = FakerConfig(records=1000, batch_size=100, pause_after=250, pause_seconds=0.5)
    connector = FakerGenerate(config, {})
    stream = connector.discover()[0]
    batches = list(connector.read(stream, None, None))
    pauses = [batch.cursor for batch in batches if not batch.records]
    assert pauses
    assert all(cursor == {"next": 300} for cursor in pauses)
    assert all(batch.records for batch in connector.read(stream, None, {"next": 200}))


@given(start=st.integers(-50, 2600), length=st.integers(1, 900), size=st.integers(1, 400), at=st.integers(0, 9))
def test_a_window_holds_the_events_of_its_seconds_wherever_it_is_resumed(
    start: int, length: int, size: int, at: int
) -> None:
    connector = FakerGenerate(FakerConfig(records=2500, batch_size=size), {})
    events = connector.discover()[1]
    begin = datetime.fromtimestamp(BEGAN + start - 0.5, UTC)  # the second before is over, the next is in
    asked = msgspec.structs.replace(events, window=Window(begin, begin + timedelta(seconds=length)))
    batches = list(connector.read(asked, begin, None))
    ids = [[record["n"] for record in batch.records] for batch in batches]  # type: ignore[union-attr, index]
    wanted = list(range(max(0, start), max(0, min(2500, start + length))))
    assert [n for batch in ids for n in batch] == wanted
    estimate = connector.estimate(asked, begin, None)
    assert estimate.records == len(wanted)
    if at < len(batches):
        rest = connector.read(asked, begin, batches[at].cursor)
        assert [record["n"] for batch in rest for record in batch.records] == [n for b in ids[at + 1 :] for n in b]  # type: ignore[union-attr, index]

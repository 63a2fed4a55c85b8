"""Streams succeed and fail by themselves, and a read that fails keeps what a cursor covers (invariants 4, 17 and 18)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from penstock_sdk import (
    AuthenticationError,
    Batch,
    ConfigError,
    SourceContractError,
    Stream,
    TransientError,
)
from penstock_sdk import protocol as wire
from penstock_sdk._runtime.stream_outcomes import SAME_FAILURES, StreamOutcomes
from penstock_sdk.errors import ConnectorError

from tests.unit.sdk.conftest import Platform, Runner, error

WEIGHTS = [
    ([SourceContractError("a"), ConfigError("b")], "ConfigError"),
    ([ConfigError("a"), AuthenticationError("b")], "AuthenticationError"),
    ([SourceContractError("a"), TransientError("b")], "TransientError"),
]


def rows(first: int, count: int, size: int = 0) -> list[dict[str, Any]]:
    return [{"n": number, **({"pad": "x" * size} if size else {})} for number in range(first, first + count)]


def stands_at(cursor: int, checkpoint: int) -> wire.SelectedStream:
    return wire.SelectedStream(name="people", mode="incremental", cursor=cursor, checkpoint=checkpoint)


def by_stream(platform: Platform, stream: str) -> list[int]:
    commits = [commit for commit in platform.commits if commit.stream == stream]
    return [line["data"]["n"] for line in platform.lines(commits)]


def test_the_others_are_read_and_the_attempt_names_the_one_that_failed(attempt: Runner, platform: Platform) -> None:
    attempt.streams = ("a", "b", "c")

    def read(stream: Stream, _: Any) -> Iterator[Batch]:
        yield Batch(rows(0, 5), cursor=4)
        if stream.name == "b":
            raise SourceContractError("the view fails: division by zero")
        yield Batch(rows(5, 5), cursor=9)

    assert attempt(read) == SourceContractError.exit_code
    (finish,) = platform.finished
    assert finish.error is not None
    assert finish.error.message == "stream 'b': the view fails: division by zero"
    assert {name: outcome.outcome for name, outcome in finish.streams.items()} == {
        "a": "succeeded",
        "b": "failed",
        "c": "succeeded",
    }
    assert [by_stream(platform, name) for name in "abc"] == [list(range(10)), list(range(5)), list(range(10))]
    assert [commit.stream for commit in platform.commits if commit.done] == ["a", "c"]


def test_every_kind_of_error_keeps_what_a_cursor_covers(attempt: Runner, platform: Platform) -> None:
    for raised in (TransientError("x", retry_after=3), ConfigError("x"), KeyError("x"), SystemExit(3)):
        platform.commits.clear()
        platform.bucket.objects.clear()
        platform.finished.clear()

        def read(*_: Any, raised: BaseException = raised) -> Iterator[Batch]:
            for page in range(3):
                yield Batch(rows(page * 10, 10), cursor=page)
            yield Batch(rows(30, 10))
            raise raised

        assert attempt(read) != 0
        (commit,) = platform.commits
        assert (commit.cursor, commit.done) == (2, False), raised
        assert by_stream(platform, "people") == list(range(30))
        assert platform.finished[0].records == {"people": 30}


def test_cursors_that_cover_no_records_are_kept_too(attempt: Runner, platform: Platform) -> None:
    """A source whose first windows are empty would be asked for them again in each attempt."""

    def read(_: Stream, cursor: Any) -> Iterator[Batch]:
        for page in range(cursor or 0, 40):
            yield Batch([], cursor=page + 1)
            if (page + 1) % 15 == 0:
                raise TransientError("429", retry_after=1)

    for expected in (15, 30):
        assert attempt(read) != 0
        last = platform.commits.pop()
        assert (last.cursor, last.done) == (expected, False)
        platform.selected = [stands_at(last.cursor, last.checkpoint)]


def test_an_attempt_that_gets_no_further_commits_nothing(attempt: Runner, platform: Platform) -> None:
    def read(*_: Any) -> Iterator[Batch]:
        yield Batch([], cursor=7)
        raise TransientError("429")

    platform.selected = [stands_at(7, 3)]
    assert attempt(read) != 0
    assert platform.commits == []


@pytest.mark.parametrize("raised", [GeneratorExit(), asyncio.CancelledError(), KeyboardInterrupt(), SystemExit(0)])
def test_whatever_leaves_a_read_is_of_its_stream_alone(
    attempt: Runner, platform: Platform, raised: BaseException
) -> None:
    attempt.streams = ("a", "b")

    def read(stream: Stream, _: Any) -> Iterator[Batch]:
        yield Batch(rows(0, 5), cursor=4)
        if stream.name == "a":
            raise raised

    assert attempt(read) == 1
    (finish,) = platform.finished
    assert finish.error is not None
    assert f"stream 'a': the connector failed unexpectedly in read() ({type(raised).__name__})" in finish.error.message
    assert finish.streams["b"].outcome == "succeeded"
    assert by_stream(platform, "a") == by_stream(platform, "b") == list(range(5))


def test_a_stream_that_is_unavailable_for_a_while_holds_up_no_other() -> None:
    outcomes = StreamOutcomes()
    for number in range(SAME_FAILURES + 1):
        outcomes.refuse(f"s{number}", f"s{number}", TransientError("locked", retry_after=3))
    assert not outcomes.source_failed


def test_a_source_that_is_away_is_not_asked_for_every_stream(attempt: Runner, platform: Platform) -> None:
    attempt.streams = tuple(f"s{number}" for number in range(20))
    asked: list[str] = []

    def read(stream: Stream, _: Any) -> Iterator[Batch]:
        asked.append(stream.name)
        raise TransientError("the source is away")
        yield Batch([])

    assert attempt(read) == TransientError.exit_code
    assert len(asked) == SAME_FAILURES
    (finish,) = platform.finished
    assert finish.error is not None
    assert "17 streams were not read" in finish.error.message
    assert [outcome.outcome for outcome in finish.streams.values()].count("not_read") == 17


def test_a_source_that_asks_for_patience_is_left_alone(attempt: Runner, platform: Platform) -> None:
    attempt.streams = ("a", "b", "c")
    sessions: list[str] = []

    def read(stream: Stream, _: Any) -> Iterator[Batch]:
        yield Batch(rows(0, 5), cursor=5)
        if stream.name == "b":
            raise TransientError("429", retry_after=30)

    assert attempt(read, authenticate=lambda: sessions.append("opened")) == TransientError.exit_code
    (finish,) = platform.finished
    assert {name: outcome.outcome for name, outcome in finish.streams.items()} == {
        "a": "succeeded",
        "b": "failed",
        "c": "not_read",
    }
    assert finish.error is not None
    assert finish.error.retry_after == 30
    assert sessions == ["opened"]


def test_an_error_of_one_stream_alone_stops_no_other_and_breaks_no_session(attempt: Runner, platform: Platform) -> None:
    """One of several hosts asks for patience, tables are locked, rights are missing: the others are read."""
    attempt.streams = tuple(f"s{number}" for number in range(9))
    sessions: list[str] = []
    raised = [TransientError("429", retry_after=30, scope="stream"), AuthenticationError("grant", scope="stream")]

    def read(stream: Stream, _: Any) -> Iterator[Batch]:
        if stream.name != "s8":
            raise raised[int(stream.name[1:]) % 2]
        yield Batch(rows(0, 1), cursor=1)

    assert attempt(read, authenticate=lambda: sessions.append("opened")) == TransientError.exit_code
    (finish,) = platform.finished
    assert [name for name, outcome in finish.streams.items() if outcome.outcome == "succeeded"] == ["s8"]
    assert [outcome.outcome for outcome in finish.streams.values()].count("failed") == 8
    assert finish.error is not None
    assert finish.error.retry_after == 30, "the retry still waits for as long as the host asked"
    assert sessions == ["opened"]


def test_a_stream_that_is_unavailable_for_now_stops_no_other(attempt: Runner, platform: Platform) -> None:
    """Its host asks for patience; what says so to the platform is its own outcome."""
    attempt.streams = ("away", "here")
    attempt.unavailable = {"away": TransientError("answered 429", retry_after=30)}
    platform.refusals = {"away": "answered 429"}
    assert attempt(lambda *_: iter([Batch(rows(0, 1), cursor=1)])) == TransientError.exit_code
    (finish,) = platform.finished
    assert {name: outcome.outcome for name, outcome in finish.streams.items()} == {
        "here": "succeeded",
        "away": "failed",
    }
    assert finish.error is not None
    assert finish.error.retry_after == 30


def test_a_stream_that_is_not_read_says_why(attempt: Runner, platform: Platform) -> None:
    attempt.streams = ("a", "b")

    def read(*_: Any) -> Iterator[Batch]:
        raise TransientError("the source wants peace, and knows hunter2000", retry_after=9)
        yield Batch([])

    assert attempt(read) == TransientError.exit_code
    found = platform.finished[0].streams["b"]
    assert found.outcome == "not_read"
    assert "the source wants peace" in found.reason
    assert "hunter2000" not in found.reason


def test_a_stream_that_breaks_the_contract_fails_only_where_it_is_selected(attempt: Runner, platform: Platform) -> None:
    attempt.streams = ("broken", "sound")
    attempt.broken = {"broken": {"primary_key": "id"}}
    platform.selected = [wire.SelectedStream(name="sound", mode="full")]
    assert attempt(lambda *_: iter([Batch(rows(0, 1), cursor=1)])) == 0
    assert by_stream(platform, "sound") == [0]


def test_a_selected_stream_that_is_withheld_says_why(attempt: Runner, platform: Platform) -> None:
    """The connector is asked of the names that are selected and not offered, and of no others."""
    attempt.streams = ("here", "unselected")
    platform.selected = [wire.SelectedStream(name=name, mode="full") for name in ("here", "withheld")]
    platform.refusals = {"withheld": "GRANT SELECT"}
    asked = list[str]()

    def not_offered(name: str) -> AuthenticationError:
        asked.append(name)
        return AuthenticationError("GRANT SELECT")

    assert attempt(lambda *_: iter([Batch(rows(0, 1), cursor=1)]), not_offered=not_offered) == 11
    assert asked == ["withheld"]
    (_, told) = next(call for call in platform.calls if call[0] == "streams")
    assert told["streams"][2]["unavailable"] == {"error_class": "AuthenticationError", "message": "GRANT SELECT"}
    assert by_stream(platform, "here") == [0]


@pytest.mark.parametrize("returned", ["a text", 7, KeyError("hunter2000"), TransientError("away")])
def test_whatever_not_offered_does_the_others_are_read(attempt: Runner, platform: Platform, returned: Any) -> None:
    attempt.streams = ("here",)
    platform.selected = [wire.SelectedStream(name=name, mode="full") for name in ("here", "withheld")]
    platform.refusals = {"withheld": "no"}

    def not_offered(_: str) -> Any:
        if isinstance(returned, Exception):
            raise returned
        return returned

    assert attempt(lambda *_: iter([Batch(rows(0, 1), cursor=1)]), not_offered=not_offered) != 0
    assert by_stream(platform, "here") == [0]
    assert platform.finished[0].streams["withheld"].outcome == "failed"


def test_what_a_source_announces_may_fail_without_the_run(attempt: Runner, platform: Platform) -> None:
    def drift(_: Any) -> Iterator[Any]:
        raise TransientError("the changelog is away")
        yield

    assert attempt(lambda *_: iter([Batch(rows(0, 1), cursor=1)]), drift=drift) == 0
    assert by_stream(platform, "people") == [0]


def test_tables_that_are_not_granted_stop_no_other(attempt: Runner, platform: Platform) -> None:
    attempt.streams = tuple(f"s{number}" for number in range(9))

    def read(stream: Stream, _: Any) -> Iterator[Batch]:
        if int(stream.name[1:]) % 2:
            raise AuthenticationError("grant SELECT to the user")
        yield Batch(rows(0, 1), cursor=1)

    assert attempt(read) == AuthenticationError.exit_code
    assert [commit.stream for commit in platform.commits if commit.done] == ["s0", "s2", "s4", "s6", "s8"]


def test_a_session_that_broke_is_not_used_for_the_next_stream(attempt: Runner, platform: Platform) -> None:
    attempt.streams = ("a", "b")
    sessions: list[str] = []

    def read(stream: Stream, _: Any) -> Iterator[Batch]:
        if stream.name == "a":
            raise TransientError("the session is gone")
        yield Batch(rows(0, 1), cursor=len(sessions))

    assert attempt(read, authenticate=lambda: sessions.append("opened"), close=lambda: sessions.append("closed")) == 20
    assert sessions == ["opened", "closed", "opened", "closed"]
    assert by_stream(platform, "b") == [0]


def test_a_platform_that_takes_nothing_ends_the_attempt(attempt: Runner, platform: Platform) -> None:
    attempt.streams = ("a", "b")
    asked: list[str] = []

    def read(stream: Stream, _: Any) -> Iterator[Batch]:
        asked.append(stream.name)
        platform.refuse["checkpoints"] = [error(409, "fenced")]
        yield Batch(rows(0, 1), cursor=1)

    assert attempt(read) == 32
    assert asked == ["a"]
    assert platform.commits == []


@pytest.mark.parametrize(("errors", "expected"), WEIGHTS)
def test_the_attempt_is_tried_again_when_one_of_its_streams_may_succeed(
    errors: list[ConnectorError], expected: str
) -> None:
    outcomes = StreamOutcomes()
    for number, failure in enumerate(errors):
        outcomes.fail(f"s{number}", f"s{number}", failure)
    found = outcomes.error()
    assert found is not None
    assert found.error_class == expected
    assert found.message == "stream 's0': a; stream 's1': b"


@dataclass
class Plan:
    """What a stream does: pages, which of them carry a cursor, and after how many it fails."""

    pages: list[int] = field(default_factory=list)
    covered: list[bool] = field(default_factory=list)
    fails_after: int | None = None
    size: int = 0

    def promised(self, begin: int) -> int:
        """Return how many records a cursor covers when the read ends after `fails_after` pages from `begin`. An oracle."""
        place, sure = 0, begin
        for number, (count, covered) in enumerate(zip(self.pages, self.covered, strict=True)):
            if self.fails_after is not None and number >= self.fails_after:
                return sure
            place += count
            if covered and place > begin:
                sure = place
        return place if self.fails_after is None else sure


plans = st.builds(
    lambda pages, covered, fails, size: Plan(
        pages, (covered + [False] * len(pages))[: len(pages)], fails if fails <= len(pages) else None, size
    ),
    st.lists(st.integers(0, 40), max_size=8),
    st.lists(st.booleans(), max_size=8),
    st.integers(0, 10),
    st.sampled_from([0, 0, 200_000]),
)


@given(st.lists(plans, min_size=1, max_size=4), st.sampled_from([1, 7, 50_000]))
@settings(max_examples=40, suppress_health_check=list(HealthCheck))
def test_what_is_committed_is_what_cursors_cover_and_a_retry_brings_the_rest_once(
    drawn: list[Plan], checkpoint_records: int
) -> None:
    """The first attempt fails where it is drawn to, the second reads on from the committed cursors to the end."""
    with Platform() as platform:
        platform.next_attempt()
        _retry_brings_the_rest(Runner(platform), platform, drawn, checkpoint_records)


def _retry_brings_the_rest(attempt: Runner, platform: Platform, drawn: list[Plan], checkpoint_records: int) -> None:
    platform.limits = wire.Limits(checkpoint_records=checkpoint_records, heartbeat_seconds=60)
    attempt.streams = names = tuple(f"s{number}" for number in range(len(drawn)))
    platform.selected = [wire.SelectedStream(name=name, mode="incremental") for name in names]
    plan = dict(zip(names, drawn, strict=True))

    def reading(*, fails: bool) -> Any:
        def read(stream: Stream, cursor: Any) -> Iterator[Batch]:
            mine, place = plan[stream.name], 0
            for number, (count, covered) in enumerate(zip(mine.pages, mine.covered, strict=True)):
                if fails and mine.fails_after == number:
                    raise SourceContractError("here")
                first, place = max(place, cursor or 0), place + count
                if place > (cursor or 0):
                    yield Batch(rows(first, place - first, mine.size), cursor=place if covered else None)
            if fails and mine.fails_after == len(mine.pages):
                raise SourceContractError("here")

        return read

    failing = {name for name, planned in plan.items() if planned.fails_after is not None}
    code = attempt(reading(fails=True))
    assert (code == 0) == (not failing)
    sure = {name: planned.promised(0) for name, planned in plan.items()}
    assert {name: by_stream(platform, name) for name in names} == {name: list(range(sure[name])) for name in names}
    assert {name for name, outcome in platform.finished[0].streams.items() if outcome.outcome == "failed"} == failing
    assert attempt(reading(fails=False)) == 0
    assert {name: by_stream(platform, name) for name in names} == {
        name: list(range(sum(plan[name].pages))) for name in names
    }

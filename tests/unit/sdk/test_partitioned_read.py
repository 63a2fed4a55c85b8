"""A stream read in parts: what is committed is what the cursors cover, however the workers interleave and end."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from penstock_sdk import Batch, Estimate, Partition, SourceContractError, Stream, TransientError
from penstock_sdk import protocol as wire
from penstock_sdk._runtime.commits import StreamCommits
from penstock_sdk._runtime.metrics import Metrics
from penstock_sdk._runtime.partition_plan import CURSOR_KEY, plan_from_cursor
from penstock_sdk.testing.run_api import RUN

from tests.patience import PATIENCE
from tests.unit.sdk.conftest import error

PARTS, LENGTH = 4, 50


def partitions(_stream: Stream, cursor: Any, known: Sequence[Partition]) -> Sequence[Partition]:
    """Ranges of numbers."""
    if known or cursor is not None:
        return known
    return [Partition(id=f"p{n}", bounds={"from": n * LENGTH, "to": (n + 1) * LENGTH}) for n in range(PARTS)]


def span(stream: Stream, cursor: Any) -> range:
    """The numbers that a read is asked for; a cursor is the last number that was read."""
    bounds = stream.partition.bounds if stream.partition else {"from": 0, "to": PARTS * LENGTH}
    return range(bounds["from"] if cursor is None else cursor + 1, bounds["to"])


def read(stream: Stream, cursor: Any) -> Iterator[Batch]:
    """Ten at a time."""
    numbers = span(stream, cursor)
    for at in range(0, len(numbers), 10):
        some = numbers[at : at + 10]
        yield Batch([{"n": n} for n in some], cursor=some[-1])


class Cancelled(BaseException):
    """What some libraries end their work with; it is no Exception."""


@pytest.fixture
def split(attempt: Any, platform: Any) -> Any:
    """An attempt whose stream can be split, with every promise a commit."""
    attempt.shape = {"schema": {"type": "object"}, "partitioned": True, "modes": ("full", "incremental")}
    platform.limits = wire.Limits(checkpoint_records=10, heartbeat_seconds=60, parallelism=3)
    return attempt


def numbers(platform: Any, commits: Any = None) -> list[int]:
    return sorted(line["data"]["n"] for line in platform.lines(commits))


def covered(cursor: Any) -> list[int]:
    """The numbers that a stream's cursor says are committed."""
    parts = plan_from_cursor(cursor, "people").progress
    return sorted(n for part in parts if part.cursor is not None for n in range(part.bounds["from"], part.cursor + 1))


def go_on(platform: Any) -> list[int]:
    """Give the next attempt of the run what is committed, and keys of its own; return the numbers committed so far."""
    last, before = platform.commits[-1], numbers(platform)
    platform.commits, platform.bucket.objects = [], {}
    platform.selected = [
        wire.SelectedStream(name="people", mode="full", cursor=last.cursor, checkpoint=last.checkpoint, done=last.done)
    ]
    return before


def test_partitions_together_are_the_stream(split: Any, platform: Any) -> None:
    assert split(read, partitions=partitions) == 0
    assert numbers(platform) == list(range(PARTS * LENGTH))
    assert len({line["id"] for line in platform.lines()}) == PARTS * LENGTH
    assert platform.finished[0].records == {"people": PARTS * LENGTH}
    assert platform.finished[0].metrics["partitions_done"] == PARTS


def test_4_each_commit_holds_exactly_what_its_cursors_cover(split: Any, platform: Any) -> None:
    assert split(read, partitions=partitions) == 0
    assert [commit.checkpoint for commit in platform.commits] == list(range(1, len(platform.commits) + 1))
    assert [commit.done for commit in platform.commits] == [*[False] * (len(platform.commits) - 1), True]
    for end, commit in enumerate(platform.commits, 1):
        assert [partition["id"] for partition in commit.cursor["ranges"]] == ["p0", "p1", "p2", "p3"], (
            "the plan is in each"
        )
        assert numbers(platform, platform.commits[:end]) == covered(commit.cursor)


def test_5_no_two_workers_make_objects_of_one_number(split: Any, platform: Any) -> None:
    assert split(read, partitions=partitions) == 0
    sequences = [uploaded.sequence for commit in platform.commits for uploaded in commit.objects]
    assert len(set(sequences)) == len(sequences) >= PARTS * LENGTH / 10


def test_workers_read_side_by_side_each_with_a_connector_of_its_own(split: Any, platform: Any) -> None:
    met, opened, threads = threading.Barrier(3), list[int](), set[tuple[int, str]]()

    def reading(stream: Stream, cursor: Any) -> Iterator[Batch]:
        threads.add((threading.get_ident(), stream.partition.id if stream.partition else ""))
        if stream.partition and stream.partition.id != "p3":
            met.wait(PATIENCE)  # none goes on before three are here
        yield from read(stream, cursor)

    assert split(reading, partitions=partitions, authenticate=lambda: opened.append(threading.get_ident())) == 0
    assert len(set(opened)) == len(opened) == 3
    assert {thread for thread, _ in threads} == set(opened), "an instance is authenticated in the thread that it serves"
    assert numbers(platform) == list(range(PARTS * LENGTH))


@pytest.mark.parametrize(
    ("shape", "limits"), [({"partitioned": False}, {}), ({}, {"parallelism": 1})], ids=["cannot", "may not"]
)
def test_a_stream_is_read_in_one(split: Any, platform: Any, shape: dict[str, Any], limits: dict[str, Any]) -> None:
    """Where it cannot be split, and where the connection does not ask for it."""
    split.shape |= shape
    platform.limits = platform.limits.model_copy(update=limits)
    asked: list[Any] = []
    assert split(read, partitions=lambda *each: asked.append(each)) == 0
    assert asked == []
    assert platform.commits[-1].cursor == PARTS * LENGTH - 1


def test_no_partitions_have_it_read_in_one(split: Any, platform: Any) -> None:
    assert split(read, partitions=lambda *_: ()) == 0
    assert platform.commits[-1].cursor == PARTS * LENGTH - 1


def test_a_cursor_of_a_read_in_one_is_the_connectors_to_divide(split: Any, platform: Any) -> None:
    platform.selected = [wire.SelectedStream(name="people", mode="incremental", cursor=149)]
    seen: list[Any] = []

    def asked(stream: Stream, cursor: Any, known: Any) -> Sequence[Partition]:
        seen.append((cursor, known))
        return partitions(stream, cursor, known)

    assert split(read, partitions=asked) == 0
    assert seen == [(149, ())]
    assert numbers(platform) == list(range(150, 200))


def test_after_one_worker_fails_the_others_end_at_their_batch_boundary(split: Any, platform: Any) -> None:
    failed, both, outlived = threading.Event(), threading.Barrier(3), list[str]()

    def reading(stream: Stream, cursor: Any) -> Iterator[Batch]:
        part = stream.partition.id if stream.partition else ""
        batches = read(stream, cursor)
        yield next(batches)
        both.wait(PATIENCE)
        if part == "p0":
            failed.set()
            raise TransientError("the source went away")
        failed.wait(PATIENCE)
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:  # it is ended at a border long before
            yield Batch([])
        outlived.append(part)

    assert split(reading, partitions=partitions) == TransientError.exit_code
    assert platform.finished[0].error.message == "stream 'people': the source went away"
    assert outlived == []
    assert numbers(platform) == covered(platform.commits[-1].cursor)
    assert {0, 50, 100} <= set(numbers(platform)), "what was promised is kept, also of the one that failed"
    assert not any(commit.done for commit in platform.commits)
    assert platform.finished[0].records == {"people": len(numbers(platform))}


@pytest.mark.parametrize("leaving", [SystemExit(0), KeyboardInterrupt(), Cancelled()])
def test_18_a_partition_that_any_exception_ends_is_no_success(
    split: Any, platform: Any, leaving: BaseException
) -> None:
    def ended(stream: Stream, cursor: Any) -> Iterator[Batch]:
        if stream.partition and stream.partition.id == "p2":
            raise leaving
        yield from read(stream, cursor)

    assert split(ended, partitions=partitions) == 1
    assert platform.finished[0].outcome == "failed"
    assert not any(commit.done for commit in platform.commits)


def test_what_is_left_is_read_by_the_next_attempt_and_no_done_partition_again(split: Any, platform: Any) -> None:
    def fails(stream: Stream, cursor: Any) -> Iterator[Batch]:
        for count, batch in enumerate(read(stream, cursor)):
            if stream.partition and stream.partition.id == "p1" and count == 2:
                raise TransientError("the source went away")
            yield batch

    platform.limits = platform.limits.model_copy(update={"parallelism": 2})
    assert split(fails, partitions=partitions) == TransientError.exit_code
    done = {partition["id"] for partition in platform.commits[-1].cursor["ranges"] if partition["done"]}
    seen: list[Any] = []

    def reading(stream: Stream, cursor: Any) -> Iterator[Batch]:
        seen.append(stream.partition.id if stream.partition else "")
        yield from read(stream, cursor)

    before = go_on(platform)
    assert split(reading, partitions=lambda *_: pytest.fail("the plan of a run stays")) == 0
    assert set(seen) == {"p0", "p1", "p2", "p3"} - done
    assert "p1" in seen
    assert sorted(before + numbers(platform)) == list(range(PARTS * LENGTH))


@pytest.mark.parametrize("at", range(1, 21))
def test_4_wherever_an_attempt_is_cut_off_the_next_reads_the_rest_once(split: Any, platform: Any, at: int) -> None:
    """The run API takes so many commits of the first attempt, and then nothing more: it was fenced."""
    platform.refuse_from["checkpoints"] = lambda: error(409, "fenced") if len(platform.commits) >= at else None
    assert split(read, partitions=partitions) in (0, 32)
    assert numbers(platform) == covered(platform.commits[-1].cursor)
    platform.refuse_from.clear()
    if not platform.commits[-1].done:
        number = platform.commits[-1].checkpoint
        before = go_on(platform)
        assert split(read, partitions=partitions) == 0
        assert platform.commits[0].checkpoint == number + 1
        assert sorted(before + numbers(platform)) == list(range(PARTS * LENGTH))


def test_3_after_a_commit_of_one_worker_failed_no_other_worker_commits(client: Any, platform: Any) -> None:
    """The number may have been taken: a second commit under it would be answered as if it had been carried out."""
    shared = StreamCommits(client, "people", 0, Metrics())
    platform.refuse = {"checkpoints": [(500, {}), (422, {"code": "invalid", "message": "no"})]}

    def cover(cursor: Any, done: bool) -> tuple[Any, bool]:  # noqa: FBT001
        return cursor, done

    with pytest.raises(Exception, match="refused a call"):
        shared.commit(cover, 1, (), 1, {}, done=False)
    with pytest.raises(Exception, match="refused a call"):
        shared.commit(cover, 2, (), 1, {}, done=False)
    assert platform.commits == []
    assert platform.count("checkpoints") == 2, "the first was repeated once, the second never sent"


def test_a_sigterm_ends_all_workers_and_keeps_what_their_cursors_cover(split: Any, platform: Any) -> None:
    together = threading.Barrier(3, action=lambda: split.interrupts[0]())  # noqa: PLW0108 - there is none yet

    def reading(stream: Stream, cursor: Any) -> Iterator[Batch]:
        together.wait(PATIENCE)
        yield from read(stream, cursor)

    assert split(reading, partitions=partitions) == 31
    assert platform.finished[0].outcome == "interrupted"
    assert numbers(platform) == [n for first in (0, 50, 100) for n in range(first, first + 10)]
    assert numbers(platform) == covered(platform.commits[-1].cursor)


def test_a_further_session_that_is_refused_for_now_is_done_without(split: Any, platform: Any) -> None:
    calls: list[int] = []

    def authenticate() -> None:
        calls.append(threading.get_ident())
        if threading.current_thread() is not threading.main_thread():
            raise TransientError("too many connections")

    assert split(read, partitions=partitions, authenticate=authenticate) == 0
    assert len(calls) == 3
    assert numbers(platform) == list(range(PARTS * LENGTH))


def test_every_connector_is_closed(split: Any) -> None:
    closed: list[int] = []
    assert split(read, partitions=partitions, close=lambda: closed.append(threading.get_ident())) == 0
    assert len(closed) == 3


def next_run(platform: Any, cursor: Any) -> None:
    platform.selected = [wire.SelectedStream(name="people", mode="incremental", cursor=cursor, checkpoint=9)]
    platform.commits, platform.bucket.objects = [], {}


def state(*parts: tuple[str, Any]) -> dict[str, Any]:
    """The state that an earlier run left behind."""
    ranges = [
        {"id": name, "bounds": {"from": int(name[1:]) * 50, "to": int(name[1:]) * 50 + 50}, "cursor": c, "done": True}
        for name, c in parts
    ]
    return {CURSOR_KEY: 1, "run": "run0", "ranges": ranges}


def test_the_next_run_asks_again_and_partitions_that_stayed_go_on(split: Any, platform: Any) -> None:
    next_run(platform, state(("p0", 30), ("p7", 360)))
    seen: list[Any] = []

    def asked(_stream: Stream, cursor: Any, known: Sequence[Partition]) -> Sequence[Partition]:
        seen.append((cursor, [partition.id for partition in known]))
        return [known[0], Partition(id="p1", bounds={"from": 50, "to": 100})]

    assert split(read, partitions=asked) == 0
    assert seen == [(None, ["p0", "p7"])], "a cursor of parts is never shown to a connector"
    assert numbers(platform) == [*range(31, 50), *range(50, 100)]
    assert [partition["id"] for partition in platform.commits[-1].cursor["ranges"]] == ["p0", "p1"]
    assert platform.commits[-1].cursor["run"] == RUN


def test_a_state_of_partitions_is_read_on_by_one_worker_where_one_is_allowed(split: Any, platform: Any) -> None:
    next_run(platform, state(("p0", 30), ("p1", None)))
    platform.limits = platform.limits.model_copy(update={"parallelism": 1})
    assert split(read, partitions=partitions) == 0
    assert numbers(platform) == [*range(31, 100)]


@pytest.mark.parametrize(
    ("partitioned", "words"), [(False, "does not divide the stream any more"), (True, "no partitions any more")]
)
def test_a_connector_that_partitions_no_more_says_what_to_do(
    split: Any,
    platform: Any,
    partitioned: bool,  # noqa: FBT001
    words: str,
) -> None:
    next_run(platform, state(("p0", 30)))
    split.shape |= {"partitioned": partitioned}
    assert split(read, partitions=lambda *_: ()) == SourceContractError.exit_code
    assert words in platform.finished[0].error.message
    assert "reset the state" in platform.finished[0].error.message
    assert platform.commits == []


def test_a_state_whose_partitions_are_all_read_in_this_run_only_needs_its_end(split: Any, platform: Any) -> None:
    next_run(platform, {**state(("p0", 49), ("p1", 99)), "run": RUN})
    assert split(read, partitions=partitions) == 0
    (commit,) = platform.commits
    assert (commit.done, commit.objects, commit.checkpoint) == (True, [], 10)


def test_rejects_are_counted_over_all_workers(split: Any, platform: Any) -> None:
    """Each worker rejects two of fifty; the threshold is of the stream."""
    split.shape |= {"primary_key": ("n",)}
    platform.rejects = wire.RejectRules(max_records=7)

    def reading(stream: Stream, cursor: Any) -> Iterator[Batch]:
        yield from read(stream, cursor)
        yield Batch([{"n": None}, {}], cursor=span(stream, None)[-1])

    assert split(reading, partitions=partitions) == SourceContractError.exit_code
    assert "8 of" in platform.finished[0].error.message


def test_a_share_of_rejects_is_judged_at_the_streams_end(split: Any, platform: Any) -> None:
    split.shape |= {"primary_key": ("n",)}
    platform.rejects = wire.RejectRules(max_share=0.03)

    def reading(stream: Stream, cursor: Any) -> Iterator[Batch]:
        yield from read(stream, cursor)
        yield Batch([{"n": None}, {}], cursor=span(stream, None)[-1])

    assert split(reading, partitions=partitions) == SourceContractError.exit_code
    assert "8 of 208 records were rejected" in platform.finished[0].error.message
    assert sum(commit.done for commit in platform.commits) == 0
    rejected = [line["position"] for line in platform.lines(kind="rejected")]
    assert len(set(rejected)) == len(rejected)


def test_memory_is_shared_out(split: Any, platform: Any) -> None:
    """The workers' objects together are as large as one reader's."""
    target = 12 << 20
    platform.limits = wire.Limits(object_bytes=target, heartbeat_seconds=60, parallelism=2)

    def reading(stream: Stream, cursor: Any) -> Iterator[Batch]:
        for n in span(stream, cursor):
            yield Batch([{"n": n, "noise": os.urandom(100_000).hex()}])  # 5 MB a part when compressed

    assert split(reading, partitions=partitions) == 0
    sizes = [uploaded.bytes for commit in platform.commits for uploaded in commit.objects]
    assert max(sizes) < target
    assert numbers(platform) == list(range(PARTS * LENGTH))


def test_an_estimate_is_of_what_is_left_of_the_partitions(split: Any, platform: Any) -> None:
    next_run(platform, {**state(("p0", 30), ("p1", None), ("p2", 120)), "run": RUN})
    for partition in platform.selected[0].cursor["ranges"][:2]:
        partition["done"] = False

    def estimate(stream: Stream, cursor: Any) -> Estimate:
        return Estimate(records=len(span(stream, cursor)))

    assert split(read, partitions=partitions, estimate=estimate) == 0
    asked = next(body for path, body in platform.calls if path == "estimate")
    assert asked["streams"]["people"]["records"] == 19 + 50


def test_a_worker_that_writes_a_file_ends_the_attempt(split: Any) -> None:
    def reading(stream: Stream, cursor: Any) -> Iterator[Batch]:
        if threading.current_thread() is not threading.main_thread():
            Path("/penstock-trial-state").write_text("kept")
        yield from read(stream, cursor)

    assert split(reading, partitions=partitions) == 13

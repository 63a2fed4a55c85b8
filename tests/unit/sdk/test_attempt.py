"""An attempt against a run API and a bucket over HTTP: what is committed, what is promised, how it ends."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from penstock_sdk import (
    AuthenticationError,
    Batch,
    DefectError,
    SourceContractError,
    Stream,
    TransientError,
    _waiting,
)
from penstock_sdk import protocol as wire
from penstock_sdk._runtime.assignment import Assignment
from penstock_sdk._runtime.commits import StreamCommits
from penstock_sdk._runtime.connector_loader import InstalledConnector
from penstock_sdk._runtime.encode import Envelope, FinishedObject
from penstock_sdk._runtime.metrics import Metrics
from penstock_sdk._runtime.pipeline import StreamPipeline
from penstock_sdk._runtime.run import run_connector
from penstock_sdk._runtime.upload_grants import UploadGrants
from penstock_sdk.contract import Records
from penstock_sdk.testing.run_api import RUN

from tests.patience import PATIENCE

IDENTITY = wire.ConnectorIdentity(name="fake", method="list", version="1.0.0")
ENVELOPE = Envelope("team", "orders", "fake-list-1.0.0", "people", "run1", 2, 1)


def batches(count: int, size: int = 10, *, promise: bool = True) -> Iterator[Batch]:
    for batch in range(count):
        numbers = range(batch * size, batch * size + size)
        yield Batch([{"n": number} for number in numbers], cursor=numbers[-1] if promise else None)


def numbers(platform: Any, commits: Any = None) -> list[int]:
    return [line["data"]["n"] for line in platform.lines(commits)]


def test_every_record_is_committed_once_with_an_id_of_its_own(attempt: Any, platform: Any) -> None:
    platform.limits = wire.Limits(checkpoint_records=30, heartbeat_seconds=60)
    assert attempt(lambda *_: batches(10)) == 0
    assert numbers(platform) == list(range(100))
    assert len({line["id"] for line in platform.lines()}) == 100
    assert platform.finished[0].outcome == "succeeded"
    assert platform.finished[0].records == {"people": 100}


def test_each_commits_cursor_covers_exactly_what_is_committed(attempt: Any, platform: Any) -> None:
    platform.limits = wire.Limits(checkpoint_records=30, heartbeat_seconds=60)
    attempt(lambda *_: batches(10))
    assert [commit.checkpoint for commit in platform.commits] == [1, 2, 3, 4]
    assert [commit.done for commit in platform.commits] == [False, False, False, True]
    for end, commit in enumerate(platform.commits, 1):
        assert numbers(platform, platform.commits[:end]) == list(range(commit.cursor + 1))


def test_without_a_cursor_everything_commits_once_at_the_end(attempt: Any, platform: Any) -> None:
    platform.limits = wire.Limits(checkpoint_records=1, object_bytes=1024, heartbeat_seconds=60)

    def read(*_: Any) -> Iterator[Batch]:
        for batch in range(12):  # os.urandom: what does not compress fills objects
            yield Batch([{"n": batch * 50 + row, "noise": os.urandom(3000).hex()} for row in range(50)])

    assert attempt(read) == 0
    (commit,) = platform.commits
    assert commit.done
    assert commit.cursor is None
    assert len(commit.objects) > 10  # more than one page of grants
    assert [uploaded.sequence for uploaded in commit.objects] == list(range(1, len(commit.objects) + 1))
    assert numbers(platform) == list(range(600))


def test_an_empty_stream_is_still_marked_done_with_the_cursor_it_began_with(attempt: Any, platform: Any) -> None:
    platform.selected = [wire.SelectedStream(name="people", mode="incremental", cursor={"at": 7}, checkpoint=4)]
    assert attempt(lambda *_: iter([Batch([])])) == 0
    (commit,) = platform.commits
    assert (commit.checkpoint, commit.cursor, commit.objects, commit.done) == (5, {"at": 7}, [], True)
    assert platform.bucket.objects == {}


def test_a_stream_that_an_earlier_attempt_finished_is_not_read_again(attempt: Any, platform: Any) -> None:
    attempt.streams = ("people", "orders")
    platform.selected = [
        wire.SelectedStream(name="people", mode="full", done=True, checkpoint=1),
        wire.SelectedStream(name="orders", mode="incremental", cursor=41),
    ]
    seen: list[Any] = []

    def read(stream: Stream, cursor: Any) -> Iterator[Batch]:
        seen.append((stream.name, cursor))
        yield from batches(1)

    assert attempt(read) == 0
    assert seen == [("orders", 41)]


def test_a_cursor_is_committed_after_seconds_too(started: Any, platform: Any) -> None:
    now = [0.0]
    limits = wire.Limits(checkpoint_seconds=30)
    pipeline = StreamPipeline(
        StreamCommits(started, "people", 0, Metrics()), ENVELOPE, None, limits, clock=lambda: now[0]
    )
    for moment, commits in ((29.0, 0), (30.0, 1), (59.0, 1), (60.0, 2)):
        now[0] = moment
        pipeline.emit([{"n": moment}], "upsert")
        pipeline.checkpoint(moment)
        pipeline.settle()
        assert len(platform.commits) == commits
    pipeline.close()


@pytest.mark.parametrize("path", ["start", "streams", "uploads", "checkpoints", "finish", "put"])
def test_a_lost_reply_neither_loses_nor_doubles_a_record(attempt: Any, platform: Any, path: str) -> None:
    platform.lose_reply = [path]
    platform.limits = wire.Limits(checkpoint_records=20, heartbeat_seconds=60)
    assert attempt(lambda *_: batches(5)) == 0
    assert platform.lose_reply == []
    assert numbers(platform) == list(range(50))
    assert [commit.checkpoint for commit in platform.commits] == [1, 2, 3]


def test_a_server_of_an_older_protocol_makes_the_attempt_try_again(attempt: Any, platform: Any) -> None:
    older = {"run_token": "t", "tenant": "team-a", "connection": "c", "config": {}, "streams": []}
    platform.refuse = {"start": [(200, older | {"connector": IDENTITY.model_dump()})]}
    assert attempt(lambda *_: batches(1)) == TransientError.exit_code
    assert platform.count("streams") == 0


def test_objects_that_are_complete_share_a_request_for_grants(started: Any, platform: Any) -> None:
    grants = UploadGrants(started, "people")
    finished = [FinishedObject(number, {"upsert": 1}, b"x", hashlib.sha256(b"x").hexdigest()) for number in (1, 2, 3)]
    for complete in finished:
        grants.announce(complete)
    assert [grants.upload(complete).sequence for complete in finished] == [1, 2, 3]
    assert platform.count("uploads") == 1


def test_an_unavailable_server_is_waited_for(attempt: Any, platform: Any) -> None:
    platform.refuse = {
        "start": [(503, {"code": "not_ready", "message": "wait"})] * 2,
        "checkpoints": [(502, {}), (503, {"code": "unavailable", "message": "wait"})],
    }
    assert attempt(lambda *_: batches(1)) == 0
    assert numbers(platform) == list(range(10))


def test_an_expired_place_is_replaced_by_a_new_one(attempt: Any, platform: Any) -> None:
    platform.expired = {"1"}
    assert attempt(lambda *_: batches(2)) == 0
    assert platform.count("uploads") == 2
    assert numbers(platform) == list(range(20))


def test_an_object_of_somebody_else_in_our_place_is_not_taken_for_ours(attempt: Any, platform: Any) -> None:
    platform.bucket.objects[platform.object_key("people", 1)] = b"somebody else's"
    assert attempt(lambda *_: batches(1)) == TransientError.exit_code
    assert platform.commits == []
    assert platform.bucket.objects[platform.object_key("people", 1)] == b"somebody else's"


def test_an_object_that_arrived_under_a_grant_which_then_expired_is_known_as_ours(attempt: Any, platform: Any) -> None:
    platform.lose_reply = ["put, and the grant"]
    assert attempt(lambda *_: batches(2)) == 0
    assert platform.count("uploads") == 2
    assert numbers(platform) == list(range(20))


def test_an_expired_place_that_somebody_filled_is_not_taken_for_ours(attempt: Any, platform: Any) -> None:
    platform.expired = {"1"}
    platform.before_put = lambda key: platform.bucket.objects.setdefault(key, b"somebody else's")
    assert attempt(lambda *_: batches(1)) == TransientError.exit_code
    assert platform.commits == []


def test_commits_keep_their_order_however_long_each_upload_takes(attempt: Any, platform: Any) -> None:
    later = [threading.Event() for _ in range(6)]

    def hold(key: str) -> None:  # an object arrives when the next one has, or when nothing else can move
        at = int(key.removesuffix(".jsonl.zst")[-6:]) - 1
        later[at].set()
        if at % 2 == 0 and at + 1 < len(later):
            later[at + 1].wait(5)

    platform.before_put = hold
    platform.limits = wire.Limits(checkpoint_records=10, heartbeat_seconds=60)
    assert attempt(lambda *_: batches(6)) == 0
    assert [commit.checkpoint for commit in platform.commits] == list(range(1, 8))
    for end, commit in enumerate(platform.commits, 1):
        assert numbers(platform, platform.commits[:end]) == list(range(commit.cursor + 1))


def test_after_a_failed_upload_nothing_later_is_committed(attempt: Any, platform: Any) -> None:
    """Invariant 4: what is committed is a prefix, whatever was uploaded beyond it."""
    platform.bucket.objects[platform.object_key("people", 3)] = b"in the way"
    platform.limits = wire.Limits(checkpoint_records=10, heartbeat_seconds=60)
    assert attempt(lambda *_: batches(50)) == TransientError.exit_code
    assert [commit.checkpoint for commit in platform.commits] == [1, 2][: len(platform.commits)]
    assert numbers(platform) == list(range(10 * len(platform.commits)))
    assert platform.finished[0].records == ({"people": 10 * len(platform.commits)} if platform.commits else {})


def test_after_a_refused_commit_no_later_one_is_tried(attempt: Any, platform: Any) -> None:
    platform.limits = wire.Limits(checkpoint_records=10, heartbeat_seconds=60)
    platform.refuse = {"checkpoints": [(409, {"code": "fenced", "message": "another attempt"})]}
    assert attempt(lambda *_: batches(50)) == 32
    assert platform.count("checkpoints") == 1
    assert platform.commits == []


def test_an_author_who_catches_every_error_cannot_outlive_a_failed_commit(started: Any, platform: Any) -> None:
    platform.limits = wire.Limits(checkpoint_records=1, heartbeat_seconds=60)
    platform.refuse = {"checkpoints": [(422, {"code": "invalid", "message": "no"})]}
    pipeline = StreamPipeline(StreamCommits(started, "people", 0, Metrics()), ENVELOPE, None, platform.limits)
    for number in range(20):
        with contextlib.suppress(Exception):
            pipeline.emit([{"n": number}], "upsert")
            pipeline.checkpoint(number)
    with pytest.raises(DefectError):
        pipeline.finish()
    pipeline.close()
    assert platform.commits == []
    assert platform.count("checkpoints") == 1


def test_what_was_covered_before_the_connector_failed_is_committed(attempt: Any, platform: Any) -> None:
    platform.limits = wire.Limits(checkpoint_records=10, heartbeat_seconds=60)

    def read(*_: Any) -> Iterator[Batch]:
        yield from batches(8)
        raise TransientError("the source went away")

    assert attempt(read) == TransientError.exit_code
    assert numbers(platform) == list(range(80))
    assert platform.finished[0].records == {"people": 80}


def test_a_slow_bucket_holds_the_reader_up(attempt: Any, platform: Any) -> None:
    """Memory is bounded: the reader does not run ahead of what can be uploaded."""
    opened, seen = threading.Event(), list[int]()
    platform.before_put = lambda _: opened.wait(10) and None
    platform.limits = wire.Limits(checkpoint_records=10, heartbeat_seconds=60)

    def read(*_: Any) -> Iterator[Batch]:
        for number, batch in enumerate(batches(100)):
            seen.append(number)
            yield batch

    def watch() -> None:  # the reader has stopped when its count has, for a while
        before = -1
        while before != len(seen):
            before = len(seen)
            time.sleep(0.3)
        seen_while_shut.append(before)
        opened.set()

    seen_while_shut: list[int] = []
    watcher = threading.Thread(target=watch)
    watcher.start()
    assert attempt(read) == 0
    watcher.join()
    assert seen_while_shut[0] <= 10
    assert numbers(platform) == list(range(1000))


def test_a_batch_larger_than_an_object_becomes_several(attempt: Any, platform: Any) -> None:
    target = 1 << 20
    platform.limits = wire.Limits(object_bytes=target, heartbeat_seconds=60)
    rows = [{"n": number, "noise": os.urandom(2000).hex()} for number in range(4000)]  # 8 MB when compressed
    assert attempt(lambda *_: iter([Batch(rows, cursor=1)])) == 0
    (commit,) = platform.commits
    sizes = [uploaded.bytes for uploaded in commit.objects]
    assert all(target <= size < target * 2 for size in sizes[:-1])
    assert len(sizes) > 3
    assert numbers(platform) == list(range(4000))
    assert len({line["id"] for line in platform.lines()}) == 4000


def test_only_start_carries_the_pods_own_token(attempt: Any, platform: Any) -> None:
    attempt(lambda *_: batches(1))
    assert platform.tokens[0] == ("start", platform.token)
    (run_token,) = {token for _, token in platform.tokens[1:]}
    assert run_token != platform.token


def test_a_sigterm_commits_what_is_covered_and_ends_at_the_batch_boundary(attempt: Any, platform: Any) -> None:
    def read(*_: Any) -> Iterator[Batch]:
        for index, batch in enumerate(batches(10)):
            if index == 3:
                attempt.interrupts[0]()
            yield batch

    assert attempt(read) == 31
    (commit,) = platform.commits
    assert (commit.cursor, commit.done) == (39, False)
    assert numbers(platform) == list(range(40))
    assert (platform.finished[0].outcome, platform.finished[0].records) == ("interrupted", {"people": 40})


def test_a_sigterm_commits_what_a_cursor_covers_and_nothing_after_it(attempt: Any, platform: Any) -> None:
    def read(*_: Any) -> Iterator[Batch]:
        yield from batches(1)
        attempt.interrupts[0]()
        yield Batch([{"n": 10}])

    assert attempt(read) == 31
    (commit,) = platform.commits
    assert (commit.cursor, commit.done) == (9, False)
    assert numbers(platform) == list(range(10))


def test_a_wait_for_the_source_ends_when_the_run_is_cancelled(attempt: Any, platform: Any) -> None:
    platform.limits = wire.Limits(heartbeat_seconds=0.02)

    def read(*_: Any) -> Iterator[Batch]:
        yield from batches(1)
        platform.cancel_requested = True
        _waiting.wait(PATIENCE)

    assert attempt(read) == 30
    assert (platform.finished[0].outcome, numbers(platform)) == ("cancelled", list(range(10)))


def test_a_cancel_in_a_heartbeat_ends_the_attempt_as_cancelled(attempt: Any, platform: Any) -> None:
    platform.limits = wire.Limits(heartbeat_seconds=0.02)

    def read(*_: Any) -> Iterator[Batch]:
        for batch in batches(500, size=1):
            time.sleep(0.01)
            yield batch
            platform.cancel_requested = True

    assert attempt(read) == 30
    assert platform.finished[0].outcome == "cancelled"
    assert numbers(platform) == list(range(platform.commits[-1].cursor + 1))
    beat = next(body for path, body in platform.calls if path == "heartbeat")
    assert {"records", "bytes_uploaded", "rss_peak_bytes", "checkpoints"} <= set(beat["metrics"])


def test_a_fenced_attempt_ends_without_a_word(attempt: Any, platform: Any) -> None:
    platform.refuse = {"checkpoints": [(409, {"code": "fenced", "message": "another attempt"})]}
    assert attempt(lambda *_: batches(1)) == 32
    assert platform.finished == []
    assert platform.commits == []


@pytest.mark.parametrize("path", ["start", "checkpoints"])
def test_a_refused_token_is_no_takeover(attempt: Any, platform: Any, path: str) -> None:
    platform.refuse = {path: [(401, {"code": "unauthenticated", "message": "the token is not one of this platform"})]}
    assert attempt(lambda *_: batches(1)) == 33
    assert platform.finished == [], "without a token there is nobody to tell"
    assert platform.commits == []


def test_an_unencodable_record_fails_the_run_by_path_and_commits_no_half_object(attempt: Any, platform: Any) -> None:
    rows = [{"n": 1}, {"n": {"deep": [1, 5 + 98765j]}}]
    assert attempt(lambda *_: iter([Batch(rows, cursor=1)])) == SourceContractError.exit_code
    failure = platform.finished[0].error
    assert "'people', record 1 of its batch: field n.deep[1] of type complex" in failure.message
    assert "98765" not in failure.message + failure.operator_message
    assert platform.commits == []


def test_an_author_who_skips_a_bad_record_keeps_an_object_that_holds_what_it_counts(
    started: Any, platform: Any
) -> None:
    pipeline = StreamPipeline(StreamCommits(started, "people", 0, Metrics()), ENVELOPE, None, wire.Limits())
    with pytest.raises(SourceContractError):
        pipeline.emit([*({"n": n} for n in range(1200)), {"n": 1j}], "upsert")
    pipeline.emit([{"n": -1}], "upsert")
    pipeline.finish()
    pipeline.close()
    assert sum(uploaded.records for uploaded in platform.commits[0].objects) == len(platform.lines())
    assert [line["seq"] for line in platform.lines()] == list(range(len(platform.lines())))


class Arrow:
    """As much of a record batch as the SDK needs."""

    def to_pylist(self) -> list[dict[str, Any]]:
        return [{"n": 0}, {"n": 1}]


@pytest.mark.parametrize(
    "page",
    [
        b'[{"n":0},{"n":1}]',
        b'[\n  {\n    "n": 0\n  },\r\n  {"n":\n 1}\n]\n',
        b'{"n":0}\n{"n":1}\n',
        [{"n": 0}, {"n": 1}],
        ({"n": 0}, {"n": 1}),
        Arrow(),
    ],
    ids=["array", "pretty", "lines", "list", "tuple", "arrow"],
)
def test_every_form_of_records_arrives_one_a_line(attempt: Any, platform: Any, page: Records) -> None:
    assert attempt(lambda *_: iter([Batch(page, cursor=1)])) == 0
    assert numbers(platform) == [0, 1]
    assert platform.finished[0].records == {"people": 2}


def test_a_missing_credential_is_the_owners_to_add(attempt: Any, platform: Any) -> None:
    attempt.credentials = {}
    assert attempt(lambda *_: batches(1)) == AuthenticationError.exit_code
    assert "password" in platform.finished[0].error.message


def test_a_config_that_does_not_fit_is_named_by_its_field(attempt: Any, platform: Any) -> None:
    platform.config = {"tables": "many"}
    assert attempt(lambda *_: batches(1)) == 10
    assert "$.tables" in platform.finished[0].error.message


def test_streams_that_are_refused_are_the_configs_fault(attempt: Any, platform: Any) -> None:
    platform.refuse = {"streams": [(422, {"code": "invalid", "message": "no stream 'x'"})]}
    assert attempt(lambda *_: batches(1)) == 10
    assert platform.finished[0].error.message == "no stream 'x'"


def test_an_invalid_checkpoint_is_a_defect(attempt: Any, platform: Any) -> None:
    platform.refuse = {"checkpoints": [(422, {"code": "invalid", "message": "no"})]}
    assert attempt(lambda *_: batches(1)) == 1
    assert platform.finished[0].error.error_class == "DefectError"


def test_a_secret_in_an_exception_is_masked_in_the_report(attempt: Any, platform: Any) -> None:
    def refuse() -> None:
        raise RuntimeError("no entry with hunter2000")

    assert attempt(lambda *_: batches(1), authenticate=refuse) == 1
    failure = platform.finished[0].error
    assert failure.operator_message == "RuntimeError: no entry with ***"
    assert "Traceback" not in failure.message


def test_a_wish_to_wait_reaches_the_platform(attempt: Any, platform: Any) -> None:
    def refuse() -> None:
        raise TransientError("too many requests", retry_after=90)

    assert attempt(lambda *_: batches(1), authenticate=refuse) == 20
    assert platform.finished[0].error.retry_after == 90


def test_an_exit_in_connector_code_is_a_defect_and_not_a_success(attempt: Any, platform: Any) -> None:
    assert attempt(lambda *_: batches(1), authenticate=lambda: sys.exit(0)) == 1
    assert platform.finished[0].outcome == "failed"


def broken_close() -> None:
    raise AttributeError("session")


def test_a_close_that_fails_does_not_hide_why_the_attempt_failed(attempt: Any, platform: Any) -> None:
    def refuse() -> None:
        raise AuthenticationError("wrong password")

    assert attempt(lambda *_: batches(1), authenticate=refuse, close=broken_close) == 11
    assert platform.finished[0].error.message == "wrong password"


def test_a_close_that_fails_does_not_fail_what_is_committed(attempt: Any, platform: Any) -> None:
    assert attempt(lambda *_: batches(1), close=broken_close) == 0
    assert platform.finished[0].outcome == "succeeded"


def test_a_write_beside_the_temp_dir_ends_the_run_and_names_the_path(attempt: Any, platform: Any) -> None:
    place = Path.home() / "penstock-state.json"

    def read(*_: Any) -> Iterator[Batch]:
        place.write_text("{}")
        yield from batches(1)

    assert attempt(read) == 13
    assert str(place) in platform.finished[0].error.message
    assert not place.exists()


@pytest.mark.parametrize("after", [0, 3])
def test_a_write_that_the_author_catches_still_ends_the_run(attempt: Any, platform: Any, after: int) -> None:
    def read(*_: Any) -> Iterator[Batch]:
        for number, batch in enumerate(batches(4)):
            if number == after:
                with contextlib.suppress(Exception):
                    Path("/penstock-state.json").write_text("{}")
            yield batch

    assert attempt(read) == 13
    assert platform.finished[0].error.error_class == "LocalPersistenceError"
    assert "/penstock-state.json" in platform.finished[0].error.message
    assert not any(commit.done for commit in platform.commits)


def test_a_message_that_no_text_can_hold_is_reported_all_the_same(attempt: Any, platform: Any) -> None:
    def read(*_: Any) -> Iterator[Batch]:
        yield from batches(1)
        raise SourceContractError("row \0 of \ud800")

    assert attempt(read) == 12
    assert platform.finished[0].error.message == "stream 'people': row \ufffd of ?"


def test_a_full_temporary_directory_is_named(attempt: Any, platform: Any) -> None:
    def read(*_: Any) -> Iterator[Batch]:
        Path("/dev/full").write_text("scratch")
        yield from batches(1)

    assert attempt(read) == 1
    assert "filled its temporary directory" in platform.finished[0].error.message
    assert "No space left on device" in platform.finished[0].error.operator_message


def test_a_connector_that_cannot_be_imported_is_reported_by_its_reason(
    attempt: Any, platform: Any, client: Any
) -> None:
    entry = metadata.EntryPoint("fake-list", "penstock_no_such_package.connector:Fake", "penstock.connectors")
    assignment = Assignment(RUN, platform.attempt, IDENTITY, InstalledConnector(entry).load, {})
    assert run_connector(assignment, client) == 1
    failure = platform.finished[0].error
    assert failure.error_class == "DefectError"
    assert "cannot be loaded" in failure.message
    assert "No module named 'penstock_no_such_package'" in failure.message


def test_a_heartbeat_and_every_log_line_say_which_stream(attempt: Any, platform: Any) -> None:
    platform.limits = wire.Limits(heartbeat_seconds=0.01)
    seen: list[dict[str, Any]] = []

    def read(*_: Any) -> Iterator[Batch]:
        seen.append(dict(attempt.log_context))
        while not any(path == "heartbeat" for path, _ in platform.calls):
            time.sleep(0.01)
        yield from batches(1)

    assert attempt(read) == 0
    assert {"tenant": "team-a", "connection": "trial", "stream": "people"}.items() <= seen[0].items()
    assert "stream" not in attempt.log_context
    assert "people" in [body["stream"] for path, body in platform.calls if path == "heartbeat"]


def test_a_log_line_is_json_and_holds_no_secret_however_json_would_escape_it() -> None:
    from penstock_sdk._runtime.json_logs import JsonLogFormatter
    from penstock_sdk._runtime.masking import Mask

    secrets = ['pa"ss\\word', "pässwörd"]
    record = logging.LogRecord("x", logging.INFO, "f", 1, "login with %s", (" and ".join(secrets),), None)
    line = json.loads(JsonLogFormatter({"run": "r", "attempt": 1}, Mask(secrets)).format(record))
    assert line["message"] == "login with *** and ***"
    assert line["run"] == "r"

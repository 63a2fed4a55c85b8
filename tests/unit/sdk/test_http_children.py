"""Child streams, jobs, GraphQL, and requests side by side."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock_sdk import Batch, Cursor, SourceContractError, TransientError
from penstock_sdk.contract import rows_of
from penstock_sdk.http import (
    AsyncJob,
    Client,
    JobId,
    NotFoundError,
    graphql,
    graphql_pages,
    map_in_order,
    read_children,
)
from penstock_sdk.testing.source import Answer, FakeSource, Request

BASE = "https://api.test"
Children = dict[int, list[int]]


def ids(batches: Iterator[Batch]) -> list[Any]:
    return [row["id"] for batch in batches for row in rows_of(batch.records)]


class Source:
    """Numbers below parents; a cursor is the highest number that was read."""

    def __init__(self, children: Children) -> None:
        self.children = children
        self.requested: list[int] = []

    def numbers(self, parent: int, cursor: Cursor | None) -> Iterator[Batch]:
        self.requested.append(parent)
        if parent not in self.children:
            raise NotFoundError
        above = -1 if cursor is None else cursor
        for number in (number for number in self.children[parent] if number > above):  # type: ignore[operator]
            yield Batch([{"id": (parent, number)}], cursor=number)

    def read(self, cursor: Cursor | None, parents: list[int] | None = None, **options: Any) -> Iterator[Batch]:
        return read_children(
            list(self.children) if parents is None else parents,
            self.numbers,
            cursor,
            key=lambda parent: parent,
            **options,
        )

    def all(self) -> list[tuple[int, int]]:
        return [(parent, number) for parent, numbers in self.children.items() for number in numbers]


CHILDREN = st.dictionaries(
    st.integers(0, 5), st.lists(st.integers(0, 9), unique=True, max_size=4).map(sorted), max_size=5
)


@given(children=CHILDREN, incremental=st.booleans())
def test_every_cursor_resumes_at_its_child(children: Children, *, incremental: bool) -> None:
    source = Source(children)
    read: list[Any] = []
    for batch in source.read(None, incremental=incremental):
        read += ids(iter([batch]))
        if batch.cursor is not None:
            assert read + ids(source.read(batch.cursor, incremental=incremental)) == source.all()
    assert read == source.all()


@given(
    children=CHILDREN,
    changes=st.lists(st.tuples(st.integers(0, 6), st.integers(10, 20)), max_size=6),
    deleted=st.sets(st.integers(0, 5)),
)
def test_a_later_run_reads_what_was_added_and_forgets_deleted_parents(
    children: Children, changes: list[tuple[int, int]], deleted: set[int]
) -> None:
    source = Source({parent: list(numbers) for parent, numbers in children.items()})
    cursor: Any = None
    for batch in source.read(cursor):
        cursor = batch.cursor
    for parent in deleted:
        source.children.pop(parent, None)
    added = set()
    for parent, number in changes:
        numbers = source.children.setdefault(parent, [])
        if number not in numbers:
            numbers.append(number)
            numbers.sort()
            added.add((parent, number))
    expected = added | {
        (parent, number) for parent in deleted & set(source.children) for number in source.children[parent]
    }
    found = []
    for batch in source.read(cursor):
        found += ids(iter([batch]))
        cursor = batch.cursor or cursor
    kept = {(parent, number) for parent, number in expected if parent not in deleted or number >= 10}
    assert kept <= set(found)
    assert len(found) == len(set(found))
    assert set((cursor or {"parents": {}})["parents"]) <= set(map(str, source.children))


def test_a_full_read_that_resumes_leaves_finished_parents_out() -> None:
    source = Source({1: [1], 2: [], 3: [1, 2]})
    batches = list(source.read(None, incremental=False))
    source.requested.clear()
    after_second = next(batch.cursor for batch in batches if batch.cursor and "2" in batch.cursor.get("read", ()))  # type: ignore[union-attr,operator]
    assert ids(source.read(after_second, incremental=False)) == [(3, 1), (3, 2)]
    assert source.requested == [3]


def test_a_parent_that_was_deleted_meanwhile_is_left_out() -> None:
    source = Source({1: [1], 3: [1]})
    assert ids(source.read(None, parents=[1, 2, 3])) == [(1, 1), (3, 1)]


def test_a_path_that_no_parent_has_is_an_error() -> None:
    with pytest.raises(NotFoundError):
        list(Source({}).read(None, parents=[1, 2]))


def test_a_parent_that_is_listed_twice_is_read_once() -> None:
    assert ids(Source({1: [1]}).read(None, parents=[1, 1])) == [(1, 1)]


def test_the_cursors_of_unlisted_parents_can_be_kept() -> None:
    source = Source({1: [1], 2: [1]})
    cursor = list(source.read(None))[-1].cursor
    source.children[2].append(5)
    batches = list(source.read(cursor, parents=[2], forget_missing=False))
    assert batches[-1].cursor == {"parents": {"1": 1, "2": 5}}


@pytest.mark.parametrize("cursor", [7, {"at": 1}, {"parents": []}, {"parents": {}, "read": "x"}])
def test_the_cursor_of_another_read_is_refused(cursor: Cursor) -> None:
    with pytest.raises(SourceContractError, match="reset the stream's state"):
        list(Source({1: [1]}).read(cursor))


def test_more_parents_than_a_cursor_holds_are_refused() -> None:
    source = Source({parent: [1] for parent in range(10_001)})
    with pytest.raises(SourceContractError, match="more than 10,000 parents: read them as partitions"):
        list(source.read({"parents": {str(parent): 0 for parent in range(10_000)}}))


# -- concurrency


@given(count=st.integers(0, 30), workers=st.integers(1, 8))
def test_results_have_the_order_of_their_items(count: int, workers: int) -> None:
    assert list(map_in_order(lambda item: item * 2, range(count), workers=workers)) == [
        2 * item for item in range(count)
    ]


def test_no_more_calls_run_than_there_are_workers() -> None:
    lock, running, most = threading.Lock(), 0, 0
    both = threading.Barrier(2)

    def call(item: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        both.wait(60)
        with lock:
            running -= 1
        return item

    taken: list[int] = []
    results = map_in_order(call, (taken.append(item) or item for item in range(8)), workers=2)  # type: ignore[func-returns-value]
    assert next(results) == 0
    assert len(taken) <= 4
    assert list(results) == list(range(1, 8))
    assert most == 2


def test_an_error_is_raised_in_its_turn() -> None:
    def call(item: int) -> int:
        if item == 2:
            raise TransientError("no")
        return item

    results = map_in_order(call, range(10), workers=3)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(TransientError):
        next(results)


@pytest.mark.parametrize("workers", [0, -1, 33])
def test_a_number_of_workers_has_limits(workers: int) -> None:
    with pytest.raises(ValueError, match="from 1 to 32"):
        next(map_in_order(str, [1], workers=workers))


# -- jobs

EXPORT = AsyncJob(create="exports", status="exports/{id}", succeeded=("done",), failed=("failed",), result_field="url")


def job_source(*states: str | None, status: int = 200) -> tuple[FakeSource, list[float], Client]:
    remaining = list(states)

    def create(_: Request) -> Answer:
        return Answer.of_json({"id": 7}, 201)

    def poll(_: Request) -> Answer:
        return Answer.of_json(
            {"status": remaining.pop(0) if len(remaining) > 1 else remaining[0], "url": "/files/7"}, status
        )

    source = FakeSource(routes={"exports": create, "exports/7": poll})
    waits: list[float] = []
    return source, waits, Client(source.url, wait=waits.append)


def test_a_job_is_polled_until_it_succeeds() -> None:
    source, waits, client = job_source("queued", "running", "done")
    with source:
        job = EXPORT.start(client, {"what": "items"})
        assert (job, EXPORT.finish(client, job)) == ("7", ["/files/7"])
    assert (waits, source.requests[0].body) == ([5, 5], b'{"what":"items"}')


@pytest.mark.parametrize(
    ("state", "error", "text"),
    [
        ("failed", TransientError, "job 7 ended as 'failed'"),
        ("running", TransientError, "still 'running' after 3600 seconds"),
        (None, SourceContractError, "no state of the job"),
    ],
)
def test_a_job_that_does_not_succeed_is_named(state: str | None, error: type[Exception], text: str) -> None:
    source, _, client = job_source(state)
    with source, pytest.raises(error, match=text):
        EXPORT.finish(client, JobId("7"))


def test_a_job_that_the_source_forgot_is_not_found() -> None:
    source, _, client = job_source("done")
    with source, pytest.raises(NotFoundError):
        EXPORT.finish(client, JobId("../8"))


def test_a_job_declares_one_place_of_its_result() -> None:
    with pytest.raises(ValueError, match="either result_field or result"):
        AsyncJob(create="a", status="b", succeeded=(), failed=())


# -- GraphQL

QUERY = "query($after: String) { items(after: $after) { nodes { id } pageInfo { hasNextPage endCursor } } }"


def graphql_client(*bodies: object) -> tuple[Client, list[bytes]]:
    remaining, sent = list(bodies), list[bytes]()

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request.content)
        return httpx.Response(200, json=remaining.pop(0))

    return Client(BASE, transport=httpx.MockTransport(answer)), sent


def connection(numbers: list[int], cursor: str | None) -> dict[str, object]:
    info = {"hasNextPage": cursor is not None, "endCursor": cursor}
    return {"data": {"items": {"nodes": [{"id": number} for number in numbers], "pageInfo": info}}}


def test_a_connection_is_read_page_by_page() -> None:
    client, sent = graphql_client(connection([1, 2], "a"), connection([3], None))
    pages = graphql_pages(client, "graphql", QUERY, connection="items", variables={"owner": "o"})
    assert [row["id"] for page in pages for row in page.rows] == [1, 2, 3]
    assert b'"variables":{"owner":"o","after":"a"}' in sent[1]


@pytest.mark.parametrize(
    "body", [{"errors": [{"message": "no such field"}]}, {"data": {"items": None}, "errors": ["no such field"]}]
)
def test_errors_beside_data_are_an_error(body: object) -> None:
    client, _ = graphql_client(body)
    with pytest.raises(SourceContractError, match="the source says: no such field"):
        graphql(client, "graphql", QUERY)

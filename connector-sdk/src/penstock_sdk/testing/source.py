"""A fake HTTP source for tests: collections of records with any paging, and everything that goes wrong with real sources.

    items = Collection("items", rows, cursor_field="updated_at")
    with FakeSource(items, token="a-token") as source:
        client = Client(source.url)
        source.fail_next(Throttled("1"), Truncated())
        items.add({"id": 8, "updated_at": "2026-01-01T00:00:02+00:00"})

It is a server on this machine, so a connector under test uses its real HTTP client. `source.main()` makes it the program that
`serve` of a connector.test.yaml starts.
"""

from __future__ import annotations

import base64
import gzip
import json
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import ThreadingHTTPServer
from typing import Literal, Self, TypeAlias
from urllib.parse import parse_qsl, urlencode, urlsplit

from penstock_sdk.json_types import JsonObject, JsonValue
from penstock_sdk.testing.loopback import HOST, LoopbackServer, QuietHandler

__all__ = [
    "Answer",
    "Collection",
    "Corrupted",
    "ErrorStatus",
    "FakeSource",
    "Fault",
    "HtmlPage",
    "Paging",
    "Request",
    "Throttled",
    "Truncated",
    "tied_rows",
]

Paging = Literal["none", "since", "page", "offset", "cursor", "next-url", "link"]
"""How a collection is paged.

- `none`: all records in one response.
- `since`: the first records at or after the cursor field's value in `since_param`, in the order of the cursor field.
- `page`, `offset`: by number, with `page` or `offset`.
- `cursor`: the body's `next_cursor` is the next request's `cursor`.
- `next-url`, `link`: the body's `next`, or the header `Link`, has the next URL.
"""
OK, UNAUTHORIZED, NOT_FOUND, GONE, TOO_MANY = 200, 401, 404, 410, 429
GROW = "/-/grow"
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Request:
    """A request that the source got. The keys of `headers` are in small letters."""

    method: str
    path: str
    params: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    moment: float
    """The time, by `time.monotonic`."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A response, sent as it is. `length` is the Content-Length, if it is not the body's; then the connection is closed."""

    status: int = OK
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | None = None

    @classmethod
    def of_json(cls, document: JsonValue, status: int = OK, headers: Mapping[str, str] | None = None) -> Answer:
        """Return a response with a JSON body."""
        return cls(status, json.dumps(document).encode(), {"Content-Type": "application/json", **(headers or {})})


@dataclass(frozen=True, slots=True)
class Throttled:
    """The source refuses a request with 429, or another status, and asks to wait: `retry_after` is the header's text."""

    retry_after: str | None = None
    status: int = TOO_MANY

    def answer(self, answer: Answer) -> Answer:
        """Return the refusal."""
        del answer
        headers = {} if self.retry_after is None else {"Retry-After": self.retry_after}
        return Answer.of_json({"error": "too many requests"}, self.status, headers)


@dataclass(frozen=True, slots=True)
class ErrorStatus:
    """The source refuses a request: 401 is a token that has expired, 410 a cursor that the source no longer knows."""

    status: int = UNAUTHORIZED
    message: str = "refused"

    def answer(self, answer: Answer) -> Answer:
        """Return the refusal."""
        del answer
        return Answer.of_json({"error": {"message": self.message}}, self.status)


@dataclass(frozen=True, slots=True)
class Truncated:
    """The connection breaks in the middle of the body."""

    def answer(self, answer: Answer) -> Answer:
        """Return the first half of the answer's body, with the length of the whole."""
        half = answer.body[: len(answer.body) // 2]
        return Answer(answer.status, half, answer.headers, len(answer.body))


@dataclass(frozen=True, slots=True)
class HtmlPage:
    """An HTML page in place of JSON, such as a login page."""

    title: str = "Log in"
    status: int = OK

    def answer(self, answer: Answer) -> Answer:
        """Return the page."""
        del answer
        body = f"<!DOCTYPE html><html><head><title>{self.title}</title></head><body></body></html>"
        return Answer(self.status, body.encode(), {"Content-Type": "text/html; charset=utf-8"})


@dataclass(frozen=True, slots=True)
class Corrupted:
    """A body that is not what its headers say.

    - `encoding`: plain JSON that claims to be gzip.
    - `hidden-encoding`: gzip data without a Content-Encoding.
    - `half-encoding`: gzip data that ends early.
    - `type`: text that claims to be JSON.
    - `charset`: bytes that are not in the declared charset.
    - `bomb`: a small gzip body of 256 MiB.
    """

    how: Literal["encoding", "hidden-encoding", "half-encoding", "type", "charset", "bomb"]

    def answer(self, answer: Answer) -> Answer:
        """Return the answer, corrupted."""
        kind = {"Content-Type": "application/json"}
        compressed = {**kind, "Content-Encoding": "gzip"}
        packed = gzip.compress(answer.body)
        match self.how:
            case "encoding":
                return Answer(answer.status, answer.body, compressed)
            case "hidden-encoding":
                return Answer(answer.status, packed, kind)
            case "half-encoding":
                return Answer(answer.status, packed[: len(packed) // 2], compressed)
            case "type":
                return Answer(answer.status, b"the service is fine, thank you", kind)
            case "charset":
                return Answer(answer.status, b'["\xff\xfe\xfd"]', {"Content-Type": "application/json; charset=utf-8"})
            case "bomb":
                member = gzip.compress(b" " * (4 << 20))
                return Answer(answer.status, member * 64, compressed)


Fault: TypeAlias = Throttled | ErrorStatus | Truncated | HtmlPage | Corrupted | Answer
"""What happens to a request. An `Answer` is sent in place of the source's own."""


@dataclass
class Collection:
    """Records under a path, such as "items" or "parents/1/children".

    `records_field` is the field of the body that holds the records; None: the body is the list. `largest_page` is the
    source's own limit, whatever `size_param` asks for.
    """

    path: str
    rows: list[JsonObject] = field(default_factory=list)
    paging: Paging = "since"
    key: str = "id"
    cursor_field: str | None = None
    records_field: str | None = "items"
    since_param: str = "updated_since"
    size_param: str = "per_page"
    page_size: int = 20
    largest_page: int = 1000

    def add(self, row: JsonObject) -> None:
        """Add a record: a late one, if its cursor value is not the newest; a tied one, if others have its value."""
        self.rows.append(row)

    def remove(self, key: JsonValue) -> None:
        """Delete the record with a key."""
        self.rows[:] = [row for row in self.rows if row[self.key] != key]

    def grow(self) -> JsonObject:
        """Add a copy of the newest record, with a new key and the same cursor value, and return it."""
        newest = self.rows[-1]
        highest = max(row[self.key] for row in self.rows if isinstance(row[self.key], int))  # type: ignore[type-var]
        self.add({**newest, self.key: int(str(highest)) + 1})
        return self.rows[-1]

    def answer(self, request: Request) -> Answer:
        """Return a page."""
        rows, size = self.rows, min(_number(request, self.size_param, self.page_size), self.largest_page)
        start, name = 0, self.paging
        if name == "since":
            since = request.params.get(self.since_param, "")
            rows = [row for row in self._sorted() if str(row[self.cursor_field or ""]) >= since]
        elif name == "page":
            start = (_number(request, "page", 1) - 1) * size
        elif name != "none":
            start = _number(request, "cursor" if name == "cursor" else "offset", 0)
        page = rows if name == "none" else rows[start : start + size]
        after = start + len(page) if start + len(page) < len(rows) else None
        return self._page(request, page, after, size)

    def _sorted(self) -> list[JsonObject]:
        return sorted(self.rows, key=lambda row: str(row[self.cursor_field or ""]))

    def _page(self, request: Request, page: Sequence[JsonObject], after: int | None, size: int) -> Answer:
        if self.records_field is None:
            body: JsonValue = list(page)
        else:
            body = {self.records_field: list(page), "total": len(self.rows)}
            if self.paging == "cursor":
                body = {**body, "next_cursor": None if after is None else str(after)}
            elif self.paging == "next-url":
                body = {**body, "next": None if after is None else self._url(request, after, size)}
        headers = {}
        if self.paging == "link" and after is not None:
            headers = {"Link": f'<{self._url(request, after, size)}>; rel="next"'}
        return Answer.of_json(body, headers=headers)

    def _url(self, request: Request, after: int, size: int) -> str:
        query = urlencode({**request.params, "offset": after, self.size_param: size})
        return f"http://{request.headers.get('host', '')}{request.path}?{query}"


Route: TypeAlias = Callable[[Request], Answer]


class FakeSource:
    """A server with collections. It runs within a `with` block, at `url`.

    - `token`: requests need the header `Authorization: Bearer TOKEN`.
    - `user`: (name, password) for HTTP basic authentication.
    - `routes`: further paths, each with a function that answers.
    - `delay`: seconds before each answer.

    `requests` has the requests that it got. `fail_next` and `fail` declare faults.
    """

    def __init__(
        self,
        *collections: Collection,
        token: str | None = None,
        user: tuple[str, str] | None = None,
        routes: Mapping[str, Route] | None = None,
    ) -> None:
        self.collections = {collection.path.strip("/"): collection for collection in collections}
        self.routes = {path.strip("/"): route for path, route in (routes or {}).items()}
        self.token, self.user = token, user
        self.requests: list[Request] = []
        self._faults: list[Fault] = []
        self._plan: Callable[[int], Fault | None] = lambda _number: None
        self._lock = threading.Lock()
        self._server = LoopbackServer(_handler(self))

    def __enter__(self) -> Self:
        self._server.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.__exit__(*error)

    @property
    def url(self) -> str:
        """The address of the source."""
        return f"http://{HOST}:{self._server.port}"

    def fail_next(self, *faults: Fault) -> None:
        """Let the next requests fail, each with the next of these faults."""
        with self._lock:
            self._faults += faults

    def fail(self, plan: Callable[[int], Fault | None]) -> None:
        """Let requests fail by their number, from 1; None: the request succeeds."""
        self._plan = plan

    def respond(self, request: Request) -> Answer:
        """Count a request, and return its answer."""
        with self._lock:
            self.requests.append(request)
            fault = self._faults.pop(0) if self._faults else self._plan(len(self.requests))
            answer = self._answer(request)
        if fault is None:
            return answer
        return fault if isinstance(fault, Answer) else fault.answer(answer)

    def _answer(self, request: Request) -> Answer:
        if request.path == GROW and request.method == "POST":
            return Answer.of_json([collection.grow() for collection in self.collections.values() if collection.rows])
        if not self._is_authorized(request.headers.get("authorization", "")):
            return Answer.of_json({"error": "unauthorized"}, UNAUTHORIZED)
        path = request.path.strip("/")
        if path in self.collections:
            return self.collections[path].answer(request)
        if path in self.routes:
            return self.routes[path](request)
        return Answer.of_json({"error": "not found"}, NOT_FOUND)

    def _is_authorized(self, authorization: str) -> bool:
        if self.user is not None:
            expected = base64.b64encode(":".join(self.user).encode()).decode()
            return authorization == f"Basic {expected}"
        return self.token is None or authorization == f"Bearer {self.token}"

    def main(self, arguments: Sequence[str] | None = None) -> None:
        """Run as the program that `serve` of connector.test.yaml starts: `PORT` serves, `PORT grow` adds records.

        `grow` calls a server that runs, and adds to each collection a record with the newest cursor value.
        """
        port, *words = sys.argv[1:] if arguments is None else arguments
        if words == ["grow"]:
            urllib.request.urlopen(f"http://{HOST}:{int(port)}{GROW}", data=b"", timeout=10).close()
        else:
            _Server((HOST, int(port)), _handler(self)).serve_forever()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore the error: the suite kills clients."""


def _handler(source: FakeSource) -> type[QuietHandler]:
    class Handler(QuietHandler):
        def do_GET(self) -> None:  # noqa: N802 - http.server calls it so
            url = urlsplit(self.path)
            headers = {name.lower(): value for name, value in self.headers.items()}
            params = dict(parse_qsl(url.query, keep_blank_values=True))
            request = Request(self.command, url.path, params, headers, self.content(), time.monotonic())
            answer = source.respond(request)
            if answer.length is None:
                self.answer(answer.status, dict(answer.headers), answer.body)
            else:
                self._answer_with_length(answer, answer.length)

        do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_GET  # noqa: N815

        def _answer_with_length(self, answer: Answer, length: int) -> None:
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(answer.body)
            self.wfile.flush()
            self.close_connection = True

    return Handler


def _number(request: Request, name: str, default: int) -> int:
    found = request.params.get(name, "")
    return int(found) if found.isdigit() else default


def tied_rows(count: int, *, tied: int = 3, text_length: int = 0) -> list[JsonObject]:
    """Return records with an id from 0, a name, a price, and an `updated_at` from 2026-01-01 on.

    Each `updated_at` is shared by `tied` records. Names have `text_length` characters or more.
    """
    return [
        {
            "id": number,
            "name": f"item {number}".ljust(text_length, "."),
            "price": number / 4,
            "updated_at": (BEGIN + timedelta(seconds=number // tied)).isoformat(),
        }
        for number in range(count)
    ]

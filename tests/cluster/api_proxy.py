"""What stands between operators and the API server, and does to their requests and watches what bad days do.

Faults are cards of seeded decks: each kind comes at random, and at least once in as many requests, or events, as its deck
has cards.
"""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import threading
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Self

from aiohttp import ClientResponse, ClientSession, ClientTimeout, TCPConnector, web

PASS = ""
READS = {PASS: 44, "429": 2, "503": 2, "reset": 2}
WRITES = {PASS: 17, "409": 2, "429": 1, "503": 1, "reset": 1, "answer lost": 3}
LAUNCHES = {PASS: 5, "409": 1, "503": 1, "answer lost": 3}
CONTINUED = {PASS: 7, "410": 1}
EVENTS = {PASS: 25, "dropped": 3, "repeated": 4, "cut": 2, "expired": 1}
PAGE = "10"  # in place of what is asked for, so that a list has pages
REASONS = {"409": "Conflict", "410": "Expired", "429": "TooManyRequests", "503": "ServiceUnavailable"}
HOP = ("host", "content-length", "accept-encoding", "connection", "transfer-encoding", "content-encoding")
LINE = 4 * 1024 * 1024  # bytes of the longest event


class Deck:
    """Cards in a random order, shuffled anew when all are drawn."""

    def __init__(self, title: str, cards: Mapping[str, int], randomness: random.Random) -> None:
        self.kinds = {f"{title}: {card}" for card in cards if card}
        self._cards = [card for card, count in cards.items() for _ in range(count)]
        self._random = randomness
        self._left: list[str] = []

    def draw(self) -> str:
        """Return the next card."""
        if not self._left:
            self._left = self._random.sample(self._cards, len(self._cards))
        return self._left.pop()


class ApiProxy:
    """Listens on a port of loopback, without TLS. `counted` says what it did, `jobs` which Jobs it saw created."""

    def __init__(self, server: str, trust: ssl.SSLContext, seed: int) -> None:
        self.counted: Counter[str] = Counter()
        self.jobs: Counter[str] = Counter()
        self.deaf: set[str] = set()
        self.faults = threading.Event()
        self.port = 0
        self._server, self._trust = server.rstrip("/"), trust
        randomness = random.Random(seed)
        kinds = {"read": READS, "write": WRITES, "launch": LAUNCHES, "list": CONTINUED, "event": EVENTS}
        self._decks = {title: Deck(title, cards, randomness) for title, cards in kinds.items()}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._start()).result(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._stop()).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)

    def expected(self) -> set[str]:
        """Return what `counted` names once every kind of fault has come."""
        return set[str]().union(*(deck.kinds for deck in self._decks.values()))

    def _call(self, work: Any) -> Future[None]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _start(self) -> None:
        connector = TCPConnector(ssl=self._trust, limit=0)
        self._client = ClientSession(connector=connector, timeout=ClientTimeout(sock_connect=10), read_bufsize=LINE)
        application = web.Application(client_max_size=LINE)
        application.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def _stop(self) -> None:
        await self._runner.cleanup()
        watches = asyncio.all_tasks() - {asyncio.current_task()}
        for watch in watches:
            watch.cancel()
        await asyncio.gather(*watches, return_exceptions=True)
        await self._client.close()

    def _draw(self, title: str) -> str:
        card = self._decks[title].draw() if self.faults.is_set() else PASS
        if card:
            self.counted[f"{title}: {card}"] += 1
        return card

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if request.query.get("watch") == "true":
            return await self._watch(request)
        card = self._draw("list") if "continue" in request.query else PASS
        card = card or self._draw(_kind(request))
        if card == "reset":
            return _reset(request)
        if card and card != "answer lost":
            return _refusal(card)
        status, headers, body = await self._ask(request)
        if card == "answer lost":
            return _reset(request)
        return web.Response(status=status, headers=headers, body=body)

    async def _ask(self, request: web.Request) -> tuple[int, dict[str, str], bytes]:
        query = dict(request.query) | ({"limit": PAGE} if "limit" in request.query else {})
        async with self._forward(request, query, await request.read()) as answer:
            body = await answer.read()
            if _kind(request) == "launch" and answer.status == web.HTTPCreated.status_code and "dryRun" not in query:
                self.jobs[json.loads(body)["metadata"]["name"]] += 1
            return answer.status, _passed(answer.headers), body

    def _forward(self, request: web.Request, query: dict[str, str], body: bytes | None) -> Any:
        headers = _passed(request.headers)
        url = f"{self._server}{request.path}"
        return self._client.request(request.method, url, params=query, headers=headers, data=body or None)

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        async with self._forward(request, dict(request.query), None) as answer:
            response = web.StreamResponse(status=answer.status, headers=_passed(answer.headers))
            await response.prepare(request)
            with suppress(ConnectionResetError):  # the operator ended the watch
                await self._pass_events(request, answer, response)
        return response

    async def _pass_events(self, request: web.Request, answer: ClientResponse, response: web.StreamResponse) -> None:
        async for line in answer.content:
            event = json.loads(line)
            if event.get("object", {}).get("metadata", {}).get("name") in self.deaf:
                self.counted["event: dropped as told"] += 1
                continue
            card = self._draw("event") if event.get("type") in ("ADDED", "MODIFIED", "DELETED") else PASS
            if card == "cut":
                _reset(request)
                return
            if card == "expired":
                await response.write(json.dumps({"type": "ERROR", "object": _status("410")}).encode() + b"\n")
                return
            for _ in range({"dropped": 0, "repeated": 2}.get(card, 1)):
                await response.write(line)


def _kind(request: web.Request) -> str:
    if request.method == "POST" and request.path.endswith("/jobs"):
        return "launch"
    return "read" if request.method == "GET" else "write"


def _passed(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in HOP}


def _reset(request: web.Request) -> web.Response:
    """Close at once, without a goodbye."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


def _status(code: str) -> dict[str, Any]:
    message = "Operation cannot be fulfilled: this is what a bad day looks like"
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "reason": REASONS[code],
        "message": message,
        "code": int(code),
    }


def _refusal(code: str) -> web.Response:
    headers = {"Retry-After": "1"} if code == "429" else {}
    return web.json_response(_status(code), status=int(code), headers=headers)

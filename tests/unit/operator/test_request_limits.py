"""Limits of the HTTP server, each on a real server: what is at a limit is accepted, what is beyond it is refused."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, Request
from penstock_operator import limits
from penstock_operator.api.authentication import EmbeddedAuthenticator
from penstock_operator.api.error_responses import add_error_handlers
from penstock_operator.api.http_server import OpenConnections, server_config
from penstock_operator.api.request_limits import RequestLimits
from penstock_operator.embedded.private_files import free_port

from tests.patience import PATIENCE

AUTHORITY = EmbeddedAuthenticator(b"secret")
RUN_TOKEN = "run-token"
BEARER = {"Authorization": f"Bearer {RUN_TOKEN}"}


class OneRun:
    """The run tokens of a registry with one attempt."""

    def __init__(self) -> None:
        self.checks = 0

    async def is_run_token(self, token: str) -> bool:
        self.checks += 1
        return token == RUN_TOKEN


class Site:
    """An application behind the middleware, which counts the bodies that reach it."""

    def __init__(self) -> None:
        self.tokens = OneRun()
        self.bodies: list[int] = []
        self.held = asyncio.Event()
        self.held.set()
        self.app = FastAPI()
        add_error_handlers(self.app)
        self.app.add_middleware(RequestLimits, authority=AUTHORITY, run_tokens=self.tokens)
        self.app.add_api_route("/healthz", self._health)
        self.app.add_api_route("/v1/runs", self._list)
        self.app.add_api_route("/{path:path}", self._take, methods=["POST"])

    async def _health(self) -> str:
        return "ok"

    async def _list(self) -> str:
        await self.held.wait()
        return "x" * 10_000_000

    async def _take(self, request: Request) -> int:
        self.bodies.append(len(await request.body()))
        await self.held.wait()
        return self.bodies[-1]


class Server:
    """The application on a port."""

    def __init__(self, site: Site, port: int, connections: OpenConnections) -> None:
        self.site = site
        self.port = port
        self.connections = connections
        self.http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE)

    async def socket(self, sent: str = "") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection, and send the beginning of a request."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(sent.replace("\n", "\r\n").encode())
        await writer.drain()
        return reader, writer


@asynccontextmanager
async def serve(connections: OpenConnections | None = None) -> AsyncIterator[Server]:
    opened = OpenConnections() if connections is None else connections
    site, port = Site(), free_port("127.0.0.1")
    server = uvicorn.Server(server_config(site.app, "127.0.0.1", port, shutdown_seconds=1, connections=opened))
    task = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    running = Server(site, port, opened)
    try:
        async with running.http:
            yield running
    finally:
        site.held.set()
        server.should_exit = True
        await task


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.005)


async def closed(reader: asyncio.StreamReader) -> bytes:
    """Return what the server sends before it closes the connection."""
    received = bytearray()
    with contextlib.suppress(ConnectionResetError):
        async with asyncio.timeout(PATIENCE):
            while chunk := await reader.read(65536):
                received += chunk
    return bytes(received)


CALLS = [*(f"/v1/attempts/{call}" for call in limits.RUN_API_BODY_BYTES if call != "start"), "/v1/runs/backfill"]


def authorization(path: str) -> dict[str, str]:
    token = RUN_TOKEN if path.startswith(limits.RUN_API_PATH) else AUTHORITY.mint_person()
    token = AUTHORITY.mint_pod("job") if path.endswith("/start") else token
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize("path", [*CALLS, "/v1/attempts/start", "/v1/connections/team/orders/state/import"])
@pytest.mark.parametrize("chunked", [False, True], ids=["with a length", "in chunks"])
async def test_a_body_has_at_most_the_bytes_of_its_route(path: str, *, chunked: bool) -> None:
    most = limits.body_limit("POST", path)

    async def chunks(size: int) -> AsyncIterator[bytes]:
        for start in range(0, size, 65536):
            yield b"x" * min(65536, size - start)

    async with serve() as server:
        for size, status in ((most, 200), (most + 1, 413)):
            body = chunks(size) if chunked else b"x" * size
            answer = await server.http.post(path, content=body, headers=authorization(path))
            assert answer.status_code == status, size
    assert server.site.bodies == [most]
    assert answer.json() == {"code": "invalid", "message": f"POST {path}: the body may have at most {most:,} bytes"}


@pytest.mark.parametrize("path", ["/healthz", "/v1/runs"])
async def test_a_call_without_a_body_refuses_one(path: str) -> None:
    async with serve() as server:
        answer = await server.http.request("GET", path, content=b"x", headers=authorization(path))
    assert answer.status_code == 413
    assert answer.json()["message"] == f"GET {path}: takes no body"


async def test_a_compressed_body_is_refused() -> None:
    headers = {**BEARER, "Content-Encoding": "gzip"}
    async with serve() as server:
        answer = await server.http.post("/v1/attempts/heartbeat", content=b"x", headers=headers)
    assert answer.status_code == 422
    assert answer.json()["message"] == "Content-Encoding: gzip is not accepted; send the body without compression"


@pytest.mark.parametrize("path", [*CALLS, "/v1/attempts/start"])
@pytest.mark.parametrize("token", ["", "Basic eDp5", "Bearer ", "Bearer wrong"])
async def test_without_a_valid_token_no_byte_of_the_body_is_read(path: str, token: str) -> None:
    async with serve() as server:
        authorized = f"Authorization: {token}\n" if token else ""
        begun = f"POST {path} HTTP/1.1\nHost: penstock\n{authorized}Content-Length: 200000000\n\n"
        reader, writer = await server.socket(begun)
        answer = await closed(reader)
        writer.close()
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert server.site.bodies == []


async def test_a_token_has_at_most_8192_characters() -> None:
    async with serve() as server:
        for length, message in (
            (8192, "The token is missing, expired or not one of this platform."),
            (8193, "the token is longer than 8,192 characters"),
        ):
            headers = {"Authorization": f"Bearer {'x' * length}"}
            answer = await server.http.post("/v1/attempts/heartbeat", headers=headers)
            assert (answer.status_code, answer.json()["message"]) == (401, message)


async def test_a_run_token_is_looked_up_once_in_a_while() -> None:
    async with serve() as server:
        for _ in range(3):
            assert (await server.http.post("/v1/attempts/heartbeat", headers=BEARER)).status_code == 200
        assert server.site.tokens.checks == 1


async def test_headers_have_at_most_16_kib() -> None:
    async with serve() as server:
        reader, writer = await server.socket(f"GET /healthz HTTP/1.1\nX-Long: {'x' * limits.MAX_HEADER_BYTES}")
        answer = await closed(reader)
        writer.close()
    assert answer.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("begun", ["", "GET /heal", "GET /healthz HTTP/1.1\nHost: penstock\n"])
async def test_a_connection_without_complete_headers_is_closed(begun: str) -> None:
    async with serve(OpenConnections(header_seconds=0.05)) as server:
        reader, writer = await server.socket(begun)
        assert await closed(reader) == b""
        writer.close()


async def test_a_byte_now_and_then_does_not_extend_the_deadline_of_the_second_request() -> None:
    async with serve(OpenConnections(header_seconds=0.2)) as server:
        reader, writer = await server.socket("GET /healthz HTTP/1.1\nHost: penstock\n\n")
        await reader.readuntil(b'"ok"')

        async def drip() -> None:
            while not writer.is_closing():
                writer.write(b"G")
                await writer.drain()
                await asyncio.sleep(0.02)

        dripping = asyncio.create_task(drip())
        await closed(reader)
        dripping.cancel()
        await asyncio.gather(dripping, return_exceptions=True)
        writer.close()


async def test_a_request_in_progress_has_no_deadline_of_headers() -> None:
    async with serve(OpenConnections(header_seconds=0.05)) as server:
        server.site.held.clear()
        asked = asyncio.create_task(server.http.post("/v1/attempts/heartbeat", headers=BEARER))
        await until(lambda: server.site.bodies == [0])
        reader, writer = await server.socket()
        await closed(reader)  # another connection has passed its deadline meanwhile
        server.site.held.set()
        assert (await asked).status_code == 200
        writer.close()


async def test_a_body_that_does_not_arrive_in_time_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BODY_SECONDS", 0.05)
    async with serve() as server:
        begun = f"POST /v1/attempts/heartbeat HTTP/1.1\nHost: penstock\nAuthorization: Bearer {RUN_TOKEN}\n"
        reader, writer = await server.socket(f"{begun}Content-Length: 10\n\n123")
        answer = await closed(reader)
        writer.close()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"the body did not arrive within 0 s" in answer
    assert server.site.bodies == []


async def test_a_client_that_does_not_read_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock_operator.api.http_server.SEND_SECONDS", 0.05)
    async with serve() as server:
        server.site.held.clear()
        token = AUTHORITY.mint_person()
        _, writer = await server.socket(f"GET /v1/runs HTTP/1.1\nHost: penstock\nAuthorization: Bearer {token}\n\n")
        await until(lambda: len(server.connections) == 1)
        server.site.held.set()
        await until(lambda: len(server.connections) == 0)
        writer.close()


async def test_the_connection_that_has_waited_longest_makes_room() -> None:
    async with serve(OpenConnections(most=3)) as server:
        idle = [await server.socket() for _ in range(3)]
        await until(lambda: len(server.connections) == 3)
        assert (await server.http.get("/healthz")).status_code == 200
        assert await closed(idle[0][0]) == b""
        assert len(server.connections) == 3
        for _, writer in idle:
            writer.close()


async def test_health_is_answered_while_all_places_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_REQUESTS", 2)
    async with serve() as server:
        server.site.held.clear()
        calls = [asyncio.create_task(server.http.post("/v1/attempts/heartbeat", headers=BEARER)) for _ in range(2)]
        await until(lambda: len(server.site.bodies) == 2)
        refused = await server.http.post("/v1/attempts/heartbeat", headers=BEARER)
        assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
        assert (await server.http.get("/healthz")).status_code == 200
        server.site.held.set()
        assert [(await call).status_code for call in calls] == [200, 200]
        assert (await server.http.post("/v1/attempts/heartbeat", headers=BEARER)).status_code == 200


async def test_followed_logs_have_places_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_FOLLOWED_LOGS", 0)
    async with serve() as server:
        assert (await server.http.get("/v1/runs/r/logs?follow=true", headers=BEARER)).status_code == 503
        assert (await server.http.post("/v1/attempts/heartbeat", headers=BEARER)).status_code == 200


async def test_large_bodies_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LARGE_BODY_BYTES", 10)
    async with serve() as server:
        server.site.held.clear()
        calls = [
            asyncio.create_task(server.http.post("/v1/attempts/streams", content=b"x" * 11, headers=BEARER))
            for _ in range(3)
        ]
        await until(lambda: len(server.site.bodies) == 1)
        small = asyncio.create_task(server.http.post("/v1/attempts/streams", content=b"x", headers=BEARER))
        await until(lambda: server.site.bodies == [11, 1])
        server.site.held.set()
        assert [(await call).status_code for call in (*calls, small)] == [200] * 4
    assert server.site.bodies == [11, 1, 11, 11]


async def test_bodies_wait_for_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_BODY_BYTES_HELD", 10)
    async with serve() as server:
        server.site.held.clear()
        first = asyncio.create_task(server.http.post("/v1/attempts/finish", content=b"x" * 10, headers=BEARER))
        await until(lambda: server.site.bodies == [10])
        monkeypatch.setattr(limits, "BODY_SECONDS", 0.05)
        refused = await server.http.post("/v1/attempts/finish", content=b"x", headers=BEARER)
        assert refused.status_code == 503
        server.site.held.set()
        assert (await first).status_code == 200
        assert (await server.http.post("/v1/attempts/finish", content=b"x", headers=BEARER)).status_code == 200


async def test_a_body_has_at_most_half_a_million_values() -> None:
    async with serve() as server:
        for count, status in ((limits.MAX_JSON_VALUES, 200), (limits.MAX_JSON_VALUES + 1, 413)):
            body = json.dumps([0] * count, separators=(",", ":")).encode()  # a bracket, and a comma fewer than values
            answer = await server.http.post("/v1/attempts/streams", content=body, headers=BEARER)
            assert answer.status_code == status
    assert "500,001 JSON values; at most 500,000" in answer.json()["message"]

"""The HTTP server of every process of the platform: uvicorn, with deadlines for headers and a bound on connections.

uvicorn has no deadline for the headers of a request: a connection that sends nothing, or a byte now and then, stays open.
Its own bound on connections answers 503 to everybody when it is reached, the health checks included. Here the connection
that has waited longest for a request makes room for a new one.
"""

from __future__ import annotations

import asyncio
import resource
import ssl
from typing import Any, ClassVar

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from penstock_operator.limits import HEADER_SECONDS, MAX_CONNECTIONS, MAX_HANDSHAKES, MAX_HEADER_BYTES, SEND_SECONDS
from penstock_operator.tls import Handshakes

FILES_BESIDE_CONNECTIONS = 500
"""Descriptors that are left for Postgres, the bucket, the API server and files."""


class OpenConnections:
    """The connections of one server: all, and those that wait for a request, the longest waiting first."""

    def __init__(self, most: int = MAX_CONNECTIONS, header_seconds: float = HEADER_SECONDS) -> None:
        self.header_seconds = header_seconds
        self._most = most
        self._open: set[DeadlineProtocol] = set()
        self._waiting: dict[DeadlineProtocol, None] = {}

    def __len__(self) -> int:
        return len(self._open)

    def add(self, connection: DeadlineProtocol) -> None:
        """Add a connection. If there are too many, the one that has waited longest for a request is closed."""
        self._open.add(connection)
        self._waiting[connection] = None
        if len(self._open) > self._most:
            longest = next(iter(self._waiting))
            self.discard(longest)
            longest.transport.abort()

    def discard(self, connection: DeadlineProtocol) -> None:
        """Forget a connection that is closed."""
        self._open.discard(connection)
        self._waiting.pop(connection, None)

    def begin_wait(self, connection: DeadlineProtocol) -> None:
        """Note that a connection waits for its next request."""
        if connection in self._open:
            self._waiting[connection] = None

    def end_wait(self, connection: DeadlineProtocol) -> None:
        """Note that the headers of a connection's request have arrived."""
        self._waiting.pop(connection, None)


class DeadlineProtocol(H11Protocol):
    """One connection. It is closed if the headers of its next request do not arrive in time."""

    open_connections: ClassVar[OpenConnections]
    """The connections of the server; a subclass for each server sets it, because uvicorn makes the instances."""
    _deadline: asyncio.TimerHandle | None = None
    _is_paused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Wait for the first request."""
        super().connection_made(transport)
        self._await_request()
        self.open_connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._cancel_deadline()
        self.open_connections.discard(self)
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """End the wait if a request has begun."""
        super().handle_events()
        if self.cycle is not None and not self.cycle.response_complete:
            self._cancel_deadline()
            self.open_connections.end_wait(self)

    def on_response_complete(self) -> None:
        """Wait for the next request, which may have arrived already."""
        self._await_request()
        self.open_connections.begin_wait(self)
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Close the connection if the client does not read its answer in time."""
        super().pause_writing()
        self._is_paused = True
        self._set_deadline(SEND_SECONDS)

    def resume_writing(self) -> None:
        """Go on: the client reads its answer."""
        super().resume_writing()
        self._is_paused = False
        if self.cycle is None or self.cycle.response_complete:
            self._await_request()
        else:
            self._cancel_deadline()

    def _await_request(self) -> None:
        if not self._is_paused:  # the answer is complete for the route, and the client has yet to read it
            self._set_deadline(self.open_connections.header_seconds)

    def _set_deadline(self, seconds: float) -> None:
        self._cancel_deadline()
        self._deadline = self.loop.call_later(seconds, self.transport.abort)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def server_config(
    app: FastAPI,
    host: str,
    port: int,
    *,
    shutdown_seconds: int,
    connections: OpenConnections | None = None,
    tls: ssl.SSLContext | None = None,
) -> uvicorn.Config:
    """Return the configuration of a server; a followed log has no end of its own, so the shutdown has a limit.

    `tls` is None for plain HTTP.
    """
    _allow_files(MAX_CONNECTIONS + MAX_HANDSHAKES + FILES_BESIDE_CONNECTIONS)
    protocol: Any = type(
        "BoundedProtocol",
        (DeadlineProtocol,),
        {"open_connections": OpenConnections() if connections is None else connections},
    )
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http=protocol if tls is None else _after_handshake(protocol, Handshakes(tls)),
        ws="none",
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        log_level="warning",
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=shutdown_seconds,
    )


def _after_handshake(protocol: type[DeadlineProtocol], handshakes: Handshakes) -> Any:
    """Return what uvicorn calls for each connection, in place of the class of its protocol."""

    def connection(**of_uvicorn: Any) -> asyncio.BaseProtocol:
        return handshakes.before(protocol(**of_uvicorn))

    return connection


def _allow_files(least: int) -> None:
    """Raise the soft limit of open files, which is 1,024 in many containers, as far as the hard limit allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = least if hard == resource.RLIM_INFINITY else min(least, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))

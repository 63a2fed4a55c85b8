"""One connection of a run to one destination, and the bytes that go through it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from dataclasses import dataclass
from http import HTTPStatus
from typing import TypeVar

from penstock_sdk import protocol as wire
from penstock_sdk.manifest import is_address, normal_host

from penstock_operator.egress.authority import RunEgress
from penstock_operator.egress.client_hello import (
    LONGEST_HELLO,
    POSTGRES_REQUEST_BYTES,
    HelloError,
    client_hello,
    opening,
)
from penstock_operator.egress.proxy_request import Refusal

Found = TypeVar("Found")
READ_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class TcpStreams:
    """The two directions of a TCP connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class Tunnel:
    """The connection of a run to `host` and `port`. `sent` and `received` count bytes, as seen from the run."""

    def __init__(self, token: str, egress: RunEgress, destination: tuple[str, int]) -> None:
        self.token = token
        self.egress = egress
        self.host, self.port = destination
        self.sent = 0
        self.received = 0
        self.is_open = False
        """Whether the client's bytes go to the source: an HTTP response would be taken for the source's."""

    def denied(self, why: str) -> Refusal:
        """Return the refusal of this destination, to be reported."""
        denial = wire.EgressDenial(host=self.host, port=self.port, reason=why)
        return Refusal(HTTPStatus.FORBIDDEN, f"egress to {self.host}:{self.port} is denied: {why}", denial)

    async def send(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        """Pass bytes on to the source."""
        if data:
            self.sent += len(data)
            writer.write(data)
            await writer.drain()

    async def upload(self, early: bytes, client: TcpStreams, source: TcpStreams, patience: float) -> None:
        """Pass on what the client sends, once its first bytes name no other host. Raises Refusal."""
        await self._inspect(early, client.reader, source.writer, patience)
        while data := await client.reader.read(READ_BYTES):
            await self.send(data, source.writer)
        _end(source.writer)

    async def download(self, source: TcpStreams, client: TcpStreams) -> None:
        """Pass on what the source sends."""
        while data := await source.reader.read(READ_BYTES):
            self.received += len(data)
            client.writer.write(data)
            await client.writer.drain()
        _end(client.writer)

    async def _inspect(
        self, data: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, patience: float
    ) -> None:
        """Hold the first bytes back until it is clear where they go. A client that waits for the server may do so for ever.

        TLS that begins after a protocol's own greeting is seen for Postgres.
        """
        speaks_postgres = False
        while True:
            kind = opening(data)
            if kind == "http":
                raise self.denied("plain HTTP goes through the gateway with a whole URL, not through CONNECT")
            if kind == "postgres":
                speaks_postgres = True
                await self.send(data[:POSTGRES_REQUEST_BYTES], writer)
                data = data[POSTGRES_REQUEST_BYTES:]
                continue
            if kind == "other" or (kind == "tls" and self._names_its_host(data, required=not speaks_postgres)):
                break
            if len(data) > LONGEST_HELLO:
                raise self.denied("the TLS session begins with more bytes than a ClientHello may have")
            more = await (self._in_time(reader.read(READ_BYTES), patience) if data else reader.read(READ_BYTES))
            if not more:
                break
            data += more
        await self.send(data, writer)

    def _names_its_host(self, data: bytes, *, required: bool) -> bool:
        """Return True if the ClientHello is whole and names this host, False if more bytes are needed. Raises Refusal."""
        try:
            hello = client_hello(data)
        except HelloError as error:
            raise self.denied(str(error)) from None
        if hello is None:
            return False
        if hello.encrypted:
            raise self.denied("the TLS session hides the host that it goes to (ECH)")
        if hello.server_name is None and required and not is_address(self.host):
            raise self.denied("the TLS session does not name its host (SNI)")
        if hello.server_name is not None and normal_host(hello.server_name) != self.host:
            raise self.denied(f"the TLS session names another host (SNI {hello.server_name[:100]!r})")
        return True

    async def _in_time(self, read: Awaitable[Found], seconds: float) -> Found:
        try:
            async with asyncio.timeout(seconds):
                return await read
        except TimeoutError:
            raise self.denied("the first bytes did not say in time where they go") from None


def _end(writer: asyncio.StreamWriter) -> None:
    if writer.can_write_eof():
        with contextlib.suppress(OSError):
            writer.write_eof()

"""One connection of a run to one destination, and the bytes that go through it."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from http import HTTPStatus

from penstock_sdk import protocol as wire
from penstock_sdk.manifest import is_address, normal_host

from penstock_operator.egress.authority import RunEgress
from penstock_operator.egress.client_hello import (
    LONGEST_HELLO,
    OPENING_BYTES,
    POSTGRES_REQUEST_BYTES,
    ClientHelloReader,
    HelloError,
    opening,
)
from penstock_operator.egress.proxy_request import Refusal

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
        self, early: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, patience: float
    ) -> None:
        """Hold the first bytes back until it is clear where they go. A client that waits for the server may do so for ever.

        TLS that begins after a protocol's own greeting is seen for Postgres. Raises Refusal.
        """
        held, hello, read = bytearray(early), ClientHelloReader(), 0
        speaks_postgres = False
        try:
            async with asyncio.timeout(None) as deadline:
                while True:
                    kind = opening(bytes(held[:OPENING_BYTES]))
                    if kind == "http":
                        raise self.denied("plain HTTP goes through the gateway with a whole URL, not through CONNECT")
                    if kind == "postgres":
                        speaks_postgres = True
                        await self.send(bytes(held[:POSTGRES_REQUEST_BYTES]), writer)
                        del held[:POSTGRES_REQUEST_BYTES]
                        continue
                    if kind == "other":
                        break
                    if kind == "tls":
                        if self._names_its_host(hello, bytes(held[read:]), required=not speaks_postgres):
                            break
                        read = len(held)
                    if len(held) > LONGEST_HELLO:
                        raise self.denied("the TLS session begins with more bytes than a ClientHello may have")
                    _bound(deadline, patience if held else None)
                    more = await reader.read(READ_BYTES)
                    if not more:
                        break
                    held += more
        except TimeoutError:
            raise self.denied("the first bytes did not say in time where they go") from None
        await self.send(bytes(held), writer)

    def _names_its_host(self, reader: ClientHelloReader, data: bytes, *, required: bool) -> bool:
        """Return True if the ClientHello is whole and names this host, False if more bytes are needed. Raises Refusal."""
        try:
            hello = reader.feed(data)
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


def _bound(deadline: asyncio.Timeout, seconds: float | None) -> None:
    """Let the time run from the first byte on that is held; None: no byte is held, and there is no deadline."""
    if seconds is None:
        deadline.reschedule(None)
    elif deadline.when() is None:
        deadline.reschedule(asyncio.get_running_loop().time() + seconds)


def _end(writer: asyncio.StreamWriter) -> None:
    """End one direction. TLS has no half-close, so its connection ends as a whole."""
    with contextlib.suppress(OSError):
        if writer.can_write_eof():
            writer.write_eof()
        else:
            writer.close()

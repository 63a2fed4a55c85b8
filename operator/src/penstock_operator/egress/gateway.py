"""The gateway: an HTTP proxy that lets a run through to the hosts of its manifest, whatever protocol it speaks with them.

A client sends `CONNECT host:port` (databases and HTTPS), or a request with a whole URL (plain HTTP), with its run token in
`Proxy-Authorization`. The host is resolved once, its addresses are judged, and the gateway connects to one of those: a
second answer of the name server has no effect. A denial is reported to the run API before the client is answered, so that
no run can finish without it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import NoReturn

import h11
import structlog
from penstock_sdk import protocol as wire

from penstock_operator.egress.addresses import Address, AddressPolicy
from penstock_operator.egress.authority import AuthorityUnavailable, EgressAuthority, RunEgress, UnknownRun
from penstock_operator.egress.metrics import BYTES, DENIALS, TUNNELS
from penstock_operator.egress.plain_http import forward
from penstock_operator.egress.proxy_request import CONNECT, Refusal, destination, run_token
from penstock_operator.egress.tunnel import READ_BYTES, TcpStreams, Tunnel
from penstock_operator.tls import Handshakes

log = structlog.get_logger()
LONGEST_REQUEST_HEAD = 16 * 1024
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
Resolver = Callable[[str, int], Awaitable[list[Address]]]


@dataclass(frozen=True, slots=True)
class GatewayLimits:
    """The bounds of the gateway. Times are in seconds."""

    head_seconds: float = 10.0
    """Until a client has sent its request, and then the first message of its TLS session."""
    resolve_seconds: float = 10.0
    connect_seconds: float = 15.0
    recheck_seconds: float = 30.0
    """How often a tunnel reports its bytes, and asks whether its attempt still runs."""
    connections: int = 4096
    connections_per_run: int = 256


async def resolve(host: str, port: int) -> list[Address]:
    """Return the addresses of a host, each once."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    texts = dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in found)
    return [ipaddress.ip_address(text) for text in texts]


class Gateway:
    """Serves clients. `authority` knows their runs; `policy` the private addresses that the platform allows."""

    def __init__(
        self,
        authority: EgressAuthority,
        policy: AddressPolicy,
        limits: GatewayLimits | None = None,
        resolver: Resolver = resolve,
    ) -> None:
        self._authority = authority
        self._policy = policy
        self._limits = limits or GatewayLimits()
        self._resolve = resolver
        self._clients: set[asyncio.Task[None]] = set()
        self._by_run: Counter[str] = Counter()

    async def listen(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> asyncio.Server:
        """Listen, and return the server; over TLS with a context."""
        if tls is None:
            return await asyncio.start_server(self.handle, host, port, limit=READ_BYTES)
        handshakes, loop = Handshakes(tls), asyncio.get_running_loop()

        def connection() -> asyncio.BaseProtocol:
            reader = asyncio.StreamReader(limit=READ_BYTES)
            return handshakes.before(asyncio.StreamReaderProtocol(reader, self.handle))

        return await loop.create_server(connection, host, port)

    async def close(self) -> None:
        """End all connections."""
        clients = list(self._clients)
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client to its end."""
        task = asyncio.current_task()
        if task is not None:
            self._clients.add(task)
        try:
            if len(self._clients) > self._limits.connections:
                refused = Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "the gateway has as many connections as it may have")
                writer.write(refused.response())
            else:
                await self._serve(TcpStreams(reader, writer))
        except (OSError, TimeoutError, asyncio.CancelledError):
            pass  # the client or the source is gone, or the gateway ends
        except Exception as error:  # noqa: BLE001 - one client's fault is no other's
            log.warning("egress connection failed", error=f"{type(error).__name__}: {error}")
        finally:
            if task is not None:
                self._clients.discard(task)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _serve(self, client: TcpStreams) -> None:
        parser = h11.Connection(h11.SERVER, max_incomplete_event_size=LONGEST_REQUEST_HEAD)
        tunnel: Tunnel | None = None
        try:
            async with asyncio.timeout(self._limits.head_seconds):
                request = await _request(parser, client.reader)
            if request is None:
                return
            token = run_token(request)
            egress = await self._egress(token)
            tunnel = Tunnel(token, egress, destination(request))
            async with self._counted(egress):
                await self._carry(parser, request, tunnel, client)
        except h11.RemoteProtocolError as error:
            client.writer.write(Refusal(HTTPStatus.BAD_REQUEST, f"this is no HTTP request: {error}").response())
        except Refusal as refused:
            if tunnel is not None and refused.denial is not None:
                await self._report_denial(tunnel, refused.denial)
            if tunnel is None or not tunnel.is_open:
                client.writer.write(refused.response())
        with contextlib.suppress(OSError):
            await client.writer.drain()

    @asynccontextmanager
    async def _counted(self, egress: RunEgress) -> AsyncIterator[None]:
        if self._by_run[egress.run] >= self._limits.connections_per_run:
            most = self._limits.connections_per_run
            raise Refusal(HTTPStatus.TOO_MANY_REQUESTS, f"the run has {most} connections open, which is the limit")
        self._by_run[egress.run] += 1
        try:
            yield
        finally:
            self._by_run[egress.run] -= 1
            if not self._by_run[egress.run]:
                del self._by_run[egress.run]

    async def _egress(self, token: str) -> RunEgress:
        try:
            return await self._authority.egress_of(token)
        except UnknownRun:
            message = "the run token is not the one of an attempt that runs"
            raise Refusal(HTTPStatus.PROXY_AUTHENTICATION_REQUIRED, message) from None
        except AuthorityUnavailable as error:
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from None

    async def _carry(self, parser: h11.Connection, request: h11.Request, tunnel: Tunnel, client: TcpStreams) -> None:
        source = await self._connect(tunnel)
        recheck = asyncio.create_task(self._recheck(tunnel))
        try:
            with TUNNELS.track_inprogress():
                if request.method == CONNECT:
                    early, _ = parser.trailing_data
                    tunnel.is_open = True
                    client.writer.write(ESTABLISHED)
                    upload = tunnel.upload(early, client, source, self._limits.head_seconds)
                    await _all_or_first_error([upload, tunnel.download(source, client)], recheck)
                else:
                    await _all_or_first_error([forward(parser, request, tunnel, client, source)], recheck)
        finally:
            recheck.cancel()
            source.writer.close()
            await self._report_bytes(tunnel)

    async def _connect(self, tunnel: Tunnel) -> TcpStreams:
        reason = "no address"
        for address in await self._judged_addresses(tunnel):
            try:
                async with asyncio.timeout(self._limits.connect_seconds):
                    return TcpStreams(*await asyncio.open_connection(str(address), tunnel.port, limit=READ_BYTES))
            except TimeoutError:
                reason = "timed out"
            except OSError as error:
                reason = error.strerror or type(error).__name__
        raise Refusal(HTTPStatus.BAD_GATEWAY, f"{tunnel.host}:{tunnel.port} does not answer: {reason}")

    async def _judged_addresses(self, tunnel: Tunnel) -> list[Address]:
        """Return the addresses of the tunnel's host that the run may reach. Raises Refusal if there is none."""
        is_platform = tunnel.egress.is_platform(tunnel.host, tunnel.port)
        rule = tunnel.egress.rule_for(tunnel.host, tunnel.port)
        if rule is None and not is_platform:
            raise tunnel.denied("network.egress of the manifest does not declare this host and port")
        try:
            async with asyncio.timeout(self._limits.resolve_seconds):
                addresses = await self._resolve(tunnel.host, tunnel.port)
        except (OSError, UnicodeError, TimeoutError):
            raise Refusal(HTTPStatus.BAD_GATEWAY, f"the name {tunnel.host} cannot be resolved") from None
        if is_platform:
            return addresses
        private = rule is not None and rule.private
        refusals = [self._policy.refusal(address, private=private) for address in addresses]
        allowed = [address for address, why in zip(addresses, refusals, strict=True) if why is None]
        if not allowed:
            raise tunnel.denied(next((why for why in refusals if why), "the name has no address"))
        return allowed

    async def _recheck(self, tunnel: Tunnel) -> NoReturn:
        """Report bytes from time to time. Raises Refusal once the attempt has ended: its tunnels end with it."""
        while True:
            await asyncio.sleep(self._limits.recheck_seconds)
            await self._report_bytes(tunnel)
            try:
                await self._authority.egress_of(tunnel.token)
            except UnknownRun:
                raise Refusal(HTTPStatus.FORBIDDEN, "the attempt has ended") from None
            except AuthorityUnavailable:
                continue

    async def _report_denial(self, tunnel: Tunnel, denial: wire.EgressDenial) -> None:
        DENIALS.inc()
        log.warning("egress denied", run=tunnel.egress.run, host=denial.host, port=denial.port, reason=denial.reason)
        await self._report(tunnel, wire.EgressReport(denials=[denial]))

    async def _report_bytes(self, tunnel: Tunnel) -> None:
        sent, received = tunnel.sent, tunnel.received
        if sent or received:
            tunnel.sent, tunnel.received = 0, 0
            BYTES.labels("sent").inc(sent)
            BYTES.labels("received").inc(received)
            await self._report(tunnel, wire.EgressReport(sent=sent, received=received))

    async def _report(self, tunnel: Tunnel, report: wire.EgressReport) -> None:
        try:
            await self._authority.report(tunnel.token, report)
        except (UnknownRun, AuthorityUnavailable) as error:
            log.warning("egress report not kept", run=tunnel.egress.run, error=str(error) or type(error).__name__)


async def _request(parser: h11.Connection, reader: asyncio.StreamReader) -> h11.Request | None:
    """Read the head of a client's request; None if the client sends none."""
    while True:
        event = parser.next_event()
        if isinstance(event, h11.Request):
            return event
        if event is not h11.NEED_DATA:
            return None
        parser.receive_data(await reader.read(READ_BYTES))


async def _all_or_first_error(directions: list[Awaitable[None]], recheck: asyncio.Task[NoReturn]) -> None:
    """Wait until all directions have ended, or one of them or the recheck fails; then end the rest."""
    tasks = [asyncio.ensure_future(direction) for direction in directions]
    pending = set(tasks)
    try:
        while pending:
            done, _ = await asyncio.wait({*pending, recheck}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            pending.difference_update(done)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

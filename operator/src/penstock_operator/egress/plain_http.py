"""Passes on one plain HTTP request and its response. The next request, perhaps to another host, takes a new connection."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from http import HTTPStatus

import h11

from penstock_operator.egress.proxy_request import Refusal, end_to_end, request_to_source
from penstock_operator.egress.tunnel import READ_BYTES, TcpStreams, Tunnel

LONGEST_RESPONSE_HEAD = 64 * 1024


@dataclass(frozen=True, slots=True)
class _Exchange:
    """One request and its response. `downstream` speaks with the client, `upstream` with the source."""

    tunnel: Tunnel
    downstream: h11.Connection
    upstream: h11.Connection
    client: TcpStreams
    source: TcpStreams

    async def send_body(self) -> None:
        while True:
            event = self.downstream.next_event()
            if event is h11.NEED_DATA:
                self.downstream.receive_data(await self.client.reader.read(READ_BYTES))
            elif isinstance(event, h11.Data | h11.EndOfMessage):
                await self.tunnel.send(self.upstream.send(event) or b"", self.source.writer)
                if isinstance(event, h11.EndOfMessage):
                    return
            else:
                return

    async def send_response(self) -> None:
        while True:
            event = self.upstream.next_event()
            if event is h11.NEED_DATA:
                data = await self.source.reader.read(READ_BYTES)
                self.tunnel.received += len(data)
                self.upstream.receive_data(data)
            elif isinstance(event, h11.Response):
                headers = [*end_to_end(event.headers), (b"connection", b"close")]
                self.tunnel.is_open = True
                self._answer(h11.Response(status_code=event.status_code, headers=headers, reason=event.reason))
            elif isinstance(event, h11.Data | h11.EndOfMessage):
                self._answer(event)
                await self.client.writer.drain()
                if isinstance(event, h11.EndOfMessage):
                    return
            elif not isinstance(event, h11.InformationalResponse):
                return

    def _answer(self, event: h11.Event) -> None:
        self.client.writer.write(self.downstream.send(event) or b"")


async def forward(
    downstream: h11.Connection, request: h11.Request, tunnel: Tunnel, client: TcpStreams, source: TcpStreams
) -> None:
    """Send the request to the source, and its response to the client. Raises Refusal if the source does not speak HTTP.

    `downstream` has read the request's head from the client, and reads its body.
    """
    upstream = h11.Connection(h11.CLIENT, max_incomplete_event_size=LONGEST_RESPONSE_HEAD)
    await tunnel.send(upstream.send(request_to_source(request, tunnel.host, tunnel.port)) or b"", source.writer)
    if downstream.they_are_waiting_for_100_continue:
        client.writer.write(downstream.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
    exchange = _Exchange(tunnel, downstream, upstream, client, source)
    body = asyncio.create_task(exchange.send_body())
    try:
        await exchange.send_response()
    except h11.RemoteProtocolError as error:
        raise Refusal(HTTPStatus.BAD_GATEWAY, f"{tunnel.host} answered with no HTTP response: {error}") from None
    finally:
        body.cancel()
        await asyncio.gather(body, return_exceptions=True)

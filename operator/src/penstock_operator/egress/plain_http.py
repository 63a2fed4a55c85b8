"""Passes on one plain HTTP request and its response. The next request, perhaps to another host, takes a new connection."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

import h11

from penstock_operator.egress.proxy_request import Refusal, end_to_end, request_to_source
from penstock_operator.egress.tunnel import READ_BYTES, TcpStreams, Tunnel

LONGEST_RESPONSE_HEAD = 64 * 1024


async def forward(
    parser: h11.Connection, request: h11.Request, tunnel: Tunnel, client: TcpStreams, source: TcpStreams
) -> None:
    """Send the request to the source, and its response to the client. Raises Refusal if the source does not speak HTTP.

    `parser` has read the request's head from the client, and reads its body.
    """
    upstream = h11.Connection(h11.CLIENT, max_incomplete_event_size=LONGEST_RESPONSE_HEAD)
    await tunnel.send(upstream.send(request_to_source(request, tunnel.host, tunnel.port)) or b"", source.writer)
    if parser.they_are_waiting_for_100_continue:
        client.writer.write(parser.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
    body = asyncio.create_task(_send_body(parser, upstream, tunnel, client.reader, source.writer))
    try:
        await _send_response(parser, upstream, tunnel, source.reader, client.writer)
    except h11.RemoteProtocolError as error:
        raise Refusal(HTTPStatus.BAD_GATEWAY, f"{tunnel.host} answered with no HTTP response: {error}") from None
    finally:
        body.cancel()
        await asyncio.gather(body, return_exceptions=True)


async def _send_body(
    parser: h11.Connection,
    upstream: h11.Connection,
    tunnel: Tunnel,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    while True:
        event = parser.next_event()
        if event is h11.NEED_DATA:
            parser.receive_data(await reader.read(READ_BYTES))
        elif isinstance(event, h11.Data | h11.EndOfMessage):
            await tunnel.send(upstream.send(event) or b"", writer)
            if isinstance(event, h11.EndOfMessage):
                return
        else:
            return


async def _send_response(
    parser: h11.Connection,
    upstream: h11.Connection,
    tunnel: Tunnel,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    while True:
        event = upstream.next_event()
        if event is h11.NEED_DATA:
            data = await reader.read(READ_BYTES)
            tunnel.received += len(data)
            upstream.receive_data(data)
        elif isinstance(event, h11.Response):
            headers = [*end_to_end(event.headers), (b"connection", b"close")]
            tunnel.is_open = True
            writer.write(
                parser.send(h11.Response(status_code=event.status_code, headers=headers, reason=event.reason)) or b""
            )
        elif isinstance(event, h11.Data | h11.EndOfMessage):
            writer.write(parser.send(event) or b"")
            await writer.drain()
            if isinstance(event, h11.EndOfMessage):
                return
        elif not isinstance(event, h11.InformationalResponse):
            return

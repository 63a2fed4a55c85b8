"""What the runtime asks a connector before it reads: its streams, announced changes, and the expected cost."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from msgspec.structs import replace
from pydantic import ValidationError

from penstock_sdk import protocol as wire
from penstock_sdk._runtime.assignment import AnyConnector
from penstock_sdk._runtime.masking import Mask
from penstock_sdk._runtime.partition_plan import is_partitioned, plan_from_cursor
from penstock_sdk.contract import Cursor, Stream, Window
from penstock_sdk.errors import ConnectorError, DefectError, SourceContractError
from penstock_sdk.field_paths import normal_path, rewrite_hints
from penstock_sdk.pii import suggest_fields

log = logging.getLogger("penstock")


def streams_request(connector: AnyConnector, streams: list[Stream], mask: Mask) -> wire.StreamsRequest:
    """Return the request that posts the streams, with the changes that the connector announces."""
    drift = list[wire.AnnouncedDrift]()
    try:
        for announced in connector.drift(streams):
            drift.append(
                wire.AnnouncedDrift(
                    stream=announced.stream,
                    field=announced.field[: wire.MAX_FIELD_CHARACTERS],
                    message=mask(announced.message)[:1000],
                )
            )
    except ConnectorError as error:  # reading the affected streams reports the reason
        log.warning("announced changes unknown: %s", mask(error.message))
    if len(streams) > wire.MAX_STREAMS:
        raise SourceContractError(
            f"the source offers {len(streams):,} streams; at most {wire.MAX_STREAMS:,} are accepted:"
            " narrow the connection's config, for example to one schema or folder"
        )
    request = wire.StreamsRequest(
        streams=[_discovered(stream, mask) for stream in streams],
        abilities=["drop", "care", "window"],
        drift=drift[: wire.MAX_DRIFT],
    )
    if mask.is_in(request.model_dump_json(by_alias=True).encode()):
        return request.model_copy(update={"streams": [_without_secrets(stream, mask) for stream in request.streams]})
    return request


def _without_secrets(stream: wire.DiscoveredStream, mask: Mask) -> wire.DiscoveredStream:
    """Return the stream as unavailable if it holds a credential. Raises DefectError if its name does."""
    if not mask.is_in(stream.model_dump_json(by_alias=True).encode()):
        return stream
    name = mask(stream.name)
    if mask.is_in(f"{stream.name}\0{stream.id}".encode()):
        raise DefectError(f"the name or id of stream {name!r} holds a credential of the connection; nothing is read")
    reason = DefectError(f"the schema of stream {name!r} holds a credential of the connection; it is not read")
    return wire.DiscoveredStream(
        name=stream.name,
        id=stream.id,
        schema_={"type": "object"},
        modes=stream.modes,
        unavailable=_reason(reason, mask),
    )


def missing_streams(connector: AnyConnector, offered: list[Stream], selected: Sequence[str]) -> Iterator[Stream]:
    """Yield the selected streams that the source does not offer, as unavailable, if the connector knows the reason."""
    known = {name for stream in offered for name in (stream.name, stream.identity)}
    for name in selected:
        if name in known:
            continue
        reason = _reason_of(connector, name)
        if reason is not None:
            yield Stream(name=name, schema={"type": "object"}, modes=("full", "incremental"), unavailable=reason)


def _reason_of(connector: AnyConnector, name: str) -> ConnectorError | None:
    """Return the error of `not_offered`. If the function fails or returns another type, the stream gets a DefectError."""
    try:
        reason: Any = connector.not_offered(name)
    except ConnectorError as error:
        return error
    except Exception as error:
        log.exception("not_offered(%r) failed", name)
        return DefectError(
            f"stream {name!r}: the source does not offer it, and not_offered() failed ({type(error).__name__})"
        )
    if reason is None or isinstance(reason, ConnectorError):
        return reason
    return DefectError(
        f"stream {name!r}: not_offered() returned a {type(reason).__name__}; return a ConnectorError, or None"
    )


def _discovered(stream: Stream, mask: Mask) -> wire.DiscoveredStream:
    for message in rewrite_hints((*stream.pii, *stream.pii_suggested), stream.schema):
        log.warning("stream %r: %s", stream.name, message)
    try:
        return _described(stream, mask)
    except ValidationError as error:
        reason = SourceContractError(f"stream {stream.name!r}: {limit_message(error)}")
        return wire.DiscoveredStream(
            name=stream.name,
            id=stream.id,
            schema_={"type": "object"},
            modes=list(stream.modes),
            unavailable=_reason(reason, mask),
        )


def limit_message(error: ValidationError) -> str:
    """Return which field of a message is beyond its limit."""
    details = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(f"{'.'.join(map(str, detail.get('loc', ())[:3]))}: {detail.get('msg')}" for detail in details[:3])


def _described(stream: Stream, mask: Mask) -> wire.DiscoveredStream:
    return wire.DiscoveredStream(
        name=stream.name,
        id=stream.id,
        schema_=stream.schema,
        primary_key=list(stream.primary_key),
        cursor_field=stream.cursor_field,
        modes=list(stream.modes),
        pii=list(dict.fromkeys(normal_path(path, stream.schema) for path in stream.pii)),
        cursor_care=list(stream.cursor_care),
        windows=stream.windows,
        only_full=stream.only_full[:1000],
        unavailable=_reason(stream.unavailable, mask) if stream.unavailable else None,
        pii_suggested=suggest_fields(stream.schema)
        | {normal_path(path, stream.schema): kind for path, kind in stream.pii_suggested.items()},
        partitioned=stream.partitioned,
    )


def _reason(error: ConnectorError, mask: Mask) -> wire.UnavailableReason:
    message = mask(error.message).encode(errors="replace").decode().replace("\0", "\ufffd")
    return wire.UnavailableReason(error_class=error.error_class, message=message[: wire.MAX_MESSAGE_CHARACTERS])


def stream_to_read(
    stream: Stream, selected: wire.SelectedStream, since: datetime | None
) -> tuple[Stream, datetime | None]:
    """Return the stream and the `since` that `read` gets. A stream that is read again carries the window.

    It is then read as a whole, because the partitions of an ordinary read have their own cursors.
    """
    window = selected.window
    if window is None:
        return stream, since
    return replace(stream, window=Window(window.start, window.end), partitioned=False), window.start


def envelope_window(selected: wire.SelectedStream) -> dict[str, str] | None:
    """Return the window as envelopes hold it, or None."""
    return selected.window.model_dump(mode="json") if selected.window else None


def estimate_stream(
    connector: AnyConnector, stream: Stream, since: datetime | None, cursor: Cursor | None, run: str
) -> wire.StreamEstimate | None:
    """Return the expected cost of a stream, or None if it is unknown. An error here does not fail the run.

    For a stream that is read in partitions it is the cost of the remaining ones; partitions that are new in this run are not
    known yet.
    """
    try:
        if is_partitioned(cursor):
            partitions = plan_from_cursor(cursor, stream.name).remaining(run)
            asked = [(replace(stream, partition=partition.partition), partition.cursor) for partition in partitions]
        else:
            asked = [(stream, cursor)]
        found = [connector.estimate(partition, since, stands) for partition, stands in asked]
    except ConnectorError as error:
        log.warning("%s: cost unknown: %s", stream.name, error.message)
        return None
    except Exception:
        log.exception("%s: cost unknown: estimate() failed unexpectedly", stream.name)
        return None
    known = [estimate for estimate in found if estimate is not None]
    if len(known) < len(found) or not known:
        return None
    records, size, calls = (
        [getattr(estimate, name) for estimate in known] for name in ("records", "bytes", "api_calls")
    )
    return wire.StreamEstimate(records=_sum(records), bytes=_sum(size), api_calls=_sum(calls))


def _sum(counts: Sequence[int | None]) -> int | None:
    """Return the sum, or None if one of the counts is unknown."""
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None

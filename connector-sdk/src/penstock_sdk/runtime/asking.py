"""What a connector is asked before it reads: its catalog with what it announces of it, and what reading will cost."""

from __future__ import annotations

import logging
from datetime import datetime

from penstock_sdk import protocol as wire
from penstock_sdk.contract import Cursor, Stream
from penstock_sdk.errors import ConnectorError
from penstock_sdk.pii import suggest_fields
from penstock_sdk.runtime.assignment import AnyConnector
from penstock_sdk.runtime.masking import Mask

log = logging.getLogger("penstock")


def catalog_of(connector: AnyConnector, streams: list[Stream], mask: Mask) -> wire.StreamsRequest:
    """Return the streams as the platform takes them, with the drift that the connector announces."""
    drift = [
        wire.AnnouncedDrift(stream=each.stream, field=each.field, message=mask(each.message)[:1000])
        for each in connector.drift(streams)
    ]
    return wire.StreamsRequest(streams=[_discovered(each) for each in streams], abilities=["drop"], drift=drift)


def _discovered(stream: Stream) -> wire.DiscoveredStream:
    return wire.DiscoveredStream(
        name=stream.name,
        id=stream.id,
        schema_=stream.schema,
        primary_key=list(stream.primary_key),
        cursor_field=stream.cursor_field,
        modes=list(stream.modes),
        pii=list(stream.pii),
        pii_suggested={**suggest_fields(stream.schema), **stream.pii_suggested},
    )


def estimated(
    connector: AnyConnector, stream: Stream, since: datetime | None, cursor: Cursor | None
) -> wire.StreamEstimate | None:
    """Return what a stream will cost. Where that cannot be told, reading says why: the streams before it are kept then."""
    try:
        found = connector.estimate(stream, since, cursor)
    except ConnectorError as error:
        log.warning("what %s will cost is not known: %s", stream.name, error.message)
        return None
    if found is None:
        return None
    return wire.StreamEstimate(records=found.records, bytes=found.bytes, api_calls=found.api_calls)

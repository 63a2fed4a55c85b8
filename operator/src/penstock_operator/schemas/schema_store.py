"""stream_registry: the versions of each stream's schema that its connection has seen."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from penstock_operator.ids import StreamName
from penstock_operator.registry.database import DatabaseConnection, execute, fetch_all


@dataclass(frozen=True, kw_only=True)
class StreamHead:
    """The newest version of a stream, without its schema. `names` are all names that it has had."""

    stream: StreamName
    version: int
    fingerprint: str
    display_name: str
    names: list[str]
    pii_suggested: dict[str, str]
    """Fields that look like personal data, each with its class."""


@dataclass(frozen=True, kw_only=True)
class RegisteredStream:
    """One version of a stream's schema."""

    stream: StreamName
    version: int
    schema: dict[str, Any]
    primary_key: list[str]
    cursor_field: str | None
    pii: list[str]


async def stream_heads(db: DatabaseConnection, connection_uid: str) -> dict[str, StreamHead]:
    """Return number, fingerprint and display name of the newest version of each stream; schemas stay where they are."""
    heads = await fetch_all(
        db,
        StreamHead,
        "SELECT DISTINCT ON (stream) stream, version, fingerprint, coalesce(display_name, stream) AS display_name, names, pii_suggested"
        " FROM penstock.stream_registry WHERE connection_uid = %(uid)s ORDER BY stream, version DESC",
        uid=connection_uid,
    )
    return {head.stream: head for head in heads}


async def stream_versions(
    db: DatabaseConnection, connection_uid: str, wanted: set[tuple[str, int]]
) -> dict[tuple[str, int], RegisteredStream]:
    """Return whole versions by stream and number."""
    listed = sorted(wanted)
    found = await fetch_all(
        db,
        RegisteredStream,
        """
        SELECT r.stream, r.version, r.schema, r.primary_key, r.cursor_field, r.pii FROM unnest(%(streams)s::text[], %(versions)s::int[]) AS w (stream, version)
        JOIN penstock.stream_registry r
          ON r.connection_uid = %(uid)s AND r.stream = w.stream AND r.version = w.version
        """,
        uid=connection_uid,
        streams=[stream for stream, _ in listed],
        versions=[version for _, version in listed],
    )
    return {(stream.stream, stream.version): stream for stream in found}


@dataclass(frozen=True)
class StreamVersion:
    """What a stream looks like; every field but the first four is JSON."""

    stream: str
    version: int
    fingerprint: str
    display_name: str
    cursor_field: str | None
    schema: str
    primary_key: str
    modes: str
    pii: str
    pii_suggested: str
    names: str


async def put_stream_versions(db: DatabaseConnection, connection_uid: str, versions: list[StreamVersion]) -> None:
    """Record versions, all in one statement; one that is there already takes the new wording, not another shape.

    The caller has found the two shapes to be the same: titles and descriptions may differ.
    """
    columns = {name: [getattr(version, name) for version in versions] for name in StreamVersion.__dataclass_fields__}
    await execute(
        db,
        """
        INSERT INTO penstock.stream_registry (connection_uid, stream, version, fingerprint, display_name, cursor_field,
            schema, primary_key, modes, pii, pii_suggested, names)
        SELECT %(uid)s, stream, version, fingerprint, display_name, cursor_field, schema::jsonb, primary_key::jsonb,
            modes::jsonb, pii::jsonb, pii_suggested::jsonb, names::jsonb
        FROM unnest(%(stream)s::text[], %(version)s::int[], %(fingerprint)s::text[], %(display_name)s::text[],
            %(cursor_field)s::text[], %(schema)s::text[], %(primary_key)s::text[], %(modes)s::text[], %(pii)s::text[],
            %(pii_suggested)s::text[], %(names)s::text[])
            AS v (stream, version, fingerprint, display_name, cursor_field, schema, primary_key, modes, pii, pii_suggested,
                  names)
        ON CONFLICT (connection_uid, stream, version) DO UPDATE SET fingerprint = excluded.fingerprint,
            display_name = excluded.display_name, schema = excluded.schema, modes = excluded.modes,
            pii_suggested = excluded.pii_suggested, names = excluded.names
        """,
        uid=connection_uid,
        **columns,
    )


async def add_suggestions(db: DatabaseConnection, connection_uid: str, found: dict[str, dict[str, str]]) -> None:
    """Add what a read's values suggest to the newest version of each stream, all in one statement."""
    await execute(
        db,
        """
        UPDATE penstock.stream_registry r SET pii_suggested = r.pii_suggested || f.suggested::jsonb
        FROM unnest(%(streams)s::text[], %(suggested)s::text[]) AS f (stream, suggested)
        WHERE r.connection_uid = %(uid)s AND r.stream = f.stream
          AND NOT r.pii_suggested @> f.suggested::jsonb
          AND r.version = (SELECT max(version) FROM penstock.stream_registry n
                           WHERE n.connection_uid = %(uid)s AND n.stream = f.stream)
        """,
        uid=connection_uid,
        streams=list(found),
        suggested=[json.dumps(suggested) for suggested in found.values()],
    )

"""The connector project in the current folder, and the output of its streams."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from penstock_sdk.author.command_errors import printable
from penstock_sdk.contract import Stream
from penstock_sdk.errors import ConnectorError
from penstock_sdk.field_paths import rewrite_hints
from penstock_sdk.json_types import properties_of
from penstock_sdk.manifest import Followed, unsafe_cursor


class ProjectError(Exception):
    """The project is not usable as it is. The message says what to do."""


def streams_as_json(streams: Sequence[Stream]) -> str:
    """Return the whole catalog as JSON."""
    return msgspec.json.format(msgspec.json.encode(streams, enc_hook=_error_as_json), indent=2).decode()


def _error_as_json(value: object) -> dict[str, str]:
    """Return the error of an unavailable stream in the format of the run API."""
    if isinstance(value, ConnectorError):
        return {"error_class": value.error_class, "message": value.message}
    raise NotImplementedError


def streams_as_text(streams: Sequence[Stream]) -> str:
    """Return the catalog as a table."""
    rows = [("STREAM", "MODES", "KEY", "CURSOR", "PARTITIONS", "FIELDS")] + [
        (
            printable(stream.name),
            ",".join(stream.modes),
            printable(",".join(stream.primary_key)) or "-",
            printable(stream.cursor_field or "-"),
            "yes" if stream.partitioned else "-",
            str(len(properties_of(stream.schema))),
        )
        for stream in streams
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines += [
        printable(f"unavailable: {stream.name}: {stream.unavailable.error_class}: {stream.unavailable.message}")
        for stream in streams
        if stream.unavailable
    ]
    return "\n".join(lines)


def pii_notes(streams: Iterable[Stream]) -> list[str]:
    """Return, for paths of personal data in another notation, how to write them."""
    return [
        f"stream {stream.name!r}: {note} (docs/authors/discovery.md)"
        for stream in streams
        for note in rewrite_hints((*stream.pii, *stream.pii_suggested), stream.schema)
    ]


def unsafe_streams(streams: Iterable[Stream]) -> list[str]:
    """Return why streams must not be read incrementally: one line for each reason, with the remedy."""
    return [
        f"refused: stream {stream.name!r}, cursor {stream.cursor_field!r}: {rule} (docs/authors/cursors.md, {rule.name})"
        for stream in streams
        for rule in unsafe_cursor(
            Followed(stream.schema, stream.primary_key, stream.cursor_field, stream.modes, stream.cursor_care)
        )
    ]

"""The connector at hand, and how it is shown."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from penstock_sdk.contract import Stream


class ProjectError(Exception):
    """The project cannot be worked with as it is; the message says what to do."""


def streams_as_json(streams: Sequence[Stream]) -> str:
    """Return the catalog, whole."""
    return msgspec.json.format(msgspec.json.encode(streams), indent=2).decode()


def streams_as_text(streams: Sequence[Stream]) -> str:
    """Return the catalog as a table."""
    rows = [("STREAM", "MODES", "KEY", "CURSOR", "SPLITS", "FIELDS")] + [
        (
            each.name,
            ",".join(each.modes),
            ",".join(each.primary_key) or "-",
            each.cursor_field or "-",
            "yes" if each.partitioned else "-",
            str(len(each.schema.get("properties", {}))),
        )
        for each in streams
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )

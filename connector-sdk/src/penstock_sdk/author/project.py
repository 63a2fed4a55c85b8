"""The connector at hand, and how it is shown."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata, resources
from typing import Any

import msgspec
import yaml

from penstock_sdk.contract import Stream
from penstock_sdk.runtime.main import GROUP


class ProjectError(Exception):
    """The project cannot be worked with as it is; the message says what to do."""


def entry_point(artifact: str) -> metadata.EntryPoint:
    """Return where the installed connector's class is."""
    found = next(iter(metadata.entry_points(group=GROUP, name=artifact)), None)
    if found is None:
        raise ProjectError(f"no installed package offers {artifact!r}: run pip install -e . in its folder")
    return found


def manifest(artifact: str) -> dict[str, Any]:
    """Return the installed connector's manifest."""
    package = entry_point(artifact).module.split(".")[0]
    document: dict[str, Any] = yaml.safe_load((resources.files(package) / "connector.yaml").read_text())
    return document


def streams_as_json(streams: Sequence[Stream]) -> str:
    """Return the catalog, whole."""
    return msgspec.json.format(msgspec.json.encode(streams), indent=2).decode()


def streams_as_text(streams: Sequence[Stream]) -> str:
    """Return the catalog as a table."""
    rows = [("STREAM", "MODES", "KEY", "CURSOR", "FIELDS")] + [
        (
            each.name,
            ",".join(each.modes),
            ",".join(each.primary_key) or "-",
            each.cursor_field or "-",
            str(len(each.schema.get("properties", {}))),
        )
        for each in streams
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )

"""The cursor: after which row a read goes on, and what it reads: everything, or what has changed since a snapshot."""

from __future__ import annotations

from typing import Any

import msgspec
from penstock_sdk import Cursor, SourceContractError

from penstock_postgres_sql.snapshots import Snapshot


class Place(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a read stands.

    `columns` and `values` name the last row read, none at the end of a read. `changed_since` is what an earlier read had
    seen, so that this one reads only what changed; `snapshot` is what this read sees, and the next one's `changed_since`.
    A cursor of a version that knew no snapshots has columns and values only, and goes on after them.
    """

    columns: list[str] = []
    values: list[str] | None = None
    changed_since: Snapshot | None = msgspec.field(name="changedSince", default=None)
    snapshot: Snapshot | None = None

    def as_cursor(self) -> Cursor:
        """Return the cursor."""
        return msgspec.to_builtins(self)


def place_of(cursor: Cursor | None, stream: str) -> Place:
    """Return where a cursor stands; raises SourceContractError for one that is not this connector's."""
    if cursor is None:
        return Place()
    try:
        return msgspec.convert(cursor, Place)
    except msgspec.ValidationError as error:
        raise SourceContractError(f"stream {stream!r}: the state cannot be read ({error}): reset the state") from None


def finished(columns: list[str], snapshot: Snapshot | None) -> dict[str, Any]:
    """Return the cursor of a read that is at its end."""
    place: dict[str, Any] = Place(columns, None, snapshot).as_cursor()
    return place

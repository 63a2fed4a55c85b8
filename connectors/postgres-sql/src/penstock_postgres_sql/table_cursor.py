"""The connector's cursor: the row after which a read resumes, and the snapshots that decide which rows it reads."""

from __future__ import annotations

import msgspec
from penstock_sdk import Cursor, SourceContractError
from penstock_sdk.json_types import JsonObject

from penstock_postgres_sql.snapshots import Snapshot


class TableCursor(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a read of a table resumes.

    `columns` are the columns that order the read, and `values` are their texts in the last row read; `values` is None at
    the end of a read. `changed_since` is the snapshot of an earlier read: a read reads only the rows that changed after
    it, or all rows if it is None. `snapshot` is the snapshot of the read itself, which becomes the next read's
    `changed_since`. Cursors of the first versions of this connector have columns and values only.
    """

    columns: list[str] = []
    values: list[str] | None = None
    changed_since: Snapshot | None = msgspec.field(name="changedSince", default=None)
    snapshot: Snapshot | None = None

    def to_json(self) -> Cursor:
        """Return the cursor as JSON values."""
        document: JsonObject = msgspec.to_builtins(self)
        return document


def parse_cursor(cursor: Cursor | None, stream_name: str) -> TableCursor:
    """Parse a committed cursor. Raises SourceContractError if this connector did not make it."""
    if cursor is None:
        return TableCursor()
    try:
        return msgspec.convert(cursor, TableCursor)
    except msgspec.ValidationError as error:
        raise SourceContractError(
            f"stream {stream_name!r}: the state cannot be read ({error}): reset the state"
        ) from None


def end_cursor(columns: list[str], snapshot: Snapshot | None) -> Cursor:
    """Return the cursor of a read that has read every row."""
    return TableCursor(columns, None, snapshot).to_json()

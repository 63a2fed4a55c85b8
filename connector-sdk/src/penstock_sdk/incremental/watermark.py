"""The cursor of an incremental read: the highest value read, and the keys seen near it.

With the keys, records that share a value, arrive late or are not sorted are read once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import msgspec

from penstock_sdk.contract import Cursor, Record
from penstock_sdk.errors import SourceContractError
from penstock_sdk.incremental.record_checks import InvalidRecordError, Key, key_values, kind_of
from penstock_sdk.incremental.timestamps import Value, comparable, has_clock, local_time, utc_now

NO_KEYS: Mapping[Key, Value] = {}


@dataclass(frozen=True, kw_only=True)
class CursorField:
    """The field that an incremental read follows, and the key that distinguishes records with the same value.

    - `name`: the field.
    - `key`: the fields that identify a record.
    - `overlap`: how late a record may arrive. A read begins this far before the highest value of the last read: a timedelta,
      or a number if the values are numbers.
    - `order`: converts a record's value to one that can be compared.
    - `remember`: the largest number of keys in a cursor. A record whose key was dropped is read twice, and never lost.
    - `clock`: returns the current time.
    """

    name: str
    key: tuple[str, ...]
    overlap: Any = None
    order: Callable[[Any], Value] = comparable
    remember: int = 10_000
    clock: Callable[[], datetime] = utc_now

    def __post_init__(self) -> None:
        if not self.key:
            raise ValueError(
                "CursorField.key: name the fields that identify a record; without them records that share a value are lost"
                " or read twice"
            )
        if self.order is local_time and (self.overlap or timedelta()) < timedelta(hours=1):
            raise ValueError(
                "CursorField.overlap: local clocks go back one hour once a year; set an overlap of one hour or more"
            )

    def value(self, row: Record) -> Value:
        """Return a record's value in a form that can be compared. Raises InvalidRecordError if it has none."""
        if not isinstance(row, Mapping):
            raise InvalidRecordError(f"a record is of type {type(row).__name__}, not an object")
        found = row.get(self.name)
        if found is None:
            raise InvalidRecordError(
                f"a record has no value of {self.name!r}, so no cursor ever finds it; follow another field"
            )
        try:
            value = self.order(found)
        except SourceContractError as error:
            raise InvalidRecordError(f"{self.name!r}: {error.message}") from None
        except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
            raise InvalidRecordError(
                f"{self.name!r}: a value of type {type(found).__name__} cannot be compared: {type(error).__name__}"
            ) from None
        kind_of(value)
        return value

    def key_of(self, row: Record) -> Key:
        """Return a record's key as JSON returns it. Raises InvalidRecordError if a field of the key has no value."""
        return key_values(row, self.key)

    def comparable_value(self, row: Record) -> Value:
        """Return a record's value. Raises InvalidRecordError if the value or the key is missing."""
        self.key_of(row)
        return self.value(row)

    def watermark(self, cursor: Cursor | None) -> Watermark:
        """Return the watermark that a cursor holds; an empty one for None. Raises SourceContractError for another cursor."""
        if cursor is None:
            return Watermark(self, self.clock())
        try:
            committed = msgspec.convert(cursor, _CommittedWatermark)
            seen = {tuple(key): _from_json(value) for value, keys in committed.seen for key in keys}
            at = _from_json(committed.at)
            kind_of(at)
            return Watermark(self, self.clock(), at, seen)
        except (TypeError, ValueError):
            raise SourceContractError("the state is not from this kind of read; reset the stream's state") from None


@dataclass(frozen=True)
class Watermark:
    """The highest value read, and the keys seen between the overlap's start and that value. Immutable.

    `began` is the time at which the read began. The watermark never exceeds it, because a record that is written during the
    read may get a value that the read has already passed. A record with a later value is remembered by its key and does not
    move the watermark.
    """

    cursor_field: CursorField
    began: datetime
    at: Value = None
    seen: Mapping[Key, Value] = field(default_factory=lambda: NO_KEYS)

    @property
    def start(self) -> Value:
        """The value at which the next read begins, inclusive; None for the start of the source."""
        if self.at is None or self.cursor_field.overlap is None:
            return self.at
        try:
            return self.at - self.cursor_field.overlap
        except OverflowError:  # the calendar begins there
            return datetime.min.replace(tzinfo=self.at.tzinfo)

    def start_since(self, since: Value) -> Value:
        """Return the value at which a read with `since` begins: the overlap never extends to before `since`."""
        if self.at is None:
            return since
        return self.start if since is None or self.at < since else max(self.start, since)

    def unseen(self, rows: Iterable[Record]) -> list[Record]:
        """Return the records that were not seen with their present value."""
        key_of, value = self.cursor_field.key_of, self.cursor_field.value
        return [row for row in rows if self.seen.get(key_of(row)) != value(row)]

    def advanced(self, rows: Iterable[Record]) -> Watermark:
        """Return the watermark after these records are read."""
        found = {self.cursor_field.key_of(row): self.cursor_field.value(row) for row in rows}
        if not found:
            return self
        highest = max(found.values())
        capped = min(highest, self.began) if has_clock(highest) else highest
        at = capped if self.at is None else max(self.at, capped)
        return self._at(at, {**self.seen, **found})

    def _at(self, at: Value, seen: Mapping[Key, Value]) -> Watermark:
        """Return the watermark at a value, with the keys that the next read meets again; the newest if there are too many."""
        moved = replace(self, at=at, seen=NO_KEYS)
        remembered = {key: value for key, value in seen.items() if value >= moved.start}
        if len(remembered) > self.cursor_field.remember:
            newest = sorted(remembered.items(), key=lambda item: item[1], reverse=True)
            remembered = dict(newest[: self.cursor_field.remember])
        return replace(moved, seen=remembered)

    @property
    def cursor(self) -> Cursor:
        """The watermark as JSON: the value, and the keys seen, grouped by value."""
        grouped: dict[Value, list[list[Any]]] = {}
        for key, value in self.seen.items():
            grouped.setdefault(value, []).append(list(key))
        seen = [[_to_json(value), keys] for value, keys in sorted(grouped.items())]
        return {"at": _to_json(self.at), "seen": seen}


class _CommittedWatermark(msgspec.Struct, frozen=True):
    """A watermark as it stands in a cursor."""

    at: Any
    seen: list[tuple[Any, list[list[Any]]]]


def _to_json(value: Value) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def _from_json(value: Any) -> Value:
    return datetime.fromisoformat(value) if isinstance(value, str) else value

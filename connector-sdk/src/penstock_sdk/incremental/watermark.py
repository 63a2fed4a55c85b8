"""Where a read stands among records that share a value, come late, or are not sorted: the value, and the keys seen there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from penstock_sdk.contract import Cursor, Record
from penstock_sdk.errors import SourceContractError
from penstock_sdk.incremental.record_checks import InvalidRecordError, Key, key_values, kind_of
from penstock_sdk.incremental.timestamps import Value, comparable, has_clock, local_time, utc_now

NO_KEYS: Mapping[Key, Value] = {}


@dataclass(frozen=True, kw_only=True)
class CursorField:
    """What a read follows: a field, and the key that tells records with the same value apart.

    `overlap` is how late a record may come: a read begins so far before where the last one stood (a timedelta, or a
    number where the values are numbers). `order` makes of a record's value what can be compared. `remember` bounds the
    keys that a cursor holds; what it forgets comes twice, and is never lost.
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
                "CursorField.key: name the fields that identify a record: without them ties are lost or doubled"
            )
        if self.order is local_time and (self.overlap or timedelta()) < timedelta(hours=1):
            raise ValueError(
                "CursorField.overlap: a local clock goes back an hour once a year: an hour or more is needed"
            )

    def value(self, row: Record) -> Value:
        """Return a record's place in the order. Raises InvalidRecordError for a record that has none."""
        if not isinstance(row, Mapping):
            raise InvalidRecordError(f"a record is no object but {type(row).__name__}")
        found = row.get(self.name)
        if found is None:
            raise InvalidRecordError(
                f"a record has no value of {self.name!r}: no cursor ever finds it; follow another field"
            )
        try:
            value = self.order(found)
        except SourceContractError as error:
            raise InvalidRecordError(f"{self.name!r}: {error.message}") from None
        except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
            raise InvalidRecordError(
                f"{self.name!r}: a value of type {type(found).__name__} has no place in the order: {type(error).__name__}"
            ) from None
        kind_of(value)
        return value

    def key_of(self, row: Record) -> Key:
        """Return what tells a record from all others, as JSON gives it back. Raises InvalidRecordError without it."""
        return key_values(row, self.key)

    def comparable_value(self, row: Record) -> Value:
        """Return a record's value; its key is there too. Raises InvalidRecordError where one of both is not."""
        self.key_of(row)
        return self.value(row)

    def watermark(self, cursor: Cursor | None) -> Watermark:
        """Return where a cursor stands; the beginning where there is none."""
        if cursor is None:
            return Watermark(self, self.clock())
        try:
            seen = {tuple(key): _read(value) for value, keys in cursor["seen"] for key in keys}
            at = _read(cursor["at"])
            kind_of(at)
            return Watermark(self, self.clock(), at, seen)
        except (TypeError, KeyError, ValueError):
            raise SourceContractError("the state is not one of this reading: reset the stream's state") from None


@dataclass(frozen=True)
class Watermark:
    """The highest value read, and the keys seen from an overlap before it on. Immutable.

    `began` is when the read began. The border never stands behind it: what is written during the read may come late
    by then, to where the read has been. A record that is dated after it is remembered by its key, and moves nothing.
    """

    cursor_field: CursorField
    began: datetime
    at: Value = None
    seen: Mapping[Key, Value] = field(default_factory=lambda: NO_KEYS)

    @property
    def start(self) -> Value:
        """From where on, included, the source is to be asked; None for all of it."""
        if self.at is None or self.cursor_field.overlap is None:
            return self.at
        try:
            return self.at - self.cursor_field.overlap
        except OverflowError:  # there is nothing before the first moment of the calendar
            return datetime.min.replace(tzinfo=self.at.tzinfo)

    def start_since(self, since: Value) -> Value:
        """Return from where on to ask in a read that wants nothing before `since`: an overlap does not reach behind it."""
        if self.at is None:
            return since
        return self.start if since is None or self.at < since else max(self.start, since)

    def unseen(self, rows: Iterable[Record]) -> list[Record]:
        """Return the records that were not seen yet with the value that they have now."""
        key_of, value = self.cursor_field.key_of, self.cursor_field.value
        return [row for row in rows if self.seen.get(key_of(row)) != value(row)]

    def advanced(self, rows: Iterable[Record]) -> Watermark:
        """Return the border once these records are read too."""
        found = {self.cursor_field.key_of(row): self.cursor_field.value(row) for row in rows}
        if not found:
            return self
        highest = max(found.values())
        capped = min(highest, self.began) if has_clock(highest) else highest
        at = capped if self.at is None else max(self.at, capped)
        return self._at(at, {**self.seen, **found})

    def _at(self, at: Value, seen: Mapping[Key, Value]) -> Watermark:
        """Return the border there, with the keys that a read from it on would meet again: the newest, if they are many."""
        moved = replace(self, at=at, seen=NO_KEYS)
        kept = {key: value for key, value in seen.items() if value >= moved.start}
        if len(kept) > self.cursor_field.remember:
            newest = sorted(kept.items(), key=lambda item: item[1], reverse=True)
            kept = dict(newest[: self.cursor_field.remember])
        return replace(moved, seen=kept)

    @property
    def cursor(self) -> Cursor:
        """What the border is as JSON: the value, and the keys seen, by value."""
        grouped: dict[Value, list[list[Any]]] = {}
        for key, value in self.seen.items():
            grouped.setdefault(value, []).append(list(key))
        seen = [[_written(value), keys] for value, keys in sorted(grouped.items())]
        return {"at": _written(self.at), "seen": seen}


def _written(value: Value) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def _read(value: Any) -> Value:
    return datetime.fromisoformat(value) if isinstance(value, str) else value

"""Where a read stands among records that share a value, come late, or are not sorted: the value, and the keys seen there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from penstock_sdk.contract import Cursor, Record
from penstock_sdk.errors import SourceContractError
from penstock_sdk.reading.moments import Value, has_clock, in_order, utc_now, wall_clock
from penstock_sdk.reading.validation import Key, UnfitRecordError, key_values, kind_of

NO_KEYS: Mapping[Key, Value] = {}


@dataclass(frozen=True, kw_only=True)
class Trail:
    """What a read follows: a field, and the key that tells records with the same value apart.

    `overlap` is how late a record may come: a read begins so far before where the last one stood (a timedelta, or a
    number where the values are numbers). `order` makes of a record's value what can be compared. `remember` bounds the
    keys that a cursor holds; what it forgets comes twice, and is never lost.
    """

    field: str
    key: tuple[str, ...]
    overlap: Any = None
    order: Callable[[Any], Value] = in_order
    remember: int = 10_000
    clock: Callable[[], datetime] = utc_now

    def __post_init__(self) -> None:
        if not self.key:
            raise ValueError("Trail.key: name the fields that identify a record: without them ties are lost or doubled")
        if self.order is wall_clock and (self.overlap or timedelta()) < timedelta(hours=1):
            raise ValueError("Trail.overlap: a local clock goes back an hour once a year: an hour or more is needed")

    def value(self, row: Record) -> Value:
        """Return a record's place in the order. Raises UnfitRecordError for a record that has none."""
        if not isinstance(row, Mapping):
            raise UnfitRecordError(f"a record is no object but {type(row).__name__}")
        found = row.get(self.field)
        if found is None:
            raise UnfitRecordError(
                f"a record has no value of {self.field!r}: no cursor ever finds it; follow another field"
            )
        try:
            value = self.order(found)
        except SourceContractError as error:
            raise UnfitRecordError(f"{self.field!r}: {error.message}") from None
        except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
            raise UnfitRecordError(
                f"{self.field!r}: a value of type {type(found).__name__} has no place in the order: {type(error).__name__}"
            ) from None
        kind_of(value)
        return value

    def key_of(self, row: Record) -> Key:
        """Return what tells a record from all others, as JSON gives it back. Raises UnfitRecordError without it."""
        return key_values(row, self.key)

    def place(self, row: Record) -> Value:
        """Return a record's value; its key is there too. Raises UnfitRecordError where one of both is not."""
        self.key_of(row)
        return self.value(row)

    def border(self, cursor: Cursor | None) -> Border:
        """Return where a cursor stands; the beginning where there is none."""
        if cursor is None:
            return Border(self, self.clock())
        try:
            seen = {tuple(key): _read(value) for value, keys in cursor["seen"] for key in keys}
            at = _read(cursor["at"])
            kind_of(at)
            return Border(self, self.clock(), at, seen)
        except (TypeError, KeyError, ValueError):
            raise SourceContractError("the state is not one of this reading: reset the stream's state") from None


@dataclass(frozen=True)
class Border:
    """The highest value read, and the keys seen from an overlap before it on. Immutable.

    `began` is when the read began. The border never stands behind it: what is written during the read may come late
    by then, to where the read has been. A record that is dated after it is remembered by its key, and moves nothing.
    """

    trail: Trail
    began: datetime
    at: Value = None
    seen: Mapping[Key, Value] = field(default_factory=lambda: NO_KEYS)

    @property
    def start(self) -> Value:
        """From where on, included, the source is to be asked; None for all of it."""
        if self.at is None or self.trail.overlap is None:
            return self.at
        try:
            return self.at - self.trail.overlap
        except OverflowError:  # there is nothing before the first moment of the calendar
            return datetime.min.replace(tzinfo=self.at.tzinfo)

    def start_since(self, since: Value) -> Value:
        """Return from where on to ask in a read that wants nothing before `since`: an overlap does not reach behind it."""
        if self.at is None:
            return since
        return self.start if since is None or self.at < since else max(self.start, since)

    def fresh(self, rows: Iterable[Record]) -> list[Record]:
        """Return the records that were not seen yet with the value that they have now."""
        key_of, value = self.trail.key_of, self.trail.value
        return [row for row in rows if self.seen.get(key_of(row)) != value(row)]

    def after(self, rows: Iterable[Record]) -> Border:
        """Return the border once these records are read too."""
        found = {self.trail.key_of(row): self.trail.value(row) for row in rows}
        if not found:
            return self
        highest = max(found.values())
        capped = min(highest, self.began) if has_clock(highest) else highest
        at = capped if self.at is None else max(self.at, capped)
        return self._at(at, {**self.seen, **found})

    def _at(self, at: Value, seen: Mapping[Key, Value]) -> Border:
        """Return the border there, with the keys that a read from it on would meet again: the newest, if they are many."""
        moved = replace(self, at=at, seen=NO_KEYS)
        kept = {key: value for key, value in seen.items() if value >= moved.start}
        if len(kept) > self.trail.remember:
            newest = sorted(kept.items(), key=lambda item: item[1], reverse=True)
            kept = dict(newest[: self.trail.remember])
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

"""Which records an incremental read can use: those with a key and a value that can be compared and stored."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime

import msgspec

from penstock_sdk.contract import Record
from penstock_sdk.errors import SourceContractError
from penstock_sdk.incremental.timestamps import Value

Reject = Callable[[object, str], None]
"""Sets a record aside with the reason, as `Connector.reject` does."""
KeyValue = str | int | float
Key = tuple[KeyValue, ...]
"""The values of the fields that identify a record, as JSON returns them."""
MOST_REMEMBERED, MOST_PENDING = 10_000, 100
MOST_EMPTY = 10_000
"""Empty pages in a row. A source that filters after it pages returns some; one whose paging is stuck returns only these."""


class InvalidRecordError(SourceContractError):
    """A record has no key, or no value from which a read can resume."""


class _OtherKindError(InvalidRecordError):
    """A record's value cannot be compared with the other values of the read."""


def kind_of(value: object) -> str:
    """Return the kind of a value; only values of one kind can be compared. Raises ValueError for a value of no kind."""
    if isinstance(value, datetime):
        return "timestamps" if value.tzinfo else "local times"
    if isinstance(value, int | float) and not isinstance(value, bool):
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError("a cursor value must be finite")
        return "numbers"
    raise ValueError(f"a cursor value must be a number or a datetime, not {type(value).__name__}")


def one_kind(at: Value, *, since: Value, until: Value) -> str | None:
    """Return the kind of the state's value and of the arguments of a read; None if nothing is given.

    Raises ValueError if the arguments are of different kinds, and SourceContractError if the state is of another kind.
    """
    kinds = {name: kind_of(value) for name, value in (("since", since), ("until", until)) if value is not None}
    if len(set(kinds.values())) > 1:
        raise ValueError(f"{' and '.join(f'{name} ({kind})' for name, kind in kinds.items())} cannot be compared")
    found = next(iter(kinds.values()), None)
    if at is not None and found not in (None, kind_of(at)):
        raise SourceContractError(f"the state holds {kind_of(at)}, and the read uses {found}; reset the stream's state")
    return found if at is None else kind_of(at)


def key_values(row: object, key: Sequence[str]) -> Key:
    """Return a record's key as JSON returns it, so that it equals the key in a stored cursor.

    Raises InvalidRecordError if a field of the key has no value.
    """
    if not isinstance(row, Mapping):
        raise InvalidRecordError(f"a record is of type {type(row).__name__}, not an object")
    found: list[KeyValue] = []
    for name in key:
        value = row.get(name)
        if value is None:
            raise InvalidRecordError(f"a record has no value of its key {name!r}")
        found.append(_as_json(value, name))
    return tuple(found)


def _as_json(value: object, name: str) -> KeyValue:
    if isinstance(value, str | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidRecordError(f"a record's key {name!r} is not a finite number")
        return value
    try:
        plain = msgspec.to_builtins(value)
    except (TypeError, ValueError):
        plain = None
    if not isinstance(plain, str | int | float):
        raise InvalidRecordError(f"a record's key {name!r} is of type {type(value).__name__}, which cannot be compared")
    return plain


class RecordCheck:
    """Separates the valid records of a read from the invalid ones.

    An invalid record goes to `reject`, once per read even if the source repeats it. Without `reject`, it ends the read with
    SourceContractError.
    """

    def __init__(
        self, value_of: Callable[[Record], Value], reject: Reject | None, kind: str | None, field: str
    ) -> None:
        self._value_of = value_of
        self._reject = reject
        self._kind = kind
        self._found_valid = False
        self._field = field
        self._rejected: set[int] = set()
        self._pending: list[tuple[Record, InvalidRecordError]] = []

    def __call__(self, rows: Iterable[Record]) -> list[tuple[Value, Record]]:
        """Return the valid records, each with its value."""
        found: list[tuple[Value, Record]] = []
        invalid: list[tuple[Record, InvalidRecordError]] = []
        for row in rows:
            try:
                found.append((self._value(row), row))
            except InvalidRecordError as error:
                invalid.append((row, error))
        self._found_valid = self._found_valid or bool(found)
        self._pending += invalid
        if self._found_valid or self._reject is None:
            pending, self._pending = self._pending, []
            for row, why in pending:
                self._reject_record(row, why)
        elif len(self._pending) >= MOST_PENDING:
            self.finish()
        return found

    def finish(self) -> None:
        """End the read. Raises SourceContractError if no record of the stream has a value of the expected kind."""
        others = [error for _, error in self._pending if isinstance(error, _OtherKindError)]
        if others:
            raise SourceContractError(
                f"{others[0].message} by the state, since or until; reset the stream's state, or correct the read"
            )
        pending, self._pending = self._pending, []
        for row, error in pending:
            self._reject_record(row, error)

    def _value(self, row: Record) -> Value:
        value = self._value_of(row)
        kind = kind_of(value)
        self._kind = self._kind or kind  # without state and arguments, the first value decides
        if kind != self._kind:
            raise _OtherKindError(f"the values of {self._field!r} are {kind}, where {self._kind} are expected")
        return value

    def _reject_record(self, row: object, error: InvalidRecordError) -> None:
        if self._reject is None:
            raise error
        known = hash(repr(row))
        if known not in self._rejected:
            if len(self._rejected) < MOST_REMEMBERED:
                self._rejected.add(known)
            self._reject(row, error.message)


class RepeatGuard:
    """Detects a source that returns the same response again and again. It holds one response in memory.

    Raises SourceContractError at the last of `allowed` responses that equal an earlier one, and after MOST_EMPTY empty
    responses in a row. Records without a key may be equal; allow more repeats for them.
    """

    def __init__(self, what: str, allowed: int = 3) -> None:
        self._what, self._allowed = what, allowed
        self._anchor: list[object] | None = None
        self._repeats, self._since_anchor, self._reach = 0, 0, 1
        self._empty = 0

    def __call__(self, response: Sequence[object]) -> None:
        """Check the next response."""
        self._empty = 0 if response else self._empty + 1
        if self._empty > MOST_EMPTY:
            raise SourceContractError(f"{MOST_EMPTY} responses in a row are empty: the source's paging is stuck")
        if response:
            self._compare(list(response))

    def _compare(self, response: list[object]) -> None:
        if response == self._anchor:
            self._repeats += 1
            if self._repeats >= self._allowed:
                raise SourceContractError(
                    f"the source returns the same {self._what} again and again: its paging is stuck"
                )
        self._since_anchor += 1
        if self._since_anchor >= self._reach and not self._repeats:
            self._anchor, self._since_anchor, self._reach = response, 0, self._reach * 2

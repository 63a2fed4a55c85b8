"""Which records a reading can place: those with a key and a cursor value that can be compared, stored and found again."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from penstock_sdk.errors import SourceContractError

Reject = Callable[[Any, str], None]
"""Puts a record aside with the reason, as `Connector.reject` does."""
Key = tuple[Any, ...]
MOST_REMEMBERED, MOST_HELD = 10_000, 100
MOST_EMPTY = 10_000
"""Empty pages in a row: a source that filters late gives some, and one whose paging does not go on gives no other."""


class InvalidRecordError(SourceContractError):
    """A record has no key or no cursor value that a read can go on from."""


class _OtherKindError(InvalidRecordError):
    """A record's value cannot be compared with those that the read is about."""


def kind_of(value: Any) -> str:
    """Return what a cursor value is: only values of one kind can be compared. Raises ValueError for any other."""
    if isinstance(value, datetime):
        return "moments" if value.tzinfo else "local times"
    if isinstance(value, int | float) and not isinstance(value, bool):
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError("a cursor value must be finite")
        return "numbers"
    raise ValueError(f"a cursor value must be a number or a datetime, not {type(value).__name__}")


def one_kind(at: Any, given: Mapping[str, Any]) -> str | None:
    """Return the kind of the state and of the arguments of a read, None where nothing is given.

    Raises ValueError where the arguments differ, and SourceContractError where the state is of another kind.
    """
    kinds = {name: kind_of(value) for name, value in given.items() if value is not None}
    if len(set(kinds.values())) > 1:
        raise ValueError(f"{' and '.join(f'{name} ({kind})' for name, kind in kinds.items())} cannot be compared")
    found = next(iter(kinds.values()), None)
    if at is not None and found not in (None, kind_of(at)):
        raise SourceContractError(f"the state is of {kind_of(at)}, the read of {found}: reset the stream's state")
    return found if at is None else kind_of(at)


def key_values(row: Any, key: Sequence[str]) -> Key:
    """Return a record's key as JSON gives it back, so that it is found again after a resume.

    Raises InvalidRecordError for a record without it.
    """
    if not isinstance(row, Mapping):
        raise InvalidRecordError(f"a record is no object but {type(row).__name__}")
    found = []
    for name in key:
        value = row.get(name)
        if value is None:
            raise InvalidRecordError(f"a record has no value of its key {name!r}")
        found.append(_as_json(value, name))
    return tuple(found)


def _as_json(value: Any, name: str) -> Any:
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
        raise InvalidRecordError(f"a record's key {name!r} is {type(value).__name__}, which cannot be compared")
    return plain


class RecordCheck:
    """Separates the records of a read that can be placed from those that cannot.

    One that cannot is given to `reject`, once a read however often the source repeats it; without `reject` it ends the
    read with SourceContractError.
    """

    def __init__(self, place: Callable[[Any], Any], reject: Reject | None, kind: str | None, field: str) -> None:
        self._place = place
        self._reject = reject
        self._kind = kind
        self._met = False
        self._field = field
        self._told: set[int] = set()
        self._held: list[tuple[Any, InvalidRecordError]] = []

    def __call__(self, rows: Iterable[Any]) -> list[tuple[Any, Any]]:
        """Return the records that can be placed, each with its cursor value."""
        found: list[tuple[Any, Any]] = []
        unfit: list[tuple[Any, InvalidRecordError]] = []
        for row in rows:
            try:
                found.append((self._value(row), row))
            except InvalidRecordError as error:
                unfit.append((row, error))
        self._met = self._met or bool(found)
        self._held += unfit
        if self._met or self._reject is None:
            held, self._held = self._held, []
            for row, why in held:
                self._put_aside(row, why)
        elif len(self._held) >= MOST_HELD:
            self.finish()
        return found

    def finish(self) -> None:
        """End the read. Raises SourceContractError where all of the stream, and not a record of it, is of another kind."""
        others = [error for _, error in self._held if isinstance(error, _OtherKindError)]
        if others:
            raise SourceContractError(
                f"{others[0].message} by the state, since or until: reset the stream's state, or correct the read"
            )
        held, self._held = self._held, []
        for row, error in held:
            self._put_aside(row, error)

    def _value(self, row: Any) -> Any:
        value = self._place(row)
        kind = kind_of(value)
        self._kind = self._kind or kind  # the first value decides where nothing else did
        if kind != self._kind:
            raise _OtherKindError(f"the values of {self._field!r} are {kind}, where {self._kind} are expected")
        return value

    def _put_aside(self, row: Any, error: InvalidRecordError) -> None:
        if self._reject is None:
            raise error
        known = hash(repr(row))
        if known not in self._told:
            if len(self._told) < MOST_REMEMBERED:
                self._told.add(known)
            self._reject(row, error.message)


class RepeatGuard:
    """Finds a source that gives the same answers over and over. It holds one answer, whatever their number.

    Raises SourceContractError at the last of `allowed` answers that equal an earlier one (records without a key may well
    be equal: allow more then), and after MOST_EMPTY empty ones in a row.
    """

    def __init__(self, what: str, allowed: int = 3) -> None:
        self._what, self._allowed = what, allowed
        self._anchor: list[Any] | None = None
        self._repeats, self._since_anchor, self._reach = 0, 0, 1
        self._empty = 0

    def __call__(self, answer: Sequence[Any]) -> None:
        """Take the next answer."""
        self._empty = 0 if answer else self._empty + 1
        if self._empty > MOST_EMPTY:
            raise SourceContractError(f"{MOST_EMPTY} answers in a row are empty: the source's paging does not go on")
        if answer:
            self._compare(list(answer))

    def _compare(self, answer: list[Any]) -> None:
        if answer == self._anchor:
            self._repeats += 1
            if self._repeats >= self._allowed:
                raise SourceContractError(
                    f"the source gives the same {self._what} again and again: its paging does not go on"
                )
        self._since_anchor += 1
        if self._since_anchor >= self._reach and not self._repeats:
            self._anchor, self._since_anchor, self._reach = answer, 0, self._reach * 2

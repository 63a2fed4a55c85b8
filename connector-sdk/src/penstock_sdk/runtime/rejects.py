"""Records that do not fit: they are put aside with the reason, counted, and past a threshold the attempt fails.

A record fits when it is an object that JSON can hold and its primary key is there; where the connection asks for strict
validation, also when it is what its stream's schema says. Looking at what fits costs next to nothing: a batch is looked at
record by record only once something in it does not.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import msgspec

from penstock_sdk import protocol as wire
from penstock_sdk.contract import Op, Stream
from penstock_sdk.errors import SourceContractError
from penstock_sdk.runtime.encode import UNENCODABLE, Chunk, Envelope, culprit, encoded_rows
from penstock_sdk.runtime.strict import StrictSchema

SHARE_FROM = 1000
"""Records of a stream that must have been read before a share of them says anything, unless the stream is at its end."""
DEEPEST = 40
SHOWN = 200
REPRESENTED = (complex, set, frozenset, range)
"""Types whose own words are kept where JSON cannot hold them; of any other only its name, as its words may be anything."""


@dataclass(frozen=True)
class Misfit:
    """Why a record does not fit; `message` never holds a value of it."""

    reason: str
    message: str


class Tally:
    """What the readers of one stream have read and rejected; thresholds are of the stream. Thread-safe."""

    def __init__(self, readers: int = 1) -> None:
        self.read = 0
        self.rejected = 0
        self.first = ""
        self._readers = readers
        self._lock = threading.Lock()

    def take(self, records: int) -> int:
        """Count records, and return how many were read before them."""
        with self._lock:
            self.read += records
            return self.read - records

    def reject(self, misfit: Misfit) -> None:
        """Count one that was put aside; the first one's words are kept."""
        with self._lock:
            self.rejected += 1
            self.first = self.first or f"{misfit.reason}: {misfit.message}"

    def ended(self) -> bool:
        """Take it that one reader is at its end, and say whether all are."""
        with self._lock:
            self._readers -= 1
            return self._readers <= 0


class Fitter:
    """Tells the records of one read that fit from those that do not."""

    def __init__(
        self,
        envelope: Envelope,
        stream: Stream,
        rules: wire.RejectRules,
        now: Callable[[], str],
        tally: Tally | None = None,
    ) -> None:
        self.op: Op = "upsert"
        self.tally = tally or Tally()
        self._envelope = envelope
        self._name = stream.name
        self._keys = [(name, itemgetter(name)) for name in stream.primary_key]
        self._strict = StrictSchema(stream.schema, stream.primary_key) if rules.strict else None
        self._rules = rules
        self._now = now
        self._reject: Callable[[bytes], None] = lambda _: None
        self._encoder = msgspec.json.Encoder()

    def to(self, reject: Callable[[bytes], None]) -> None:
        """Say where the lines of rejected records go."""
        self._reject = reject

    def rows(self, chunk: Chunk) -> Sequence[Any]:
        """Return the JSON of the records that fit, and put the others aside."""
        before = self.tally.take(len(chunk.rows))
        if self._keys_are_there(chunk.rows):
            try:
                rows = encoded_rows(self._encoder, chunk.rows)
            except UNENCODABLE:
                rows = None
            if rows is not None and (self._strict is None or self._strict.fit(rows)):
                return rows
        return [row for at, each in enumerate(chunk.rows) for row in self._one(each, before + at)]

    def _keys_are_there(self, rows: Sequence[Any]) -> bool:
        if isinstance(rows[0], msgspec.Raw):
            return True  # strict validation looks into JSON for them
        try:
            return all(None not in map(get, rows) for _, get in self._keys)
        except Exception:  # noqa: BLE001 - a record may be anything; one by one it is named
            return False

    def _one(self, row: Any, position: int) -> Sequence[Any]:
        misfit = self._misfit(row)
        if misfit is None:
            rows = encoded_rows(self._encoder, [row])
            if self._strict is None or self._strict.fit(rows):
                return rows
            misfit = Misfit("SchemaMismatch", self._strict.words(rows[0]))
        self._put_aside(row, position, misfit)
        return ()

    def _misfit(self, row: Any) -> Misfit | None:
        if isinstance(row, msgspec.Raw):
            return None
        if not isinstance(row, Mapping):
            return Misfit("NotARecord", f"it is of type {type(row).__name__}, and a record is an object")
        for name, _ in self._keys:
            if row.get(name) is None:
                state = "null" if name in row else "missing"
                return Misfit("MissingKey", f"field {name} of the primary key is {state}")
        try:
            self._encoder.encode(row)
        except UNENCODABLE:
            path, kind = culprit(row, "")
            return Misfit("Unencodable", f"field {path or '(the record)'} of type {kind} cannot be JSON")
        return None

    def bad_line(self, line: bytes, reason: str) -> None:
        """Put a line aside that is no JSON."""
        text = line.decode(errors="backslashreplace")
        self._put_aside(text, self.tally.take(1), Misfit("NotJson", f"the line is not JSON: {reason}"))

    def unreadable(self, data: Any, message: str) -> None:
        """Put aside what the connector itself could not make a record of."""
        self._put_aside(data, self.tally.take(1), Misfit("Unreadable", message))

    def _put_aside(self, row: Any, position: int, misfit: Misfit) -> None:
        envelope = self._envelope
        document = {
            "tenant": envelope.tenant,
            "connection": envelope.connection,
            "connector": envelope.connector,
            "stream": envelope.stream,
            "run": envelope.run,
            "attempt": envelope.attempt,
            "position": position,
            "op": self.op,
            "extracted_at": self._now(),
            "schema_version": envelope.schema_version,
            "reason": misfit.reason,
            "message": misfit.message,
            "data": kept(row),
        }
        self.tally.reject(misfit)
        self._reject(self._encoder.encode(document) + b"\n")
        most = self._rules.max_records
        if most is not None and self.tally.rejected > most:
            raise self._too_many(f"spec.rejects.maxRecords ({most})")

    def check_share(self, *, done: bool) -> None:
        """Raise once more of the records were rejected than the connection allows; `done` says that this read is at its end."""
        whole, most, tally = done and self.tally.ended(), self._rules.max_share, self.tally
        if most is None or not tally.rejected or (not whole and tally.read < SHARE_FROM):
            return
        if tally.rejected > most * tally.read:
            raise self._too_many(f"spec.rejects.maxShare ({most:g})")

    def _too_many(self, threshold: str) -> SourceContractError:
        tally = self.tally
        return SourceContractError(
            f"stream {self._name!r}: {tally.rejected} of {tally.read} records were rejected, more than {threshold} allows;"
            f" the first: {tally.first}. Correct the source or the connector, or raise the threshold"
        )


def kept(value: Any, depth: int = 0) -> Any:
    """Return what JSON can hold of a record: its values as they are, and in place of one that JSON cannot hold its type."""
    if isinstance(value, msgspec.Raw):
        return value
    if depth > DEEPEST:
        return {"unencodable": "nested too deeply"}
    if isinstance(value, Mapping):
        return {_key(key): kept(each, depth + 1) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [kept(each, depth + 1) for each in value]
    try:
        return msgspec.Raw(msgspec.json.encode(value))
    except Exception:  # noqa: BLE001 - it is why the record was rejected
        return _unencodable(value)


def _key(key: Any) -> str:
    return (
        kept_text(key)
        if isinstance(key, str)
        else str(key)
        if isinstance(key, int | float)
        else f"({type(key).__name__})"
    )


def kept_text(text: str) -> str:
    """Return text that UTF-8 can hold."""
    return text.encode(errors="backslashreplace").decode()


def _unencodable(value: Any) -> Any:
    if isinstance(value, str):
        return kept_text(value)
    if isinstance(value, int):
        return str(value)
    shown = {"repr": repr(value)[:SHOWN]} if type(value) in REPRESENTED else {}
    return {"unencodable": type(value).__name__, **shown}

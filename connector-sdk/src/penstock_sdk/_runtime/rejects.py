"""Records that do not fit: they are put aside with the reason, counted, and past a threshold the attempt fails.

A record fits when it is an object that JSON can hold and its primary key is there; where the connection asks for strict
validation, also when it is what its stream's schema says. Looking at what fits costs next to nothing: a batch is looked at
record by record only once something in it does not.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from types import NoneType
from typing import Any

import msgspec

from penstock_sdk import protocol as wire
from penstock_sdk._runtime.encode import (
    NOT_AN_OBJECT,
    UNENCODABLE,
    Chunk,
    EncodedRows,
    Envelope,
    encoded_rows,
    why_unencodable,
)
from penstock_sdk._runtime.strict_json import problem
from penstock_sdk._runtime.strict_schema import StrictSchema
from penstock_sdk.contract import Op, Stream
from penstock_sdk.errors import SourceContractError

SHARE_FROM = 1000
"""Records of a stream that must have been read before a share of them says anything, unless the stream is at its end."""
DEEPEST = 40
SHOWN = 200
REPRESENTED = (complex, set, frozenset, range)
"""Types whose own words are kept where JSON cannot hold them; of any other only its name, as its words may be anything."""


@dataclass(frozen=True)
class Rejection:
    """Why a record does not fit; `message` never holds a value of it."""

    reason: str
    message: str


class RejectCounts:
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

    def reject(self, rejection: Rejection) -> None:
        """Count one that was put aside; the first one's words are kept."""
        with self._lock:
            self.rejected += 1
            self.first = self.first or f"{rejection.reason}: {rejection.message}"

    def ended(self) -> bool:
        """Take it that one reader is at its end, and say whether all are."""
        with self._lock:
            self._readers -= 1
            return self._readers <= 0


class RecordValidator:
    """Tells the records of one read that fit from those that do not."""

    def __init__(
        self,
        envelope: Envelope,
        stream: Stream,
        rules: wire.RejectRules,
        now: Callable[[], str],
        counts: RejectCounts | None = None,
    ) -> None:
        self.op: Op = "upsert"
        self.counts = counts or RejectCounts()
        self._envelope = envelope
        self._name = stream.name
        self._keys = [(name, itemgetter(name)) for name in stream.primary_key]
        self._integers = integer_fields(stream.schema)
        self._strict = strict_by_op(stream) if rules.strict else {}
        self._rules = rules
        self._now = now
        self._reject: Callable[[bytes], None] = lambda _: None
        self._encoder = msgspec.json.Encoder()

    def send_to(self, reject: Callable[[bytes], None]) -> None:
        """Say where the lines of rejected records go."""
        self._reject = reject

    def rows(self, chunk: Chunk) -> EncodedRows:
        """Return the JSON of the records that fit, and put the others aside."""
        before = self.counts.take(len(chunk.rows))
        if self._keys_present(chunk):
            try:
                rows = encoded_rows(self._encoder, chunk.rows, self._integers, split=chunk.split)
            except UNENCODABLE:
                rows = None
            strict = self._strict_now()
            if rows is not None and (strict is None or strict.fit(rows)):
                return rows
        valid = [line for at, row in enumerate(chunk.rows) for line in self._valid_lines(row, before + at)]
        return EncodedRows(valid, len(b"".join(valid)))

    def _keys_present(self, chunk: Chunk) -> bool:
        rows = chunk.rows
        if chunk.split or (isinstance(rows[0], msgspec.Raw) and set(map(type, rows)) == {msgspec.Raw}):
            # of JSON that says nothing of deletes, only strict validation looks for them
            return self.op != "delete"
        try:
            return all(NoneType not in set(map(type, map(get, rows))) for _, get in self._keys)
        except Exception:  # noqa: BLE001 - a record may be anything; one by one it is named
            return False

    def _valid_lines(self, row: Any, position: int) -> Sequence[Any]:
        rejection = self._rejection_of(row)
        if rejection is None:
            rows = encoded_rows(self._encoder, [row], self._integers)
            strict = self._strict_now()
            rejection = Rejection("SchemaMismatch", strict.words(rows[0])) if strict and not strict.fit(rows) else None
            if rejection is None:
                return rows
        self._reject_row(row, position, rejection)
        return ()

    def _rejection_of(self, row: Any) -> Rejection | None:
        if isinstance(row, msgspec.Raw):
            return self._raw_rejection(row)
        if not isinstance(row, Mapping):
            return Rejection("NotARecord", f"it is of type {type(row).__name__}, and a record is an object")
        for name, _ in self._keys:
            if row.get(name) is None:
                state = "null" if name in row else "missing"
                return Rejection("MissingKey", f"field {name} of the primary key is {state}")
        why = why_unencodable(row, self._integers)
        return Rejection("Unencodable", why) if why else None

    def _raw_rejection(self, row: msgspec.Raw) -> Rejection | None:
        why = why_unencodable(row, self._integers)
        if why:
            return Rejection("NotARecord" if why == NOT_AN_OBJECT else "NotJson", why)
        key = self._missing_key(row) if self.op == "delete" else ""
        return Rejection("MissingKey", key) if key else None

    def _missing_key(self, row: msgspec.Raw) -> str:
        """Say which field of the key a JSON record lacks."""
        fields = msgspec.json.decode(row, type=dict[str, msgspec.Raw]) if self._keys else {}
        for name, _ in self._keys:
            if name not in fields or bytes(fields[name]) == b"null":
                return f"field {name} of the primary key is {'null' if name in fields else 'missing'}"
        return ""

    def _strict_now(self) -> StrictSchema | None:
        return self._strict.get(self.op)

    def reject_line(self, line: bytes, reason: str) -> None:
        """Put a line aside that is no JSON."""
        text = line.decode(errors="backslashreplace")
        self._reject_row(text, self.counts.take(1), Rejection("NotJson", f"the line is not JSON: {reason}"))

    def reject_data(self, data: Any, message: str) -> None:
        """Put aside what the connector itself could not make a record of."""
        self._reject_row(data, self.counts.take(1), Rejection("Unreadable", message))

    def _reject_row(self, row: Any, position: int, rejection: Rejection) -> None:
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
            "reason": rejection.reason,
            "message": rejection.message,
            "data": encodable(row),
        }
        self.counts.reject(rejection)
        self._reject(self._encoder.encode(document) + b"\n")
        most = self._rules.max_records
        if most is not None and self.counts.rejected > most:
            raise self._too_many(f"spec.rejects.maxRecords ({most})")

    def check_share(self, *, done: bool) -> None:
        """Raise once more of the records were rejected than the connection allows; `done` says that this read is at its end."""
        whole, most, counts = done and self.counts.ended(), self._rules.max_share, self.counts
        if most is None or not counts.rejected or (not whole and counts.read < SHARE_FROM):
            return
        if counts.rejected > most * counts.read:
            raise self._too_many(f"spec.rejects.maxShare ({most:g})")

    def _too_many(self, threshold: str) -> SourceContractError:
        counts = self.counts
        return SourceContractError(
            f"stream {self._name!r}: {counts.rejected} of {counts.read} records were rejected, more than {threshold} allows;"
            f" the first: {counts.first}. Correct the source or the connector, or raise the threshold"
        )


def integer_fields(schema: Mapping[str, Any]) -> frozenset[str]:
    """Return the fields of a record that the schema declares as integers, and as nothing that holds larger numbers."""
    properties = schema.get("properties")
    fields = properties.items() if isinstance(properties, Mapping) else ()
    return frozenset(name for name, node in fields if isinstance(node, Mapping) and _is_integer(node.get("type")))


def _is_integer(declared: Any) -> bool:
    return declared == "integer" or (isinstance(declared, list) and "integer" in declared and "number" not in declared)


def strict_by_op(stream: Stream) -> dict[Op, StrictSchema]:
    """Return what records must fit, by op: of a record that is gone only the key is known, and only the key counts."""
    properties = stream.schema.get("properties", {})
    keys = {name: properties[name] for name in stream.primary_key if name in properties}
    return {
        "upsert": StrictSchema(stream.schema, stream.primary_key),
        "delete": StrictSchema({"properties": keys}, stream.primary_key),
    }


def encodable(value: Any, depth: int = 0) -> Any:
    """Return what JSON can hold of a record: its values as they are, and in place of one that JSON cannot hold its type."""
    if isinstance(value, msgspec.Raw):
        return _encodable_json(value)
    if depth > DEEPEST:
        return {"unencodable": "nested too deeply"}
    if isinstance(value, Mapping):
        return {_key(key): encodable(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encodable(item, depth + 1) for item in value]
    lost = isinstance(value, float) and not math.isfinite(value)
    try:
        return str(value) if lost else msgspec.Raw(msgspec.json.encode(value))
    except Exception:  # noqa: BLE001 - it is why the record was rejected
        return _unencodable(value)


def _encodable_json(value: msgspec.Raw) -> Any:
    """Return JSON of the connector's own making, as text where it is not strict JSON."""
    return bytes(value).decode(errors="backslashreplace") if _has_line_break(value) or _is_odd(value) else value


def _is_odd(value: msgspec.Raw) -> bool:
    try:
        msgspec.json.decode(value, type=msgspec.Raw)
        bytes(value).decode()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return True
    return bool(problem(bytes(value)))


def _has_line_break(value: msgspec.Raw) -> bool:
    return b"\n" in bytes(value) or b"\r" in bytes(value)


def _key(key: Any) -> str:
    return (
        encodable_text(key)
        if isinstance(key, str)
        else _number(key)
        if isinstance(key, int | float)
        else f"({type(key).__name__})"
    )


def _number(value: float) -> str:
    """Return a number as text; an integer of more digits than Python writes is hexadecimal."""
    try:
        return str(value)
    except ValueError:
        return hex(value) if isinstance(value, int) else type(value).__name__


def encodable_text(text: str) -> str:
    """Return text that UTF-8 can hold."""
    return text.encode(errors="backslashreplace").decode()


def _unencodable(value: Any) -> Any:
    if isinstance(value, str):
        return encodable_text(value)
    if isinstance(value, int):
        return _number(value)
    return {"unencodable": type(value).__name__, **_represented(value)}


def _represented(value: Any) -> dict[str, str]:
    try:
        return {"repr": repr(value)[:SHOWN]} if type(value) in REPRESENTED else {}
    except Exception:  # noqa: BLE001 - of an item of it, which may be anything
        return {}

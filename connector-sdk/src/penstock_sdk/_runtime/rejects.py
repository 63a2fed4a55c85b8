"""Invalid records: they are set aside with the reason, counted, and above a threshold the attempt fails.

A record is valid if it is an object that JSON can represent and has its primary key. With strict validation it must also
match the schema of its stream. Checking valid records costs almost nothing: a batch is checked record by record only if it
contains an invalid one.
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
from penstock_sdk._runtime.masking import Mask
from penstock_sdk._runtime.strict_json import problem
from penstock_sdk._runtime.strict_schema import StrictSchema
from penstock_sdk.contract import Op, Stream
from penstock_sdk.errors import SourceContractError
from penstock_sdk.json_types import JsonObject, JsonSchema, properties_of

SHARE_FROM = 1000
"""The share of rejected records is checked after so many records of a stream, or at its end."""
DEEPEST = 40
SHOWN = 200
REPRESENTED = (complex, set, frozenset, range)
"""Types whose `repr` is stored if JSON cannot represent a value; of other types only the name is stored."""


@dataclass(frozen=True)
class Rejection:
    """Why a record is invalid. `message` never holds a value of the record."""

    reason: str
    message: str


class RejectCounts:
    """Counts the read and the rejected records of one stream, for all its readers. Thread-safe."""

    def __init__(self, readers: int = 1) -> None:
        self.read = 0
        self.rejected = 0
        self.first = ""
        self._readers = readers
        self._lock = threading.Lock()

    def take(self, records: int) -> int:
        """Count records, and return the count before them."""
        with self._lock:
            self.read += records
            return self.read - records

    def reject(self, rejection: Rejection) -> None:
        """Count a rejected record. The reason of the first one is stored."""
        with self._lock:
            self.rejected += 1
            self.first = self.first or f"{rejection.reason}: {rejection.message}"

    def ended(self) -> bool:
        """Record that one reader has finished, and return True if all have."""
        with self._lock:
            self._readers -= 1
            return self._readers <= 0


class RecordValidator:
    """Separates the valid records of one read from the invalid ones."""

    def __init__(
        self,
        envelope: Envelope,
        stream: Stream,
        rules: wire.RejectRules,
        now: Callable[[], str],
        counts: RejectCounts | None = None,
        mask: Mask | None = None,
    ) -> None:
        self._mask = mask
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
        """Set the function that receives the lines of rejected records."""
        self._reject = reject

    def rows(self, chunk: Chunk) -> EncodedRows:
        """Return the JSON of the valid records, and set the others aside."""
        before = self.counts.take(len(chunk.rows))
        if self._keys_present(chunk):
            try:
                rows = encoded_rows(self._encoder, chunk.rows, self._integers, split=chunk.split)
            except UNENCODABLE:
                rows = None
            strict = self._strict_now()
            if rows is not None and (strict is None or strict.matches(rows)):
                return rows
        valid = [line for at, row in enumerate(chunk.rows) for line in self._valid_lines(row, before + at)]
        return EncodedRows(valid, len(b"".join(valid)))

    def _keys_present(self, chunk: Chunk) -> bool:
        rows = chunk.rows
        if chunk.split or (isinstance(rows[0], msgspec.Raw) and set(map(type, rows)) == {msgspec.Raw}):
            # in JSON, keys are looked for only in deletes, or with strict validation
            return self.op != "delete"
        try:
            return all(NoneType not in set(map(type, map(get, rows))) for _, get in self._keys)
        except Exception:  # noqa: BLE001 - a record may be anything; the check of each record finds it
            return False

    def _valid_lines(self, row: Any, position: int) -> Sequence[Any]:
        rejection = self._rejection_of(row)
        if rejection is None:
            rows = encoded_rows(self._encoder, [row], self._integers)
            strict = self._strict_now()
            rejection = (
                Rejection("SchemaMismatch", strict.mismatch(rows[0])) if strict and not strict.matches(rows) else None
            )
            if rejection is None:
                return rows
        self._reject_row(row, position, rejection)
        return ()

    def _rejection_of(self, row: Any) -> Rejection | None:
        if isinstance(row, msgspec.Raw):
            return self._raw_rejection(row)
        if not isinstance(row, Mapping):
            return Rejection("NotARecord", f"it is of type {type(row).__name__}, and a record must be an object")
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
        """Return the field of the key that a JSON record lacks, or nothing."""
        fields = msgspec.json.decode(row, type=dict[str, msgspec.Raw]) if self._keys else {}
        for name, _ in self._keys:
            if name not in fields or bytes(fields[name]) == b"null":
                return f"field {name} of the primary key is {'null' if name in fields else 'missing'}"
        return ""

    def _strict_now(self) -> StrictSchema | None:
        return self._strict.get(self.op)

    def reject_line(self, line: bytes, reason: str) -> None:
        """Set aside a line that is not JSON."""
        text = line.decode(errors="backslashreplace")
        self._reject_row(text, self.counts.take(1), Rejection("NotJson", f"the line is not JSON: {reason}"))

    def reject_data(self, data: Any, message: str) -> None:
        """Set aside data that the connector rejects."""
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
            "message": self._mask(rejection.message) if self._mask else rejection.message,
            "data": encodable(row),
        }
        self.counts.reject(rejection)
        self._reject(self._masked(self._encoder.encode(document)) + b"\n")
        most = self._rules.max_records
        if most is not None and self.counts.rejected > most:
            raise self._too_many(f"spec.rejects.maxRecords ({most})")

    def _masked(self, line: bytes) -> bytes:
        """Return the line of a rejected record without the connection's credentials, which a source may send back."""
        if self._mask is None or not self._mask.is_in(line):
            return line
        masked = self._encoder.encode(self._mask.masked_json(msgspec.json.decode(line)))
        if self._mask.is_in(masked):
            document: JsonObject = msgspec.json.decode(masked)
            masked = self._encoder.encode({**document, "data": None, "message": "left out: it holds a credential"})
        return masked

    def check_share(self, *, done: bool) -> None:
        """Raise SourceContractError if the share of rejected records exceeds the threshold. `done`: this read is at its end."""
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


def integer_fields(schema: JsonSchema) -> frozenset[str]:
    """Return the fields that the schema declares as integers, and not also as numbers."""
    properties = schema.get("properties")
    fields = properties.items() if isinstance(properties, Mapping) else ()
    return frozenset(name for name, node in fields if isinstance(node, Mapping) and _is_integer(node.get("type")))


def _is_integer(declared: Any) -> bool:
    return declared == "integer" or (isinstance(declared, list) and "integer" in declared and "number" not in declared)


def strict_by_op(stream: Stream) -> dict[Op, StrictSchema]:
    """Return the schema that records must match, by operation. Of a deleted record only the key is checked."""
    properties = properties_of(stream.schema)
    keys = {name: properties[name] for name in stream.primary_key if name in properties}
    return {
        "upsert": StrictSchema(stream.schema, stream.primary_key),
        "delete": StrictSchema({"properties": keys}, stream.primary_key),
    }


def encodable(value: Any, depth: int = 0) -> Any:
    """Return a record as JSON can represent it: a value that JSON cannot represent is replaced by its type."""
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
    except Exception:  # noqa: BLE001 - this is why the record was rejected
        return _unencodable(value)


def _encodable_json(value: msgspec.Raw) -> Any:
    """Return JSON that the connector made; as text if it is not strict JSON."""
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
    """Return a number as text; an integer with more digits than Python writes, as hexadecimal."""
    try:
        return str(value)
    except ValueError:
        return hex(value) if isinstance(value, int) else type(value).__name__


def encodable_text(text: str) -> str:
    """Return text that UTF-8 can represent."""
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
    except Exception:  # noqa: BLE001 - an item of the value may be anything
        return {}

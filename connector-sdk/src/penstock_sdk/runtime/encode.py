"""The record path: records in, compressed JSON Lines with their envelope out.

What is the same for all records of an object is encoded once; a record costs its own encoding and two joins.

JSON has no NaN and no infinity, and msgspec writes null for them. A connector whose source has such floats maps them
to strings first, as postgres-sql does; looking at every float here would cost more than everything else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import zstandard

from penstock_sdk.contract import Op, Record, Records, rows_of
from penstock_sdk.errors import SourceContractError

LEVEL = 1
CHUNK_LINES = 500
UNENCODABLE = (TypeError, ValueError, OverflowError, RecursionError)


@dataclass(frozen=True)
class Envelope:
    """The constants of one stream's records in one attempt."""

    tenant: str
    connection: str
    connector: str
    stream: str
    run: str
    attempt: int
    schema_version: int


@dataclass(frozen=True)
class FinishedObject:
    """A closed object, ready to be uploaded. `sha256` is of `body`, the compressed bytes."""

    sequence: int
    records: int
    body: bytes
    sha256: str


class ObjectEncoder:
    """Encodes the records of one object."""

    def __init__(self, envelope: Envelope, sequence: int, extracted_at: str) -> None:
        self.sequence = sequence
        self.records = 0
        self.size = 0
        self._stream = envelope.stream
        self._chunks: list[bytes] = []
        self._compressor = zstandard.ZstdCompressor(level=LEVEL).compressobj()
        constants = {
            "tenant": envelope.tenant,
            "connection": envelope.connection,
            "connector": envelope.connector,
            "stream": envelope.stream,
            "run": envelope.run,
            "extracted_at": extracted_at,
            "schema_version": envelope.schema_version,
        }
        self._encoder = msgspec.json.Encoder()
        prefix = f'"id":"{envelope.run}-{envelope.attempt:02d}-{sequence:06d}-'
        self._head = self._encoder.encode(constants)[:-1] + b"," + prefix.encode()

    def add(self, records: Records, op: Op) -> None:
        """Encode records; raises SourceContractError for one that JSON cannot hold.

        Lines are added a chunk at a time and counted with it, so that an author who catches the error still has
        an object that holds what it counts.
        """
        middle = f',"op":"{op}","data":'.encode()
        template = [b"}\n" + self._head, b"", b'","seq":', b"", middle, b""] * CHUNK_LINES
        if isinstance(records, bytes):
            raws = _raw_lines(records, self._stream)
            for start in range(0, len(raws), CHUNK_LINES):
                self._write(raws[start : start + CHUNK_LINES], template)
            return
        rows = list(rows_of(records))
        for start in range(0, len(rows), CHUNK_LINES):
            self._write(self._lines(rows[start : start + CHUNK_LINES], start), template)

    def _write(self, lines: Sequence[Any], template: list[bytes]) -> None:
        """Fill the template by slices: a loop over the records in Python would cost more than their encoding."""
        count = len(lines)
        numbers = self._encoder.encode_lines(list(range(self.records, self.records + count))).split()
        parts = template[: count * 6]
        parts[0] = self._head
        parts[1::6] = parts[3::6] = numbers
        parts[5::6] = lines
        parts.append(b"}\n")
        self._compress(b"".join(parts))
        self.records += count

    def _lines(self, rows: list[Record], start: int) -> Sequence[bytes]:
        try:
            lines = self._encoder.encode_lines(rows).split(b"\n")[:-1]
            if len(lines) == len(rows):
                return lines
            return [_one_line(self._encoder.encode(row)) for row in rows]  # a msgspec.Raw had line breaks in it
        except UNENCODABLE as error:
            raise _unencodable(self._stream, rows, start, error) from None

    def _compress(self, data: bytes) -> None:
        if data:
            chunk = self._compressor.compress(data)
            self.size += len(chunk)
            self._chunks.append(chunk)

    def finish(self) -> FinishedObject:
        """Close the object."""
        body = b"".join([*self._chunks, self._compressor.flush()])
        return FinishedObject(self.sequence, self.records, body, hashlib.sha256(body).hexdigest())


def _one_line(value: Any) -> bytes:
    """Return JSON without the line breaks between its tokens; numbers and strings stay as they are written."""
    return msgspec.json.format(bytes(value), indent=-1)


def _raw_lines(page: bytes, stream: str) -> Sequence[Any]:
    """Split a page of JSON into records without decoding them."""
    try:
        if not page.isascii():
            page.decode()  # msgspec.Raw is passed on as it is, and Bronze is UTF-8
        if page.lstrip()[:1] == b"[":
            raws = msgspec.json.decode(page, type=list[msgspec.Raw])
        else:
            raws = msgspec.json.Decoder(msgspec.Raw).decode_lines(page)
        if b"\n" in page and b"\n".join(raws).count(b"\n") >= len(raws):
            return [_one_line(raw) for raw in raws]
        return raws
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        reason = str(error) if isinstance(error, msgspec.DecodeError) else f"byte {error.start} is not UTF-8"
        raise SourceContractError(f"stream {stream!r}: the source sent a page that is not JSON: {reason}") from None


def _unencodable(stream: str, rows: list[Record], start: int, error: Exception) -> SourceContractError:
    index, row = next(((at, row) for at, row in enumerate(rows) if not _encodable(row)), (0, rows[0]))
    path, kind = _culprit(row, "")
    field = path or "(the record)"
    message = f"stream {stream!r}, record {start + index} of its batch: field {field} of type {kind} cannot be JSON"
    return SourceContractError(message, operator_message=type(error).__name__)


def _encodable(row: Any) -> bool:
    try:
        msgspec.json.encode(row)
    except UNENCODABLE:
        return False
    return True


def _culprit(value: Any, path: str) -> tuple[str, str]:
    """Return path and type of the first value that cannot be encoded; never the value itself."""
    children = (
        [(f"{path}.{key}".lstrip("."), item) for key, item in value.items()]
        if isinstance(value, dict)
        else [(f"{path}[{index}]", item) for index, item in enumerate(value)]
        if isinstance(value, list | tuple)
        else []
    )
    for child_path, child in children:
        try:
            msgspec.json.encode(child)
        except RecursionError:
            return child_path, "circular reference"
        except Exception:  # noqa: BLE001 - any reason makes it the culprit
            return _culprit(child, child_path)
    return path, type(value).__name__

"""The record path: records in, compressed JSON Lines with their envelope out.

What is the same for all records of an object is encoded once; a record costs its own encoding and two joins.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import zstandard

from penstock_sdk.contract import Op, Record, Records, rows_of
from penstock_sdk.errors import SourceContractError

LEVEL = 1
CHUNK_LINES = 500


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
        encode = msgspec.json.Encoder().encode
        constants = {
            "tenant": envelope.tenant,
            "connection": envelope.connection,
            "connector": envelope.connector,
            "stream": envelope.stream,
            "run": envelope.run,
            "extracted_at": extracted_at,
            "schema_version": envelope.schema_version,
        }
        prefix = f'"id":"{envelope.run}-{envelope.attempt:02d}-{sequence:06d}-'
        self._head = encode(constants)[:-1] + b"," + prefix.encode()
        self._encode = encode

    def add(self, records: Records, op: Op) -> None:
        """Encode records; raises SourceContractError for one that JSON cannot hold."""
        lines = self._encoded(records)
        middle = f',"op":"{op}","data":'.encode()
        head, number = self._head, self.records
        parts: list[bytes] = []
        for line in lines:
            digits = b"%d" % number
            parts += (head, digits, b'","seq":', digits, middle, line, b"}\n")
            number += 1
            if len(parts) >= CHUNK_LINES * 7:
                self._compress(b"".join(parts))
                parts = []
        self._compress(b"".join(parts))
        self.records = number

    def _encoded(self, records: Records) -> Iterator[bytes] | Sequence[Any]:
        if isinstance(records, bytes):
            return _raw_lines(records, self._stream)
        return self._rows(rows_of(records))

    def _rows(self, rows: Sequence[Record]) -> Iterator[bytes]:
        encode = self._encode
        for index, row in enumerate(rows):
            try:
                yield encode(row)
            except (TypeError, ValueError, OverflowError, RecursionError) as error:
                raise _unencodable(self._stream, index, row, error) from None

    def _compress(self, data: bytes) -> None:
        if data:
            chunk = self._compressor.compress(data)
            self.size += len(chunk)
            self._chunks.append(chunk)

    def finish(self) -> FinishedObject:
        """Close the object."""
        body = b"".join([*self._chunks, self._compressor.flush()])
        return FinishedObject(self.sequence, self.records, body, hashlib.sha256(body).hexdigest())


def _raw_lines(page: bytes, stream: str) -> Sequence[msgspec.Raw]:
    """Split a page of JSON into records without decoding them."""
    try:
        if page.lstrip()[:1] == b"[":
            return msgspec.json.decode(page, type=list[msgspec.Raw])
        return msgspec.json.Decoder(msgspec.Raw).decode_lines(page)
    except msgspec.DecodeError as error:
        message = f"stream {stream!r}: the source sent a page that is not JSON: {error}"
        raise SourceContractError(message) from None


def _unencodable(stream: str, index: int, row: Any, error: Exception) -> SourceContractError:
    path, kind = _culprit(row, "")
    message = (
        f"stream {stream!r}, record {index} of its batch: field {path or '(the record)'} of type {kind} cannot be JSON"
    )
    return SourceContractError(message, operator_message=type(error).__name__)


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

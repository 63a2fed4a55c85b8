"""The record path: records in, compressed JSON Lines with their envelope out.

Fields that are the same for all records of an object are encoded once. A record costs its own encoding and one join.

JSON has no NaN and no infinity, and msgspec writes null for them. `plain_values` finds out quickly that a chunk cannot hold
such values; only if it is not certain, the records are checked one by one. `strict_json` defines what is refused.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, ClassVar

import msgspec
import zstandard

from penstock_sdk._runtime.plain_values import are_plain
from penstock_sdk._runtime.strict_json import (
    NotStrictJsonError,
    half_surrogates,
    large_numbers,
    leaves,
    lines_of,
    lost_number,
    nested,
    one_value_each,
    problem,
    shown_key,
)
from penstock_sdk.contract import Op, Records, rows_of
from penstock_sdk.errors import SourceContractError

LEVEL = 1
CHUNK_LINES = 500
CHUNK_BYTES = 1 << 18
FIRST_CHUNK_LINES = 20
NUMBERS_CACHED = 65_536
UNENCODABLE = (TypeError, ValueError, OverflowError, RecursionError)
NOT_AN_OBJECT = "it is JSON but not an object, and a record is an object"
FIRST_BYTE = itemgetter(0)
OBJECT, ONLY_RAW = {ord("{")}, {msgspec.Raw}
BadLine = Callable[[bytes, str], None]


@dataclass(frozen=True)
class Envelope:
    """The constant fields of one stream's records in one attempt. `window` is the time span that is read again, if any."""

    tenant: str
    connection: str
    connector: str
    stream: str
    run: str
    attempt: int
    schema_version: int
    window: dict[str, str] | None = None


@dataclass(frozen=True)
class FinishedObject:
    """A closed object, ready to be uploaded. `by_op` counts its records; `sha256` is of `body`, the compressed bytes."""

    sequence: int
    by_op: Mapping[Op, int]
    body: bytes
    sha256: str


@dataclass(frozen=True)
class Chunk:
    """Records of a batch that are encoded together. `start` is the index of the first one in its batch."""

    rows: Sequence[Any]
    start: int
    split: bool = False
    """True if the rows come from a page of JSON, so that each is known to be one value on one line."""


class _RecordNumbers:
    """The text between the constant fields of a line and its record, by the record's number in its object, from 0."""

    cached: ClassVar[list[bytes]] = []
    growing: ClassVar[threading.Lock] = threading.Lock()

    @classmethod
    def texts(cls, start: int, stop: int) -> list[bytes]:
        """Return the texts from `start` to `stop`. The first 65,536 are cached, which takes up to 6 MB."""
        if stop > NUMBERS_CACHED:
            return [cls.make(number) for number in range(start, stop)]
        if len(cls.cached) < stop:
            with (
                cls.growing
            ):  # without the lock two workers could add the same number twice, and two records would get one id
                cls.cached += [cls.make(number) for number in range(len(cls.cached), stop)]
        return cls.cached[start:stop]

    @staticmethod
    def make(number: int) -> bytes:
        return b'%d","seq":%d,"data":' % (number, number)


class LineEncoder:
    """Encodes the lines of one object."""

    def __init__(self, envelope: Envelope, sequence: int, extracted_at: str) -> None:
        self.sequence = sequence
        self.records = 0
        self._stream = envelope.stream
        self._constants = {
            "tenant": envelope.tenant,
            "connection": envelope.connection,
            "connector": envelope.connector,
            "stream": envelope.stream,
            "run": envelope.run,
            "extracted_at": extracted_at,
            "schema_version": envelope.schema_version,
            **({"window": envelope.window} if envelope.window else {}),
        }
        self._prefix = f',"id":"{envelope.run}-{envelope.attempt:02d}-{sequence:06d}-'.encode()
        self._encoder = msgspec.json.Encoder()

    def encode(self, chunk: Chunk, op: Op) -> bytes:
        """Return the chunk's lines. Raises SourceContractError for a record that JSON cannot represent.

        Records are counted only when their whole chunk is encoded, so the count matches the object even if the author
        catches the error.
        """
        return self.lines(self.rows(chunk), op)

    def rows(self, chunk: Chunk) -> EncodedRows:
        """Return the chunk's records as JSON. Raises SourceContractError for a record that JSON cannot represent."""
        try:
            return encoded_rows(self._encoder, chunk.rows, split=chunk.split)
        except UNENCODABLE as error:
            raise _unencodable(self._stream, chunk, error) from None

    def lines(self, rows: Sequence[Any], op: Op) -> bytes:
        """Return the lines of records that are JSON already."""
        head = self._head(op)
        parts = [b"}\n" + head, b"", b""] * len(
            rows
        )  # filled by slices, because a loop in Python would take longer than the encoding
        parts[0] = head
        parts[1::3] = _RecordNumbers.texts(self.records, self.records + len(rows))
        parts[2::3] = rows
        parts.append(b"}\n")
        self.records += len(rows)
        return b"".join(parts)

    def size_of_envelopes(self, first: int, stop: int, op: Op) -> int:
        """Return the bytes of the lines of these records without the records' own JSON."""
        constant = len(self._head(op)) + len(_RecordNumbers.make(0)) - 2 + len(b"}\n")
        return (stop - first) * constant + 2 * (_digits_below(stop) - _digits_below(first))

    def _head(self, op: Op) -> bytes:
        return self._encoder.encode({**self._constants, "op": op})[:-1] + self._prefix


def _digits_below(stop: int) -> int:
    """Return the total number of digits of the numbers from 0 to `stop`, exclusive."""
    digits, power = stop, 10
    while power < stop:
        digits += stop - power
        power *= 10
    return digits


class EncodedRows(list[Any]):
    """The JSON of records, each one line without its end. `size` is the total in bytes."""

    __slots__ = ("size",)

    def __init__(self, rows: Iterable[Any] = (), size: int = 0) -> None:
        super().__init__(rows)
        self.size = size


def encoded_rows(
    encoder: msgspec.json.Encoder, rows: Sequence[Any], integers: AbstractSet[str] = frozenset(), *, split: bool = False
) -> EncodedRows:
    """Return each record as one line of strict JSON. Raises one of UNENCODABLE.

    `integers` are the fields that the schema declares as integers. `split`: the rows come from a page of JSON.
    """
    if split or isinstance(rows[0], msgspec.Raw):
        text = b"\n".join(rows) if split else _one_value_each(rows)
        return _checked(encoder, rows, integers) if text is None else _checked_page(text, rows, integers)
    text = encoder.encode_lines(rows)
    lines = text.split(b"\n")
    lines.pop()
    if len(lines) == len(rows) and are_plain(rows, text):
        return EncodedRows(lines, len(text) - len(rows))
    return _checked(encoder, rows, integers)


def _one_value_each(rows: Sequence[Any]) -> bytes | None:
    return one_value_each(rows) if set(map(type, rows)) == ONLY_RAW else None


def _checked_page(text: bytes, rows: Sequence[Any], integers: AbstractSet[str]) -> EncodedRows:
    """Return rows that are JSON already; `text` are these rows joined. Raises NotStrictJsonError."""
    lines = lines_of(text)
    if len(lines) != len(rows) or set(map(FIRST_BYTE, lines)) != OBJECT:
        raise NotStrictJsonError(NOT_AN_OBJECT)
    if half_surrogates(text) or nested(lines) or large_numbers(text):
        _check_lines(lines, integers)
    return EncodedRows(rows, len(text) - len(rows) + 1)


def _checked(encoder: msgspec.json.Encoder, rows: Sequence[Any], integers: AbstractSet[str]) -> EncodedRows:
    """Return the JSON of records of any kind, checked one by one. Raises one of UNENCODABLE."""
    lines = [bytes(_raw_line(row if isinstance(row, msgspec.Raw) else encoder.encode(row))) for row in rows]
    text = b"\n".join(lines)
    if set(map(FIRST_BYTE, lines)) != OBJECT:
        raise NotStrictJsonError(NOT_AN_OBJECT)
    _check_lines(lines, integers)
    for row in rows:
        if not isinstance(row, msgspec.Raw):
            _check_values(row)
    return EncodedRows(lines, len(text) - len(rows) + 1)


def _check_lines(lines: Sequence[bytes], integers: AbstractSet[str]) -> None:
    for line in lines:
        suspect = half_surrogates(line) or nested([line]) or large_numbers(line)
        found = problem(line, integers) if suspect else ""
        if found:
            raise NotStrictJsonError(found)


def _check_values(row: Any) -> None:
    """Raise NotStrictJsonError for errors that the line does not show: NaN that became null, Raw with several values."""
    lost = lost_number(row)
    if lost:
        message = f"field {lost} is NaN or infinite, which JSON cannot represent"
        raise NotStrictJsonError(message)
    for _, value in leaves(row):
        if isinstance(value, msgspec.Raw):
            _raw_line(value)


def _raw_line(value: Any) -> Any:
    """Return JSON that a connector made, as one line. Raises NotStrictJsonError if it is not exactly one value."""
    try:
        line = msgspec.json.decode(value, type=msgspec.Raw)
        text = bytes(line)
        text.decode()
        return _one_line(line) if b"\n" in text or b"\r" in text else line
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message = f"it is not JSON: {_reason(error)}"
        raise NotStrictJsonError(message) from None


class ObjectCompressor:
    """Compresses one object. zstd and SHA-256 release the interpreter's lock, so a separate thread is worthwhile."""

    def __init__(self) -> None:
        self.size = 0
        self._body = io.BytesIO()
        self._compressor = zstandard.ZstdCompressor(level=LEVEL).compressobj()

    def write(self, lines: bytes) -> None:
        """Add lines."""
        self.size += self._body.write(self._compressor.compress(lines))

    def finish(self, sequence: int, by_op: Mapping[Op, int]) -> FinishedObject:
        """Close the object."""
        self._body.write(self._compressor.flush())
        body = self._body.getvalue()  # without a copy
        return FinishedObject(sequence, by_op, body, hashlib.sha256(body).hexdigest())


class Chunker:
    """Divides batches of any size into chunks that are encoded together. Large records make smaller chunks."""

    def __init__(self, stream: str, bad_line: BadLine | None = None) -> None:
        self._stream = stream
        self._bad_line = bad_line
        self._lines = FIRST_CHUNK_LINES

    def chunks(self, records: Records) -> Iterator[Chunk]:
        """Yield the chunks of a batch. Raises SourceContractError for a page that is not JSON."""
        rows, start = self._sliceable(records), 0
        split = isinstance(records, bytes) and not isinstance(rows, _Unchecked)
        while start < len(rows):
            chunk = Chunk(rows[start : start + self._lines], start, split)
            yield chunk
            start += len(chunk.rows)

    def learn(self, lines: int, size: int) -> None:
        """Adapt the next chunks to the size in bytes of the last chunk's lines."""
        self._lines = max(1, min(CHUNK_LINES, CHUNK_BYTES * lines // size))

    def _sliceable(self, records: Records) -> Sequence[Any]:
        if isinstance(records, bytes):
            return _raw_lines(records, self._stream, self._bad_line)
        if hasattr(records, "slice") and hasattr(records, "num_rows"):
            return _ArrowRows(records)
        rows = rows_of(records)
        return rows if isinstance(rows, list | tuple) else list(rows)


class _ArrowRows(Sequence[Any]):
    """An Arrow batch whose rows are converted to dicts, one slice at a time."""

    def __init__(self, batch: Any) -> None:
        self._batch = batch

    def __len__(self) -> int:
        return int(self._batch.num_rows)

    def __getitem__(self, at: Any) -> Any:
        start, stop, _ = at.indices(len(self))
        return self._batch.slice(start, stop - start).to_pylist()


def _one_line(value: Any) -> msgspec.Raw:
    """Return JSON without line breaks between its tokens. Numbers and strings stay as they are written."""
    return msgspec.Raw(msgspec.json.format(bytes(value), indent=-1))


def _raw_lines(page: bytes, stream: str, bad_line: BadLine | None) -> Sequence[Any]:
    """Split a page of JSON into records without decoding them. Lines that are not JSON go to `bad_line`, if it is given."""
    try:
        if not page.isascii():
            page.decode()  # msgspec.Raw is written as it is, and Bronze must be UTF-8
        if page.lstrip()[:1] == b"[":
            raws = msgspec.json.decode(page, type=list[msgspec.Raw])
        else:
            raws = msgspec.json.Decoder(msgspec.Raw).decode_lines(page)
        if b"\n" in page and len(lines_of(b"\n".join(raws))) > len(raws):
            return [_one_line(raw) for raw in raws]
        return raws
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if bad_line and page.lstrip()[:1] == b"[" and (items := _lenient_array(page)):
            return items
        if bad_line and page.lstrip()[:1] != b"[" and (lines := _good_lines(page, bad_line)) is not None:
            return lines
        reason = _reason(error)
        raise SourceContractError(f"stream {stream!r}: the source sent a page that is not JSON: {reason}") from None


class _Unchecked(list[msgspec.Raw]):
    """Records some of which may not be JSON."""


LENIENT = json.JSONDecoder(parse_int=len, parse_float=len, parse_constant=len, strict=False)
"""Finds the end of a value, also of one that is not strict JSON. Numbers are not converted."""
BETWEEN = re.compile(r"[ \t\r\n]*([,\]])[ \t\r\n]*")


def _lenient_array(page: bytes) -> list[msgspec.Raw]:
    """Return the items of an array some of which are not strict JSON; nothing if it is not an array."""
    try:
        text, items = page.decode(errors="surrogateescape").strip(), _Unchecked()
        at, sign = 1 + len(text[1:]) - len(text[1:].lstrip()), ","
        while sign == ",":
            _, end = LENIENT.raw_decode(text, at)
            items.append(msgspec.Raw(text[at:end].encode(errors="surrogateescape")))
            between = BETWEEN.match(text, end)
            if between is None:
                return []
            at, sign = between.end(), between[1]
    except (ValueError, RecursionError):
        return []
    return items if at == len(text) else []


def _is_lenient_object(line: bytes) -> bool:
    try:
        return isinstance(LENIENT.decode(line.decode(errors="replace")), dict)
    except RecursionError:
        return True
    except ValueError:
        return False


def _reason(error: msgspec.DecodeError | UnicodeDecodeError | RecursionError) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return str(error) if isinstance(error, msgspec.DecodeError) else f"byte {error.start} is not UTF-8"


def _good_lines(page: bytes, bad_line: BadLine) -> list[msgspec.Raw] | None:
    """Return the lines that are JSON, and pass the others to `bad_line`; None if no line is an object."""
    good, bad, objects = list[msgspec.Raw](), list[tuple[bytes, str]](), False
    for line in filter(bytes.strip, page.split(b"\n")):
        try:
            line.decode()
            good.append(msgspec.json.decode(line.strip(), type=msgspec.Raw))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            bad.append((line, _reason(error)))
            objects = objects or _is_lenient_object(line)
    for line, reason in bad if good or objects else []:
        bad_line(line, reason)
    return good if good or objects else None


def _unencodable(stream: str, chunk: Chunk, error: Exception) -> SourceContractError:
    found = ((at, why) for at, why in enumerate(map(why_unencodable, chunk.rows)) if why)
    index, why = next(found, (0, str(error)))
    message = f"stream {stream!r}, record {chunk.start + index} of its batch: {why}"
    return SourceContractError(message, operator_message=type(error).__name__)


def why_unencodable(row: Any, integers: AbstractSet[str] = frozenset()) -> str:
    """Return why a record cannot be one line of strict JSON, or nothing. Never shows a value of the record."""
    try:
        encoded_rows(msgspec.json.Encoder(), [row], integers)
    except NotStrictJsonError as error:
        return str(error)
    except UNENCODABLE:
        path, kind = culprit(row, "")
        return f"field {path or '(the record)'} of type {kind} cannot be represented in JSON"
    return ""


def culprit(value: Any, path: str) -> tuple[str, str]:
    """Return the path and the type of the first value that cannot be encoded, never the value itself."""
    children = (
        [(f"{path}.{shown_key(key)}".lstrip("."), item) for key, item in value.items()]
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
        except Exception:  # noqa: BLE001 - whatever the reason, this value cannot be encoded
            return culprit(child, child_path)
    return path, type(value).__name__

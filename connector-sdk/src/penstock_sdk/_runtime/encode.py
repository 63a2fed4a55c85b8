"""The record path: records in, compressed JSON Lines with their envelope out.

What is the same for all records of an object is encoded once; a record costs its own encoding and one join.

JSON has no NaN and no infinity, and msgspec writes null for them. `plain_values` tells quickly of a chunk of records that
nothing like this can be in it; only where it cannot tell, they are looked at one by one. `strict_json` says what is refused.
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
    """The constants of one stream's records in one attempt; `window` is what is read again, where something is."""

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
    """Some records of a batch: what is encoded at a time. `start` is the first one's place in its batch."""

    rows: Sequence[Any]
    start: int
    split: bool = False
    """They were split from a page of JSON, so that each is known to be one value on one line."""


class _RecordNumbers:
    """What stands between a line's constants and its record, by the record's number; every object counts from 0."""

    cached: ClassVar[list[bytes]] = []
    growing: ClassVar[threading.Lock] = threading.Lock()

    @classmethod
    def range(cls, start: int, stop: int) -> list[bytes]:
        """Return those from start to stop; the first 65,536 are made once, which takes 6 MB when they are used."""
        if stop > NUMBERS_CACHED:
            return [cls.make(number) for number in range(start, stop)]
        if len(cls.cached) < stop:
            with cls.growing:  # two workers that made the same numbers would give two records one id
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
        """Return the chunk's lines; raises SourceContractError for a record that JSON cannot hold.

        Records are counted when all of their chunk are encoded, so that an author who catches the error still has
        an object that holds what it counts.
        """
        return self.lines(self.rows(chunk), op)

    def rows(self, chunk: Chunk) -> EncodedRows:
        """Return the chunk's records as JSON; raises SourceContractError for a record that JSON cannot hold."""
        try:
            return encoded_rows(self._encoder, chunk.rows, split=chunk.split)
        except UNENCODABLE as error:
            raise _unencodable(self._stream, chunk, error) from None

    def lines(self, rows: Sequence[Any], op: Op) -> bytes:
        """Return the lines of records that are JSON already."""
        head = self._head(op)
        parts = [b"}\n" + head, b"", b""] * len(rows)  # filled by slices: a loop in Python would cost more than JSON
        parts[0] = head
        parts[1::3] = _RecordNumbers.range(self.records, self.records + len(rows))
        parts[2::3] = rows
        parts.append(b"}\n")
        self.records += len(rows)
        return b"".join(parts)

    def size_of_envelopes(self, first: int, stop: int, op: Op) -> int:
        """Return how many bytes the lines of these records have beside their JSON."""
        constant = len(self._head(op)) + len(_RecordNumbers.make(0)) - 2 + len(b"}\n")
        return (stop - first) * constant + 2 * (_digits_below(stop) - _digits_below(first))

    def _head(self, op: Op) -> bytes:
        return self._encoder.encode({**self._constants, "op": op})[:-1] + self._prefix


def _digits_below(stop: int) -> int:
    """Return how many digits the numbers from 0 to before `stop` have together."""
    digits, power = stop, 10
    while power < stop:
        digits += stop - power
        power *= 10
    return digits


class EncodedRows(list[Any]):
    """The JSON of records, each on one line and without the line's end; `size` is what they have in bytes together."""

    __slots__ = ("size",)

    def __init__(self, rows: Iterable[Any] = (), size: int = 0) -> None:
        super().__init__(rows)
        self.size = size


def encoded_rows(
    encoder: msgspec.json.Encoder, rows: Sequence[Any], integers: AbstractSet[str] = frozenset(), *, split: bool = False
) -> EncodedRows:
    """Return the JSON of each record: one line of strict JSON for each; raises one of UNENCODABLE.

    `integers` are the fields that the schema declares as such. `split` says that the rows were split from a page.
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
    """Return rows that are JSON, of which the text is made; raises NotStrictJsonError."""
    lines = lines_of(text)
    if len(lines) != len(rows) or set(map(FIRST_BYTE, lines)) != OBJECT:
        raise NotStrictJsonError(NOT_AN_OBJECT)
    if half_surrogates(text) or nested(lines) or large_numbers(text):
        _check_lines(lines, integers)
    return EncodedRows(rows, len(text) - len(rows) + 1)


def _checked(encoder: msgspec.json.Encoder, rows: Sequence[Any], integers: AbstractSet[str]) -> EncodedRows:
    """Return the JSON of records of any kind, each looked at by itself; raises one of UNENCODABLE."""
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
    """Raise NotStrictJsonError for what the line of a record does not show: what became null, what is several values."""
    lost = lost_number(row)
    if lost:
        message = f"field {lost} is NaN or infinite, which JSON cannot hold"
        raise NotStrictJsonError(message)
    for _, value in leaves(row):
        if isinstance(value, msgspec.Raw):
            _raw_line(value)


def _raw_line(value: Any) -> Any:
    """Return JSON that a connector made, as one line; raises NotStrictJsonError if it is not exactly one value."""
    try:
        line = msgspec.json.decode(value, type=msgspec.Raw)
        text = bytes(line)
        text.decode()
        return _one_line(line) if b"\n" in text or b"\r" in text else line
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message = f"it is not JSON: {_reason(error)}"
        raise NotStrictJsonError(message) from None


class ObjectCompressor:
    """Compresses one object. zstd and SHA-256 work without the interpreter's lock, so a thread of its own pays."""

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
    """Cuts batches, however large, into what is encoded at a time; large records make smaller chunks."""

    def __init__(self, stream: str, bad_line: BadLine | None = None) -> None:
        self._stream = stream
        self._bad_line = bad_line
        self._lines = FIRST_CHUNK_LINES

    def chunks(self, records: Records) -> Iterator[Chunk]:
        """Yield the batch chunk by chunk; raises SourceContractError for a page that is not JSON."""
        rows, start = self._sliceable(records), 0
        split = isinstance(records, bytes) and not isinstance(rows, _Unchecked)
        while start < len(rows):
            chunk = Chunk(rows[start : start + self._lines], start, split)
            yield chunk
            start += len(chunk.rows)

    def learn(self, lines: int, size: int) -> None:
        """Take the size of the last chunk's lines, in bytes, as what the next ones will be like."""
        self._lines = max(1, min(CHUNK_LINES, CHUNK_BYTES * lines // size))

    def _sliceable(self, records: Records) -> Sequence[Any]:
        if isinstance(records, bytes):
            return _raw_lines(records, self._stream, self._bad_line)
        if hasattr(records, "slice") and hasattr(records, "num_rows"):
            return _ArrowRows(records)
        rows = rows_of(records)
        return rows if isinstance(rows, list | tuple) else list(rows)


class _ArrowRows(Sequence[Any]):
    """An Arrow batch whose rows become dictionaries a slice at a time."""

    def __init__(self, batch: Any) -> None:
        self._batch = batch

    def __len__(self) -> int:
        return int(self._batch.num_rows)

    def __getitem__(self, at: Any) -> Any:
        start, stop, _ = at.indices(len(self))
        return self._batch.slice(start, stop - start).to_pylist()


def _one_line(value: Any) -> msgspec.Raw:
    """Return JSON without the line breaks between its tokens; numbers and strings stay as they are written."""
    return msgspec.Raw(msgspec.json.format(bytes(value), indent=-1))


def _raw_lines(page: bytes, stream: str, bad_line: BadLine | None) -> Sequence[Any]:
    """Split a page of JSON into records without decoding them; of a page of lines, one that is no JSON may be told apart."""
    try:
        if not page.isascii():
            page.decode()  # msgspec.Raw is passed on as it is, and Bronze is UTF-8
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
    """Records of which some may not be JSON."""


LENIENT = json.JSONDecoder(parse_int=len, parse_float=len, parse_constant=len, strict=False)
"""Finds where a value ends, also one that is not strict JSON; makes nothing of its numbers."""
BETWEEN = re.compile(r"[ \t\r\n]*([,\]])[ \t\r\n]*")


def _lenient_array(page: bytes) -> list[msgspec.Raw]:
    """Return the items of an array of which some are not strict JSON, to be looked at one by one; none where it is no array."""
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
    """Return the lines that are JSON, and tell the others; where none is, it is no page of lines, and none is told."""
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
    """Say why a record cannot be one line of strict JSON; nothing when it can. Never shows a value of it."""
    try:
        encoded_rows(msgspec.json.Encoder(), [row], integers)
    except NotStrictJsonError as error:
        return str(error)
    except UNENCODABLE:
        path, kind = culprit(row, "")
        return f"field {path or '(the record)'} of type {kind} cannot be JSON"
    return ""


def culprit(value: Any, path: str) -> tuple[str, str]:
    """Return path and type of the first value that cannot be encoded; never the value itself."""
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
        except Exception:  # noqa: BLE001 - any reason makes it the culprit
            return culprit(child, child_path)
    return path, type(value).__name__

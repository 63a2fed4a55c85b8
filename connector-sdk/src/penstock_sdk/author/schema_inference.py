"""A JSON Schema from sample records. The order of the samples does not matter."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any

import jsonschema
import msgspec

from penstock_sdk.author.command_errors import printable
from penstock_sdk.author.project import ProjectError
from penstock_sdk.contract import Record
from penstock_sdk.json_types import JsonSchema, JsonValue, properties_of
from penstock_sdk.pii import LOOKED_AT, suggest_fields

TYPES = ("object", "array", "string", "integer", "number", "boolean", "null")
DRAFT = "https://json-schema.org/draft/2020-12/schema"
DATE_TIME = re.compile(r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(\.\d{1,9})?([Zz]|[+-]\d{2}:\d{2})", re.ASCII)
DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,17})")
NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,15})?([eE][+-]?[0-9]{1,2})?")
FORMAT_CHECKER = jsonschema.FormatChecker()
MOST_DIFFERENCES = 50
CSV_SUFFIXES = (".csv", ".tsv")
DELIMITERS = ",;\t|"
"""Column separators: the first of these that occurs in the header is used."""


def infer(records: Iterable[Record]) -> tuple[JsonSchema, dict[str, str]]:
    """Return the schema of records, and the fields that look like personal data with their classes.

    A field that some records lack is not `required`. A field that was null in a record also has the type `null`. Raises
    ProjectError without records.
    """
    seen, sample = _Values(), _Sample()
    for record in records:
        value = msgspec.to_builtins(record)
        seen.add(value)
        sample.add(value)
    if not seen.count:
        raise ProjectError("there are no records to infer a schema from")
    schema: JsonSchema = {"$schema": DRAFT, **seen.schema()}
    return schema, dict(sorted(suggest_fields(schema, sample.records()).items()))


def differences(schema: JsonSchema, records: Iterable[Record]) -> list[str]:
    """Return how records differ from a schema: a line for each place, with the number of records; at most 50 lines.

    A field that the schema does not declare counts, too. Values are not shown, as they may be personal data.
    """
    validator = jsonschema.Draft202012Validator(schema, format_checker=FORMAT_CHECKER)
    counts = Counter[str]()
    for record in records:
        value = msgspec.to_builtins(record)
        counts.update({_described(error) for error in validator.iter_errors(value)} | _undeclared(schema, value, ""))
    shown = sorted(counts.items())[:MOST_DIFFERENCES]
    return [f"does not fit: {place} ({count} records)" for place, count in shown]


def _described(error: jsonschema.ValidationError) -> str:
    path = ".".join("[]" if isinstance(key, int) else str(key) for key in error.absolute_path) or "the record"
    if error.validator == "required":
        required: Any = error.validator_value
        record: Any = error.instance
        missing = [name for name in required if name not in record]
        return f"{path}: lacks {', '.join(missing)}"
    if error.validator == "type":
        return f"{path}: is {_type_of(error.instance)}, not {error.validator_value}"
    return f"{path}: {error.validator} {error.validator_value if error.validator == 'format' else ''}".rstrip()


def _undeclared(schema: JsonSchema, value: Any, prefix: str) -> set[str]:
    fields = properties_of(schema)
    if not isinstance(value, dict) or not fields:
        return set()
    found = {f"{prefix}{name}: the schema does not declare it" for name in value if name not in fields}
    for name in value.keys() & fields.keys():
        found |= _undeclared(fields[name], value[name], f"{prefix}{name}.")
    return found


@dataclass
class _Values:
    """The observed values of one field."""

    count: int = 0
    types: set[str] = field(default_factory=set)
    formats: set[str | None] = field(default_factory=set)
    objects: int = 0
    properties: dict[str, _Values] = field(default_factory=dict)
    items: _Values | None = None

    def add(self, value: Any) -> None:
        self.count += 1
        kind = _type_of(value)
        self.types.add(kind)
        if kind == "string":
            self.formats.add(_format_of(value))
        elif kind == "object":
            self.objects += 1
            for name, child in value.items():
                self.properties.setdefault(name, _Values()).add(child)
        elif kind == "array":
            for child in value:
                self.items = self.items or _Values()
                self.items.add(child)

    def schema(self) -> JsonSchema:
        types = self.types - {"integer"} if "number" in self.types else self.types
        names = [name for name in TYPES if name in types]
        found: dict[str, JsonValue] = {"type": names[0] if len(names) == 1 else names}
        if len(self.formats) == 1 and None not in self.formats:
            found["format"] = next(iter(self.formats))
        if self.properties:
            found["properties"] = {name: self.properties[name].schema() for name in sorted(self.properties)}
            required = sorted(name for name, values in self.properties.items() if values.count == self.objects)
            if required:
                found["required"] = required
        if self.items is not None:
            found["items"] = self.items.schema()
        return found


class _Sample:
    """A sample of the records that does not depend on their order: those with the lowest digests."""

    def __init__(self) -> None:
        self._sampled: dict[str, Any] = {}

    def add(self, record: Any) -> None:
        self._sampled[hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()] = record
        if len(self._sampled) > 10 * LOOKED_AT:
            self._sampled = dict(self._lowest())

    def _lowest(self) -> list[tuple[str, Any]]:
        return sorted(self._sampled.items(), key=lambda item: item[0])[:LOOKED_AT]

    def records(self) -> list[Any]:
        return [record for _, record in self._lowest()]


def _type_of(value: Any) -> str:
    if value is None:
        return "null"
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return kinds[type(value)]


def _format_of(text: str) -> str | None:
    try:
        if DATE_TIME.fullmatch(text):
            datetime.fromisoformat(text.upper())
            return "date-time"
        if DATE.fullmatch(text):
            date.fromisoformat(text)
            return "date"
    except ValueError:
        return None
    return "uuid" if UUID.fullmatch(text) else None


# ---- samples in files


def records_of(paths: Iterable[Path]) -> Iterator[Record]:
    """Yield the records of JSON, JSON Lines and CSV files. Raises ProjectError that names the file and the line."""
    for path in paths:
        try:
            text = path.read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ProjectError(f"{path}: not UTF-8 at byte {error.start}: save it as UTF-8 text") from None
        if path.suffix.lower() in CSV_SUFFIXES:
            yield from _of_csv(text, path, "\t" if path.suffix.lower() == ".tsv" else _delimiter(text))
        else:
            yield from _of_json(text, path)


def _of_json(text: str, path: Path) -> Iterator[Record]:
    whole = _decoded(text)
    if isinstance(whole, list):
        numbered = [(f"item {number}", value) for number, value in enumerate(whole, 1)]
    elif isinstance(whole, _Refused):
        numbered = _of_lines(text, path, whole)
    else:
        numbered = [("the document", whole)]
    for place, value in numbered:
        if not isinstance(value, dict):
            raise ProjectError(f"{path}: {place} is no object: a record is one, or the file is a list of them")
        yield value


def _of_lines(text: str, path: Path, whole: _Refused) -> list[tuple[str, Any]]:
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            value = _decoded(line)
            if isinstance(value, _Refused):
                raise ProjectError(
                    f"{path}: neither JSON ({whole.reason}) nor JSON Lines (line {number}: {value.reason})"
                )
            found.append((f"line {number}", value))
    return found


@dataclass(frozen=True)
class _Refused:
    """Why text is not JSON."""

    reason: str


def _decoded(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        return _Refused(printable(error))


def _delimiter(text: str) -> str:
    header = text.lstrip("\r\n").partition("\n")[0]
    return next((delimiter for delimiter in DELIMITERS if delimiter in header), DELIMITERS[0])


def _of_csv(text: str, path: Path, delimiter: str) -> Iterator[Record]:
    """Yield rows. A column has the type that all its values match; an empty value is null."""
    try:
        header, *rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    except ValueError:
        raise ProjectError(f"{path}: it is empty: the first line names the columns") from None
    except csv.Error as error:
        raise ProjectError(f"{path}: not CSV: {error}") from None
    double = sorted({name for name in header if header.count(name) > 1})
    if double:
        raise ProjectError(f"{path}: line 1: two columns are named {double[0]!r}")
    rows = [row for row in rows if row]
    long = next((number for number, row in enumerate(rows, 1) if len(row) > len(header)), None)
    if long is not None:
        raise ProjectError(f"{path}: row {long} has more values than the header has names ({len(header)})")
    kinds = [_column_type([row[at] for row in rows if at < len(row)]) for at in range(len(header))]
    for row in rows:
        yield {name: kind(value) if value else None for name, kind, value in zip(header, kinds, row, strict=False)}


def _column_type(values: list[str]) -> Any:
    known = [value for value in values if value]
    if known and all(value.lower() in {"true", "false"} for value in known):
        return lambda value: value.lower() == "true"
    if known and all(INTEGER.fullmatch(value) for value in known):
        return int
    if known and all(NUMBER.fullmatch(value) for value in known):
        return float
    return str


class Samples:
    """Collects the records of a read, without deletes, which have only a key."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def write(self, rows: Sequence[Any]) -> None:
        """Add records."""
        records = (msgspec.json.decode(row, type=dict[str, Any]) for row in rows)
        self.records += [record for record in records if record.get("_op") != "delete"]

    def close(self) -> None:
        """Do nothing: the records stay."""

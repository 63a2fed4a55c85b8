"""What a stream's records look like: from the start of a few of its files, the same for as long as these stay.

The sample is bounded: the five oldest files that match and the five newest, of each at most 1,000 rows of the first
256 KiB or so. It only proposes; what a sample cannot see ends in an error that says what to declare, never in a value
that is bent to fit.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Iterator
from contextlib import closing
from functools import partial
from itertools import islice
from typing import Any

import msgspec
from penstock_sdk import ConfigError

from penstock_files_object.config import StreamConfig, shown
from penstock_files_object.csv_rows import CsvFile
from penstock_files_object.jsonl_rows import JsonlFile
from penstock_files_object.parquet_rows import ParquetFile
from penstock_files_object.progress import File
from penstock_files_object.rejects import BadRows, nowhere
from penstock_files_object.stores import near_keys
from penstock_files_object.transport import Transport
from penstock_files_object.values import kind_of_values, schema_of_kind

FILES = 5
ROWS = 1000
TYPES: dict[type, str] = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
}


def ends_of(files: Iterable[File]) -> list[File]:
    """Return the oldest and the newest, in order, while all of them pass by."""
    oldest: list[tuple[tuple[int, str], File]] = []
    newest: list[tuple[tuple[int, str], File]] = []
    for file in files:
        for kept, spare in ((oldest, FILES), (newest, 0)):
            insort(kept, (file.place, file), key=lambda each: each[0])
            del kept[spare or FILES : None if spare else -FILES]
        del newest[:-FILES]
    chosen = dict((*oldest, *newest))
    return [chosen[place] for place in sorted(chosen)]


def schema_of(transport: Transport, stream: StreamConfig, files: Iterable[File]) -> dict[str, Any]:
    """Return the JSON Schema of the stream's records; raises ConfigError when there is nothing to make it from."""
    properties: dict[str, Any] = {}
    if stream.infer:
        chosen = ends_of(files)
        if not chosen and not stream.declared:
            raise _nothing_matches(transport, stream)
        properties = _merged([_properties(transport, stream, file) for file in chosen], stream)
    elif not stream.declared and next(iter(files), None) is None:
        raise _nothing_matches(transport, stream)
    properties = {**properties, **stream.declared}
    for name in stream.primary_key:
        if name not in properties and stream.infer and stream.format != "jsonl":
            raise ConfigError(f"stream {stream.name!r}: primaryKey: the files have no column {name!r}")
        properties.setdefault(name, {})
    schema = {"type": "object", "properties": properties, "required": list(stream.primary_key)}
    if stream.format == "csv" and not stream.infer:
        return {**schema, "additionalProperties": schema_of_kind("text")}
    return schema if stream.infer and stream.format != "jsonl" else {**schema, "additionalProperties": True}


def _nothing_matches(transport: Transport, stream: StreamConfig) -> ConfigError:
    near = [key for path in stream.paths[:1] if path.startswith("s3://") for key in near_keys(transport, path)]
    there = f" (the bucket has {', '.join(map(repr, near))})" if near else ""
    return ConfigError(
        f"stream {stream.name!r}: no file matches {', '.join(map(shown, stream.paths))}{there}; correct the paths, or"
        " declare the stream's schema if files are still to come"
    )


def _properties(transport: Transport, stream: StreamConfig, file: File) -> dict[str, Any]:
    if stream.format == "parquet":
        return ParquetFile(stream, file, transport).schema()
    opened = partial(transport.content, file)
    bad = BadRows(stream.name, file.name, "skip", nowhere)
    if stream.format == "csv":
        with closing(CsvFile(stream, file, opened, bad)) as reading:
            return {name: {"values": values} for name, values in _columns(reading)}
    with closing(JsonlFile(stream, file, opened, bad)) as lines:
        return _fields(page for page, _ in islice(lines.pages(None, ROWS), 1))


def _columns(reading: CsvFile) -> Iterator[tuple[str, list[str]]]:
    rows = [row for _, row in islice(reading.rows(), ROWS)]
    nulls = set(reading.stream.csv.null_values)
    for at, name in enumerate(reading.names):
        yield name, [row[at] for row in rows if row[at] not in nulls]


def _fields(pages: Iterable[bytes]) -> dict[str, Any]:
    """Return the types of each field; numbers without a fraction are integers, however large."""
    types: dict[str, set[str]] = {}
    for page in pages:
        for line in page.split(b"\n") if page else ():
            for name, value in msgspec.json.decode(line, type=dict[str, Any]).items():
                if "\0" not in name:  # the records keep it; a schema cannot name it
                    types.setdefault(name, set()).add(TYPES.get(type(value), "null"))
    return {name: {"type": sorted(found)} for name, found in types.items()}


def _merged(found: list[dict[str, Any]], stream: StreamConfig) -> dict[str, Any]:
    """Return the fields of all files, each with what holds all of its values."""
    names = dict.fromkeys(name for each in found for name in each)
    return {name: _merged_property([each[name] for each in found if name in each], stream) for name in names}


def _merged_property(schemas: list[dict[str, Any]], stream: StreamConfig) -> dict[str, Any]:
    if stream.format == "csv":
        return schema_of_kind(kind_of_values(value for each in schemas for value in each["values"]))
    if all(each == schemas[0] for each in schemas):
        return schemas[0]
    if any("type" not in each for each in schemas):
        return {}
    return {"type": sorted({type_ for each in schemas for type_ in each["type"]})}

"""Infers a stream's schema from the first rows of a few of its files. The same files give the same schema.

The sample is bounded: the five oldest and the five newest files that match, and at most 1,000 rows from the first 256 KiB
or so of each. A value that does not fit the inferred schema is never changed: the read ends with an error that says what
to declare.
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
from penstock_sdk.json_types import JsonSchema, JsonValue, list_at, types_of

from penstock_files_object.bad_rows import BadRows, discard
from penstock_files_object.config import StreamConfig, display_path
from penstock_files_object.csv_rows import CsvFile
from penstock_files_object.file_cursor import File
from penstock_files_object.jsonl_rows import JsonlFile
from penstock_files_object.listing import similar_keys
from penstock_files_object.parquet_rows import ParquetFile
from penstock_files_object.transport import Transport
from penstock_files_object.values import schema_of_type, type_of_values

SAMPLE_FILES = 5
SAMPLE_ROWS = 1000
JSON_TYPE_NAMES: dict[type, str] = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
}


def oldest_and_newest(files: Iterable[File]) -> list[File]:
    """Return the oldest and the newest files, in order. All files are looked at, and few are kept in memory."""
    oldest: list[tuple[tuple[int, str], File]] = []
    newest: list[tuple[tuple[int, str], File]] = []
    for file in files:
        for kept, spare in ((oldest, SAMPLE_FILES), (newest, 0)):
            insort(kept, (file.order, file), key=lambda item: item[0])
            del kept[spare or SAMPLE_FILES : None if spare else -SAMPLE_FILES]
        del newest[:-SAMPLE_FILES]
    chosen = dict((*oldest, *newest))
    return [chosen[order] for order in sorted(chosen)]


def infer_schema(transport: Transport, stream: StreamConfig, files: Iterable[File]) -> JsonSchema:
    """Return the JSON Schema of the stream's records. Raises ConfigError if no file matches and no schema is declared."""
    properties: dict[str, JsonSchema] = {}
    if stream.infer:
        chosen = oldest_and_newest(files)
        if not chosen and not stream.declared:
            raise _no_match_error(transport, stream)
        properties = _merged_properties([_properties(transport, stream, file) for file in chosen], stream)
    elif not stream.declared and next(iter(files), None) is None:
        raise _no_match_error(transport, stream)
    properties = {**properties, **stream.declared}
    for name in stream.primary_key:
        if name not in properties and stream.infer and stream.format != "jsonl":
            raise ConfigError(
                f"stream {stream.name!r}: primaryKey: the files have no column {name!r}; correct primaryKey on the"
                " stream"
            )
        properties.setdefault(name, {})
    schema: dict[str, JsonValue] = {"type": "object", "properties": properties, "required": list(stream.primary_key)}
    if stream.format == "csv" and not stream.infer:
        return {**schema, "additionalProperties": schema_of_type("text")}
    return schema if stream.infer and stream.format != "jsonl" else {**schema, "additionalProperties": True}


def _no_match_error(transport: Transport, stream: StreamConfig) -> ConfigError:
    near = [key for path in stream.paths[:1] if path.startswith("s3://") for key in similar_keys(transport, path)]
    there = f" (the bucket has {', '.join(map(repr, near))})" if near else ""
    return ConfigError(
        f"stream {stream.name!r}: no file matches {', '.join(map(display_path, stream.paths))}{there}; correct the paths, or"
        " declare the stream's schema if files are still to come"
    )


def _properties(transport: Transport, stream: StreamConfig, file: File) -> dict[str, JsonSchema]:
    if stream.format == "parquet":
        return ParquetFile(stream, file, transport).schema()
    open_content = partial(transport.content, file)
    bad_rows = BadRows(stream.name, file.name, "skip", discard)
    if stream.format == "csv":
        with closing(CsvFile(stream, file, open_content, bad_rows)) as csv_file:
            return {name: {"values": values} for name, values in _columns(csv_file)}
    with closing(JsonlFile(stream, file, open_content, bad_rows)) as lines:
        return _fields(page for page, _ in islice(lines.pages(None, SAMPLE_ROWS), 1))


def _columns(csv_file: CsvFile) -> Iterator[tuple[str, list[str]]]:
    rows = [row for _, row in islice(csv_file.rows(), SAMPLE_ROWS)]
    nulls = set(csv_file.stream.csv.null_values)
    for at, name in enumerate(csv_file.names):
        yield name, [row[at] for row in rows if row[at] not in nulls]


def _fields(pages: Iterable[bytes]) -> dict[str, JsonSchema]:
    """Return the types of each field. A number without a fraction is an integer, however large it is."""
    types: dict[str, set[str]] = {}
    for page in pages:
        for line in page.split(b"\n") if page else ():
            for name, value in msgspec.json.decode(line, type=dict[str, Any]).items():
                if "\0" not in name:  # records keep such a field; a schema cannot have its name
                    types.setdefault(name, set()).add(JSON_TYPE_NAMES.get(type(value), "null"))
    return {name: {"type": sorted(found)} for name, found in types.items()}


def _merged_properties(found: list[dict[str, JsonSchema]], stream: StreamConfig) -> dict[str, JsonSchema]:
    """Return the fields of all files, each with a schema that fits all of its values."""
    names = dict.fromkeys(name for schema in found for name in schema)
    return {name: _merged_property([schema[name] for schema in found if name in schema], stream) for name in names}


def _merged_property(schemas: list[JsonSchema], stream: StreamConfig) -> JsonSchema:
    if stream.format == "csv":
        return schema_of_type(type_of_values(str(value) for schema in schemas for value in list_at(schema, "values")))
    if all(schema == schemas[0] for schema in schemas):
        return schemas[0]
    if any("type" not in schema for schema in schemas):
        return {}
    return {"type": sorted({type_ for schema in schemas for type_ in types_of(schema)})}

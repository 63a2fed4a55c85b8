"""Converts Arrow values for JSON: values that JSON or Python would round or refuse become text."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from penstock_sdk import Record
from penstock_sdk.json_types import JsonSchema

if TYPE_CHECKING:
    import pyarrow as pa

MOST_PLAIN_SCALE = 6
"""Digits after the decimal point up to which Python writes every decimal without an exponent."""


def schema_of_arrow_type(type_: pa.DataType) -> JsonSchema:
    """Return the JSON Schema of a column's values in a record."""
    schema = _plain_schema(type_)
    if "type" in schema:
        types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        schema = {**schema, "type": [*types, *(["null"] if "null" not in types else [])]}
    return {"x-arrow-type": str(type_), **schema}


def _plain_schema(type_: pa.DataType) -> JsonSchema:
    from pyarrow import types

    if types.is_timestamp(type_):
        return {"type": "string", "format": "date-time"} if type_.tz else {"type": "string"}
    if (
        types.is_binary(type_)
        or types.is_large_binary(type_)
        or types.is_binary_view(type_)
        or types.is_fixed_size_binary(type_)
    ):
        return {"type": "string", "contentEncoding": "base64"}
    if types.is_dictionary(type_):
        return _plain_schema(type_.value_type)
    for known, schema in _json_types():
        if known(type_):
            return dict(schema)
    return {}


def _json_types() -> list[tuple[Any, dict[str, Any]]]:
    from pyarrow import types

    return [
        (types.is_boolean, {"type": "boolean"}),
        (types.is_integer, {"type": "integer"}),
        (types.is_duration, {"type": "integer"}),
        (types.is_floating, {"type": ["number", "string"]}),
        (types.is_date, {"type": "string", "format": "date"}),
        (types.is_string, {"type": "string"}),
        (types.is_string_view, {"type": "string"}),
        (types.is_list_view, {"type": "array"}),
        (types.is_large_list_view, {"type": "array"}),
        (types.is_large_string, {"type": "string"}),
        (types.is_decimal, {"type": "string"}),
        (types.is_time, {"type": "string"}),
        (types.is_struct, {"type": "object"}),
        (types.is_map, {"type": "array"}),
        (types.is_list, {"type": "array"}),
        (types.is_large_list, {"type": "array"}),
        (types.is_fixed_size_list, {"type": "array"}),
        (types.is_null, {"type": "null"}),
    ]


def exact_values(batch: pa.RecordBatch) -> pa.RecordBatch | list[Record]:
    """Return the batch, with values that JSON or Python would round or refuse as text.

    Timestamps, dates and times become text with their nanoseconds, in UTC if they have a zone. Durations become a count of
    their unit. A batch becomes a list of dicts if it has a NaN or an infinity, which become text, or decimals that Python
    would write with an exponent.
    """
    import pyarrow as pa

    columns = [_exact_column(column) for column in batch.columns]
    made = pa.RecordBatch.from_arrays(columns, names=batch.schema.names)
    inexact = [field.name for field, column in zip(made.schema, columns, strict=True) if _needs_dicts(column)]
    if not inexact:
        return made
    rows: list[dict[str, Any]] = made.to_pylist()
    for row in rows:
        row.update({name: _plain_value(row[name]) for name in inexact})
    return rows


def _exact_column(column: pa.Array) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_timestamp(column.type):
        text = pc.replace_substring(
            column.cast(pa.timestamp(column.type.unit)).cast(pa.string()), " ", "T", max_replacements=1
        )
        return pc.binary_join_element_wise(text, "Z", "") if column.type.tz else text
    exact_type = _exact_type(column.type)
    return column if exact_type.equals(column.type) else column.cast(exact_type)


def _exact_type(type_: pa.DataType) -> pa.DataType:
    import pyarrow as pa
    from pyarrow import types

    if types.is_timestamp(type_) or types.is_time(type_) or types.is_date(type_):
        return pa.string()
    if types.is_duration(type_):
        return pa.int64()
    if types.is_dictionary(type_):
        return _exact_type(type_.value_type)
    return _exact_nested_type(type_) if types.is_nested(type_) else type_


def _exact_nested_type(type_: pa.DataType) -> pa.DataType:
    """Return a nested type with exact types inside."""
    import pyarrow as pa
    from pyarrow import types

    if types.is_struct(type_):
        return pa.struct([field.with_type(_exact_type(field.type)) for field in type_])
    if types.is_map(type_):
        return pa.map_(_exact_type(type_.key_type), type_.item_field.with_type(_exact_type(type_.item_type)))
    makers: list[tuple[Callable[[pa.DataType], bool], Callable[[pa.Field], pa.DataType]]] = [
        (types.is_list, pa.list_),
        (types.is_large_list, pa.large_list),
        (types.is_fixed_size_list, lambda field: pa.list_(field, type_.list_size)),
    ]
    for known, make in makers:
        if known(type_):
            return make(type_.value_field.with_type(_exact_type(type_.value_type)))
    return type_


def _needs_dicts(column: pa.Array) -> bool:
    """Return True if a column may have a NaN, an infinity, or a decimal that is written with an exponent."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_floating(column.type):
        return pc.all(pc.is_finite(column)).as_py() is False
    return _type_needs_dicts(column.type)


def _type_needs_dicts(type_: pa.DataType) -> bool:
    from pyarrow import types

    if types.is_floating(type_):
        return True
    if types.is_decimal(type_):
        return bool(type_.scale > MOST_PLAIN_SCALE or type_.scale < 0)
    return (
        any(_type_needs_dicts(type_.field(at).type) for at in range(type_.num_fields))
        if types.is_nested(type_)
        else False
    )


def _plain_value(value: Any) -> Any:
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: _plain_value(item) for key, item in value.items()}
    return [_plain_value(item) for item in value] if isinstance(value, list | tuple) else value

"""Arrow's values as JSON holds them: what JSON or Python would round or refuse is text."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

MOST_PLAIN_DIGITS = 6
"""Digits behind the point up to which Python writes every decimal without an exponent."""


def property_of(type_: pa.DataType) -> dict[str, Any]:
    """Return what a column's values look like in a record."""
    schema = _plain_property(type_)
    if "type" in schema:
        types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        schema = {**schema, "type": [*types, *(["null"] if "null" not in types else [])]}
    return {"x-arrow-type": str(type_), **schema}


def _plain_property(type_: pa.DataType) -> dict[str, Any]:
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
        return _plain_property(type_.value_type)
    for known, schema in _properties():
        if known(type_):
            return dict(schema)
    return {}


def _properties() -> list[tuple[Any, dict[str, Any]]]:
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


def exact(batch: pa.RecordBatch) -> pa.RecordBatch | list[dict[str, Any]]:
    """Return the batch with what JSON or Python would round or refuse as text.

    Moments, dates and times keep their nanoseconds as text, in UTC where they have a zone; durations are a count of
    their unit. A batch with a NaN or an infinity, which JSON does not have, becomes dictionaries with their names; so does
    one with decimals that Python would write with an exponent.
    """
    import pyarrow as pa

    columns = [_exact_column(column) for column in batch.columns]
    made = pa.RecordBatch.from_arrays(columns, names=batch.schema.names)
    odd = [field.name for field, column in zip(made.schema, columns, strict=True) if _may_be_odd(column)]
    if not odd:
        return made
    rows: list[dict[str, Any]] = made.to_pylist()
    for row in rows:
        row.update({name: _plain(row[name]) for name in odd})
    return rows


def _exact_column(column: pa.Array) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_timestamp(column.type):
        text = pc.replace_substring(
            column.cast(pa.timestamp(column.type.unit)).cast(pa.string()), " ", "T", max_replacements=1
        )
        return pc.binary_join_element_wise(text, "Z", "") if column.type.tz else text
    wanted = _exact_type(column.type)
    return column if wanted.equals(column.type) else column.cast(wanted)


def _exact_type(type_: pa.DataType) -> pa.DataType:
    import pyarrow as pa
    from pyarrow import types

    if types.is_timestamp(type_) or types.is_time(type_) or types.is_date(type_):
        return pa.string()
    if types.is_duration(type_):
        return pa.int64()
    if types.is_dictionary(type_):
        return _exact_type(type_.value_type)
    return _rebuilt(type_) if types.is_nested(type_) else type_


def _rebuilt(type_: pa.DataType) -> pa.DataType:
    """Return a nested type of exact ones."""
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


def _may_be_odd(column: pa.Array) -> bool:
    """Say whether a column has, or may have, a float that JSON has no number for or a decimal with an exponent."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_floating(column.type):
        return pc.all(pc.is_finite(column)).as_py() is False
    return _has_odd_type(column.type)


def _has_odd_type(type_: pa.DataType) -> bool:
    from pyarrow import types

    if types.is_floating(type_):
        return True
    if types.is_decimal(type_):
        return bool(type_.scale > MOST_PLAIN_DIGITS or type_.scale < 0)
    return (
        any(_has_odd_type(type_.field(at).type) for at in range(type_.num_fields)) if types.is_nested(type_) else False
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value

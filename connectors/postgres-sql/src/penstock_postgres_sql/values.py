"""Values as they are: what JSON cannot hold exactly travels as text, never rounded, never dropped."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import psycopg
from psycopg.adapt import Buffer, Loader
from psycopg.types import TypeInfo
from psycopg.types.string import TextLoader  # psycopg swaps its C twin in

SCALARS = ("numeric", "date", "time", "timetz", "timestamp", "interval", "uuid", "inet", "cidr", "money")
RANGES = ("int4range", "int8range", "numrange", "tsrange", "tstzrange", "daterange")
MULTIRANGES = ("int4multirange", "int8multirange", "nummultirange", "tsmultirange", "tstzmultirange", "datemultirange")
AS_TEXT = (*SCALARS, *RANGES, *MULTIRANGES)
OWN_TYPES = """
SELECT t.typname, t.oid, t.typarray, a.typdelim
FROM pg_type t
JOIN pg_type a ON a.oid = t.typarray
LEFT JOIN pg_class c ON c.oid = t.typrelid
WHERE t.oid >= 16384 AND (c.oid IS NULL OR c.relkind = 'c')
"""


class JsonLoader(Loader):
    """Keeps a JSON document byte for byte, so that no number is rounded."""

    def load(self, data: Buffer) -> msgspec.Raw:
        """Return the document, undecoded."""
        return msgspec.Raw(bytes(data))


class FloatLoader(Loader):
    """A float; NaN and the infinities, which JSON does not have, are text."""

    def load(self, data: Buffer) -> float | str:
        """Return the number, or 'NaN', 'Infinity', '-Infinity'."""
        value = float(bytes(data))
        return value if math.isfinite(value) else str(data, "ascii")


class MomentLoader(Loader):
    """A timestamp with time zone as RFC 3339 in UTC; 'infinity' and years before Christ stay the database's text."""

    def load(self, data: Buffer) -> str:
        """Return the text."""
        text = str(data, "ascii")
        return f"{text[:10]}T{text[11:-3]}Z" if text[-3:] == "+00" and text[10] == " " else text


def keep_values(connection: psycopg.Connection[Any]) -> None:
    """Register the loaders on a connection, and have the database write dates, intervals and bytes in one way."""
    connection.execute(
        "SET datestyle = 'ISO, YMD'; SET intervalstyle = 'iso_8601'; SET timezone = 'UTC'; "
        "SET extra_float_digits = 1; SET bytea_output = 'hex'"
    )
    for name in AS_TEXT:
        connection.adapters.register_loader(name, TextLoader)
    for name in ("json", "jsonb"):
        connection.adapters.register_loader(name, JsonLoader)
    for name in ("float4", "float8"):
        connection.adapters.register_loader(name, FloatLoader)
    connection.adapters.register_loader("timestamptz", MomentLoader)
    for name, oid, array_oid, delimiter in connection.execute(OWN_TYPES).fetchall():
        # Elements of a type that the database's owner made are text; without this its arrays would be one text too.
        TypeInfo(name, oid, array_oid, delimiter=delimiter).register(connection)

"""Values as they are: what JSON cannot hold exactly travels as text, never rounded, never dropped."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import psycopg
from psycopg.abc import AdaptContext
from psycopg.adapt import Buffer, Loader
from psycopg.types import TypeInfo

SCALARS = ("numeric", "date", "time", "timetz", "timestamp", "interval", "uuid", "inet", "cidr", "money")
RANGES = ("int4range", "int8range", "numrange", "tsrange", "tstzrange", "daterange")
MULTIRANGES = ("int4multirange", "int8multirange", "nummultirange", "tsmultirange", "tstzmultirange", "datemultirange")
AS_TEXT = (*SCALARS, *RANGES, *MULTIRANGES)


class TextLoader(Loader):
    """Keeps the database's own text."""

    def load(self, data: Buffer) -> str:
        """Return the text."""
        return bytes(data).decode()


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
        return value if math.isfinite(value) else bytes(data).decode()


class MomentLoader(Loader):
    """A timestamp with time zone as RFC 3339 in UTC; 'infinity' and years before Christ stay the database's text."""

    def load(self, data: Buffer) -> str:
        """Return the text."""
        text = bytes(data).decode()
        return f"{text[:-3].replace(' ', 'T', 1)}Z" if text.endswith("+00") else text


def keep_values(connection: psycopg.Connection[Any]) -> None:
    """Register the loaders on a connection, and have the database write dates, intervals and bytes in one way."""
    connection.execute(
        "SET datestyle = 'ISO, YMD'; SET intervalstyle = 'iso_8601'; SET timezone = 'UTC'; SET extra_float_digits = 1"
    )
    adapters: AdaptContext = connection
    for name in AS_TEXT:
        adapters.adapters.register_loader(name, TextLoader)
    for name in ("json", "jsonb"):
        adapters.adapters.register_loader(name, JsonLoader)
    for name in ("float4", "float8"):
        adapters.adapters.register_loader(name, FloatLoader)
    adapters.adapters.register_loader("timestamptz", MomentLoader)
    enums = connection.execute(
        "SELECT typname, oid, typarray FROM pg_type WHERE typtype = 'e' AND typarray <> 0"
    ).fetchall()
    for name, oid, array_oid in enums:
        TypeInfo(name, oid, array_oid).register(connection)

"""Values as they are: what JSON cannot hold exactly travels as text, never rounded, never dropped."""

from __future__ import annotations

import codecs
import math
from typing import Any

import msgspec
import psycopg
from psycopg.adapt import Buffer, Loader
from psycopg.types import TypeInfo
from psycopg.types.array import register_array
from psycopg.types.string import TextLoader  # psycopg swaps its C twin in

SCALARS = ("numeric", "date", "time", "timetz", "timestamp", "interval", "uuid", "inet", "cidr", "money")
RANGES = ("int4range", "int8range", "numrange", "tsrange", "tstzrange", "daterange")
MULTIRANGES = ("int4multirange", "int8multirange", "nummultirange", "tsmultirange", "tstzmultirange", "datemultirange")
AS_TEXT = (*SCALARS, *RANGES, *MULTIRANGES)
TEXTS = ("text", "varchar", "bpchar", "name", '"char"', "xml")
# An element of a domain is read as one of its base type, as a column of the domain is; but for a domain of arrays.
ARRAYS = """
WITH RECURSIVE bases AS (
    SELECT oid AS type, oid AS base, typtype, typbasetype FROM pg_catalog.pg_type
    UNION ALL
    SELECT b.type, t.oid, t.typtype, t.typbasetype FROM bases b JOIN pg_catalog.pg_type t ON t.oid = b.typbasetype
    WHERE b.typtype = 'd'
)
SELECT t.typname, CASE WHEN u.typcategory = 'A' THEN t.oid ELSE u.oid END, t.typarray, a.typdelim
FROM pg_catalog.pg_type t
JOIN bases b ON b.type = t.oid AND b.typtype <> 'd'
JOIN pg_catalog.pg_type u ON u.oid = b.base
JOIN pg_catalog.pg_type a ON a.oid = t.typarray
LEFT JOIN pg_catalog.pg_class c ON c.oid = t.typrelid
WHERE t.typtype <> 'p' AND (c.oid IS NULL OR c.relkind = 'c')
"""


def _one_line(document: bytes) -> msgspec.Raw:
    if b"\n" in document or b"\r" in document:
        document = document.replace(b"\n", b" ").replace(b"\r", b" ")
    return msgspec.Raw(document)


class JsonLoader(Loader):
    """Keeps a JSON document as it is written, so that no number is rounded.

    Line breaks can only be between its tokens, where JSON allows any white space; a record is one line.
    """

    def load(self, data: Buffer) -> msgspec.Raw:
        """Return the document, undecoded."""
        return _one_line(bytes(data))


class EncodedJsonLoader(Loader):
    """The same where the session's encoding is not UTF-8."""

    encoding = "utf-8"

    def load(self, data: Buffer) -> msgspec.Raw:
        """Return the document, in UTF-8."""
        return _one_line(bytes(data).decode(self.encoding).encode())


class UncheckedJsonLoader(Loader):
    """JSON of a database that checks no encoding: as `UncheckedTextLoader`."""

    def load(self, data: Buffer) -> msgspec.Raw | str:
        """Return the document, or text that no record can hold."""
        try:
            bytes(data).decode()
        except UnicodeDecodeError:
            return bytes(data).decode("utf-8", "surrogateescape")
        return _one_line(bytes(data))


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


class UncheckedTextLoader(Loader):
    """Text of a database that checks no encoding: bytes that are none become lone surrogates, and the record is rejected."""

    def load(self, data: Buffer) -> str:
        """Return the text."""
        return bytes(data).decode("utf-8", "surrogateescape")


def keep_values(connection: psycopg.Connection[Any], named: str | None = None) -> None:
    """Register the loaders on a connection; `named` is the encoding that its owner names.

    Raises LookupError for an encoding that Python does not know.
    """
    unchecked = connection.info.parameter_status("server_encoding") == "SQL_ASCII" and not named
    if unchecked:
        connection.execute("SET client_encoding = 'SQL_ASCII'")  # as it is: else one bad text would end the read
    encoding = codecs.lookup(connection.info.encoding).name
    text: type[Loader] = UncheckedTextLoader if unchecked else TextLoader
    adapters = connection.adapters
    if unchecked:
        for name in TEXTS:
            adapters.register_loader(name, text)
        adapters.register_loader(0, text)  # every type that psycopg does not know
    for name in AS_TEXT:
        adapters.register_loader(name, text)
    for name in ("json", "jsonb"):
        adapters.register_loader(name, _json_loader(encoding, unchecked=unchecked))
    for name in ("float4", "float8"):
        adapters.register_loader(name, FloatLoader)
    adapters.register_loader("timestamptz", MomentLoader)
    for name, oid, array_oid, delimiter in connection.execute(ARRAYS).fetchall():
        # Elements of a type that psycopg does not know are text; without this its arrays would be one text too.
        if adapters.types.get(array_oid) is None:
            register_array(TypeInfo(name, oid, array_oid, delimiter=delimiter), connection)


def _json_loader(encoding: str, *, unchecked: bool) -> type[Loader]:
    if unchecked:
        return UncheckedJsonLoader
    if encoding == "utf-8":
        return JsonLoader
    return type("JsonLoaderOfEncoding", (EncodedJsonLoader,), {"encoding": encoding})

"""Loaders that keep every value exactly. Values that JSON cannot hold exactly become text."""

from __future__ import annotations

import codecs
import math

import msgspec
import psycopg
from psycopg.adapt import Buffer, Loader
from psycopg.rows import TupleRow
from psycopg.types import TypeInfo
from psycopg.types.array import register_array
from psycopg.types.string import TextLoader  # psycopg swaps its C twin in

SCALARS = ("numeric", "date", "time", "timetz", "timestamp", "interval", "uuid", "inet", "cidr", "money")
RANGES = ("int4range", "int8range", "numrange", "tsrange", "tstzrange", "daterange")
MULTIRANGES = ("int4multirange", "int8multirange", "nummultirange", "tsmultirange", "tstzmultirange", "datemultirange")
AS_TEXT = (*SCALARS, *RANGES, *MULTIRANGES)
TEXTS = ("text", "varchar", "bpchar", "name", '"char"', "xml")
# An element of a domain is read like its base type, as is a column of a domain; except for a domain over an array.
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


def _on_one_line(document: bytes) -> msgspec.Raw:
    if b"\n" in document or b"\r" in document:
        document = document.replace(b"\n", b" ").replace(b"\r", b" ")
    return msgspec.Raw(document)


class JsonLoader(Loader):
    """Keeps the text of a JSON document, so that no number is rounded.

    A record is one line, so line breaks become spaces. JSON has line breaks only between tokens, where spaces are allowed.
    """

    def load(self, data: Buffer) -> msgspec.Raw:
        """Return the document without decoding it."""
        return _on_one_line(bytes(data))


class EncodedJsonLoader(Loader):
    """Keeps a JSON document that the server sends in another encoding than UTF-8."""

    encoding = "utf-8"

    def load(self, data: Buffer) -> msgspec.Raw:
        """Return the document in UTF-8."""
        return _on_one_line(bytes(data).decode(self.encoding).encode())


class UncheckedJsonLoader(Loader):
    """JSON of a database that does not check encodings (SQL_ASCII); see `UncheckedTextLoader`."""

    def load(self, data: Buffer) -> msgspec.Raw | str:
        """Return the document, or text with lone surrogates if it is not UTF-8."""
        try:
            bytes(data).decode()
        except UnicodeDecodeError:
            return bytes(data).decode("utf-8", "surrogateescape")
        return _on_one_line(bytes(data))


class FloatLoader(Loader):
    """Floats. NaN and the infinities become text, as JSON does not have them."""

    def load(self, data: Buffer) -> float | str:
        """Return the number, or 'NaN', 'Infinity', '-Infinity'."""
        value = float(bytes(data))
        return value if math.isfinite(value) else str(data, "ascii")


class TimestampLoader(Loader):
    """Timestamps with time zone, as RFC 3339 text in UTC. 'infinity' and years before Christ stay as the database writes them."""

    def load(self, data: Buffer) -> str:
        """Return the text."""
        text = str(data, "ascii")
        return f"{text[:10]}T{text[11:-3]}Z" if text[-3:] == "+00" and text[10] == " " else text


class UncheckedTextLoader(Loader):
    """Text of a database that does not check encodings (SQL_ASCII).

    Bytes that are not UTF-8 become lone surrogates, and the runtime rejects the record.
    """

    def load(self, data: Buffer) -> str:
        """Return the text."""
        return bytes(data).decode("utf-8", "surrogateescape")


def register_loaders(connection: psycopg.Connection[TupleRow], configured_encoding: str | None = None) -> None:
    """Register the loaders on a connection; `configured_encoding` is spec.config.encoding.

    Raises LookupError for an encoding that Python does not know.
    """
    unchecked = connection.info.parameter_status("server_encoding") == "SQL_ASCII" and not configured_encoding
    if unchecked:
        connection.execute("SET client_encoding = 'SQL_ASCII'")  # no conversion: one invalid text would end the read
    encoding = codecs.lookup(connection.info.encoding).name
    text: type[Loader] = UncheckedTextLoader if unchecked else TextLoader
    adapters = connection.adapters
    if unchecked:
        for name in TEXTS:
            adapters.register_loader(name, text)
        adapters.register_loader(0, text)  # types that psycopg does not know
    for name in AS_TEXT:
        adapters.register_loader(name, text)
    for name in ("json", "jsonb"):
        adapters.register_loader(name, _json_loader(encoding, unchecked=unchecked))
    for name in ("float4", "float8"):
        adapters.register_loader(name, FloatLoader)
    adapters.register_loader("timestamptz", TimestampLoader)
    for name, oid, array_oid, delimiter in connection.execute(ARRAYS).fetchall():
        # Values of a type that psycopg does not know are text. Without this, an array of such values would be one text.
        if adapters.types.get(array_oid) is None:
            register_array(TypeInfo(name, oid, array_oid, delimiter=delimiter), connection)


def _json_loader(encoding: str, *, unchecked: bool) -> type[Loader]:
    if unchecked:
        return UncheckedJsonLoader
    if encoding == "utf-8":
        return JsonLoader
    return type("JsonLoaderOfEncoding", (EncodedJsonLoader,), {"encoding": encoding})

"""postgres-sql's values against the database's own: what JSON holds of a row says what Postgres says of it.

The oracle asks Postgres in a session of its own, with settings of its own, and knows nothing of the connector's loaders.
PENSTOCK_FUZZ_SEEDS makes it try more tables.
"""

from __future__ import annotations

import base64
import json
import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import psycopg
import pytest
from penstock_postgres_sql import PostgresSql
from psycopg import sql

from tests.integration.connectors.test_postgres_sources import ROLE, ROLE_SETTINGS, as_role, role

__all__ = ["as_role", "role"]

Execute = Callable[[str], None]
SEEDS = range(int(os.environ.get("PENSTOCK_FUZZ_SEEDS", "5")))
FIRST_SEED = int(os.environ.get("PENSTOCK_FUZZ_FIRST_SEED", "0"))
ROWS = 12
DOCUMENTS = ("json", "jsonb")
"""Types whose values may be arrays themselves: what an array of arrays of them means cannot be told."""

DATES = [
    "'-infinity'",
    "'infinity'",
    "'4713-01-01 BC'",
    "'0044-03-15 BC'",
    "'0001-01-01'",
    "'1582-10-10'",
    "'9999-12-31'",
    "'12024-02-29'",
]
TIMES = [
    f"{date[:-1]}'"
    if "inf" in date
    else f"{date[:-4]} 23:59:59.999999 BC'"
    if "BC" in date
    else f"{date[:-1]} 00:00:00.000001'"
    for date in DATES
]
TEXTS = [
    r"E'\u2028'",
    "''",
    "' '",
    "'null'",
    "'NULL'",
    "E'\\n\\r\\t\\x01\\x7f'",
    "'\"'",
    "E'\\\\'",
    "'{}'",
    "'é\U0001f600'",
    "repeat('x', 5000)",
    "'a,b'",
    "'%s'",
    "'$1'",
]
VALUES: dict[str, list[str]] = {
    "smallint": ["-32768", "0", "32767"],
    "integer": ["-2147483648", "0", "2147483647"],
    "bigint": ["-9223372036854775808", "9007199254740993", "9223372036854775807"],
    "oid": ["0", "4294967295"],
    "numeric": [
        "'NaN'",
        "'Infinity'",
        "'-Infinity'",
        "1e100",
        "1e-100",
        "0.0",
        "-0.00",
        "12345678901234567890.12345678901234567890",
        "1.10",
        "1e131",
    ],
    "numeric(12,4)": ["'NaN'", "-99999999.9999", "0.1"],
    "real": ["'NaN'", "'Infinity'", "'-Infinity'", "1.17549435e-38", "3.4028235e38", "0.1", "'-0'", "16777217"],
    "double precision": [
        "'NaN'",
        "'-Infinity'",
        "2.2250738585072014e-308",
        "1.7976931348623157e308",
        "0.1",
        "'-0'",
        "4.9e-324",
        "1e22",
        "123456789012345678",
    ],
    "boolean": ["true", "false"],
    "text": TEXTS,
    "varchar(9000)": TEXTS,
    "char(4)": ["'a'", "''", "'ab  '", "'abcd'"],
    '"char"': ["'a'", "''", r"E'\x01'"],
    "name": ["'a'", "repeat('n', 63)"],
    "bytea": ["'\\x'", "'\\x00ff10'", "'\\x5c5c27'", "decode(repeat('00ff', 3000), 'hex')"],
    "date": DATES,
    "timestamp": [*DATES, *TIMES],
    "timestamp(0)": TIMES,
    "timestamptz": [*DATES, *TIMES, "'2024-03-31 02:30:00 Europe/Paris'", "'1883-11-18 12:03:58-04:56:02'"],
    "time": ["'00:00'", "'24:00'", "'23:59:59.999999'"],
    "timetz": ["'00:00+15:59'", "'24:00-15:59:59'", "'12:34:56.789+00'"],
    "interval": [
        "'0'",
        "'1 year -2 mons 3 days -04:05:06.789'",
        "'178000000 years'",
        "'-1 sec'",
        "'1 day -1 hour'",
        "'0.000001 s'",
    ],
    "uuid": ["'00000000-0000-0000-0000-000000000000'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'"],
    "inet": ["'10.0.0.1'", "'10.0.0.1/8'", "'::1'", "'fe80::1/64'"],
    "cidr": ["'10.0.0.0/8'", "'::/0'"],
    "macaddr": ["'08:00:2b:01:02:03'"],
    "bit(5)": ["B'10101'"],
    "varbit": ["B''", "B'1'"],
    "point": ["'(1.1,-0)'", "'(Infinity,NaN)'"],
    "box": ["'(1,1),(0,0)'"],
    "polygon": ["'((0,0),(1,1),(0.1,2))'"],
    "circle": ["'<(0,0),0.1>'"],
    "tsvector": ["'a:1A b''c d'", "''"],
    "tsquery": ["'a & !b'"],
    "pg_lsn": ["'16/B374D848'", "'FFFFFFFF/FFFFFFFF'"],
    "json": [
        "'{\"a\": 1.10}'",
        "'[1,\n2]'",
        "'null'",
        "'\"\\ud83d\\ude00\"'",
        '\' {"b":1, "a":12345678901234567890.1}\'',
        "'0.10'",
    ],
    "jsonb": ["'{\"a\": 1.10}'", "'null'", "'[]'", "'1e3'", "'\"\\u0001\"'"],
    "int4range": ["'empty'", "'(,)'", "'[1,5]'"],
    "numrange": ["'[NaN,NaN]'", "'(0.1,2.50]'"],
    "tstzrange": ["'[\"2024-01-01 00:00+02\",infinity)'", "'(,\"0044-03-15 BC\")'"],
    "daterange": ["'[2024-01-01,2024-12-31]'"],
    "mood": ["'sad'", "'o\"k'", "''"],
    "pair": ["ROW(1, 'x')", "ROW(NULL, '')", "ROW(2, 'a\"b,(c)')"],
    "whole": ["5", "-99"],
    "worded": ["'w'", "''"],
    "span": ["'[sad,sad]'", "'empty'"],
}
OWN = """
CREATE TYPE mood AS ENUM ('sad', 'o"k', ''); CREATE TYPE pair AS (a int, "b c" text); CREATE DOMAIN whole AS int CHECK (VALUE > -100);
CREATE DOMAIN worded AS varchar(9) COLLATE "C"; CREATE TYPE span AS RANGE (subtype = mood);
"""
AS_WRITTEN = (
    "SET datestyle = 'ISO, YMD'; SET timezone = 'UTC'; SET intervalstyle = 'iso_8601'; SET extra_float_digits = 3;"
    " SET bytea_output = 'hex'; SET search_path = public"
)


@pytest.mark.parametrize("seed", [FIRST_SEED + seed for seed in SEEDS])
def test_what_is_read_is_what_the_database_holds(
    source_url: str, execute: Execute, as_role: Callable[..., PostgresSql], seed: int
) -> None:
    """Under any settings of the role, in pages of any size, resumed at any page, and after changes nothing but these."""
    chance = random.Random(seed)
    for statement in filter(str.strip, OWN.split(";")):
        execute(statement)
    columns = _table(source_url, chance)
    execute(f"GRANT SELECT ON t TO {ROLE}")
    for name in chance.sample([name for name in ROLE_SETTINGS if "timeout" not in name], chance.randint(0, 8)):
        value = chance.choice(ROLE_SETTINGS[name])
        execute(f"ALTER ROLE {ROLE} SET {name} = {value if name == 'search_path' and value else repr(value)}")
    source = as_role(fetch_size=chance.choice([1, 3, 100]))
    stream = {stream.name: stream for stream in source.discover()}["public.t"]
    batches = list(source.read(stream, None, None))
    told = {row["id"]: row for batch in batches for row in through_json(batch.records)}
    _compare(told, _written(source_url, columns), columns)
    assert len(told) == sum(len(batch.records) for batch in batches) == ROWS
    middle = chance.randrange(len(batches))
    cursor = msgspec.json.decode(msgspec.json.encode(batches[middle].cursor))
    rest = [row["id"] for batch in source.read(stream, None, cursor) for row in through_json(batch.records)]
    assert rest == [row["id"] for batch in batches[middle + 1 :] for row in through_json(batch.records)]
    end = msgspec.json.decode(msgspec.json.encode(batches[-1].cursor))
    execute("UPDATE t SET id = id + 1000 WHERE id % 3 = 0")
    again = [row for batch in source.read(stream, None, end) for row in through_json(batch.records)]
    assert sorted(row["id"] for row in again) == [1000 + number for number in range(ROWS) if number % 3 == 0]
    _compare({row["id"]: row for row in again}, _written(source_url, columns), columns)


def _table(url: str, chance: random.Random) -> dict[str, str]:
    """Make a table of random types with random values; returns the type of each column."""
    types = chance.sample(list(VALUES), 9)
    columns = {f"c{place}": f"{type_}[]" if chance.random() < 0.3 else type_ for place, type_ in enumerate(types)}
    with psycopg.connect(url, autocommit=True) as session:
        written = ", ".join(f"{name} {type_}" for name, type_ in columns.items())
        session.execute(f"CREATE TABLE t (id int PRIMARY KEY, {written})".encode())
        for number in range(ROWS):
            literals = ", ".join(_literal(type_, chance) for type_ in columns.values())
            session.execute(f"INSERT INTO t VALUES ({number}, {literals})".encode())
    return columns


def _literal(type_: str, chance: random.Random) -> str:
    if chance.random() < 0.15:
        return "NULL"
    if not type_.endswith("[]"):
        return f"({chance.choice(VALUES[type_])})::{type_}"
    base = type_.removesuffix("[]")
    rows = chance.choice([0, 1, 2] if base not in DOCUMENTS else [0, 1])
    width = chance.choice([1, 3])
    elements = [
        ["NULL" if chance.random() < 0.2 else f"({chance.choice(VALUES[base])})::{base}" for _ in range(width)]
        for _ in range(max(1, rows))
    ]
    if rows == 0:
        return f"'{{}}'::{type_}"
    written = [f"ARRAY[{', '.join(row)}]" for row in elements]
    return f"{written[0]}::{type_}" if rows == 1 else f"ARRAY[{', '.join(written)}]::{type_}"


def through_json(records: Any) -> list[dict[str, Any]]:
    return [json.loads(msgspec.json.encode(record), parse_float=str) for record in records]


def _written(url: str, columns: dict[str, str]) -> dict[int, dict[str, Any]]:
    """Return each value as the database writes it: its text, or those of its elements in order."""
    found: dict[int, dict[str, Any]] = {}
    with psycopg.connect(url, autocommit=True) as session:
        for statement in AS_WRITTEN.split(";"):
            session.execute(statement.encode())
        for name, type_ in columns.items():
            column = sql.Identifier(name)
            query = (
                sql.SQL(
                    "SELECT id, CASE WHEN {0} IS NULL THEN NULL ELSE ARRAY(SELECT x FROM unnest({0}::text[]) x) END FROM t"
                )
                if type_.endswith("[]")
                else sql.SQL("SELECT id, {0}::text FROM t")
            )
            for number, value in session.execute(query.format(column)).fetchall():
                found.setdefault(number, {})[name] = value
    return found


def _compare(told: dict[int, dict[str, Any]], written: dict[int, dict[str, Any]], columns: dict[str, str]) -> None:
    for number, row in told.items():
        for name, type_ in columns.items():
            value, text = row[name], written[number][name]
            base = type_.removesuffix("[]")
            if not type_.endswith("[]") or value is None:
                assert _is_same(value, text, base), (type_, value, text)
                continue
            flat = value if base in DOCUMENTS else list(_flat(value))
            assert len(flat) == len(text), (type_, value, text)
            for item, said in zip(flat, text, strict=True):
                assert _is_same(item, said, base), (type_, item, said)


def _flat(value: Any) -> Iterator[Any]:
    for item in value:
        yield from _flat(item) if isinstance(item, list) else [item]


def _is_same(value: Any, text: str | None, type_: str) -> bool:
    if text is None or value is None:
        is_null_document = type_ in DOCUMENTS and (text or "").strip() == "null"
        return value is None and (text is None or is_null_document)
    return bool(SAME[type_](value, text) if type_ in SAME else value == text)


def _is_same_integer(value: Any, text: str) -> bool:
    return isinstance(value, int) and str(value) == text


def _is_same_float(value: Any, text: str) -> bool:
    is_named = text in ("NaN", "Infinity", "-Infinity")
    return bool(value == text) if is_named else not isinstance(value, bool) and float(value) == float(text)


SAME: dict[str, Callable[[Any, str], bool]] = {
    **dict.fromkeys(["smallint", "integer", "bigint", "oid", "whole"], _is_same_integer),
    **dict.fromkeys(["real", "double precision"], _is_same_float),
    **dict.fromkeys(DOCUMENTS, lambda value, text: value == json.loads(text, parse_float=str)),
    "inet": lambda value, text: value == text.removesuffix("/32").removesuffix("/128"),
    "boolean": lambda value, text: value is (text == "true"),
    "bytea": lambda value, text: base64.b64decode(value) == bytes.fromhex(text[2:]),
    "timestamptz": lambda value, text: text in (value, f"{value[:-1].replace('T', ' ')}+00"),
    "char(4)": lambda value, text: value.rstrip(" ") == text.rstrip(" "),
}

"""postgres-sql on every type that the server has, in made-up tables: all is read and is JSON, or refused by name.

`PENSTOCK_LONG_TESTS=1` makes more tables. A seed that failed stays as a number in SEEDS.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable
from typing import Any

import msgspec
import psycopg
import pytest
from penstock_postgres_sql import PostgresSql
from penstock_sdk import ConfigError, SourceContractError, Stream
from psycopg import sql

from tests.integration.connectors.test_postgres_sql import connector

Execute = Callable[[str], None]
SEEDS = range(200 if os.environ.get("PENSTOCK_LONG_TESTS") else 8)

TYPES = """
SELECT format_type(t.oid, NULL), t.typcategory::text, t.typtype::text FROM pg_type t LEFT JOIN pg_class c ON c.oid = t.typrelid
WHERE t.typtype IN ('b', 'd', 'e', 'r', 'm') AND t.typname NOT LIKE 'pg\\_%' AND t.oid < 16384 AND (c.oid IS NULL OR c.relkind = 'c')
   OR t.oid >= 16384 AND t.typtype <> 'p' AND t.typrelid = 0 OR c.relname IN ('pair', 'deep') ORDER BY 1
"""
OWN = """
CREATE TYPE mood AS ENUM ('sad', 'o"k', ''); CREATE TYPE pair AS (a int, "b c" text); CREATE TYPE deep AS (p pair, q mood[]);
CREATE DOMAIN whole AS int CHECK (VALUE > -100); CREATE DOMAIN few AS text[] ; CREATE DOMAIN worded AS varchar(9) COLLATE "C";
CREATE TYPE span AS RANGE (subtype = mood); CREATE DOMAIN again AS worded CHECK (VALUE <> 'no');
"""
TEXTS = [
    "", "0", "1", "-1", "a", "t", "sad", "NaN", "Infinity", "-infinity", "infinity", "1e300", "1e-300", "9223372036854775807", "32767",
    "12345678901234567890.123456789", "2024-02-29", "0044-03-15 BC", "294276-12-31 23:59:59.999999+00", "4713-01-01 BC",
    "2024-01-01 24:00:00", "12:00:00.5+05:30", "1 year -2 mons 3 days", "P1Y", "[1,5)", "empty", "(,)", "{[1,2),[5,6)}", "{}",
    "{1,NULL,2}", "{{1,2},{3,4}}", "[2:3]={1,2}", '{"a,b","c\\"d"}', "(1,x)", "(1,2)", "((0,0),(1,1))", "<(0,0),1>", "{1,2,3}",
    '{"a": "\\u0000"}', '{"a": [1e400, -0, 1.0000000000000000001]}', '"\\ud800"', "[1,\n2]", "null", "10.0.0.1/8", "::1", "08:00:2b:01:02:03",
    "08:00:2b:01:02:03:04:05", "101", "\\xff00", "'a' 'b':1A", "a & !b", "16/B374D848", "10:20:10,14", "(0,1)", "pg_class", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
    "100.5", "é\U0001f600\u2028", "line\nbreak\ttab\x7f", "x" * 3000, "sad,ok", "[sad,sad]", '(,"(1,x)",{sad})', "\x01", '"quoted"', "%s %d", "$1", "\\",
]  # fmt: skip
NAMES = [
    "id",
    "a b",
    'q"uote',
    "100%",
    "%s",
    "{x}",
    "a.b",
    "\U0001f600",
    "n" * 63,
    "select",
    "penstock:0",
    "Upper",
    "tab\there",
    "'",
]
REFUSED = (SourceContractError, ConfigError)


def streams(source: PostgresSql) -> dict[str, Stream]:
    return {stream.name: stream for stream in source.discover()}


def accepted(session: psycopg.Connection[Any], type_: str) -> list[str]:
    """Return the texts that are values of a type, as Postgres writes them."""
    found = []
    for text in TEXTS:
        try:
            session.execute(sql.SQL("SELECT {}::{}::text").format(text, sql.SQL(type_)))
            found.append(text)
        except psycopg.Error:
            continue
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_every_type_is_read_or_refused_by_name(source_url: str, execute: Execute, seed: int) -> None:
    """As a column, as the cursor and as the key: read once whole, resumed at every page, and split."""
    chance = random.Random(seed)
    for statement in OWN.split(";"):
        if statement.strip():
            execute(statement)
    with psycopg.connect(source_url, autocommit=True) as session:
        every = [row[0] for row in session.execute(TYPES).fetchall()]
        for number, type_ in enumerate(
            chance.sample(every, 8) + chance.sample(["whole", "few", "again", "span", "deep", "mood", "pair"], 2)
        ):
            name = f"t{number}{chance.choice(NAMES)}"[:60]
            if _filled(session, name, type_, chance):
                _read(source_url, f"public.{name}", type_)


def _filled(session: psycopg.Connection[Any], name: str, type_: str, chance: random.Random) -> bool:
    """Make a table with such a column, as its key where the server lets it be one."""
    values = accepted(session, type_)
    column = chance.choice(NAMES)
    for key in (", PRIMARY KEY ({1})", "", None):
        definition = (
            "CREATE TABLE {0} ({1} {2} NOT NULL, extra {2}, more {2}[]"
            if key
            else "CREATE TABLE {0} ({1} {2} NOT NULL, extra {2}"
        )
        key_clause = key if key is not None else ""
        try:
            session.execute(
                sql.SQL(definition + key_clause + ")").format(
                    sql.Identifier(name), sql.Identifier(column), sql.SQL(type_)
                )
            )
            break
        except psycopg.Error:
            continue
    else:
        return False
    table = sql.Identifier(name)
    for value in values:
        statement = sql.SQL("INSERT INTO {} VALUES ({}, {}) ON CONFLICT DO NOTHING").format(
            table, value, chance.choice([value, None])
        )
        try:
            session.execute(statement)
        except psycopg.Error:
            continue
    session.execute(sql.SQL("ANALYZE {}").format(table))
    return True


def _read(url: str, name: str, type_: str) -> None:
    source = connector(url, fetch_size=3, partitions=3, partition_rows=2)
    source.authenticate()
    try:
        stream = streams(source)[name]
        batches = list(source.read(stream, None, None))
        pages = [[_text(record) for record in batch.records] for batch in batches]
        whole = list(itertools.chain(*pages))
        for place, batch in enumerate(batches):
            if batch.cursor is not None:
                cursor = msgspec.json.decode(msgspec.json.encode(batch.cursor))
                rest = [_text(record) for later in source.read(stream, None, cursor) for record in later.records]
                assert rest == list(itertools.chain(*pages[place + 1 :])), type_
        parts = source.partitions(stream, None, None, ()) if stream.partitioned else ()
        found = [
            _text(record)
            for part in parts
            for batch in source.read(msgspec.structs.replace(stream, partition=part), None, None)
            for record in batch.records
        ]
        assert not parts or sorted(found) == sorted(whole), type_
        assert source.estimate(stream, None, None).records is not None
    finally:
        source.close()


def _text(record: Any) -> str:
    """Return a record as JSON; what no JSON can hold is the encoder's to reject, and is no defect of the connector's."""
    try:
        return msgspec.json.encode(record).decode()
    except (UnicodeEncodeError, msgspec.MsgspecError):
        return repr(record)

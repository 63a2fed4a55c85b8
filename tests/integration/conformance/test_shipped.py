"""The connectors of this tree pass the suite that their authors' colleagues have to pass: nothing is left unrun."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from penstock_sdk.testing import CHECKS, Laboratory, Subject, Variant, is_conformant, judge_all, report_of
from psycopg.conninfo import conninfo_to_dict

READER, PASSWORD = "conformance_reader", "a-password-of-the-trial"

SOURCE = """
CREATE ROLE conformance_reader LOGIN PASSWORD 'a-password-of-the-trial';
CREATE SCHEMA trial; CREATE SCHEMA nothing; CREATE SCHEMA much;
CREATE TABLE trial.orders (id bigint PRIMARY KEY, total numeric NOT NULL, note text, updated_at timestamptz NOT NULL);
INSERT INTO trial.orders SELECT i, i / 4.0, 'note ' || i, timestamptz '2026-01-01' + (i / 7) * interval '1 second'
    FROM generate_series(1, 100) i;
CREATE TABLE trial.countries (code text PRIMARY KEY, name text);
INSERT INTO trial.countries SELECT 'C' || i, 'country ' || i FROM generate_series(1, 30) i;
CREATE TABLE trial.log (line text);
INSERT INTO trial.log SELECT 'line ' || i FROM generate_series(1, 30) i;
CREATE TABLE nothing.orders (LIKE trial.orders INCLUDING ALL);
CREATE TABLE nothing.log (line text);
CREATE TABLE much.orders (LIKE trial.orders INCLUDING ALL);
INSERT INTO much.orders SELECT i, i, repeat(md5(i::text), 32), timestamptz '2026-01-01' + (i / 7) * interval '1 second'
    FROM generate_series(1, 45000) i;
GRANT USAGE ON SCHEMA trial, nothing, much TO conformance_reader;
GRANT SELECT ON ALL TABLES IN SCHEMA trial, nothing, much TO conformance_reader;
"""
GROW = "INSERT INTO trial.orders SELECT max(id) + 1, 0, 'late', max(updated_at) FROM trial.orders"


def assert_conformant(subject: Subject, report_to: Path) -> dict[str, str]:
    """Run the suite, and return the outcomes by check."""
    with Laboratory(subject) as laboratory:
        verdicts = judge_all(laboratory, CHECKS)
        report_to.write_text(json.dumps(report_of(laboratory, verdicts, len(CHECKS)), indent=2))
    said = "\n".join(f"{each.outcome:14} {each.check.name}: {each.detail}" for each in verdicts)
    assert is_conformant(verdicts, len(CHECKS)), said
    return {each.check.name: each.outcome for each in verdicts}


def test_faker_generate_is_conformant(tmp_path: Path) -> None:
    subject = Subject(
        artifact="faker-generate",
        config={"records": 120, "batchSize": 40},
        empty=Variant(config={"records": 0}),
        large=Variant(config={"records": 60_000, "batchSize": 500}),
    )
    outcomes = assert_conformant(subject, tmp_path / "report.json")
    left_out = {name for name, outcome in outcomes.items() if outcome == "not applicable"}
    of_a_source = {"wrong-credentials", "revoked-credentials", "throttling", "slow-source", "secrets"}
    assert left_out == {*of_a_source, "tie"}  # it has no source, no credentials, and its cursor is its key


@pytest.fixture
def source(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A database with a role that can be shut out."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(SOURCE.encode())
        yield connection
        connection.execute("DROP OWNED BY conformance_reader; DROP ROLE conformance_reader")


def test_postgres_sql_is_conformant(source: psycopg.Connection[Any], database_url: str, tmp_path: Path) -> None:
    @contextmanager
    def altered(there: str, back: str) -> Iterator[None]:
        source.execute(f"ALTER ROLE {READER} {there}".encode())
        try:
            yield
        finally:
            source.execute(f"ALTER ROLE {READER} {back}".encode())

    parts = conninfo_to_dict(database_url)
    place = {"host": parts["host"], "port": int(str(parts["port"])), "database": parts["dbname"], "sslmode": "disable"}
    subject = Subject(
        artifact="postgres-sql",
        config={**place, "schemas": ["trial"], "fetchSize": 20},
        credentials={"username": READER, "password": PASSWORD},
        host_field="host",
        port_field="port",
        empty=Variant(config={"schemas": ["nothing"]}),
        large=Variant(config={"schemas": ["much"], "fetchSize": 500}),
        revoked=lambda: altered("PASSWORD 'another'", f"PASSWORD '{PASSWORD}'"),
        throttled=lambda: altered("CONNECTION LIMIT 0", "CONNECTION LIMIT -1"),
        grow=lambda: source.execute(GROW.encode()) and None,
    )
    outcomes = assert_conformant(subject, tmp_path / "report.json")
    assert set(outcomes.values()) == {"passed"}

"""Drift, personal data, rejected records, empty reads and budgets, as somebody at a shell meets them: real processes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.integration.test_up import FAKER, POSTGRES, User


@pytest.fixture
def user(folder: Path, tmp_path: Path, backends_environment: dict[str, str]) -> User:
    return User(folder, tmp_path, backends_environment)


@pytest.fixture
def source(postgres_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA IF EXISTS governed CASCADE; CREATE SCHEMA governed")
        connection.execute("CREATE TABLE governed.items (n int PRIMARY KEY, label text)")
        connection.execute("INSERT INTO governed.items SELECT n, 'l' || n FROM generate_series(1, 20) n; ANALYZE")
        yield connection
        connection.execute("DROP SCHEMA governed CASCADE")


def reading(user: User, postgres_url: str, **spec: Any) -> None:
    found = conninfo_to_dict(postgres_url)
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db", "namespace": "team"}}
    user.write("secret.yaml", [{**secret, "stringData": {"username": "penstock", "password": found["password"]}}])
    config = {"host": found["host"], "port": int(str(found["port"])), "database": "penstock", "schemas": ["governed"]}
    user.connection("items", connector=POSTGRES, config=config, secretRef={"name": "db"}, **spec)


def call(user: User, *arguments: str) -> str:
    done = user.call(*arguments, "--data-dir", str(user.data))
    assert done.returncode == 0, done.stderr
    return done.stdout


def alerts(user: User) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(call(user, "alerts", "list", "--json"))
    return found


def test_personal_data_is_read_once_somebody_has_accepted_it(user: User) -> None:
    streams = [{"name": "people", "schemaPolicy": "block-pii"}, {"name": "events"}]
    user.connection("fake", connector=FAKER, config={"records": 30}, streams=streams)
    code, results, _ = user.up()
    assert code == 1
    error = results["fake"]["error"]
    assert error["class"] == "SourceContractError"
    assert "'people' holds personal data and was not read" in error["message"]
    assert {record["stream"] for record in user.records(results["fake"])} == {"events"}
    waiting = alerts(user)
    assert {"email", "name.first", "address.street"} <= {run["path"] for run in waiting}
    said = call(user, "alerts", "ack", *(str(run["id"]) for run in waiting), "--note", "agreed")
    assert f"{waiting[0]['id']}: people: PiiAdded: accepted by " in said
    code, results, errors = user.up()
    assert code == 0, errors
    assert {record["stream"] for record in user.records(results["fake"])} == {"events", "people"}
    assert alerts(user) == []
    assert "agreed" in call(user, "alerts", "list", "--resolved", "--json")


def test_a_new_column_is_left_out_until_the_policy_takes_it(
    user: User, source: psycopg.Connection[Any], postgres_url: str
) -> None:
    reading(user, postgres_url, schemaPolicy="discard-new", streams=[{"name": "governed.items"}])
    assert user.up()[0] == 0
    source.execute("ALTER TABLE governed.items ADD COLUMN salary int NOT NULL DEFAULT 5")
    code, results, errors = user.up()
    assert code == 0, errors
    assert {tuple(record["data"]) for record in user.records(results["items"])} == {("n", "label")}
    assert [(alert["kind"], alert["path"]) for alert in alerts(user)] == [("FieldDiscarded", "salary")]
    reading(user, postgres_url, schemaPolicy="evolve", streams=[{"name": "governed.items"}])
    _, results, _ = user.up()
    assert {tuple(record["data"]) for record in user.records(results["items"])} == {("n", "label", "salary")}
    assert alerts(user) == []


def test_a_frozen_table_that_changes_fails_the_run_until_it_goes_back(
    user: User, source: psycopg.Connection[Any], postgres_url: str
) -> None:
    reading(user, postgres_url, schemaPolicy="freeze")
    assert user.up()[0] == 0
    source.execute("ALTER TABLE governed.items ALTER COLUMN label TYPE int USING 5")
    code, results, _ = user.up()
    assert code == 1
    assert "field 'label' was string, is integer" in results["items"]["error"]["message"]
    source.execute("ALTER TABLE governed.items ALTER COLUMN label TYPE text USING 'x'")
    code, _, errors = user.up()
    assert code == 0, errors
    assert alerts(user) == []


def test_a_table_that_was_emptied_is_no_mere_green_tick(
    user: User, source: psycopg.Connection[Any], postgres_url: str
) -> None:
    reading(user, postgres_url)
    assert user.up()[1]["items"]["note"] == ""
    source.execute("TRUNCATE governed.items")
    code, results, _ = user.up()
    assert code == 0
    assert results["items"]["note"] == "governed.items: a full read brought no records, the one before it brought 20"
    assert [alert["kind"] for alert in alerts(user)] == ["EmptyRead"]


def test_a_run_over_its_budget_is_refused_before_it_reads(
    user: User, source: psycopg.Connection[Any], postgres_url: str
) -> None:
    reading(user, postgres_url, budget={"records": 19})
    user.connection("fake", connector=FAKER, config={"records": 30}, budget={"records": 60})
    code, results, _ = user.up()
    assert code == 1
    assert results["fake"]["phase"] == "succeeded"
    error = results["items"]["error"]
    assert (error["class"], results["items"]["records"]) == ("ConfigError", 0)
    assert "the run is expected to take 20 records (governed.items 20), and 19 are allowed" in error["message"]
    shown = json.loads(call(user, "runs", "show", results["items"]["run_id"], "-o", "json"))
    assert shown["estimate"]["records"] == 20
    assert shown["estimate"]["bytes"] > 0


def test_strict_validation_rejects_nothing_of_postgres_sql(
    user: User, source: psycopg.Connection[Any], postgres_url: str
) -> None:
    source.execute(
        "CREATE VIEW governed.odd AS SELECT n, CASE WHEN n = 3 THEN 'NaN'::numeric ELSE n END AS v FROM governed.items"
    )
    reading(user, postgres_url, validation="strict", rejects={"maxRecords": 0})
    code, results, errors = user.up()
    assert code == 0, errors
    assert results["items"]["records"] == 40, "text for what JSON cannot hold is what the schema says"
    assert "rejected" in call(user, "runs", "list")
    assert call(user, "bronze", "head", "--rejected") == ""

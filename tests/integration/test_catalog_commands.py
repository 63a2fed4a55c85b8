"""`penstock init`, `connections`, `definitions` and `streams`, as a user calls them after a first sync."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.test_up import FAKER, User


@pytest.fixture
def user(folder: Path, tmp_path: Path, backends_environment: dict[str, str]) -> User:
    return User(folder, tmp_path, backends_environment)


def listed(user: User, *command: str) -> list[dict[str, Any]]:
    done = user.call(*command, "-o", "json", "--data-dir", str(user.data))
    assert done.returncode == 0, done.stderr
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def test_lists_say_how_connections_stand_and_what_comes_next(user: User) -> None:
    streams = [{"name": "people", "mode": "incremental"}, {"name": "events", "mode": "full"}]
    user.connection("fresh", connector=FAKER, config={"records": 20}, streams=streams, schedule="0 3 1 1 *")
    user.connection("refused", connector={**FAKER, "version": "^9"})
    user.connection("asleep", connector=FAKER, config={"records": 5}, suspend=True)
    failing = {"records": 20, "failAfter": 10}
    user.connection("failed", connector=FAKER, config=failing, streams=[{"name": "people"}], retry={"limit": 0})
    assert user.up()[0] == 1
    found = {row["name"]: row for row in listed(user, "connections", "list")}
    phases = {name: item["phase"] for name, item in found.items()}
    assert phases == {"fresh": "succeeded", "refused": "stalled", "asleep": "suspended", "failed": "failed"}
    assert {name for name, item in found.items() if item["freshness"] == "never"} == {"refused", "failed"}
    following = datetime.fromisoformat(found["fresh"]["next_run_at"])
    assert timedelta() < following - datetime.now(UTC) < timedelta(days=367)
    assert "failing after 10 records" in found["failed"]["reason"]
    assert found["refused"]["reason"]
    shown = user.call("connections", "show", "team/failed", "--data-dir", str(user.data)).stdout
    assert "failing after 10 records" in shown
    assert {row["name"] for row in listed(user, "definitions", "list")} >= {"faker-generate-0.1.0"}
    one = listed(user, "streams", "list", "team/fresh")
    assert {(item["display_name"], item["mode"], item["records"]) for item in one} == {
        ("people", "incremental", 20),
        ("events", "full", 20),
    }
    everything = user.call("streams", "list", "-o", "csv", "--data-dir", str(user.data)).stdout
    rows = [(item["connection"], item["stream"]) for item in csv.DictReader(io.StringIO(everything))]
    assert set(rows) >= {("team/fresh", "people"), ("team/fresh", "events")}
    unknown = user.call("streams", "list", "team/frsh", "--data-dir", str(user.data))
    assert (unknown.returncode, "there is no connection team/frsh" in unknown.stderr) == (2, True)


@pytest.mark.parametrize("connector", ["faker-generate", "postgres-sql", "files-object"])
def test_a_folder_to_start_from_is_named_after_its_connector(user: User, tmp_path: Path, connector: str) -> None:
    place = tmp_path / connector
    assert user.call("init", str(place)).returncode == 0
    documents = {
        document["kind"]: document
        for path in place.glob("*.yaml")
        for document in yaml.safe_load_all(path.read_text())
        if document
    }
    manifest = documents["ConnectorDefinition"]["spec"]["manifest"]
    assert f"{manifest['name']}-{manifest['method']}" == connector
    assert documents["TenantConnection"]["spec"]["connector"]["name"] == manifest["name"]
    judged = user.call("validate", str(place))
    assert judged.returncode == 0, judged.stdout + judged.stderr
    again = user.call("init", str(place))
    assert (again.returncode, "nothing was written" in again.stderr) == (2, True)


def test_the_folder_for_the_faker_runs_as_it_is(user: User, tmp_path: Path) -> None:
    place = tmp_path / "any"
    assert user.call("init", str(place)).returncode == 0
    done = user.call("up", str(place), "--once", "--data-dir", str(user.data), "--output", "json")
    assert done.returncode == 0, done.stderr
    assert [connection["records"] for connection in json.loads(done.stdout)["connections"]] == [1000]
